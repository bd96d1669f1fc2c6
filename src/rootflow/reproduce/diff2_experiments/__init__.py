"""Experiments of `diff2`: the error of the estimate, tuned utility, small problems."""
