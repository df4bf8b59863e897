"""TWIN: recurrent networks, step by step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fcpts_onnx.ops.registry import op

__all__ = ["ACTIVATIONS"]

Activation = Callable[[Tensor], Tensor]
State = tuple[Tensor, ...]
Cell = Callable[[Tensor, State, Tensor, Tensor | None], State]
"""(input times its weights, state, recurrent weights, their bias) -> the state after the step."""

ACTIVATIONS: dict[str, Callable[..., Tensor]] = {
    "Affine": lambda x, alpha, beta: alpha * x + beta,
    "Elu": F.elu,
    "HardSigmoid": lambda x, alpha, beta: (alpha * x + beta).clamp(0, 1),
    "LeakyRelu": F.leaky_relu,
    "Relu": torch.relu,
    "ScaledTanh": lambda x, alpha, beta: alpha * torch.tanh(beta * x),
    "Sigmoid": torch.sigmoid,
    "Softplus": F.softplus,
    "Softsign": F.softsign,
    "Tanh": torch.tanh,
    "ThresholdedRelu": lambda x, alpha: torch.where(x > alpha, x, 0.0),
}
"""Functions of a tensor and of the parameters that they have, alpha before beta."""

# As in onnxruntime; the specification says nothing of those that are zero.
_DEFAULTS: dict[str, tuple[float, ...]] = {
    "affine": (0.0, 0.0),
    "elu": (1.0,),
    "hardsigmoid": (0.2, 0.5),
    "leakyrelu": (0.01,),
    "scaledtanh": (0.0, 0.0),
    "thresholdedrelu": (0.0,),
}
_BY_NAME = {name.lower(): function for name, function in ACTIVATIONS.items()}


@op("RNN", outputs=2)
def rnn(
    x: Tensor,
    w: Tensor,
    r: Tensor,
    b: Tensor | None = None,
    sequence_lens: Tensor | None = None,
    initial_h: Tensor | None = None,
    *,
    activation_alpha: Sequence[float] | None = None,
    activation_beta: Sequence[float] | None = None,
    activations: Sequence[str] | None = None,
    clip: float | None = None,
    direction: str = "forward",
    hidden_size: int | None = None,
    layout: int = 0,
    outputs: int,
) -> list[Tensor]:
    names = activations or ["Tanh"] * len(w)
    functions = _activations(names, activation_alpha, activation_beta, [clip] * len(names))
    cells = [partial(_rnn_cell, function) for function in functions]
    return _run(cells, x, w, r, b, sequence_lens, [initial_h], direction, layout)[:outputs]


@op("GRU", outputs=2)
def gru(
    x: Tensor,
    w: Tensor,
    r: Tensor,
    b: Tensor | None = None,
    sequence_lens: Tensor | None = None,
    initial_h: Tensor | None = None,
    *,
    activation_alpha: Sequence[float] | None = None,
    activation_beta: Sequence[float] | None = None,
    activations: Sequence[str] | None = None,
    clip: float | None = None,
    direction: str = "forward",
    hidden_size: int | None = None,
    layout: int = 0,
    linear_before_reset: int = 0,
    outputs: int,
) -> list[Tensor]:
    names = activations or ["Sigmoid", "Tanh"] * len(w)
    functions = _activations(names, activation_alpha, activation_beta, [clip] * len(names))
    cells = [
        partial(_gru_cell, functions[place : place + 2], bool(linear_before_reset))
        for place in range(0, 2 * len(w), 2)
    ]
    return _run(cells, x, w, r, b, sequence_lens, [initial_h], direction, layout)[:outputs]


@op("LSTM", outputs=3)
def lstm(
    x: Tensor,
    w: Tensor,
    r: Tensor,
    b: Tensor | None = None,
    sequence_lens: Tensor | None = None,
    initial_h: Tensor | None = None,
    initial_c: Tensor | None = None,
    p: Tensor | None = None,
    *,
    activation_alpha: Sequence[float] | None = None,
    activation_beta: Sequence[float] | None = None,
    activations: Sequence[str] | None = None,
    clip: float | None = None,
    direction: str = "forward",
    hidden_size: int | None = None,
    input_forget: int = 0,
    layout: int = 0,
    outputs: int,
) -> list[Tensor]:
    names = activations or ["Sigmoid", "Tanh", "Tanh"] * len(w)
    # onnxruntime clips the gates, and not the cell that the last function is of.
    clips = [clip, clip, None] * len(w)
    functions = _activations(names, activation_alpha, activation_beta, clips)
    cells = [
        partial(
            _lstm_cell,
            functions[3 * place : 3 * place + 3],
            x.new_zeros(3, r.shape[-1]) if p is None else p[place].unflatten(0, (3, -1)),
            bool(input_forget),
        )
        for place in range(len(w))
    ]
    initial = [initial_h, initial_c]
    return _run(cells, x, w, r, b, sequence_lens, initial, direction, layout)[:outputs]


def _rnn_cell(f: Activation, x: Tensor, state: State, r: Tensor, b: Tensor | None) -> State:
    return (f(x + F.linear(state[0], r, b)),)


def _gru_cell(
    functions: Sequence[Activation],
    linear_before_reset: bool,
    x: Tensor,
    state: State,
    r: Tensor,
    b: Tensor | None,
) -> State:
    """Gates z, r, h: update, reset, hidden."""
    (f, g), (hidden,) = functions, state
    size = hidden.shape[-1]
    split = [2 * size, size]
    x_gates, x_new = x.split(split, -1)
    r_gates, r_new = r.split(split)
    b_gates, b_new = (None, None) if b is None else b.split(split)
    update, reset = f(x_gates + F.linear(hidden, r_gates, b_gates)).chunk(2, -1)
    if linear_before_reset:
        new = g(x_new + reset * F.linear(hidden, r_new, b_new))
    else:
        new = g(x_new + F.linear(reset * hidden, r_new, b_new))
    return ((1 - update) * new + update * hidden,)


def _lstm_cell(
    functions: Sequence[Activation],
    peepholes: Tensor,
    input_forget: bool,
    x: Tensor,
    state: State,
    r: Tensor,
    b: Tensor | None,
) -> State:
    """Gates i, o, f, c: input, output, forget, cell; peepholes are of i, o and f."""
    (f, g, h), (hidden, cell) = functions, state
    from_input, from_output, from_forget = peepholes
    enter, leave, forget, new = (x + F.linear(hidden, r, b)).chunk(4, -1)
    enter = f(enter + from_input * cell)
    forget = 1 - enter if input_forget else f(forget + from_forget * cell)
    cell = forget * cell + enter * g(new)
    leave = f(leave + from_output * cell)
    return leave * h(cell), cell


def _activations(
    names: Sequence[str],
    alpha: Sequence[float] | None,
    beta: Sequence[float] | None,
    clips: Sequence[float | None],
) -> list[Activation]:
    """The functions by name; those with parameters take the next of `alpha` and of `beta`."""
    given = (iter(alpha or ()), iter(beta or ()))
    found: list[Activation] = []
    for name, clip in zip(map(str.lower, names), clips, strict=True):
        defaults = _DEFAULTS.get(name, ())
        parameters = [
            next(values, default) for values, default in zip(given, defaults, strict=False)
        ]
        found.append(partial(_activate, _BY_NAME[name], parameters, clip))
    return found


def _activate(
    function: Callable[..., Tensor], parameters: Sequence[Any], clip: float | None, x: Tensor
) -> Tensor:
    return function(x if clip is None else x.clamp(-clip, clip), *parameters)


def _run(
    cells: Sequence[Cell],
    x: Tensor,
    w: Tensor,
    r: Tensor,
    b: Tensor | None,
    lengths: Tensor | None,
    initial: Sequence[Tensor | None],
    direction: str,
    layout: int,
) -> list[Tensor]:
    """Y [time, direction, batch, hidden] and the last of each state [direction, batch, hidden].

    With `layout` 1 the batch comes first, in X and the initial states too.
    """
    if layout:
        x = x.transpose(0, 1)
        initial = [state if state is None else state.transpose(0, 1) for state in initial]
    sequences, last = [], []
    for place, cell in enumerate(cells):
        b_input, b_hidden = (None, None) if b is None else b[place].chunk(2)
        zeros = x.new_zeros(x.shape[1], r.shape[-1])
        state = tuple(zeros if start is None else start[place] for start in initial)
        backward = direction == "reverse" or place == 1
        gates = F.linear(x, w[place], b_input)
        y, state = _unroll(cell, gates, state, r[place], b_hidden, lengths, backward)
        sequences.append(y)
        last.append(state)
    y = torch.stack(sequences, 1)
    states = [torch.stack(state) for state in zip(*last, strict=True)]
    if layout:
        return [y.permute(2, 0, 1, 3), *(state.transpose(0, 1) for state in states)]
    return [y, *states]


def _unroll(
    cell: Cell,
    gates: Tensor,
    state: State,
    r: Tensor,
    b: Tensor | None,
    lengths: Tensor | None,
    backward: bool,
) -> tuple[Tensor, State]:
    """One direction over time; past the end of a sequence its state stays and its output is 0.

    onnxruntime gives 0 as the last state of an empty sequence.
    """
    times = range(len(gates))
    rows = []
    for time in reversed(times) if backward else times:
        new = cell(gates[time], state, r, b)
        row = new[0]
        if lengths is not None:
            runs = (time < lengths.to(gates.device)).unsqueeze(-1)
            new = tuple(
                torch.where(runs, after, before) for after, before in zip(new, state, strict=True)
            )
            row = torch.where(runs, row, 0.0)
        rows.append(row)
        state = new
    if lengths is not None:
        filled = (lengths.to(gates.device) > 0).unsqueeze(-1)
        state = tuple(torch.where(filled, part, 0.0) for part in state)
    return torch.stack(rows[::-1] if backward else rows), state
