"""TWIN: Model -> Twin, a torch module that runs the same graph, one Parameter per initializer."""

from __future__ import annotations

import logging
from collections import ChainMap, Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from fcpts_onnx.errors import ModelError, UnsupportedError
from fcpts_onnx.model import Model
from fcpts_onnx.ops import implemented
from fcpts_onnx.ops.dtypes import promoted, to_torch
from fcpts_onnx.twin.bounds import Bounded
from fcpts_onnx.twin.frontier import frontier
from fcpts_onnx.twin.fusion import with_layers_joined
from fcpts_onnx.twin.idioms import with_idioms_joined
from fcpts_onnx.twin.shapes import with_shapes_remembered
from fcpts_onnx.twin.steps import Step, bind, check_supported

__all__ = ["Twin"]

logger = logging.getLogger(__name__)

# Of what a graph computes from constants: values in one, and in all. What is stored may be made
# into other types and shapes some times; beyond that, this is more than any known graph needs.
_MOST_FOLDED = 2**26, 2**28
_TIMES_STORED = 1, 16


class Twin(nn.Module):
    """The graph of a model as a torch module.

    What is learned is a Parameter, by its ONNX name in `learned`; every other constant is fixed.
    A twin that learns computes in float32, also where the model says another float type.
    What depends on constants alone is computed once, here. The forward pass changes nothing, so
    the dense network and a sparse one can share a twin: hand over other tensors for some of its
    parameters by `replaced`.

    Args:
        model: the model to mirror.
        learned: names of what to make Parameters: initializers, Constant nodes' outputs, or what
            a node makes of constants alone, as DequantizeLinear does.

    Attributes:
        model: the model with its functions inlined, whose values the twin has by name.
        output_names: the graph's outputs; where something is learned, what gradients reach of
            them, or before them (see `frontier`).
        watched: names of values inside the graph that every pass gives beside the outputs.
        per_sample: run the graph for each sample on its own, vectorised. Graphs that were
            exported with a batch size written into them give right results only so.
        device: where it computes; inputs are brought there.

    Raises:
        UnsupportedError: the graph has operators or attributes that are not registered; the
            message lists them all, with the names of their nodes.
        ModelError: what depends on constants alone cannot be computed, or is too large.
    """

    def __init__(self, model: Model, learned: Collection[str] = ()) -> None:
        super().__init__()
        learned_set = set(learned)
        model = model.inlined(implemented(model.opsets))
        self.per_sample = False
        self.watched: tuple[str, ...] = ()
        self.device = torch.device("cpu")
        self.input_names = tuple(spec.name for spec in model.inputs)
        self._promotes = bool(learned)
        steps, values = bind(model, promote=self._promotes)
        self.output_names = frontier(steps, learned, model.outputs) if learned else model.outputs
        steps = _schedule(steps, self.output_names)
        check_supported(model, steps)
        self.model = model
        read = set(self.output_names).union(*(step.reads for step in steps))
        for name in read & model.tensors.keys():
            value = to_torch(model.array(name))
            values[name] = promoted(value) if self._promotes else value
        steps = _folded(model, steps, values, learned_set)
        if whole := [n for n in learned if n in values and not values[n].is_floating_point()]:
            raise UnsupportedError(
                f"{model.path}: {', '.join(whole)} would have to be learned, and is in "
                "integers. Exclude it."
            )
        # In the order they are named, which is the same in every process of a team.
        self.learned = {
            name: nn.Parameter(values.pop(name))
            for name in dict.fromkeys(learned)
            if name in values
        }
        for place, parameter in enumerate(self.learned.values()):
            self.register_parameter(f"learned_{place}", parameter)
        steps = with_idioms_joined(steps, values | self.learned, self.output_names)
        steps = with_layers_joined(steps, values | self.learned, self.output_names)
        steps = with_shapes_remembered(steps, values)
        self.steps = _schedule(steps, self.output_names)
        self._hold(values)
        found = Counter(step.op for step in self.steps)
        named = ", ".join(f"{count} {op}" for op, count in sorted(found.items()))
        logger.debug("twin of %s: %s; %d tensors learned", model.path, named, len(self.learned))

    def _hold(self, values: Mapping[str, Tensor]) -> None:
        """Keep the constants that the steps read, as buffers where a device may need them."""
        nodes = [node for step in self.steps for node in step.nodes()]
        read = set(self.output_names).union(*(node.reads for node in nodes))
        # What Python reads stays on the CPU, which a GPU would have to be waited for. So do single
        # numbers, which go with any device. These are no buffers.
        as_numbers = {name for node in nodes for name in node.read_as_numbers}
        self._numbers = {
            name: value
            for name, value in values.items()
            if name in read
            and (name in as_numbers or not value.ndim or not value.is_floating_point())
        }
        self._buffer_of = {
            name: f"constant_{place}"
            for place, name in enumerate(sorted(read & values.keys()))
            if name not in self._numbers
        }
        for name, buffer in self._buffer_of.items():
            self.register_buffer(buffer, values[name])

    def constant(self, name: str) -> Tensor:
        """The value of a constant float tensor that the graph reads."""
        learned = self.learned.get(name)
        return self.get_buffer(self._buffer_of[name]) if learned is None else learned

    @property
    def result_names(self) -> tuple[str, ...]:
        """What a pass gives."""
        return (*self.output_names, *self.watched)

    def constants(self) -> dict[str, Tensor]:
        """All fixed tensors that the steps read, by name."""
        return self._numbers | {n: self.get_buffer(buffer) for n, buffer in self._buffer_of.items()}

    def prepare(self, device: torch.device) -> None:
        """Move to a device, images in channels-last memory, where convolutions are fastest."""
        self.device = device
        self.to(device=device)
        self.learned = dict(zip(self.learned, self.parameters(), strict=True))
        for parameter in self.learned.values():
            if parameter.ndim == 4:
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)

    def forward(
        self,
        inputs: Mapping[str, Tensor],
        replaced: Mapping[str, Tensor] | None = None,
        fetch: Iterable[str] = (),
    ) -> dict[str, Tensor]:
        """Run the graph on a batch.

        Args:
            inputs: a tensor for every graph input, by name.
            replaced: tensors to use instead of parameters of that name.
            fetch: names of values inside the graph to return as well.

        Returns:
            The outputs, what is watched and what was asked for, by name.
        """
        if not self.per_sample:
            return self._run(inputs, replaced, fetch)

        def run_one(sample: Mapping[str, Tensor]) -> dict[str, Tensor]:
            single = {name: value.unsqueeze(0) for name, value in sample.items()}
            return self._run(single, replaced, fetch)

        with sdpa_kernel(SDPBackend.MATH):  # the one that vmap knows of
            results: dict[str, Tensor] = torch.vmap(run_one)(dict(inputs))
        # A result of a single sample has an axis of one for it, or none at all.
        return {
            name: value.flatten(0, 1) if value.shape[1:2] == (1,) else value
            for name, value in results.items()
        }

    def _run(
        self,
        inputs: Mapping[str, Tensor],
        replaced: Mapping[str, Tensor] | None,
        fetch: Iterable[str],
    ) -> dict[str, Tensor]:
        wanted = (*self.result_names, *fetch)
        made = self.through(self.begun(inputs), slice(None), replaced, wanted)
        known = self.known(made, replaced)
        return {name: known[name] for name in wanted}

    def begun(self, inputs: Mapping[str, Tensor]) -> dict[str, Any]:
        """The values before the first step: the inputs, where and in which type is computed."""
        there = {name: value.to(self.device) for name, value in inputs.items()}
        return {n: promoted(value) if self._promotes else value for n, value in there.items()}

    def through(
        self,
        values: Mapping[str, Any],
        part: slice,
        replaced: Mapping[str, Tensor] | None = None,
        kept: Collection[str] = (),
    ) -> dict[str, Any]:
        """Go on through a part of the steps.

        Args:
            values: what was made before it and is still to be read, by name.
            replaced: tensors to use instead of parameters of that name.
            kept: names of values to give back although nothing reads them any more.

        Returns:
            The same for the steps behind it.
        """
        found = dict(values)
        known = self.known(found, replaced)
        for step in self.steps[part]:
            found.update(zip(step.outputs, step.run(known), strict=False))
            for name in step.frees:
                if name not in kept:
                    found.pop(name, None)
        return found

    def known(
        self, made: dict[str, Any], replaced: Mapping[str, Tensor] | None = None
    ) -> Mapping[str, Any]:
        """What steps can read: what those before them made, and what does not depend on inputs."""
        return ChainMap(made, self.constants(), {**self.learned, **(replaced or {})})


def _folded(
    model: Model, steps: Iterable[Step], constants: dict[str, Tensor], learned: set[str]
) -> list[Step]:
    """Run the steps that depend on constants alone, adding to `constants`; the others are left.

    What follows from learned values is left too: these change. What is stored as integers is
    learned as the float values that these stand for, and so computed here.
    """
    sizes = [value.numel() for value in constants.values()]
    largest, total = (
        max(least, times * size)
        for least, times, size in zip(
            _MOST_FOLDED, _TIMES_STORED, (max(sizes, default=0), sum(sizes)), strict=True
        )
    )
    left, fixed = [], set(constants) - learned
    try:
        with Bounded(largest, total):
            for step in steps:
                if not step.reads <= fixed:
                    left.append(step)
                    continue
                constants.update(zip(step.outputs, step.run(constants), strict=False))
                fixed |= set(step.outputs) - learned
    except RuntimeError as error:
        raise ModelError(
            f"{model.path}: what depends on constants alone cannot be computed, {error}. "
            "Correct the graph, or export it again."
        ) from error
    return left


def _schedule(steps: list[Step], outputs: Collection[str]) -> list[Step]:
    """The steps that the outputs need, each with the names it is the last to read."""
    needed, kept = set(outputs), []
    for step in reversed(steps):
        if needed.isdisjoint(step.outputs):
            continue
        last_reads = step.reads - needed
        unread = {name for name in step.outputs if name} - needed
        kept.append(replace(step, frees=tuple(sorted(last_reads | unread))))
        needed |= last_reads
    return kept[::-1]
