"""`rootflow sample`: draws from the posterior of a fit."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import compiling
from .options import AsJson, Quiet, tell
from .streams import all_or_nothing, plain

if TYPE_CHECKING:
    from ..fitting.posterior import Posterior


def sample(
    fit: Annotated[
        Path, typer.Argument(help="The folder of a fit, as rootflow fit left it.", metavar="FIT")
    ],
    draws: Annotated[int, typer.Option(min=4, help="Draws of each chain.")] = 1000,
    warmup: Annotated[
        int, typer.Option(min=20, help="Draws before them that tune the sampler.")
    ] = 500,
    chains: Annotated[int, typer.Option(min=1, help="Chains, side by side.")] = 4,
    seed: Annotated[int, typer.Option(min=0, help="Seed of all that is random.")] = 0,
    target: Annotated[
        float, typer.Option(help="Acceptance that the steps are tuned to, from 0.5 to below 1.")
    ] = 0.8,
    out: Annotated[
        Path | None,
        typer.Option(help="The folder for the results. Default: sample-NAME.", show_default=False),
    ] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Sample the posterior of a fit by the No-U-Turn sampler.

    Writes posterior.csv, posterior.json, trace.png and pairs.png. Exit code 0: the chains agree.
    1: they do not, or there are too few effective draws; the results are written all the same. 2:
    the input cannot be used, and nothing is written.
    """
    with all_or_nothing(lambda: out):
        compiling.prepare(keep=True)
        import jax

        jax.config.update("jax_enable_x64", True)
        from ..fitting.posterior import check_posterior, write_posterior
        from ..fitting.store import load_fit

        result = load_fit(fit)
        out = Path(f"sample-{result.model.name}") if out is None else out
        check_posterior(out)
        posterior = result.sample(draws, warmup=warmup, chains=chains, seed=seed, target=target)
        record = write_posterior(posterior, out)
    place = out
    tell(record, lambda: _show(posterior, place), as_json=as_json, quiet=quiet)
    if not posterior.trusted:
        typer.echo("The draws are not to be trusted yet: see the warnings.", err=True)
        raise typer.Exit(1)


def _show(posterior: "Posterior", out: Path) -> None:
    width = max(len(m.name) for m in posterior.summary)
    titles = f"{'name':{width}}  {'mean':>10}  {'sd':>9}  {'2.5 %':>10}  {'97.5 %':>10}"
    typer.echo(plain(f"{titles}  {'R-hat':>6}  {'ESS':>6}"))
    for m in posterior.summary:
        line = f"{m.name:{width}}  {m.mean:10.4g}  {m.sd:9.3g}  {m.lower:10.4g}  {m.upper:10.4g}"
        typer.echo(plain(f"{line}  {m.rhat:6.3f}  {m.ess_bulk:6.0f}"))
    for warning in posterior.warnings:
        typer.echo(plain(f"Warning: {warning}"))
    typer.echo(plain(f"Results: {out / 'posterior.csv'}"))
