"""TWIN: control flow; the graphs inside a node arrive as functions of their inputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from fcpts_onnx.ops.registry import op

__all__: list[str] = []

Body = Callable[..., tuple[Tensor, ...]]


@op("If", outputs=2**31)
def if_(condition: Tensor, *, then_branch: Body, else_branch: Body) -> tuple[Tensor, ...]:
    return then_branch() if bool(condition) else else_branch()


@op("Loop", outputs=2**31)
def loop(
    trip_count: Tensor | None,
    condition: Tensor | None = None,
    *carried: Tensor,
    body: Body,
    outputs: int,
) -> tuple[Tensor, ...]:
    values = carried
    turns: list[list[Tensor]] = []
    keep = torch.tensor(True) if condition is None else condition
    while bool(keep) and (trip_count is None or len(turns) < int(trip_count)):
        keep, *results = body(torch.tensor(len(turns)), keep, *values)
        values = tuple(results[: len(carried)])
        turns.append(results[len(carried) :])
    collected = [torch.stack(parts) for parts in zip(*turns, strict=True)]
    # Without a single turn nothing tells the shapes of what would have been collected.
    empty = [torch.zeros(0)] * (outputs - len(carried) - len(collected))
    return (*values, *collected, *empty)


@op("Scan", since=9, outputs=2**31)
def scan_9(
    *inputs: Tensor,
    body: Body,
    num_scan_inputs: int,
    scan_input_axes: Sequence[int] | None = None,
    scan_input_directions: Sequence[int] | None = None,
    scan_output_axes: Sequence[int] | None = None,
    scan_output_directions: Sequence[int] | None = None,
) -> tuple[Tensor, ...]:
    states = len(inputs) - num_scan_inputs
    values, scanned = inputs[:states], inputs[states:]
    slices = [
        _directed(x.unbind(axis), backwards)
        for x, axis, backwards in zip(
            scanned,
            scan_input_axes or [0] * num_scan_inputs,
            scan_input_directions or [0] * num_scan_inputs,
            strict=True,
        )
    ]
    turns = []
    for parts in zip(*slices, strict=True):
        results = body(*values, *parts)
        values = results[:states]
        turns.append(results[states:])
    collected = list(zip(*turns, strict=True))
    return (
        *values,
        *(
            torch.stack(_directed(parts, backwards), axis)
            for parts, axis, backwards in zip(
                collected,
                scan_output_axes or [0] * len(collected),
                scan_output_directions or [0] * len(collected),
                strict=True,
            )
        ),
    )


def _directed(parts: Sequence[Tensor], backwards: int) -> tuple[Tensor, ...]:
    return tuple(reversed(parts)) if backwards else tuple(parts)
