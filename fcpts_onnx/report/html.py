"""SHOW: a template of this folder filled in: one HTML file that needs no network."""

from __future__ import annotations

from typing import Any

import jinja2

from fcpts_onnx.texts import printable

__all__ = ["rendered"]


def rendered(template: str, **values: Any) -> str:
    """The page of a template, text in the values escaped."""
    loader = jinja2.PackageLoader("fcpts_onnx", "report")
    environment = jinja2.Environment(
        loader=loader, autoescape=True, finalize=_shown, trim_blocks=True
    )
    return environment.get_template(template).render(**values)


def _shown(value: Any) -> Any:
    """A value as the page has it: texts that are not plots or markup of ours made printable."""
    return printable(value) if type(value) is str else value
