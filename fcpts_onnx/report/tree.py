"""SHOW: weights as a tree, by the paths in their names or in those of their nodes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from rich.text import Text
from rich.tree import Tree

from fcpts_onnx.texts import one_line
from fcpts_onnx.weights import Weight

__all__ = ["weight_tree"]

Path = tuple[str, ...]

_BETWEEN = re.compile(r"[./]+")  # the parts of a name


def weight_tree(title: str, weights: Sequence[Weight], notes: Mapping[str, str]) -> Tree:
    """A branch a module, with what it has in all; parts that lead to one thing only are joined.

    Args:
        notes: what else is to be said of weights, by name.
    """
    tree = Tree(_text(title))
    _grow(tree, [(_path(weight), weight) for weight in weights], notes)
    return tree


def _path(weight: Weight) -> Path:
    """Where it is in the network; exporters name some weights by a number, but not their nodes."""
    node = weight.nodes[0]
    name = f"{node}.{weight.name}" if "::" in weight.name and "/" in node else weight.name
    return tuple(_BETWEEN.split(name.strip("./")))


def _grow(tree: Tree, weights: Sequence[tuple[Path, Weight]], notes: Mapping[str, str]) -> None:
    branches: dict[str, list[tuple[Path, Weight]]] = {}
    for (first, *rest), weight in weights:
        branches.setdefault(first, []).append((tuple(rest), weight))
    for name, inside in branches.items():
        while len(inside) > 1 and len({path[:1] for path, _ in inside}) == 1 and inside[0][0]:
            name = f"{name}.{inside[0][0][0]}"
            inside = [(path[1:], weight) for path, weight in inside]
        if len(inside) == 1:
            ((path, weight),) = inside
            tree.add(_text(f"{'.'.join((name, *path))}  {_leaf(weight, notes)}"))
            continue
        branch = tree.add(_text(f"{name}  {_sum([weight for _, weight in inside])}"))
        for path, weight in inside:
            if not path:  # it has the name of the branch
                branch.add(_text(_leaf(weight, notes)))
        _grow(branch, [entry for entry in inside if entry[0]], notes)


def _leaf(weight: Weight, notes: Mapping[str, str]) -> str:
    shape = "x".join(str(size) for size in weight.shape)
    why = "" if weight.excluded is None else f", not pruned: {weight.excluded}"
    note = f", {notes[weight.name]}" if weight.name in notes else ""
    return f"{weight.op} {shape}, {_sum([weight])}{note}{why}"


def _sum(weights: Sequence[Weight]) -> str:
    count, zeros = (sum(getattr(w, key) for w in weights) for key in ("count", "zeros"))
    return f"{count:,} ({zeros / max(1, count):.1%} zero)"


def _text(line: str) -> Text:
    return Text(one_line(line))
