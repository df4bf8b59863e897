"""How the values of options are read, and what of them is checked before any work."""

from __future__ import annotations

import re
from pathlib import Path

import click

from fcpts_onnx.files import check_text
from fcpts_onnx.methods import ALLOCATIONS, LEARNED, METHODS
from fcpts_onnx.recipe import AUGMENTATIONS
from fcpts_onnx.write import check_target

__all__ = [
    "new_file",
    "read_bytes",
    "read_engines",
    "read_losses",
    "read_methods",
    "read_numbers",
    "read_places",
    "read_rule",
    "read_seconds",
    "read_size",
    "read_targets",
    "read_text_target",
    "read_views",
]

_RUNTIMES = {"ort": ("ort",), "mnn": ("mnn", "mnn-sparse")}


def read_numbers(
    _: click.Context, __: click.Parameter, value: str | None
) -> tuple[float, ...] | None:
    if value is None:
        return None
    try:
        return tuple(float(part) for part in value.split(","))
    except ValueError as error:
        raise click.BadParameter("expected numbers with commas, such as 0.5,0.5,0.5") from error


def read_size(_: click.Context, __: click.Parameter, value: str | None) -> tuple[int, int] | None:
    if value is None:
        return None
    parts = value.lower().split("x")
    if len(parts) not in (1, 2) or not all(part.isdecimal() and int(part) for part in parts):
        raise click.BadParameter("expected HEIGHTxWIDTH in pixels, such as 224x224, or one number")
    return int(parts[0]), int(parts[-1])


def read_places(_: click.Context, __: click.Parameter, value: str) -> tuple[str, ...]:
    places = tuple(part.strip() for part in value.split(",") if part.strip())
    if set(places) - {"first", "last"}:
        raise click.BadParameter("expected first, last or first,last")
    return places


def read_views(_: click.Context, __: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    if value is None:
        return None
    kinds = tuple(part.strip() for part in value.split(",") if part.strip() != "none")
    if set(kinds) - set(AUGMENTATIONS):
        raise click.BadParameter(f"expected none, or some of {','.join(AUGMENTATIONS)}")
    return kinds


def read_seconds(_: click.Context, __: click.Parameter, value: str | None) -> float | None:
    if value is None:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", value.strip())
    if found is None or not float(found[1]):
        raise click.BadParameter("expected a time above zero, such as 90s, 5m or 1.5h")
    return float(found[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[found[2]]


def read_bytes(_: click.Context, __: click.Parameter, value: str | None) -> int | None:
    if value is None:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([KMGT])(?:i?B)?", value.strip(), re.IGNORECASE)
    if found is None or not float(found[1]):
        raise click.BadParameter("expected a size above zero, such as 800M or 4G")
    return round(float(found[1]) * 1024 ** (1 + "KMGT".index(found[2].upper())))


def read_losses(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    if any(value.count("=") < 1 for value in values):
        raise click.BadParameter("expected OUTPUT=LOSS, such as scores=kl")
    return dict(value.rsplit("=", 1) for value in values)


def read_rule(_: click.Context, __: click.Parameter, value: str) -> str:
    known = (LEARNED, *ALLOCATIONS)
    if value not in known and not value.endswith(".json"):
        raise click.BadParameter(f"expected {', '.join(known)} or a .json file of rates")
    return value


def read_methods(_: click.Context, __: click.Parameter, value: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(part.strip() for part in value.split(",") if part.strip()))
    if not names or set(names) - METHODS.keys():
        raise click.BadParameter(f"expected some of {', '.join(METHODS)}, with commas")
    return names


def read_targets(_: click.Context, __: click.Parameter, value: str) -> tuple[float, ...]:
    try:
        targets = tuple(dict.fromkeys(float(part) for part in value.split(",")))
    except ValueError as error:
        raise click.BadParameter("expected shares with commas, such as 0.5,0.7,0.9") from error
    if not all(0 < target < 1 for target in targets):
        raise click.BadParameter("expected shares between 0 and 1, such as 0.5,0.7,0.9")
    return targets


def read_text_target(_: click.Context, option: click.Parameter, value: Path | None) -> Path | None:
    """See before any work that the file can be written."""
    if value is not None:
        check_text(value, "HTML" if option.name == "report_file" else "JSON")
    return value


def read_engines(_: click.Context, __: click.Parameter, value: str) -> tuple[str, ...]:
    names = [part.strip() for part in value.split(",") if part.strip()]
    if not names or set(names) - _RUNTIMES.keys():
        raise click.BadParameter(f"expected some of {','.join(_RUNTIMES)}")
    return tuple(dict.fromkeys(engine for name in names for engine in _RUNTIMES[name]))


def new_file(_: click.Context, __: click.Parameter, value: Path | None) -> Path | None:
    """See before any work that a file can be written."""
    if value is not None:
        check_target(value)
    return value
