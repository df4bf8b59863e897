"""RIVALS: rates from a file."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from fcpts_onnx.errors import TargetError
from fcpts_onnx.files import read_text
from fcpts_onnx.sparsity.task import Task

__all__ = ["check_rates", "read_rates", "stored_rates"]


def stored_rates(path: Path) -> Callable[[Task], dict[str, float]]:
    """Zeros by weight from a file of rates, as `read_rates` has them.

    Where their sum misses the target, all give or take in proportion to what they have left.

    Raises:
        TargetError: as `read_rates`.
    """
    rates = read_rates(path)

    def allocate(task: Task) -> dict[str, float]:
        return {weight.name: rates[weight.name] * weight.count for weight in task.weights}

    return allocate


def check_rates(path: Path, names: Collection[str]) -> None:
    """See that a file has a rate for each weight, and for no other.

    Raises:
        TargetError: it has not, or as `read_rates`.
    """
    rates = read_rates(path)
    missing, unknown = sorted({*names} - rates.keys()), sorted(rates.keys() - {*names})
    if missing or unknown:
        lacks = f"has no rate for {', '.join(missing)}: add one for each" if missing else ""
        beyond = f"has rates for {', '.join(unknown)}, not pruned here: remove them"
        parts = [lacks, beyond if unknown else ""]
        raise TargetError(f"{path}: {'; '.join(part for part in parts if part)}.")


def read_rates(path: Path) -> dict[str, float]:
    """Rates by weight from a JSON file of such, or from what `prune --json` wrote.

    Raises:
        TargetError: the file cannot be read, or has a rate that is not between 0 and 1.
    """
    try:
        stored = json.loads(read_text(path))
    except (OSError, ValueError) as error:
        raise TargetError(f"{path}: cannot be read as rates: {error}") from error
    rates = _rates_of(stored)
    if rates is None:
        raise TargetError(
            f'{path}: expected rates by weight, such as {{"conv1.weight": 0.7}}, or what '
            "prune --json wrote."
        )
    if bad := sorted(name for name, rate in rates.items() if not 0 <= rate <= 1):
        raise TargetError(f"{path}: the rate of {', '.join(bad)} is not between 0 and 1.")
    return rates


def _rates_of(stored: Any) -> dict[str, float] | None:
    try:
        if "validation" in stored:
            stored = {entry["name"]: entry["rate"] for entry in stored["validation"]["weights"]}
        return {str(name): float(rate) for name, rate in stored.items()}
    except (TypeError, ValueError, KeyError, AttributeError):
        return None
