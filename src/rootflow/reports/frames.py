"""Tables for pandas and xarray, which are imported when one is asked for."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import InputError
from .account import components


def pandas() -> Any:
    """The package.

    Raises:
        InputError: it is not installed.
    """
    try:
        import pandas  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise InputError(
            "A data frame needs pandas: python -m pip install pandas. Without it, the same is in "
            "the attributes of the result."
        ) from None
    return pandas


def xarray() -> Any:
    """The package.

    Raises:
        InputError: it is not installed.
    """
    try:
        import xarray  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise InputError(
            "A data set needs xarray: python -m pip install xarray. Without it, the same is in the "
            "attributes of the result."
        ) from None
    return xarray


def data_frame(rows: Sequence[Mapping[str, Any]]) -> Any:
    """Rows as a `pandas.DataFrame`.

    Raises:
        InputError: pandas is not installed.
    """
    return pandas().DataFrame(rows)


def series_frame(ts: np.ndarray, leaves: Mapping[str, np.ndarray]) -> Any:
    """Time series as a `pandas.DataFrame`, indexed by `t`, or by member and `t` for a batch.

    Args:
        ts: times (*batch, n); rows whose time is not a number are left out.
        leaves: arrays (*batch, n, ...) by name; a column for each component.
    """
    columns, good = {}, np.isfinite(ts).ravel()
    for name, leaf in leaves.items():
        names = components(name, leaf.shape[ts.ndim :])
        flat = leaf.reshape(ts.size, len(names))[good]
        columns |= {label: flat[:, k] for k, label in enumerate(names)}
    times = ts.ravel()[good]
    if ts.ndim == 1:
        index = pandas().Index(times, name="t")
    else:
        places = [axis.ravel()[good] for axis in np.indices(ts.shape)[:-1]]
        names = _batch(ts.ndim - 1)
        index = pandas().MultiIndex.from_arrays([*places, times], names=[*names, "t"])
    return pandas().DataFrame(columns, index=index)


def series_dataset(
    ts: np.ndarray, leaves: Mapping[str, np.ndarray], attributes: Mapping[str, Any]
) -> Any:
    """Time series as an `xarray.Dataset`: a variable for each leaf, over `t` and its own axes.

    Members of a batch that have times of their own are over `save`, with `t` as a coordinate.

    Args:
        ts: times (*batch, n); for one solve, rows whose time is not a number are left out.
        leaves: arrays (*batch, n, ...) by name; a leaf called `t` becomes `y.t`.
        attributes: of the data set.
    """
    batch = _batch(ts.ndim - 1)
    if not batch:
        good = np.isfinite(ts)
        ts, leaves = ts[good], {name: leaf[good] for name, leaf in leaves.items()}
    first = ts.reshape(-1, ts.shape[-1])[:1]
    common = not batch or (ts.size > 0 and bool(np.all(ts == first[0])))
    time = "t" if common else "save"
    variables = {}
    for name, leaf in leaves.items():
        own = [f"{name}_{axis}" for axis in range(leaf.ndim - ts.ndim)]
        label = f"y.{name}" if name in ("t", "save", *batch) else name
        variables[label] = ([*batch, time, *own], leaf)
    coordinate = ("t", first[0] if batch else ts) if common else ([*batch, "save"], ts)
    return xarray().Dataset(variables, coords={"t": coordinate}, attrs=dict(attributes))


def _batch(count: int) -> list[str]:
    return ["member"] if count == 1 else [f"member_{axis}" for axis in range(count)]
