"""FIND: which of the weights the user leaves to prune."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from fcpts_onnx.along import learned_along
from fcpts_onnx.errors import TargetError
from fcpts_onnx.model import Model
from fcpts_onnx.weights import Weight, find_weights, is_named

__all__ = ["is_choice", "select"]


def select(
    model: Model,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    keep_dense: Sequence[str] = (),
) -> list[Weight]:
    """The weights of a model, with those that the user leaves out marked as excluded.

    Args:
        include: globs on the initializer's or a node's name; only what matches one is pruned.
        exclude: globs; what matches one is not pruned. One may name a bias or a norm as well, which
            is not trained with the weights then.
        keep_dense: "first" and "last", of the candidates that are left.

    Raises:
        TargetError: a glob matches nothing, a place is neither first nor last, or a text stands
            where a list of them is expected.
    """
    for name, given in (("include", include), ("exclude", exclude), ("keep_dense", keep_dense)):
        if isinstance(given, str):
            raise TargetError(f"{name} is {given!r}; expected a list of such, [{given!r}].")
    if unknown := [place for place in keep_dense if place not in ("first", "last")]:
        raise TargetError(f"keep_dense has {', '.join(unknown)}; expected first or last.")
    weights = find_weights(model)
    _check_named("--include", [p for p in include if not _some(weights, p)])
    left = [pattern for pattern in exclude if not _some(weights, pattern)]
    _check_named("--exclude", [p for p in left if not _is_along(model, weights, p)])
    chosen = [_leave_out(weight, include, exclude) for weight in weights]
    places = [index for index, weight in enumerate(chosen) if weight.excluded is None]
    for place, index in (("first", places[:1]), ("last", places[-1:])):
        if place in keep_dense and index:
            chosen[index[0]] = replace(chosen[index[0]], excluded=f"--keep-dense {place}")
    return chosen


def is_choice(weight: Weight) -> bool:
    """Whether a weight is left out because the user said so."""
    return (weight.excluded or "").startswith(("--", "not named by --"))


def _check_named(option: str, bad: Sequence[str]) -> None:
    if bad:
        raise TargetError(
            f"{option} {bad[0]!r} matches no weight and no node of one. "
            "'fcpts-onnx inspect' lists the weights."
        )


def _some(weights: Sequence[Weight], pattern: str) -> bool:
    return any(_matches(weight, pattern) for weight in weights)


def _is_along(model: Model, weights: Sequence[Weight], pattern: str) -> bool:
    """Whether a glob keeps a bias or a norm from being trained."""
    return learned_along(model, weights, [pattern]) != learned_along(model, weights)


def _matches(weight: Weight, pattern: str) -> bool:
    return is_named(pattern, weight.name, *weight.nodes)


def _leave_out(weight: Weight, include: Sequence[str], exclude: Sequence[str]) -> Weight:
    if weight.excluded is not None:
        return weight
    for pattern in exclude:
        if _matches(weight, pattern):
            return replace(weight, excluded=f"--exclude {pattern}")
    if include and not any(_matches(weight, pattern) for pattern in include):
        return replace(weight, excluded="not named by --include")
    return weight
