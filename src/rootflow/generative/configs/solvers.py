"""The solvers in log_snr: DPM-Solver, its single-step form, UniPC and DEIS, and that for EDM."""

from typing import Any

import numpy as np

from ...errors import InputError
from ..discrete import DiscreteBetas
from ..samplers.deis import DEIS
from ..samplers.dpm_solver import DPMSolver, fast_orders
from ..samplers.dpm_solver_pp import DPMSolverPlusPlus
from ..samplers.unipc import UniPC
from ..schedules import RectifiedFlow
from ..spacings import shifted
from . import levels
from .classes import (
    PREDICTIONS,
    Asked,
    edm,
    ended,
    in_table,
    predicts,
    refuse_flow_options,
    refuse_variance,
    threshold_of,
)
from .reading import Config
from .setup import DiffusersScheduler, Labels

FEW = 15  # below so many steps the last ones there are of lower order

# Names of other schedulers stand for the default, as they are left over in files.
_RULES = {"midpoint": "midpoint", "heun": "taylor", "logrho": "midpoint", "bh1": "midpoint",
          "bh2": "midpoint"}  # fmt: skip
_VARIANTS = {"bh1": "bh1", "bh2": "bh2", "midpoint": "bh2", "heun": "bh2", "logrho": "bh2"}
_FORMS = {"dpmsolver++": ("data", 0.0), "sde-dpmsolver++": ("data", 1.0), "deis": ("data", 0.0),
          "dpmsolver": ("noise", 0.0), "sde-dpmsolver": ("noise", 1.0)}  # fmt: skip


def _flow_kinds(config: Config, kind: str | None) -> dict[Any, str]:
    """What networks predict on a table, and on straight paths."""
    if kind in ("flow", "karras_flow"):
        return {"flow_prediction": "flow", "epsilon": "noise", "sample": "data"}
    if config["prediction_type"] == "flow_prediction":
        config.refuse("prediction_type", "is for straight paths: add use_flow_sigmas=True.")
    return {**PREDICTIONS}


def _shift(config: Config, asked: Asked, kind: str | None) -> float:
    if kind in ("flow", "karras_flow"):
        return levels.flow_shift(config, "flow_shift", asked.mu, asked.tokens)
    refuse_flow_options(config, asked, "mu", "tokens")
    if config["use_dynamic_shifting"]:
        config.refuse("use_dynamic_shifting", "is for straight paths: add use_flow_sigmas=True.")
    return 1.0


def _grid(
    config: Config, asked: Asked, kind: str | None, whole: dict[str, str]
) -> tuple[Any, np.ndarray, Labels, float]:
    """Schedule, times but the last, labels, and the time of the first step of the table.

    Args:
        config: the file.
        asked: what else is asked for.
        kind: of the noise levels.
        whole: for each kind how labels between two steps become whole.
    """
    steps, count = asked.steps, config["num_train_timesteps"]
    shift = _shift(config, asked, kind)
    table = levels.betas(config)
    if "rescale_betas_zero_snr" in config.values:
        table = levels.rescaled(config, table, whole=False)
    of_table = DiscreteBetas(table, between="log_alpha" if kind is None else "log_sigma")
    rho = np.sqrt(np.expm1(-2 * of_table.log_alphas[1:]))
    if kind == "flow":
        flow = RectifiedFlow()
        times = levels.solver_flow_times(config, shift, steps)
        return flow, times, Labels(flow, count, "flow", "cut"), float(rho[0])
    if kind is None:
        used = None
        if "lambda_min_clipped" in config.values:
            used = levels.usable(config, of_table)
        times = of_table.time(levels.spaced(config, steps, "next", used))
        return of_table, times, Labels(of_table, count, "table"), of_table.end
    wanted = levels.of_kind(config, kind, rho[-1], rho[0], steps)
    told = Labels(of_table, count, "table", whole[kind])  # pyright: ignore[reportArgumentType]
    return of_table, in_table(config, of_table, wanted), told, of_table.end


def _multistep(
    config: Config, steps: int, left_out: bool, lands: bool, dropping: bool
) -> tuple[int, bool]:
    """The order, and whether the last steps are of lower order.

    Args:
        config: the file.
        steps: of the loop there.
        left_out: whether the last of them, of no size, is left out.
        lands: whether it ends on clean data.
        dropping: whether the last step alone is always of order 1.
    """
    order = config["solver_order"]
    lower = config["lower_order_final"] and steps < FEW
    if (left_out and lower) or (dropping and not (lower or lands or left_out)):
        if order > 2:
            raise InputError(
                f"{config.where}: with solver_order=3 and steps={steps} {config.name} lowers the "
                "order of one of the last two steps alone, which no sampler does here: use "
                f"solver_order=2, or at least {FEW} steps with euler_at_final=False."
            )
        lower = not left_out
    return min(order, steps - left_out), lower


def dpm_multistep(config: Config, asked: Asked) -> DiffusersScheduler:
    """DPM-Solver and DPM-Solver++ that remember."""
    refuse_flow_options(config, asked, "eta", "sigmas")
    kind = levels.kind_of(config)
    cosine = config["beta_schedule"] == "squaredcos_cap_v2" and config["trained_betas"] is None
    rounds = "cut" if cosine else "round"
    whole = {"karras": rounds, "lu": rounds, "exponential": "cut", "beta": "cut"}
    schedule, times, time, first = _grid(config, asked, kind, whole)
    form, eta = config.among("algorithm_type", {**_FORMS})
    refuse_variance(config)
    last = config.among("final_sigmas_type", {"zero": 0.0, "sigma_min": first})
    _check_form(config, form, last)
    grid = ended(config, times, last)
    left_out = len(grid) == asked.steps
    order, lower = _multistep(config, asked.steps, left_out, not last, config["euler_at_final"])
    _check_order(config, order, eta)
    rule = config.among("solver_type", {**_RULES})
    sampler = DPMSolverPlusPlus(order, eta, rule, lower_order_final=lower, form=form)
    return DiffusersScheduler(
        config.name, schedule, predicts(config, _flow_kinds(config, kind)), sampler, grid, time,
        threshold=threshold_of(config),
    )  # fmt: skip


def _check_form(config: Config, form: str, last: float) -> None:
    if form == "noise" and not last:
        config.refuse(
            "algorithm_type", "does not go with final_sigmas_type='zero', nor there: 'sigma_min'."
        )


def _check_order(config: Config, order: int, eta: float) -> None:
    if order == 3 and eta:
        config.refuse(
            "solver_order",
            f"with algorithm_type={config['algorithm_type']!r} weighs the curvature with the wrong "
            "sign, or stops: use 2, or gen.DPMSolverPlusPlus(3, eta=1), which is right.",
        )


def dpm_singlestep(config: Config, asked: Asked) -> DiffusersScheduler:
    """DPM-Solver and DPM-Solver++ in single steps over the evaluations on the grid."""
    refuse_flow_options(config, asked, "eta", "sigmas")
    kind = levels.kind_of(config)
    whole = {"karras": "round", "exponential": "cut", "beta": "cut"}
    schedule, times, time, first = _grid(config, asked, kind, whole)
    form, eta = config.among("algorithm_type", {**_FORMS})
    if eta:
        config.refuse("algorithm_type", "in single steps is not here: use 'dpmsolver++'.")
    refuse_variance(config)
    last = config.among("final_sigmas_type", {"zero": 0.0, "sigma_min": first})
    _check_form(config, form, last)
    grid = times if not last else ended(config, times, last)
    if last and len(grid) == asked.steps:
        config.refuse("final_sigmas_type", "makes a last step of no size: use 'zero'.")
    order, steps = config["solver_order"], asked.steps
    rule = config.among("solver_type", {**_RULES})
    if order == 3 and rule == "midpoint":
        config.refuse(
            "solver_type",
            "with solver_order=3 takes its second stage by another formula than the method has: "
            "use 'heun', or solver_order=2.",
        )
    wanted = _orders(order, steps, config["lower_order_final"], not last)
    have = (*fast_orders(order, steps - 1), 1) if not last else fast_orders(order, steps)
    if steps < 2 or wanted != have:
        raise InputError(
            f"{config.where}: {config.name} takes steps={steps} with lower_order_final="
            f"{config['lower_order_final']} in steps of order {wanted}, and here they would be "
            f"{have}: take {steps + 1} steps."
        )
    rule = {"midpoint": "standard", "taylor": "taylor"}[rule]
    return DiffusersScheduler(
        config.name, schedule, predicts(config, _flow_kinds(config, kind)),
        DPMSolver(order, rule=rule, form=form), grid, time,  # pyright: ignore[reportArgumentType]
        denoise=not last, evaluations=steps, threshold=threshold_of(config),
    )  # fmt: skip


def _orders(order: int, steps: int, lower: bool, lands: bool) -> tuple[int, ...]:
    """The orders of the steps as they are there, where each costs as many evaluations."""
    whole, rest = divmod(steps, order)
    if lower or rest or lands:
        tails = {
            1: {0: (1,)}, 2: {0: (1, 1), 1: (1,)}, 3: {0: (2, 1), 1: (1,), 2: (2,)}
        }[order]  # fmt: skip
        found = (order,) * (whole - (rest == 0)) + tails[rest]
    else:
        found = (order,) * whole
    if lands and found[-1] > 1:  # the last evaluation is a step of its own
        found = (*found[:-1], *([found[-1] - 1] if found[-1] > 1 else []), 1)
    return found


def unipc(config: Config, asked: Asked) -> DiffusersScheduler:
    """UniPC on the data."""
    refuse_flow_options(config, asked, "eta")
    kind = levels.kind_of(config, karras_flow=True)
    if asked.sigmas is not None and kind != "flow":
        refuse_flow_options(config, asked, "sigmas")
    if kind in ("flow", "karras_flow"):
        schedule, first = RectifiedFlow(), 0.0
        times = _unipc_times(config, asked, kind)
        time = Labels(schedule, config["num_train_timesteps"], "flow", "cut")
    else:
        whole = {"karras": "round", "exponential": "cut", "beta": "cut"}
        schedule, times, time, first = _grid(config, asked, kind, whole)
    if config["shift_terminal"] is not None and kind != "flow":
        config.refuse("shift_terminal", "is for straight paths: add use_flow_sigmas=True.")
    last = config.among("final_sigmas_type", {"zero": 0.0, "sigma_min": first})
    if kind is not None and config["final_sigmas_type"] != "zero":
        config.refuse(
            "final_sigmas_type",
            "makes a last step of no size, after which the samples are corrected once more: use "
            "'zero'.",
        )
    variant = config.among("solver_type", {**_VARIANTS})
    order = min(config["solver_order"], asked.steps)
    sampler = UniPC(order, variant, lower_order_final=config["lower_order_final"])
    return DiffusersScheduler(
        config.name, schedule, predicts(config, _flow_kinds(config, kind)), sampler,
        ended(config, times, last), time, threshold=threshold_of(config),
    )  # fmt: skip


def _unipc_times(config: Config, asked: Asked, kind: str) -> np.ndarray:
    steps, count = asked.steps, config["num_train_timesteps"]
    shift = levels.flow_shift(config, "flow_shift", asked.mu, asked.tokens)
    if kind == "karras_flow":
        # Noise levels of the table stand for sigma / alpha of the flow.
        rho = np.sqrt(np.expm1(-2 * DiscreteBetas(levels.betas(config)).log_alphas[[-1, 1]]))
        wanted = levels.of_kind(config, kind, rho[0], rho[1], steps)
        return wanted / (1 + wanted)
    if asked.sigmas is not None:
        times = levels.given_sigmas(asked.sigmas, steps)
    else:
        times = np.linspace(1, 1 / count, steps + 1)[:-1]
    times = levels.to_terminal(config, shifted(times, shift))
    # As there: a little signal at the start.
    times[0] -= 1e-6 if abs(times[0] - 1) < 1e-6 else 0.0
    return times


def deis(config: Config, asked: Asked) -> DiffusersScheduler:
    """DEIS with polynomials in log_snr, which ends at the first step of the table."""
    refuse_flow_options(config, asked, "eta", "sigmas")
    kind = levels.kind_of(config)
    whole = {"karras": "round", "exponential": "cut", "beta": "cut"}
    schedule, times, time, first = _grid(config, asked, kind, whole)
    config.among("algorithm_type", dict.fromkeys(("deis", "dpmsolver", "dpmsolver++")))
    config.among("solver_type", dict.fromkeys(("logrho", "midpoint", "heun", "bh1", "bh2")))
    # Noise levels of its own end where the last of them is: the step there has no size.
    left_out = kind is not None
    grid = times if left_out else ended(config, times, first)
    if len(grid) < 2:
        raise InputError(f"{config.where}: one step of {config.name} has no size: take more.")
    order, lower = _multistep(config, asked.steps, left_out, False, False)
    return DiffusersScheduler(
        config.name, schedule, predicts(config, _flow_kinds(config, kind)),
        DEIS(order, "log_snr", lower), grid, time, threshold=threshold_of(config),
    )  # fmt: skip


def edm_dpm(config: Config, asked: Asked) -> DiffusersScheduler:
    """DPM-Solver++ on the noise levels of Karras et al. (2022)."""
    forms = {"dpmsolver++": 0.0, "sde-dpmsolver++": 1.0, "deis": 0.0}
    eta = config.among("algorithm_type", {**forms})
    left_out = config["final_sigmas_type"] == "sigma_min"
    order, lower = _multistep(config, asked.steps, left_out, not left_out, config["euler_at_final"])
    _check_order(config, order, eta)
    rule = config.among("solver_type", {**_RULES})
    sampler = DPMSolverPlusPlus(order, eta, rule, lower_order_final=lower)
    return edm(config, asked, sampler, dropped=True)
