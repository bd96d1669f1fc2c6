"""The command line: `rootflow`. No numerics here."""
