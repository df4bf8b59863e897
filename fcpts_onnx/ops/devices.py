"""TWIN: values of two devices that meet, and of a type that their device is fast in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor

__all__ = ["together", "without_autocast"]


def together(*values: Tensor) -> tuple[Tensor, ...]:
    """Values on one device.

    What is made of shapes alone is on the processor until it meets what is made of inputs. Single
    numbers stay there: torch takes them with any device.
    """
    away = next((value.device for value in values if value.device.type != "cpu"), None)
    if away is None:
        return values
    return tuple(value.to(away, non_blocking=True) if value.ndim else value for value in values)


@contextmanager
def without_autocast(*values: Tensor | None) -> Iterator[bool]:
    """Products of these in their own type; tells whether that is another than it would have been.

    bfloat16 has 8 bits: too few for the place of a pixel, or for the angle of a late token.
    """
    kinds = {value.device.type for value in values if value is not None}
    known = filter(torch.amp.is_autocast_available, kinds)
    halved = [kind for kind in known if torch.is_autocast_enabled(kind)]
    with ExitStack() as stack:
        for kind in halved:
            stack.enter_context(torch.autocast(kind, enabled=False))
        yield bool(halved)
