"""LEARN: how much memory a run will take, what there is, and batches in pieces that fit."""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from fcpts_onnx.errors import FcptsError
from fcpts_onnx.sparsity.fallback import LARGEST_COPIED
from fcpts_onnx.sparsity.losses import reconstruction_loss
from fcpts_onnx.sparsity.reconstruct import precision_of
from fcpts_onnx.sparsity.task import Task
from fcpts_onnx.team import Team, local_size
from fcpts_onnx.texts import in_bytes
from fcpts_onnx.twin import Twin

__all__ = ["available", "check_room", "pieces_that_fit"]

_OF_WEIGHTS = 7  # times: learned and masked ones, masks, gradients, and two means of the optimizer
_OF_COPIES = 4  # times, where states to fall back to are kept: two, each with its masks
_MARGIN = 1.25  # of activations, for what operators take while they run
_TRIED = (1, 3)  # samples
_LEAST = 2**28
_LARGEST_REUSED = 3 * 2**23  # bytes of a tensor; glibc gives those above 2**25 back at once
_UNLIMITED = 2**60  # what is above is no limit
_GROUPS = Path("/sys/fs/cgroup")
_CGROUPS = (
    ("memory.max", "memory.current", "memory.stat"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat"),
)


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
    taken = _taken(task.device)
    fixed = taken + _of_weights(task)
    each, largest = _of_a_sample(task, network)
    each *= _MARGIN
    sharing = local_size() if task.device.type == "cpu" else 1
    room = _room(task.device, taken, limit, sharing)
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
        + (f", with each batch in {pieces} pieces" if pieces > 1 else "")
    )
    return pieces


def _room(device: torch.device, taken: int, limit: int | None, sharing: int) -> int | None:
    """Bytes for this process, one of some that share what there is, or what they are limited to."""
    if limit is not None:
        return limit // sharing - taken
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


def available(device: torch.device) -> int | None:
    """Bytes that this process may still take; None where the system does not tell."""
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + cached
    found = [_of_machine(), _of_cgroup(), _of_address_space()]
    return min((room for room in found if room is not None), default=None)


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
    with saved_tensors_hooks(pack, _never), precision_of(task.recipe, task.device)():
        found = network(batch, network.learned)
        given = {name: value.detach() for name, value in found.items()}
        loss = reconstruction_loss(given, found, heads, task.recipe.temperature)
    del loss
    return Counter(storage.nbytes() for storage in kept.values())


def _never(_: None) -> Tensor:
    raise AssertionError("no gradients are asked for")


def _taken(device: torch.device) -> int:
    """Bytes that this process takes now of a device; 0 where the system does not tell."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    return _of_process("VmRSS") or 0


def _of_process(entry: str) -> int | None:
    with suppress(OSError):
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
        for line in status.splitlines():
            if line.startswith(f"{entry}:"):
                return 1024 * int(line.split()[1])
    return None


def _of_machine() -> int | None:
    with suppress(OSError):
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return 1024 * int(line.split()[1])
    return None


def _of_cgroup() -> int | None:
    """What the group of processes that this one is in may still take, in a container."""
    for most, used, stat in _CGROUPS:
        with suppress(OSError, ValueError):
            limit = int((_GROUPS / most).read_text(encoding="ascii"))
            if limit < _UNLIMITED:
                taken = int((_GROUPS / used).read_text(encoding="ascii"))
                return limit - taken + _reclaimable(_GROUPS / stat)
    return None


def _reclaimable(stat: Path) -> int:
    """Bytes of files that the system keeps only as long as nobody needs their place."""
    entries = (line.split() for line in stat.read_text(encoding="ascii").splitlines())
    sizes = {name.removeprefix("total_"): int(size) for name, size in entries}
    return sizes.get("inactive_file", 0) + sizes.get("active_file", 0)


def _of_address_space() -> int | None:
    if sys.platform == "win32":
        return None
    import resource

    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    used = _of_process("VmSize")
    return None if limit == resource.RLIM_INFINITY or used is None else limit - used
