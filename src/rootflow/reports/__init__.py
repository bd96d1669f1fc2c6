"""What every results folder shares: how it appears, its pictures, its page, its numbers."""
