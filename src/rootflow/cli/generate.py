"""`rootflow generate`: trains a diffusion model of handwritten digits and samples it."""

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options import AsJson, Quiet, tell
from .streams import folder, plain, refuse

if TYPE_CHECKING:
    from ..generative.digits import Recipe

SAMPLERS = (
    "dpm++", "ddim", "ddpm", "unipc", "deis", "heun", "bdia", "probability-flow", "reverse-sde",
    "predictor-corrector",
)  # fmt: skip
_STEPS = 20


def generate(
    network: Annotated[str, typer.Option(help="The network: mlp or unet.")] = "mlp",
    schedule: Annotated[
        str,
        typer.Option(help="The noise schedule: vp-linear, vp-cosine, rectified-flow or edm."),
    ] = "vp-linear",
    predicts: Annotated[
        str | None,
        typer.Option(
            help="What the network predicts: noise, data, velocity or flow. Default: by schedule.",
            show_default=False,
        ),
    ] = None,
    train_steps: Annotated[
        int | None,
        typer.Option(
            min=1, help="Steps of training. Default: 8000 (mlp), 2000 (unet).", show_default=False
        ),
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option(help="Sample this model (model.npz) and train none.", show_default=False),
    ] = None,
    sampler: Annotated[str, typer.Option(help=f"The sampler: {', '.join(SAMPLERS)}.")] = "dpm++",
    steps: Annotated[
        int | None,
        typer.Option(min=1, help=f"Steps of the sampler. Default: {_STEPS}.", show_default=False),
    ] = None,
    guidance: Annotated[
        float, typer.Option(help="Scale of classifier-free guidance; 1 is without.")
    ] = 1.5,
    classes: Annotated[
        str | None,
        typer.Option(help="Digits to draw, such as 3,8. Default: all ten.", show_default=False),
    ] = None,
    count: Annotated[int, typer.Option(min=1, help="Pictures of each digit.")] = 10,
    seed: Annotated[int, typer.Option(min=0, help="Seed of training and samples.")] = 0,
    out: Annotated[Path, typer.Option(help="The folder for the results.")] = Path(
        "rootflow-generate"
    ),
    quick: Annotated[
        bool, typer.Option("--quick", help="A small network, trained for seconds: a trial.")
    ] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Train a diffusion model of handwritten digits and draw a sheet of samples.

    Writes samples.png, samples.npz, model.npz and record.json to --out. An interrupted training
    goes on where it was when the same command is run again. Exit code 1: the samples could not be
    drawn or written. 2: an option cannot be used, and nothing is written.
    """
    from ..errors import InputError, RootflowError, SolveError

    try:
        wanted = _digits(classes)
        if sampler not in SAMPLERS:
            raise InputError(f"--sampler {sampler} is not known; use {', '.join(SAMPLERS)}.")
        if sampler == "probability-flow" and steps is not None:
            raise InputError(
                f"--sampler probability-flow chooses its own steps: leave out --steps {steps}."
            )
        if model is not None and (train_steps is not None or quick):
            raise InputError("--model is sampled as it is: leave out --train-steps and --quick.")
        if model is not None and (network, schedule, predicts) != ("mlp", "vp-linear", None):
            raise InputError(
                "--model knows its network and schedule: leave out --network, --schedule and "
                "--predicts."
            )
        record = _run(
            network, schedule, predicts, train_steps, model, sampler, steps, guidance, wanted,
            count, seed, out, quick, shown=not (quiet or as_json),
        )  # fmt: skip
    except SolveError as error:
        refuse(f"{error} A trained model is kept in --out: the same command goes on from it.", 1)
    except RootflowError as error:
        refuse(str(error))
    except OSError as error:
        refuse(
            f"{out}: the results cannot be written ({error.strerror or error}). The same command "
            "goes on from what is there.",
            code=1,
        )
    except KeyboardInterrupt:
        typer.echo("Interrupted. Run the same command to go on with the training.", err=True)
        raise typer.Exit(130) from None
    tell(record, lambda: _print(record, out), as_json=as_json, quiet=quiet)


def _digits(classes: str | None) -> list[int]:
    from ..errors import InputError

    if classes is None:
        return list(range(10))
    parts = [part.strip() for part in classes.split(",")]
    if not all(len(part) == 1 and part in "0123456789" for part in parts):
        raise InputError(f"--classes {classes} must be digits with commas between, such as 3,8.")
    return [int(part) for part in parts]


def _run(
    network: str,
    schedule: str,
    predicts: str | None,
    train_steps: int | None,
    model: Path | None,
    sampler: str,
    steps: int | None,
    guidance: float,
    wanted: list[int],
    count: int,
    seed: int,
    out: Path,
    quick: bool,
    *,
    shown: bool,
) -> dict[str, Any]:
    import equinox as eqx
    import jax
    import jax.numpy as jnp
    import numpy as np

    from .. import _atomic
    from .. import generative as gen
    from ..errors import InputError
    from ..generative import digits

    training: dict[str, Any] = {}
    if not np.isfinite(guidance):
        raise InputError(f"--guidance {guidance} must be a finite number.")
    if model is not None:
        recipe, trained = digits.load_model(model)
    else:
        recipe = _recipe(network, schedule, predicts, quick)
    chosen, options = _sampler(gen, sampler, steps)
    labels = jnp.repeat(jnp.asarray(wanted), count)

    def drawn(model: Any, key: Any) -> Any:
        return gen.sample(
            recipe.denoiser(model, guidance), labels, shape=(len(labels), *digits.SHAPE), key=key,
            sampler=chosen, full=True, **options,
        )  # fmt: skip

    key_train, key_sample = jax.random.split(jax.random.key(seed))
    # A sampler that does not go with the schedule or the steps is told before the training.
    described = eqx.filter_eval_shape(recipe.model, key_train)
    eqx.filter_eval_shape(lambda model, key: drawn(model, key).value, described, key_sample)
    folder(out)
    if model is None:
        train_steps = _usual_steps(network, quick) if train_steps is None else train_steps
        trained, training = _train(recipe, train_steps, key_train, out, shown)
    start = time.perf_counter()
    found = drawn(trained, key_sample)
    images = np.asarray(found.value)
    digits.save_grid(out / "samples.png", images, count)
    record = {
        "network": recipe.network,
        "schedule": recipe.schedule,
        "predicts": recipe.predicts,
        **training,
        "sampler": sampler,
        "evaluations": int(found.evaluations),
        "guidance": guidance,
        "classes": wanted,
        "count": count,
        "seed": seed,
        "sampling_seconds": round(time.perf_counter() - start, 3),
        "files": ["samples.png", "samples.npz", "record.json"],
    }
    _atomic.write_bytes(out / "samples.npz", _npz(images, np.asarray(labels)))
    if model is None:
        digits.save_model(out / "model.npz", recipe, trained)
        record["files"].append("model.npz")
        (out / "checkpoint.npz").unlink(missing_ok=True)
    text = json.dumps(record, indent=2, allow_nan=False) + "\n"
    _atomic.write_bytes(out / "record.json", text.encode())
    return record


def _recipe(network: str, schedule: str, predicts: str | None, quick: bool) -> "Recipe":
    from ..generative import digits

    width = {"mlp": 96, "unet": 8}.get(network) if quick else None
    return digits.Recipe(network, schedule, predicts, width)  # pyright: ignore[reportArgumentType]


def _usual_steps(network: str, quick: bool) -> int:
    """Steps of training where none are asked for."""
    return {"mlp": 8000, "unet": 2000}[network] // (5 if quick else 1)


def _npz(images: Any, classes: Any) -> bytes:
    import io

    import numpy as np

    buffer = io.BytesIO()
    np.savez(buffer, images=images, classes=classes)
    return buffer.getvalue()


def _sampler(gen: Any, name: str, steps: int | None) -> tuple[Any, dict[str, Any]]:
    """The sampler, and the options of `sample` that go with it."""
    count = _STEPS if steps is None else steps
    if name == "probability-flow":
        return gen.ProbabilityFlow(), {}
    if name == "reverse-sde":
        return gen.ReverseSDE(steps=count), {}
    made = {
        "dpm++": gen.DPMSolverPlusPlus(),
        "ddim": gen.DDIM(),
        "ddpm": gen.DDPM(),
        "unipc": gen.UniPC(),
        "deis": gen.DEIS(),
        "heun": gen.EDMSampler(),
        "bdia": gen.BDIA(0.5),
        "predictor-corrector": gen.PredictorCorrector(),
    }[name]
    return made, {"steps": count}


def _train(
    recipe: "Recipe", steps: int, key: Any, out: Path, shown: bool
) -> tuple[Any, dict[str, Any]]:
    from ..generative import digits

    trained = digits.train_digits(
        recipe, steps, key=key, checkpoint=out / "checkpoint.npz",
        progress=None if shown else False,
    )  # fmt: skip
    history = trained.history
    seconds = float(history["seconds"][-1])
    loss = float(history["loss"][-1])
    return trained.ema, {
        "train_steps": trained.steps,
        "loss": round(loss, 5),
        "training_seconds": round(seconds, 2),
    }


def _print(record: dict[str, Any], out: Path) -> None:
    from rich.console import Console

    console = Console()
    if "loss" in record:
        console.print(
            f"Trained {record['network']}, {record['schedule']}, predicting {record['predicts']}: "
            f"{record['train_steps']} steps in {record['training_seconds']:.0f} s, loss "
            f"{record['loss']:.4f}.",
            highlight=False,
        )
    console.print(
        f"Sampled {len(record['classes']) * record['count']} pictures with {record['sampler']}, "
        f"{record['evaluations']} evaluations, guidance {record['guidance']:g}.",
        highlight=False,
    )
    text = plain(f"Samples: {out / 'samples.png'}")
    console.print(text, soft_wrap=True, highlight=False, markup=False)
