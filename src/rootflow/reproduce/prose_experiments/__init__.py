"""The experiments of the entry `prose`."""
