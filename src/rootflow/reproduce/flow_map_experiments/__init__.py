"""What the entry on flow maps measures."""
