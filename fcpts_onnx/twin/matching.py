"""TWIN: patterns of nodes, and where a graph has them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import permutations

from torch import Tensor

from fcpts_onnx.twin.steps import Step

__all__ = ["Graph", "Match", "Node"]

_CLOSE = 1e-5  # what a constant may lack in digits: less than a twin may depart
_COMMUTATIVE = ("Add", "Mul")


@dataclass(frozen=True)
class Node:
    """An operator in a pattern.

    Attributes:
        inputs: the first of what it reads: nodes; numbers, for constants of one such value; names,
            for anything, but the same wherever the name stands.
        attributes: those that count.
    """

    op: str
    inputs: tuple[Node | float | str, ...]
    attributes: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Match:
    """A pattern in a graph.

    Attributes:
        steps: those of its nodes, by their first output; each behind those that it reads.
        names: what the names in the pattern stand for.
    """

    steps: Mapping[str, Step] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)

    @property
    def inputs(self) -> tuple[str, ...]:
        """What its steps read of others."""
        read = [name for step in self.steps.values() for name in step.inputs]
        return tuple(dict.fromkeys(name for name in read if name and name not in self.steps))


class Graph:
    """Steps to be searched.

    Args:
        constants: values that are known by name, what is learned among them.
        outputs: names that are read from outside.
    """

    def __init__(
        self, steps: Sequence[Step], constants: Mapping[str, Tensor], outputs: Collection[str]
    ) -> None:
        self.constants = constants
        self._producers = {step.outputs[0]: step for step in steps if len(step.outputs) == 1}
        self._readers = Counter(name for step in steps for name in step.reads)
        self._readers.update(outputs)

    def find(self, pattern: Node, last: Step) -> Match | None:
        """A pattern that ends in a step, if nothing else reads what lies inside."""
        found = next(self._node(pattern, last.outputs[0], Match()), None)
        if found is None:
            return None
        inside = Counter(name for step in found.steps.values() for name in step.reads)
        between = found.steps.keys() - {last.outputs[0]}
        return found if all(self._readers[name] == inside[name] for name in between) else None

    def _node(self, node: Node, name: str, found: Match) -> Iterator[Match]:
        step = self._producers.get(name)
        if step is None or step.op != node.op or not _has(step, node.attributes):
            return
        reads = step.inputs[: len(node.inputs)]
        for order in permutations(reads) if step.op in _COMMUTATIVE else (reads,):
            for inner in self._all(node.inputs, order, found):
                yield replace(inner, steps={**inner.steps, name: step})

    def _all(
        self,
        patterns: Sequence[Node | float | str],
        names: Sequence[str | None],
        found: Match,
    ) -> Iterator[Match]:
        """Matches of several inputs at once."""
        if not patterns:
            yield found
            return
        if not names or names[0] is None:
            return
        for first in self._one(patterns[0], names[0], found):
            yield from self._all(patterns[1:], names[1:], first)

    def _one(self, pattern: Node | float | str, name: str, found: Match) -> Iterator[Match]:
        if isinstance(pattern, Node):
            yield from self._node(pattern, name, found)
        elif isinstance(pattern, str):
            if found.names.get(pattern, name) == name:
                yield replace(found, names={**found.names, pattern: name})
        elif _is(self.number(name), pattern):
            yield found

    def number(self, name: str) -> float | None:
        """The value of a constant that has but one, and adds no axes to what it meets."""
        value = self.constants.get(name)
        is_one = value is not None and value.numel() == 1 and value.ndim <= 1
        return value.item() if value is not None and is_one else None


def _has(step: Step, attributes: Mapping[str, float]) -> bool:
    return all(_is(step.attributes.get(key), value) for key, value in attributes.items())


def _is(found: float | None, wanted: float) -> bool:
    return found is not None and math.isclose(found, wanted, rel_tol=_CLOSE)
