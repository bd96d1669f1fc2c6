"""DIFF2: private optimisation by gradient differences, where it wins and where it does not."""

from typing import Any

from matplotlib.figure import Figure

from ..optimize import privacy as p
from .diff2_experiments import chain, estimator, tabular
from .harness.entry import Claim, Entry, Outcome, Paper, Report

_ROUNDS = (100, 400, 1600, 6400)
_RECORDS = (30_000, 100_000, 300_000, 1_000_000)
_TABLES = {"small": (4000, 8, 1.0), "wide": (4000, 50, 1.0), "long": (16_512, 8, 3.0)}


def _run(report: Report, quick: bool) -> Outcome:
    measured: dict[str, Any] = {}
    report(0.0, "accountant")
    mixed = p.compose([p.gaussian(4.0)] * 4 + [p.gaussian(40.0)] * 396)
    exact, rdp, classic = (
        p.epsilon(mixed, delta=1e-5, method=m) for m in ("exact", "rdp", "classic")
    )
    measured["account"] = exact
    measured["account-rdp"] = rdp / exact
    account = {"exact": exact, "rdp": rdp, "classic": classic}

    ratios: dict[int, float] = {}
    for rounds in _ROUNDS[: 2 if quick else 4]:
        report(0.02 + 0.02 * len(ratios), f"error of the estimate, {rounds} rounds")
        ratios[rounds] = estimator.ratio(rounds, 1 if quick else 3)
    measured["estimate"] = ratios[400]
    scaled = [ratio * rounds**0.5 for rounds, ratio in ratios.items()]
    measured["estimate-rate"] = max(scaled) / min(scaled)

    utility: dict[int, dict[str, float]] = {}
    for records in (100_000,) if quick else _RECORDS:
        report(0.15 + 0.1 * len(utility), f"the chain with the noise of {records} records")
        utility[records] = chain.scores(records, 1 if quick else 5)
        ratio = utility[records]["dp-gd"] / utility[records]["diff2"]
        measured[f"utility-{records:.0e}".replace("+0", "")] = ratio

    tables: dict[str, dict[str, float]] = {}
    if not quick:
        for name, (n, d, epsilon) in _TABLES.items():
            tables[name] = {}
            for method in ("dp-gd", "diff2"):
                done = 0.55 + 0.07 * sum(map(len, tables.values()))
                report(done, f"{method}, {n} rows of {d} numbers, epsilon {epsilon:g}")
                tables[name][method] = tabular.best(method, n, d, epsilon, 16)
            measured[f"table-{name}"] = tables[name]["diff2"] / tables[name]["dp-gd"]

    report(0.98, "figure")
    data = {
        "account": account,
        "estimate": {str(rounds): ratio for rounds, ratio in ratios.items()},
        "utility": {str(records): row for records, row in utility.items()},
        "tables": tables,
    }
    figure = _figure(ratios, utility, tables)
    report(1.0)
    return Outcome(measured, figure, data)


def _figure(ratios: Any, utility: Any, tables: Any) -> Figure:
    figure = Figure(figsize=(6.6, 7.6), layout="constrained")
    error, gain, small = figure.subplots(3)
    error.loglog(list(ratios), list(ratios.values()), "o-", label="measured")
    error.loglog(
        list(ratios), [2.3 / rounds**0.5 for rounds in ratios], "k:", label="$2.3 / \\sqrt{R}$"
    )
    error.set(xlabel="rounds $R$", ylabel="error, DIFF2 / DP-GD")
    for method, label in (("dp-gd", "DP-GD"), ("diff2", "DIFF2-GD")):
        gain.loglog(list(utility), [row[method] for row in utility.values()], "o-", label=label)
        places = [i + (0.2 if method == "diff2" else -0.2) for i in range(len(tables))]
        small.bar(places, [row[method] for row in tables.values()], 0.36, label=label)
    gain.set(xlabel="records $N$", ylabel="$|\\nabla f|^2$, tuned")
    names = [f"n = {n}, d = {d}\n$\\varepsilon$ = {e:g}" for n, d, e in _TABLES.values()]
    small.set_xticks(range(len(tables)), names[: len(tables)])
    small.set(ylabel="train loss, tuned")
    for axes in (error, gain, small):
        if axes.has_data():
            axes.legend(frameon=False)
        axes.grid(alpha=0.3)
    return figure


def _utility(name: str, ours: str, least: float) -> Claim:
    return Claim(
        id=f"utility-{name}",
        text="Tuned on a chain of valleys in 100 dimensions DIFF2-GD comes to a smaller gradient "
        f"than DP-GD, epsilon = 3, N = {name}: |gradient|^2 of DP-GD over that of DIFF2-GD, "
        "medians of 5 seeds.",
        published="smaller, by a power of N",
        holds=(">=", least),
        source=f"Murata and Suzuki (2023), theorem 4.3; an independent run had {ours}",
    )


def _table(name: str, what: str) -> Claim:
    return Claim(
        id=f"table-{name}",
        text=f"On tables DIFF2-GD comes to a smaller train loss than DP-GD: the ratio for {what}, "
        "both tuned by the same random search.",
        published="below 1 on all of five tables",
        holds=("<", 1.0),
        source="Murata and Suzuki (2023), sec. 5, on real tables there",
    )


ENTRY = Entry(
    name="diff2",
    title="DIFF2: private optimisation by gradient differences",
    paper=Paper(
        authors="Murata, Suzuki",
        year=2023,
        title="DIFF2: Differential Private Optimization via Gradient Differences for Nonconvex "
        "Distributed Learning",
        arxiv="2302.03884",
    ),
    claims=(
        Claim(
            id="account",
            text="What 4 measurements of the gradient with noise multiplier 4 and 396 of its "
            "change with 40 spend, exactly: epsilon at delta = 1e-5.",
            published="not in the paper",
            holds=("between", 2.9348, 2.935),
            source="Dong, Roth and Su (2022), corollary 3.3",
        ),
        Claim(
            id="account-rdp",
            text="Accounting by Rényi divergences, as in the paper, says more: ratio to the exact "
            "epsilon.",
            published="not in the paper",
            holds=("between", 1.05, 1.15),
        ),
        Claim(
            id="estimate",
            text="At equal budget, rounds and steps the private estimate of the gradient has a "
            "smaller error than DP-GD's: ratio of the mean squared errors for R = 400.",
            published="smaller",
            holds=("<", 0.15),
            source="Murata and Suzuki (2023), sec. 4",
        ),
        Claim(
            id="estimate-rate",
            text="The ratio falls as 1 / sqrt(R): the largest ratio times sqrt(R) over the "
            "smallest, R from 100 to 6400 with T = sqrt(R).",
            published="1 / sqrt(R)",
            holds=("<=", 1.25),
            source="Murata and Suzuki (2023), theorem 4.3",
        ),
        _utility("3e4", "27", 10.0),
        _utility("1e5", "105", 10.0),
        _utility("3e5", "127", 10.0),
        _utility("1e6", "127", 10.0),
        _table("small", "4000 rows of 8 numbers, epsilon = 1"),
        _table("wide", "4000 rows of 50 numbers, epsilon = 1"),
        _table("long", "16512 rows of 8 numbers, epsilon = 3, C2 at most 3"),
    ),
    run=_run,
    protocol=(
        "Estimate: 1000 rows of unit norm in 100 dimensions with variances 1 / j, loss r^2 / 2 (1 "
        "+ r^2), L = 1, G = 0.325; exact gradients with the noise of 1e5 records, eta = 1, epsilon "
        "= 3, delta = 1e-5, 3 seeds.\n\n"
        "Chain: sum of 4 (x_{i+1} - x_i^2)^2 + (1 - x_i)^2 / 4, L = 72.5, G = 4.975, exact "
        "gradients with the noise of N records, R = 16384; mean of |gradient|^2 over the last "
        "tenth of the rounds, the best of eta L in {0.1, 0.3, 1} for DP-GD and of T in {128, 512}, "
        "eta L in {0.3, 1} for DIFF2. What the guard of stability refuses does not count.\n\n"
        "Tables: normal rows, a smooth target with noise, one hidden layer of 10 with softplus, "
        "squared loss, all of the data in every round. Rounds, steps, periods and clips from the "
        "same 16 random settings for both; the best one again with three other seeds. Choosing a "
        "setting by the private data is a query that is not accounted for, here as in the paper. "
        "The paper's tables are not used. A quick run has one seed, one N and no tables."
    ),
    caption=(
        "Error of the private estimate of the gradient against the number of rounds; squared "
        "gradient on the chain against the number of records; train loss on small tables."
    ),
)
