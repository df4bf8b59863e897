"""LEARN: what the method asks of whatever runs the graph."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from torch import Tensor, nn

__all__ = ["Network"]


class Network(Protocol):
    """What runs the graph and gives gradients: the twin, or an engine in its place.

    Attributes:
        learned: what may change, by its ONNX name.
    """

    learned: dict[str, nn.Parameter]

    def constant(self, name: str) -> Tensor:
        """The value of a constant float tensor that the graph reads."""

    def __call__(
        self, inputs: Mapping[str, Tensor], replaced: Mapping[str, Tensor], /
    ) -> dict[str, Tensor]:
        """The outputs by name, with other tensors for some of those learned."""
