"""Experiments on frames that move: training, optimisers, widths and loss landscapes."""
