"""The report: one page that needs nothing else, for a phone as for a desk."""

import base64
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING

from .formats import shown

if TYPE_CHECKING:
    from jinja2 import Template


@cache
def template(package: str, name: str = "report.html.jinja") -> "Template":
    """The template of a package, which extends `page.html.jinja`."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader(
            [jinja2.PackageLoader(package, "."), jinja2.PackageLoader("rootflow.reports", ".")]
        ),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["shown"] = shown
    return environment.get_template(name)


def encoded(pictures: Mapping[str, bytes]) -> dict[str, str]:
    """Pictures as text that a page can hold."""
    return {name: base64.b64encode(content).decode("ascii") for name, content in pictures.items()}
