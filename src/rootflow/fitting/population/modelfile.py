"""The tables `[random]` and `[population]` of a model file."""

from typing import TYPE_CHECKING, Any

from .effects import Population, RandomEffect

if TYPE_CHECKING:
    from ..modelfile import Reader

_EFFECT_KEYS = ("sd", "distribution", "fixed")
_POPULATION_KEYS = (
    "approximation", "method", "iterations", "chains", "correlated", "omega", "combined",
)  # fmt: skip


def random_of(reader: "Reader") -> Population | None:
    """The population that a model file describes; `None` without a table `[random]`.

    Raises:
        InputError: anything that cannot be used, with the place in the file.
    """
    table, options = reader.table("random"), reader.table("population")
    if not table:
        if "random" in reader.content:
            raise reader.error("random", "is empty; name what varies, as in 'ka = { sd = 0.5 }'.")
        if options:
            raise reader.error(
                "population", "is about random effects, but there is no table [random]; add it."
            )
        return None
    reader.known("population", options, _POPULATION_KEYS)
    for name in ("approximation", "method"):
        if name in options:
            reader.typed(f"population.{name}", options[name], str, "a text")
    effects = {name: _effect(reader, f"random.{name}", value) for name, value in table.items()}
    key = next((f"population.{name}" for name in ("omega", "correlated", "iterations", "chains")
                if name in options), "")  # fmt: skip
    return reader.made(key or "random", lambda: Population(effects, **options))


def _effect(reader: "Reader", key: str, value: Any) -> RandomEffect:
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = {"sd": value}
    if not isinstance(value, dict):
        raise reader.error(
            key, f"is {value!r:.60}; write {{ sd = 0.5 }}, or the standard deviation alone."
        )
    reader.known(key, value, _EFFECT_KEYS)
    given: dict[str, Any] = dict(value)
    if "sd" in given:
        given["sd"] = reader.number(f"{key}.sd", given["sd"])
    if "distribution" in given:
        reader.typed(f"{key}.distribution", given["distribution"], str, "a text")
    if "fixed" in given:
        reader.typed(f"{key}.fixed", given["fixed"], bool, "true or false")
    return reader.made(key, lambda: RandomEffect(**given))
