"""Experiments of the entry on spectra of Hessians."""
