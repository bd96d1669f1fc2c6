"""Draws from the posterior: what they say, how far they can be trusted, their folder."""

import csv
import io
import json
import os
import warnings as python_warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float

from .. import _atomic
from .._machine import describe
from ..errors import InputError
from ..reports import folder as folders
from ..reports.folder import plain
from . import sampling
from .draws import Ensemble, curves, likely_scales, log_scales, predictor_of
from .predict import times

if TYPE_CHECKING:
    from .result import FitResult

PROGRAM = "rootflow sample"
#: Chains whose R-hat is larger have not found the same distribution (Vehtari and others 2021).
RHAT = 1.01
#: Fewer effective draws, for each chain, say too little (the same).
ESS = 100


@dataclass(frozen=True)
class Marginal:
    """One parameter, or scale of the noise, of a posterior.

    Attributes:
        name: `noise of x` for the scale of a column x.
        mean, sd, median: of the draws.
        lower, upper: the middle 95 %.
        rhat: rank-normalised split R-hat.
        ess_bulk, ess_tail: effective number of draws, in the middle and in the tails.
    """

    name: str
    mean: float
    sd: float
    median: float
    lower: float
    upper: float
    rhat: float
    ess_bulk: float
    ess_tail: float


@dataclass(frozen=True, eq=False)
class Posterior:
    """Draws from the posterior distribution of a fit (`FitResult.sample`).

    Attributes:
        fit: what it is the posterior of.
        names: of the free parameters.
        values: on the natural scale, shape (chains, draws, n).
        scales: of the noise, by column whose scale was fitted, shape (chains, draws).
        log_density: of each draw, in the sampler's coordinates, but for a constant.
        divergent: where the sampler's path left the energy that it should keep, or the equations
            could not be solved.
        acceptance: mean acceptance of each path.
        leapfrogs: steps of each path, each a solve with its derivative.
        step_size: of each chain.
        summary: of each parameter and scale, with R-hat and effective numbers of draws.
        warnings: in plain words.
        seed: of the draws.
    """

    fit: "FitResult" = field(repr=False)
    names: list[str]
    values: Float[np.ndarray, "chains draws n"] = field(repr=False)
    scales: Mapping[str, Float[np.ndarray, "chains draws"]] = field(repr=False)
    log_density: Float[np.ndarray, "chains draws"] = field(repr=False)
    divergent: Bool[np.ndarray, "chains draws"] = field(repr=False)
    acceptance: Float[np.ndarray, "chains draws"] = field(repr=False)
    leapfrogs: Any = field(repr=False)
    step_size: Float[np.ndarray, " chains"]
    summary: list[Marginal]
    warnings: list[str]
    seed: int

    def __getitem__(self, name: str) -> Float[np.ndarray, "chains draws"]:
        """The draws of a parameter, or of `noise of column`."""
        found = self._all()
        if name not in found:
            raise KeyError(f"{name!r} is not drawn; there are: {', '.join(found)}")
        return found[name]

    def _all(self) -> dict[str, np.ndarray]:
        by_name = {name: self.values[..., i] for i, name in enumerate(self.names)}
        return by_name | {f"noise of {column}": s for column, s in self.scales.items()}

    @property
    def trusted(self) -> bool:
        """Whether every R-hat is small enough, and every effective number of draws large enough."""
        chains = len(self.values)
        return all(m.rhat <= RHAT and min(m.ess_bulk, m.ess_tail) >= ESS * chains
                   for m in self.summary)  # fmt: skip

    def ensemble(self, count: int = 400) -> Ensemble:
        """Draws at equal distances, of all chains together.

        Args:
            count: how many, if there are so many.
        """
        flat, which = self._thinned(count)
        return Ensemble(self.fit, self.names, flat[which])

    def _thinned(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        flat = self.values.reshape(-1, len(self.names))
        which = np.unique(np.linspace(0, len(flat) - 1, min(count, len(flat))).astype(int))
        return flat, which

    def predict(
        self, ts: Any, *, noise: bool = True, count: int = 400
    ) -> dict[str, tuple[Any, ...]]:
        """The model at other times, with a 95 % band of the posterior.

        Args:
            ts: times, as `FitResult.predict` takes them.
            noise: whether the band is for a new measurement of weight 1, or for the curve itself.
            count: draws to solve with.

        Returns:
            By observed column: median, lower and upper, each of shape (groups, times).

        Raises:
            InputError: times that cannot be used.
        """
        asked = times(ts, len(self.fit.dataset.groups))
        p = predictor_of(self.fit, "sampled")
        flat, which = self._thinned(count)
        lay = p.lay
        u = np.where(lay.log, np.log(np.where(lay.log, flat[which], 1.0)), flat[which])
        eta = curves(p, u, asked)
        computed, random = log_scales(p, eta), np.random.default_rng(self.seed)
        out = {}
        for i, (column, law) in enumerate(p.model.noise.items()):
            middle = eta[:, :, i]
            drawn = middle
            if noise:
                if i in computed:
                    scale = np.exp(computed[i])
                else:
                    scale = self.scales[column].reshape(-1)[which] if column in self.scales else (
                        np.full(len(which), law.scale, float)
                    )  # fmt: skip
                    scale = scale[:, None, None]
                    scale = scale * np.abs(middle) if law.kind == "proportional" else scale
                kind = random.laplace if law.laplace else random.normal
                drawn = middle + scale * kind(size=middle.shape)
            parts = (np.nanmedian(middle, 0), *np.nanquantile(drawn, [0.025, 0.975], axis=0))
            power = lambda x, unit=law.unit: np.exp(x * unit)
            out[column] = tuple(map(power, parts)) if law.logarithmic else tuple(parts)
        return out

    def frame(self) -> Any:
        """A `pandas.DataFrame` of the summary, by name."""
        from .frames import data_frame

        return data_frame([asdict(m) for m in self.summary]).set_index("name")

    def _repr_html_(self) -> str:
        from html import escape

        from .frames import html_table

        head = ("name", "mean", "sd", "median", "95 %", "R-hat", "ESS bulk", "ESS tail")
        lines = [
            (escape(m.name), f"{m.mean:.4g}", f"{m.sd:.3g}", f"{m.median:.4g}",
             f"{m.lower:.4g} to {m.upper:.4g}", f"{m.rhat:.3f}", f"{m.ess_bulk:.0f}",
             f"{m.ess_tail:.0f}")
            for m in self.summary
        ]  # fmt: skip
        warned = "".join(f"<p>⚠ {escape(warning)}</p>" for warning in self.warnings)
        return f"<div>{html_table(head, lines)}{warned}</div>"

    def to_arviz(self) -> Any:
        """The draws as `arviz.InferenceData`, for the plots and statistics of arviz."""
        return _arviz().from_dict(
            posterior=self._all(),
            sample_stats={"diverging": self.divergent, "lp": self.log_density,
                          "acceptance_rate": self.acceptance, "n_steps": self.leapfrogs},
        )  # fmt: skip

    def write(self, folder: str | os.PathLike[str]) -> None:
        """Writes what `rootflow sample` writes: draws, summary, trace and pair plots.

        Raises:
            InputError: the folder holds something else than an earlier posterior.
            OSError: it cannot be written.
        """
        write_posterior(self, Path(folder))


def sampled(
    fit: "FitResult", *, draws: int, warmup: int, chains: int, seed: int, target: float
) -> Posterior:
    """See `FitResult.sample`."""
    whole = {"draws": (draws, 4), "warmup": (warmup, 20), "chains": (chains, 1), "seed": (seed, 0)}
    for name, (value, least) in whole.items():
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
            raise InputError(f"{name} must be an integer, at least {least}; got {value!r}.")
    if not (isinstance(target, float) and 0.5 <= target < 1):
        raise InputError(f"target must be a number from 0.5 to below 1; got {target!r}.")
    p = predictor_of(fit, "sampled")
    _arviz()
    u, told, size = sampling.run(
        p, draws=int(draws), warmup=int(warmup), chains=int(chains), seed=int(seed), target=target
    )
    values = p.lay.values(u)
    scales = _scales(fit, u, seed)
    everything = {name: values[..., i] for i, name in enumerate(fit.free_names)}
    everything |= {f"noise of {column}": s for column, s in scales.items()}
    summary = [_marginal(name, x) for name, x in everything.items()]
    return Posterior(
        fit, fit.free_names, values, scales, told.log_density, told.divergent, told.acceptance,
        told.leapfrogs, size, summary, _warnings(summary, told.divergent), int(seed),
    )  # fmt: skip


def _scales(fit: "FitResult", u: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Draws of the scales that were integrated out, given the parameters."""
    p = predictor_of(fit, "sampled")
    random = np.random.default_rng([seed, 1])
    likely = None
    out = {}
    for i, (column, law) in enumerate(fit.model.noise.items()):
        if law.scale is not None:
            continue
        if likely is None:
            likely = likely_scales(p, u.reshape(-1, u.shape[-1])).reshape(*u.shape[:-1], -1)
        n = int(np.isfinite(fit.dataset.values[column]).sum())
        best = likely[..., i]
        if law.laplace:
            out[column] = best * n / random.gamma(n, size=best.shape)
        else:
            out[column] = best * np.sqrt(n / random.chisquare(n, size=best.shape))
    return out


def _marginal(name: str, x: Float[np.ndarray, "chains draws"]) -> Marginal:
    az = _arviz()
    low, middle, high = np.quantile(x, [0.025, 0.5, 0.975])
    with python_warnings.catch_warnings():
        python_warnings.simplefilter("ignore")
        rhat = float(az.rhat(x)) if len(x) > 1 else np.nan
        bulk, tail = float(az.ess(x, method="bulk")), float(az.ess(x, method="tail"))
    return Marginal(
        name, float(x.mean()), float(x.std(ddof=1)), float(middle), float(low), float(high),
        rhat, bulk, tail,
    )  # fmt: skip


def _warnings(summary: list[Marginal], divergent: np.ndarray) -> list[str]:
    out = []
    if count := int(divergent.sum()):
        out.append(
            f"{count} of {divergent.size} draws came by a divergent path: parts of the posterior "
            "may be missed. Raise target (to 0.95), or give the parameters bounds or priors."
        )
    apart = [m.name for m in summary if not m.rhat <= RHAT]
    if len(divergent) == 1:
        out.append(
            "One chain cannot show that the sampler has found the whole posterior: there is no "
            "R-hat. Sample several (chains)."
        )
    elif apart:
        out.append(
            f"The chains do not agree on {', '.join(apart)} (R-hat above {RHAT:g}): the draws are "
            "not the posterior. Sample longer (draws, warmup), from several chains."
        )
    few = [m.name for m in summary if min(m.ess_bulk, m.ess_tail) < ESS * len(divergent)]
    if few:
        out.append(
            f"There are fewer than {ESS} effective draws for each chain of {', '.join(few)}: its "
            "mean and interval are uncertain. Sample longer (draws)."
        )
    return out


def _arviz() -> Any:
    try:
        with python_warnings.catch_warnings():
            python_warnings.simplefilter("ignore")  # of what a later version will change
            import arviz  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise InputError(
            "Sampling needs blackjax and arviz: python -m pip install 'rootflow[sample]'."
        ) from None
    return arviz


def check_posterior(path: Path) -> None:
    """Makes sure that a posterior may be written to `path`, as `reports.folder.check` does."""
    folders.check(path, record="posterior.json", program=PROGRAM, what="posterior")


def write_posterior(posterior: Posterior, path: Path) -> dict[str, Any]:
    """Fills a folder with `posterior.csv`, `posterior.json`, `trace.png` and `pairs.png`.

    Returns:
        The content of `posterior.json`.

    Raises:
        InputError: as `check_posterior`.
        OSError: the folder cannot be written.
    """
    from .posterior_figures import pairs_figure, trace_figure

    check_posterior(path)
    chains, draws = posterior.divergent.shape
    record = plain(
        {
            "program": PROGRAM,
            "format": 1,
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": describe(("jax", "jaxlib", "blackjax", "arviz", "numpy", "scipy")),
            "model": {"name": posterior.fit.model.name, "source": posterior.fit.model.source},
            "chains": chains,
            "draws": draws,
            "seed": posterior.seed,
            "summary": posterior.summary,
            "trusted": posterior.trusted,
            "divergent": int(posterior.divergent.sum()),
            "acceptance": posterior.acceptance.mean(1),
            "leapfrogs": np.asarray(posterior.leapfrogs, float).mean(1),
            "step_size": posterior.step_size,
            "warnings": posterior.warnings,
        }
    )
    pictures = {"trace.png": trace_figure(posterior), "pairs.png": pairs_figure(posterior)}
    with _atomic.folder(path) as draft:
        text = json.dumps(record, indent=1, allow_nan=False, ensure_ascii=False)
        _atomic.write_text(draft / "posterior.json", text + "\n")
        _atomic.write_text(draft / "posterior.csv", _table(posterior))
        for name, picture in pictures.items():
            _atomic.write_bytes(draft / name, picture)
    return record


def _table(posterior: Posterior) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    columns = posterior._all()
    writer.writerow(["chain", "draw", "divergent", *columns])
    chains, draws = posterior.divergent.shape
    for c in range(chains):
        for d in range(draws):
            row = [f"{x[c, d]:.10g}" for x in columns.values()]
            writer.writerow([c, d, int(posterior.divergent[c, d]), *row])
    return stream.getvalue()
