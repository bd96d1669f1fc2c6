"""The experiments of the entry `neural-differential-equations`, one subject a file."""
