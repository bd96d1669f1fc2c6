"""One training loop for every model in the package.

`train` minimises a loss, `train_adversarial` plays two networks against each other, and both stand
on `run`, which repeats any update: minibatches, validation, early stop, checkpoints with exact
resume, progress. `save` and `load` keep a pytree in a file that holds numbers only; `read_weights`
reads those of others.
"""

from .adversarial import Players, train_adversarial
from .average import running_mean
from .descent import Trained, train
from .loop import Run, run
from .store import load, metadata, read_weights, save

__all__ = [
    "Players",
    "Run",
    "Trained",
    "load",
    "metadata",
    "read_weights",
    "run",
    "running_mean",
    "save",
    "train",
    "train_adversarial",
]
