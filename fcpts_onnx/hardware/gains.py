"""DEPLOY: zeros where an engine makes time of them, from how long each layer was seen to take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fcpts_onnx.weights import Weight

__all__ = ["Times", "gains_from", "least_zeros", "zeros_for_time"]

_WORTH = 0.95  # of the dense layer's time: a smaller gain is chance
_LEAST = 0.005  # of the time of all layers together, that a layer has to take to be looked at

Times = Mapping[float, float]
"""Milliseconds of a layer by share of zeros; at 0.0 it is dense."""


def gains_from(times: Times) -> float | None:
    """The share of zeros from which on a layer is faster than dense; None if it never is."""
    gain = None
    for share in sorted(times, reverse=True):
        if not share or times[share] >= _WORTH * times[0.0]:
            break
        gain = share
    return gain


def least_zeros(
    times: Mapping[str, Times], weights: Sequence[Weight], target: float
) -> dict[str, int]:
    """Zeros that layers need for the engine to run them faster, as far as the target goes.

    Layers that save most time a zero come first. None is asked for more than half of what the
    target leaves: so much in one layer would cost accuracy out of proportion.
    """
    left = target * sum(weight.count for weight in weights) - sum(w.zeros for w in weights)
    least = _LEAST * sum(layer[0.0] for layer in times.values())
    wanted = {}
    for weight in weights:
        layer = times.get(weight.name)
        share = None if layer is None or layer[0.0] < least else gains_from(layer)
        if share is not None and share <= (1 + target) / 2:
            zeros = round(share * weight.count)
            saved = times[weight.name][0.0] - times[weight.name][share]
            if zeros > weight.zeros:
                wanted[weight.name] = (saved / zeros, zeros, zeros - weight.zeros)
    found = {}
    for name, (_, zeros, more) in sorted(wanted.items(), key=lambda entry: -entry[1][0]):
        if more <= left:
            found[name] = zeros
            left -= more
    return found


def zeros_for_time(
    times: Mapping[str, Times],
    weights: Sequence[Weight],
    most: Mapping[str, int],
    target: float,
) -> tuple[dict[str, int], float]:
    """Zeros by layer that save a share of the time of all layers, in each about as many.

    No layer gets a larger share than is needed, as accuracy falls off steeply at the end; and
    none gets zeros that save no time, but for those that are there. On the last step those that
    save most a zero come first.

    Args:
        most: zeros that a layer may have, by weight.
        target: share of time to save, 0 to 1.

    Returns:
        The zeros, and the share of time that they save: all they can where the target is beyond.
    """
    dense = sum(layer[0.0] for layer in times.values())
    steps = sorted({share for layer in times.values() for share in layer})
    counts = {weight.name: weight.count for weight in weights if weight.name in times}
    chosen = {
        weight.name: max(s for s in times[weight.name] if s * weight.count <= weight.zeros)
        for weight in weights
        if weight.name in times
    }
    saved = dense - sum(times[name][share] for name, share in chosen.items())
    for step in steps:
        better = []
        for name, count in counts.items():
            layer = times[name]
            gain = gains_from(layer)
            is_worth = gain is not None and gain <= step and step in layer
            if not is_worth or not chosen[name] < step <= most[name] / count:
                continue
            more = layer[chosen[name]] - layer[step]
            if more > 0:
                better.append((more / (step - chosen[name]) / count, more, name))
        for _, more, name in sorted(better, reverse=True):
            if saved >= target * dense:
                break
            chosen[name] = step
            saved += more
    zeros = {name: round(share * counts[name]) for name, share in chosen.items() if share}
    share = saved / dense if dense else 0.0
    return zeros, max(share, target) if saved >= target * dense else share
