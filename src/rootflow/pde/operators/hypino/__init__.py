"""A network that writes the network that solves a problem: HyPINO (Bischof et al. 2025)."""
