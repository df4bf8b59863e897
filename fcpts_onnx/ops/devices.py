"""TWIN: values of two devices that meet."""

from __future__ import annotations

from torch import Tensor

__all__ = ["together"]


def together(*values: Tensor) -> tuple[Tensor, ...]:
    """Values on one device.

    What is made of shapes alone is on the processor until it meets what is made of inputs. Single
    numbers stay there: torch takes them with any device.
    """
    away = next((value.device for value in values if value.device.type != "cpu"), None)
    if away is None:
        return values
    return tuple(value.to(away, non_blocking=True) if value.ndim else value for value in values)
