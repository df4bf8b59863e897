"""LEARN: how much memory a run will take, and batches in pieces that fit into what there is."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from fcpts_onnx.errors import FcptsError
from fcpts_onnx.machine import available, taken
from fcpts_onnx.sparsity.fallback import LARGEST_COPIED
from fcpts_onnx.sparsity.losses import reconstruction_loss
from fcpts_onnx.sparsity.precision import precision_of
from fcpts_onnx.sparsity.task import Task
from fcpts_onnx.team import Team, local_size
from fcpts_onnx.texts import in_bytes
from fcpts_onnx.twin import Twin

__all__ = ["check_room", "pieces_that_fit"]

_OF_WEIGHTS = 7  # times: learned and masked ones, masks, gradients, and two means of the optimizer
_OF_COPIES = 4  # times, where states to fall back to are kept: two, each with its masks
_MARGIN = 1.25  # of activations, for what operators take while they run
_TRIED = (1, 3)  # samples
_LEAST = 2**28
_LARGEST_REUSED = 3 * 2**23  # bytes of a tensor; glibc gives those above 2**25 back at once


def pieces_that_fit(task: Task, limit: int | None, team: Team, say: Callable[[str], None]) -> int:
    """In how many pieces batches are best passed: so that learning fits into memory, and is fast.

    Gradients are summed over the pieces: what is learned is the same within rounding. On a
    processor, tensors that glibc gives back to the system once they are freed cost more time than
    pieces do: the system clears every page of the next one.

    Args:
        limit: bytes that the processes on a machine, or one on its GPU, may take in all; what there
            is if None.

    Raises:
        FcptsError: not even one sample at a time fits into the limit.
    """
    network, size = task.network, min(task.recipe.batch_size, len(task.calibration))
    if not isinstance(network, Twin):
        say("Memory: nothing is known of --engine ort's")
        return 1
    before = taken(task.device)
    fixed = before + _of_weights(task)
    each, largest = _of_a_sample(task, network)
    each *= _MARGIN
    sharing = local_size() if task.device.type == "cpu" else 1
    room = _room(task.device, before, limit, sharing)
    pieces = 1
    if task.device.type == "cpu":
        pieces = max(1, math.ceil(-(-size // team.size) * largest / _LARGEST_REUSED))
    if room is not None:
        fits = math.floor((room - _of_weights(task)) / each) if each else size
        pieces = max(pieces, math.ceil(-(-size // team.size) / max(1, fits)))
        if fits < 1 and limit is not None:
            least = in_bytes(round(fixed + each) * sharing)
            raise FcptsError(
                f"Learning takes about {least} with one sample at a time; "
                f"--memory allows {in_bytes(limit)}. Allow more, or --exclude large weights."
            )
    pieces = min(team.from_first(pieces), size)
    part = -(-size // (pieces * team.size))
    say(
        f"Memory: about {in_bytes(round(fixed + part * each))} at most"
        + (f", with each batch in {pieces} micro-batches" if pieces > 1 else "")
    )
    return pieces


def _room(device: torch.device, before: int, limit: int | None, sharing: int) -> int | None:
    """Bytes for this process, one of some that share what there is, or what they are limited to.

    Args:
        before: bytes that it takes now.
    """
    if limit is not None:
        return limit // sharing - before
    found = available(device)
    return None if found is None else found // sharing


def check_room(device: torch.device) -> None:
    """See that there is any memory to speak of: without, kernels give wrong values or crash.

    Raises:
        FcptsError: there is not.
    """
    room = available(device)
    if room is not None and room < _LEAST:
        raise FcptsError(
            f"There are {in_bytes(max(0, room))} of memory left for this process, and even a small "
            f"network takes {in_bytes(_LEAST)}. Close what else runs, or raise the limit."
        )


def _of_weights(task: Task) -> int:
    """Bytes for what there is of each weight while it is learned."""
    count = sum(value.numel() for value in task.network.learned.values())
    copies = _OF_COPIES if count <= LARGEST_COPIED else 0
    return 4 * count * (_OF_WEIGHTS + copies)


def _of_a_sample(task: Task, network: Twin) -> tuple[float, float]:
    """Bytes that are kept of each sample's activations until gradients have passed.

    In all, and of the largest of them.
    """
    fewer, more = (min(count, len(task.calibration)) for count in _TRIED)
    few, many = (_kept(task, network, count) for count in (fewer, more))
    if more == fewer:
        return _total(few), 0.0
    growing = many - few  # all but what is kept of weights
    return (_total(many) - _total(few)) / (more - fewer), max(growing, default=0) / more


def _total(sizes: Counter[int]) -> int:
    return sum(size * count for size, count in sizes.items())


def _kept(task: Task, network: Twin, samples: int) -> Counter[int]:
    """The sizes in bytes of what is kept for gradients of a batch, weights among it."""
    kept: dict[int, torch.UntypedStorage] = {}

    def pack(value: Tensor) -> None:
        # The storage alone: a tensor given back would hold the graph that holds it.
        storage = value.untyped_storage()
        kept[storage.data_ptr()] = storage

    batch = task.calibration.take(torch.arange(samples))
    heads = (*task.heads, *task.features)
    with saved_tensors_hooks(pack, _never):
        with precision_of(task.recipe, task.device)():
            found = network(batch, network.learned)
        given = {name: value.detach() for name, value in found.items()}
        loss = reconstruction_loss(given, found, heads, task.recipe.temperature)
    del loss
    return Counter(storage.nbytes() for storage in kept.values())


def _never(_: None) -> Tensor:
    raise AssertionError("no gradients are asked for")
