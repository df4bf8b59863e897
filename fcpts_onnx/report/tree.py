"""SHOW: weights as a tree, by the paths in their names or in those of their nodes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from rich.text import Text
from rich.tree import Tree

from fcpts_onnx.weights import Weight

__all__ = ["weight_tree"]

_BETWEEN = re.compile(r"[./]+")  # the parts of a name


def weight_tree(title: str, weights: Sequence[Weight]) -> Tree:
    """A branch a module, with what it has in all; parts that lead to one thing only are joined."""
    tree = Tree(Text(title))
    _grow(tree, {_path(weight): weight for weight in weights})
    return tree


def _path(weight: Weight) -> tuple[str, ...]:
    """Where it is in the network; exporters name some weights by a number, but not their nodes."""
    node = weight.nodes[0]
    name = f"{node}.{weight.name}" if "::" in weight.name and "/" in node else weight.name
    return tuple(_BETWEEN.split(name.strip("./")))


def _grow(tree: Tree, weights: Mapping[tuple[str, ...], Weight]) -> None:
    branches: dict[str, dict[tuple[str, ...], Weight]] = {}
    for (first, *rest), weight in weights.items():
        branches.setdefault(first, {})[tuple(rest)] = weight
    for name, inside in branches.items():
        while len(inside) > 1 and len({path[:1] for path in inside}) == 1:
            name = f"{name}.{next(iter(inside))[0]}"
            inside = {path[1:]: weight for path, weight in inside.items()}
        if len(inside) == 1:
            ((path, weight),) = inside.items()
            tree.add(Text(f"{'.'.join((name, *path))}  {_leaf(weight)}"))
        else:
            _grow(tree.add(Text(f"{name}  {_sum(list(inside.values()))}")), inside)


def _leaf(weight: Weight) -> str:
    shape = "x".join(str(size) for size in weight.shape)
    why = "" if weight.excluded is None else f", not pruned: {weight.excluded}"
    return f"{weight.op} {shape}, {_sum([weight])}{why}"


def _sum(weights: Sequence[Weight]) -> str:
    count, zeros = (sum(getattr(w, key) for w in weights) for key in ("count", "zeros"))
    return f"{count:,} ({zeros / max(1, count):.1%} zero)"
