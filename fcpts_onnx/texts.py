"""SHOW: results as text: JSON, and figures in words."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = [
    "dense_time",
    "in_aim",
    "in_bytes",
    "in_share",
    "in_words",
    "one_line",
    "printable",
    "shortened",
    "to_json",
]


def printable(text: str) -> str:
    """A text with what steers a terminal, or turns its direction, written as an escape.

    Names come from files that may be anybody's. Only line breaks stay.
    """
    return "".join(
        character if character.isprintable() or character == "\n" else repr(character)[1:-1]
        for character in text
    )


def one_line(text: str) -> str:
    """As `printable`, line breaks too."""
    return printable(text).replace("\n", "\\n")


def shortened(message: object, most: int = 400) -> str:
    """The beginning of a long message by others, on one line."""
    line = " ".join(str(message).split())
    return line if len(line) <= most else line[:most] + " ..."


def in_words(scores: Mapping[str, float]) -> str:
    """Scores by name, as in a sentence."""
    return ", ".join(f"{name} {score:.2%}" for name, score in scores.items())


def in_share(share: float) -> str:
    """A share that was asked for, with as many digits as that has."""
    return f"{100 * share:.12g}%"


def in_bytes(count: int) -> str:
    """A size, in the unit that suits it."""
    size, units = float(count), iter(("bytes", "KB", "MB", "GB"))
    unit = next(units)
    while size >= 1000 and unit != "GB":
        size, unit = size / 1000, next(units)
    return f"{size:.4g} {unit}"


def in_aim(objective: str, goal: float | None, target: float) -> str:
    """What was asked for, and what share of zeros that takes."""
    if objective == "sparsity" or goal is None:
        return f"{100 * target:.6g}%"
    saved = {"latency": "of the layers' time saved", "size": "of the size saved"}[objective]
    return f"{goal:.4g} {saved}, which takes {100 * target:.6g}% zeros"


def dense_time(known: int, layers: int) -> str:
    """What an estimated share of time is of."""
    return "the dense network's time" + (
        f" in {known} of {layers} layers" if known < layers else ""
    )


def to_json(result: Any) -> str:
    """A result as JSON text, derived figures included."""
    return json.dumps(_plain(result), indent=2, allow_nan=False) + "\n"


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(entry) for entry in value]
    if hasattr(value, "__dataclass_fields__"):
        derived = {
            name: getattr(value, name)
            for kind in type(value).__mro__
            for name, member in vars(kind).items()
            if isinstance(member, property)
        }
        shallow = {
            name: getattr(value, name)
            for name, field in value.__dataclass_fields__.items()
            if field.metadata.get("json", True)
        }
        return _plain(shallow | derived)
    return value
