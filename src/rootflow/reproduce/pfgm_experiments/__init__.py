"""What the entry on PFGM++ measures."""
