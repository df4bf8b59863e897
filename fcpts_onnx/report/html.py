"""SHOW: a template of this folder filled in: one HTML file that needs no network."""

from __future__ import annotations

from typing import Any

import jinja2

__all__ = ["rendered"]


def rendered(template: str, **values: Any) -> str:
    """The page of a template, text in the values escaped."""
    loader = jinja2.PackageLoader("fcpts_onnx", "report")
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True)
    return environment.get_template(template).render(**values)
