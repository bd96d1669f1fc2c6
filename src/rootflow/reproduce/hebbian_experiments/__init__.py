"""Experiments of the entry `dense-hebbian`."""
