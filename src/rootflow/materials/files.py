"""Profiles from the files that instruments and other programs write.

Three kinds are told apart by their headers: exports of Probe for EPMA (RELDIST and columns such as
"Sn AT%"), pyDiffusion's CSV (dis and X), and plain tables (a position and one or two compositions,
each with its unit in the header). Lines "# key: value" before the header say what the table does
not: time, temperature, elements, molar_volume, marker, title.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.ndimage import median_filter

from ..errors import InputError
from ..tables.table import Table, load_table
from ..tables.textfile import read_text
from . import prepare
from .elements import atomic_weight
from .profile import Profile
from .volumes import IdealVolume, MolarVolume, TableVolume, as_volume

_LARGEST = 50_000_000
_LENGTHS = {"m": 1.0, "cm": 1e-2, "mm": 1e-3, "um": 1e-6, "µm": 1e-6, "μm": 1e-6, "nm": 1e-9}
_TIMES = {"s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_KEYS = ("time", "temperature", "elements", "molar_volume", "marker", "title")
_POSITION = re.compile(r"(x|z|dis|dist|distance|pos|position|depth|reldist)", re.IGNORECASE)
_SCATTER = re.compile(r"(sigma|sd|std|error|uncertainty)", re.IGNORECASE)
_PROBE = re.compile(r"([A-Z][A-Za-z]?)\s+(WT|AT)%", re.IGNORECASE)
_UNIT = re.compile(r"(?P<name>.*?)[\s_]*[(\[]?(?P<unit>µm|μm|um|nm|mm|cm|m)[)\]]?", re.IGNORECASE)


class Reading(NamedTuple):
    """A profile and where it came from.

    Attributes:
        profile: in SI units.
        elements: A and B.
        source: the file.
        format: "Probe for EPMA", "pyDiffusion" or "table".
        title: of the couple.
        marker: position of the markers, m, or `None`.
        coefficient: pyDiffusion's column DC, m²/s, or `None`.
        totals: lowest and highest sum of the elements, or `None` where only one was measured.
    """

    profile: Profile
    elements: tuple[str, str]
    source: str
    format: str
    title: str
    marker: float | None
    coefficient: np.ndarray | None
    totals: tuple[float, float] | None


class _Columns(NamedTuple):
    """What a table has: positions in m, mole fractions, their standard deviations, and so on."""

    kind: str
    x: np.ndarray
    N: np.ndarray
    sigma: np.ndarray | None
    pair: tuple[str, str]
    coefficient: np.ndarray | None = None
    totals: tuple[float, float] | None = None


def read_profile(
    path: str | os.PathLike[str],
    *,
    time: Any = None,
    molar_volume: Any = None,
    elements: tuple[str, str] | None = None,
    marker: float | None = None,
    temperature: float | None = None,
    ends: tuple[float, float] | None = None,
    angle: float = 0.0,
    decimal: str = ".",
) -> Reading:
    """Reads a measured profile.

    Args:
        path: the file, UTF-8; cells separated by commas, semicolons or tabs.
        time: s, or a text with a unit such as "100h"; otherwise the file must say it.
        molar_volume: as of `Profile`, or a text as `parse_volume` takes it.
        elements: A and B, where the file has more than two or names none.
        marker: position of the markers along the scan, m.
        temperature: K.
        ends: mole fractions of B in the two alloys, in the order of the scan.
        angle: between the scan and the diffusion direction, degrees.
        decimal: the decimal mark.

    Raises:
        InputError: a file that cannot be read, is of no known kind, or has numbers that cannot be
            used; the message names file, line and column.
    """
    path = Path(path)
    said = _said(path)
    table = load_table(path, decimal=decimal)
    columns = _columns(table, elements, said)
    annealed = parse_time(said.get("time") if time is None else time, str(path))
    volume = said.get("molar_volume") if molar_volume is None else molar_volume
    if isinstance(volume, str):
        volume = parse_volume(volume, base=path.parent)
    at = marker if marker is not None else _number(said, "marker", path, 1e-6)
    if temperature is None:
        temperature = _number(said, "temperature", path, 1.0)
    factor = float(prepare.oblique(1.0, angle))
    _check_order(table, columns.x)
    try:
        profile = Profile(
            columns.x * factor, columns.N, time=annealed, molar_volume=volume,
            sigma=columns.sigma, ends=ends, temperature=temperature,
        )  # fmt: skip
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    return Reading(
        profile, columns.pair, str(path), columns.kind, said.get("title", path.stem),
        None if at is None else at * factor, columns.coefficient, columns.totals,
    )  # fmt: skip


def parse_time(value: Any, source: str = "") -> float:
    """A time in seconds from a number of seconds or a text such as "100h", "90 min", "2 d".

    Raises:
        InputError: no time, no number, no unit, or not positive.
    """
    place = f"{source}: " if source else ""
    if value is None:
        raise InputError(f"{place}the annealing time is missing; say --time 100h, or write a line "
                         "'# time: 100 h' above the header.")  # fmt: skip
    if not isinstance(value, str):
        return float(value)
    found = re.fullmatch(r"\s*([0-9.]+(?:[eE][+-]?[0-9]+)?)\s*([A-Za-z]*)\s*", value)
    unit = found.group(2) if found else ""
    units = {**_TIMES, "hour": 3600.0, "hours": 3600.0, "days": 86400.0, "sec": 1.0}
    if not found or unit not in units:
        raise InputError(
            f"{place}the annealing time {value!r} is not a number with a unit; write 100h, 90min, "
            "3600s or 2d."
        )
    seconds = _float(found.group(1), f"{place}the annealing time") * units[unit]
    if not seconds > 0:
        raise InputError(f"{place}the annealing time must be positive; got {value!r}.")
    return seconds


def parse_volume(text: str, *, base: Path | None = None) -> MolarVolume:
    """A molar volume from a text, in cm³/mol.

    "7.12,16.24" is ideal between the pure elements A and B; "0:7.12, 0.25:8.59, 1:16.24" is a table
    over the mole fraction of B; "7.1" a constant; anything else the name of a CSV file with two
    columns, mole fraction of B and volume.

    Raises:
        InputError: none of these.
    """
    parts = [part.strip() for part in re.split(r"[,;]", text) if part.strip()]
    numeric = all(re.fullmatch(r"[-+0-9.eE:\s]+", part) for part in parts)
    if parts and numeric and all(":" in part for part in parts):
        pairs = [part.split(":") for part in parts]
        if all(len(pair) == 2 for pair in pairs):
            N, V = zip(*((_float(a, "a mole fraction"), _float(b, "a volume")) for a, b in pairs))
            return TableVolume(np.array(N), 1e-6 * np.array(V))
    elif parts and numeric and len(parts) <= 2:
        values = [1e-6 * _float(part, "a molar volume") for part in parts]
        return IdealVolume(*values) if len(values) == 2 else as_volume(values[0])
    path = Path(text) if base is None or Path(text).is_absolute() else base / text
    if not path.exists() and base is not None and Path(text).exists():
        path = Path(text)
    if not path.exists():
        raise InputError(
            f"the molar volume {text!r} is neither V_A,V_B in cm³/mol (7.12,16.24), nor a table "
            "(0:7.12,0.25:8.59,1:16.24), nor a file."
        )
    table = load_table(path)
    names = list(table.columns)
    if len(names) < 2:
        raise InputError(
            f"{path}: a table of molar volumes has two columns, mole fraction of B and cm³/mol; "
            f"this has {names}."
        )
    N, V = (table.numbers(name) for name in names[:2])
    try:
        return TableVolume(N / 100 if "%" in names[0] else N, 1e-6 * V)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _float(text: str, what: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InputError(f"{what} {text!r} is not a number.") from None


def _said(path: Path) -> dict[str, str]:
    """The lines "# key: value" before the header."""
    found = {}
    for line in read_text(path, what="profile", limit=_LARGEST).splitlines():
        if not line.strip():
            continue
        if not line.lstrip().startswith("#"):
            break
        key, colon, value = line.lstrip()[1:].partition(":")
        if colon and key.strip().lower() in _KEYS:
            found[key.strip().lower()] = value.strip()
    return found


def _number(said: Mapping[str, str], key: str, path: Path, unit: float) -> float | None:
    if key not in said:
        return None
    return unit * _float(re.sub(r"\s*(um|µm|μm|K)$", "", said[key]), f"{path}: {key}")


def _columns(table: Table, elements: Any, said: Mapping[str, str]) -> _Columns:
    if elements is None and "elements" in said:
        elements = tuple(re.split(r"[,\s]+", said["elements"].strip()))
        if len(elements) != 2:
            raise InputError(
                f"{table.source}: 'elements' names {', '.join(elements)}; name two, A and B."
            )
    probe = {name: found for name in table.columns if (found := _PROBE.fullmatch(name.strip()))}
    if probe and any(name.strip().upper() == "RELDIST" for name in table.columns):
        return _probe(table, probe, elements)
    if {"dis", "X"} <= set(table.columns):
        return _pydiffusion(table, elements)
    return _plain(table, elements)


def _full(table: Table, name: str) -> np.ndarray:
    """A column without gaps."""
    values = table.numbers(name)
    for row in np.flatnonzero(np.isnan(values)):
        raise InputError(f"{table.place(row, name)}: the cell is blank; remove the row.")
    return values


def _check_order(table: Table, x: np.ndarray) -> None:
    steps = np.diff(x)
    if np.any(steps < 0) and np.any(steps > 0):
        row = int(np.flatnonzero(steps < 0)[0]) + 1
        raise InputError(
            f"{table.place(row)}: the position decreases to {x[row] * 1e6:.6g} µm from "
            f"{x[row - 1] * 1e6:.6g} µm; sort the rows by their position."
        )


def _probe(table: Table, probe: Mapping[str, Any], elements: Any) -> _Columns:
    measured = {"AT": {}, "WT": {}}
    for name, found in probe.items():
        measured[found.group(2).upper()][found.group(1).capitalize()] = name
    there = list(measured["AT"] or measured["WT"])
    pair = _pair(table, there, elements)
    place = next(name for name in table.columns if name.strip().upper() == "RELDIST")
    x = _full(table, place) * 1e-6
    if all(element in measured["AT"] for element in pair):
        A, B = (_full(table, measured["AT"][element]) / 100 for element in pair)
    else:
        A, B = (_full(table, measured["WT"][e]) / 100 / atomic_weight(e) for e in pair)
    weights = [measured["WT"].get(element) for element in pair]
    totals = None
    if all(weights):
        w_A, w_B = (_full(table, name) / 100 for name in weights if name)
        totals = _range(prepare.normalise(w_A, w_B, place=table.place)[1])
    sigma = _probe_scatter(table, pair, A, B)
    return _Columns("Probe for EPMA", x, B / (A + B), sigma, pair, totals=totals)


def _range(total: np.ndarray) -> tuple[float, float]:
    return float(total.min()), float(total.max())


def _probe_scatter(table: Table, pair: tuple[str, str], A: np.ndarray, B: np.ndarray):
    """Standard deviations of N_B from the relative errors of the elements, in percent."""
    names = {name.strip().upper(): name for name in table.columns}
    errors = [names.get(f"{element.upper()} %ERR") for element in pair]
    if not all(errors):
        return None
    r_A, r_B = (np.abs(table.numbers(name)) / 100 for name in errors if name)
    share = B / (A + B)
    # N = B / (A + B): dN = N (1 - N) (dB / B - dA / A); an element that is absent has no error.
    s_A, s_B = (np.where(np.isfinite(r), r, 0.0) for r in (r_A, r_B))
    sigma = np.abs(share * (1 - share)) * np.hypot(s_A, s_B)
    # A median of neighbours: a point that happens to be low would else get more weight for it.
    sigma = median_filter(sigma, size=9, mode="nearest")
    floor = np.median(sigma[sigma > 0]) / 20 if np.any(sigma > 0) else 0.0
    return np.maximum(sigma, floor) if floor > 0 else None


def _pydiffusion(table: Table, elements: Any) -> _Columns:
    x, N = _full(table, "dis") * 1e-6, _full(table, "X")
    coefficient = table.numbers("DC") if "DC" in table.columns else None
    return _Columns("pyDiffusion", x, N, None, elements or ("A", "B"), coefficient)


def _plain(table: Table, elements: Any) -> _Columns:
    x_name, unit = _position(table)
    rest = [name for name in table.columns if name != x_name]
    scatter = [name for name in rest if _SCATTER.match(name.strip())]
    amounts = [name for name in rest if name not in scatter and _kind(name) is not None]
    if not amounts:
        raise InputError(
            f"{table.source}: no column is a composition. Write its unit into the header: 'Sn at.%'"
            f", 'Sn wt.%' or 'N_Sn'. Columns: {', '.join(map(repr, table.columns))}."
        )
    kinds = {_kind(name) for name in amounts}
    if len(kinds) > 1:
        raise InputError(
            f"{table.source}: the compositions {', '.join(map(repr, amounts))} have different "
            "units; keep one kind."
        )
    (kind,) = kinds
    there = [_element(name) for name in amounts]
    unit_of_N = 1.0 if kind == "fraction" else 0.01
    values = {e: _full(table, n) * unit_of_N for e, n in zip(there, amounts, strict=True)}
    x = _full(table, x_name) * unit
    if len(amounts) == 1:
        pair = elements or ("A" if there[0] != "A" else "B", there[0])
        N = _one(table, amounts[0], values[there[0]], kind, pair)
        total = None
    else:
        pair = _pair(table, there, elements)
        A, B = (values[element] for element in pair)
        N, total = prepare.normalise(A, B, place=table.place)
    sigma = _scatter(table, scatter, there, pair, N, total)
    sigma = None if sigma is None else sigma * unit_of_N
    if kind == "weight":
        N, slope = _of_weights(N, pair)
        sigma = None if sigma is None else sigma * slope
    return _Columns("table", x, N, sigma, pair, totals=None if total is None else _range(total))


def _scatter(
    table: Table, names: list[str], there: list[str], pair: tuple[Any, ...], share: np.ndarray,
    total: np.ndarray | None,
) -> np.ndarray | None:  # fmt: skip
    """Standard deviations of the share of B, in the unit of the table.

    One column is of the share itself. Several are of the compositions, by the elements that they
    name or else in the order of the compositions.
    """
    if not names:
        return None
    if len(names) == 1:
        return _full(table, names[0])
    named = {element: name for name in names if (element := _named(name))}
    found = named or dict(zip(there, names))
    if total is None or len(found) != len(names) or not set(pair) <= set(found):
        raise InputError(
            f"{table.source}: the standard deviations {', '.join(map(repr, names))} do not belong "
            f"to the compositions of {', '.join(there)}: give one, or one for each, such as "
            f"'sigma {there[0]}'."
        )
    s_A, s_B = (_full(table, found[element]) for element in pair)
    return np.hypot((1 - share) * s_B, share * s_A) / total


def _of_weights(share: np.ndarray, pair: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """The mole fraction of B from its weight fraction, and the derivative."""
    A, B = (atomic_weight(element) for element in pair)
    share = np.clip(share, 0.0, 1.0)
    N = np.asarray(prepare.mole_fraction(share, A=A, B=B))
    return N, 1 / (A * B) / ((1 - share) / A + share / B) ** 2


def _one(
    table: Table, name: str, values: np.ndarray, kind: Any, pair: tuple[Any, ...]
) -> np.ndarray:
    for row in np.flatnonzero((values < -0.02) | (values > 1.02)):
        shown = values[row] * (1 if kind == "fraction" else 100)
        raise InputError(
            f"{table.place(row, name)}: {shown:g} is outside of "
            f"{'[0, 1]' if kind == 'fraction' else '0 to 100 %'}; correct it, or write the unit "
            "into the header (at.% or wt.%)."
        )
    if kind != "weight":
        return values
    if pair[0] == "A":
        raise InputError(
            f"{table.source}: weight percentages of one element become mole fractions by both "
            f"atomic weights; name both with --elements, such as Cu,{pair[1]}."
        )
    return values


def _position(table: Table) -> tuple[str, float]:
    for name in table.columns:
        found = _UNIT.fullmatch(name.strip())
        if found and _POSITION.fullmatch(found.group("name").strip()):
            return name, _LENGTHS[found.group("unit").lower()]
    bare = [name for name in table.columns if _POSITION.fullmatch(name.strip())]
    if bare:
        raise InputError(
            f"{table.source}: column {bare[0]!r} has no unit; write {bare[0]}_um, or "
            f"'{bare[0]} (mm)'."
        )
    raise InputError(
        f"{table.source}: no column is a position. Name it 'x_um' or 'distance (µm)'. Columns: "
        f"{', '.join(map(repr, table.columns))}."
    )


def _kind(name: str) -> str | None:
    lower = name.strip().lower()
    if re.search(r"at\.?\s*%|mol\.?\s*%|at_percent|mole_percent", lower):
        return "atomic"
    if re.search(r"wt\.?\s*%|mass\s*%|wt_percent", lower):
        return "weight"
    if re.fullmatch(
        r"n|x_?[a-z]{1,2}|n_[a-z]{1,2}|mole[ _]fraction.*|atom(ic)?[ _]fraction.*", lower
    ):
        return "fraction"
    return None


def _element(name: str) -> str:
    """The element that a column's name has, or B."""
    return _named(name) or "B"


def _named(name: str) -> str | None:
    words = re.findall(r"(?<![A-Za-z])([A-Z][a-z]?)(?![A-Za-z])", name)
    return next((word for word in words if word not in ("N", "X")), None)


def _pair(table: Table, there: list[str], elements: Any) -> tuple[str, str]:
    if elements is not None:
        missing = [element for element in elements if element not in there]
        if missing or len(set(elements)) != 2:
            raise InputError(
                f"{table.source}: the elements {', '.join(elements)} were asked for; the file has "
                f"{', '.join(there)}. Name two of them."
            )
        return elements[0], elements[1]
    if len(there) != 2:
        raise InputError(
            f"{table.source}: the file has the elements {', '.join(there)}; a couple here is "
            "binary. Name two with --elements A,B."
        )
    return there[0], there[1]
