"""Experiments on a network that writes networks: training, refinement, fine-tuning, references."""
