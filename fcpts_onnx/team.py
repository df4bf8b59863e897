"""LEARN: several processes that learn as one, as torchrun starts them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from itertools import count
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

__all__ = [
    "ALONE",
    "Team",
    "is_first",
    "joined",
    "local_place",
    "local_size",
    "started_processes",
]

T = TypeVar("T")
# The first process checks and measures alone, as long as that takes; one that ends ends the others.
_LONGEST_WAIT = timedelta(days=7)
_RUNS = count()


@dataclass(frozen=True)
class Team:
    """The processes that learn together; on its own, a process is a team of one.

    Attributes:
        rank: the place of this process, from 0 on.
        size: how many there are.
    """

    rank: int = 0
    size: int = 1

    def share(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The samples of a batch that this process takes."""
        return {name: value[self.rank :: self.size] for name, value in batch.items()}

    def weight(self, batch: Mapping[str, Tensor]) -> float:
        """What the mean over this process's share counts, so that all together are the mean."""
        count = len(next(iter(batch.values())))
        return len(range(self.rank, count, self.size)) * self.size / count

    @torch.no_grad()
    def average(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors, of the same shapes in all processes, by their mean."""
        if self.size == 1 or not tensors:
            return
        joint = torch.cat([tensor.reshape(-1) for tensor in tensors])
        dist.all_reduce(joint)
        parts = joint.div_(self.size).split([tensor.numel() for tensor in tensors])
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.copy_(part.view_as(tensor))

    def mean(self, values: Sequence[float]) -> list[float]:
        """Numbers averaged over the processes."""
        if self.size == 1:
            return list(values)
        joint = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(joint)
        found: list[float] = (joint / self.size).tolist()
        return found

    def from_first(self, value: T | None) -> T:
        """What the first process hands over, in all of them."""
        box = [value]
        if self.size > 1:
            dist.broadcast_object_list(box)
        found = box[0]
        assert found is not None, "the first process has to hand something over"
        return found


ALONE = Team()


@contextmanager
def joined() -> Iterator[Team]:
    """The team that torchrun made of this process and others."""
    if started_processes() == 1:
        yield ALONE
        return
    backends = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    store, rank, size = next(rendezvous("env://"))
    # What one run left in torchrun's store would have the next one wait for who is gone.
    store = PrefixStore(f"run {next(_RUNS)}", store)
    dist.init_process_group(
        backends, store=store, rank=rank, world_size=size, timeout=_LONGEST_WAIT
    )
    try:
        yield Team(rank, size)
        dist.barrier()  # none leaves while another still talks to it
    finally:
        dist.destroy_process_group()


def started_processes() -> int:
    """How many processes torchrun started, this one among them; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first() -> bool:
    """Whether this process is the one that prints and writes."""
    return os.environ.get("RANK", "0") == "0"


def local_size() -> int:
    """How many of them run on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", str(started_processes())))


def local_place() -> int:
    """Which of a machine's processes this is: the CUDA device it takes."""
    return int(os.environ.get("LOCAL_RANK", "0"))
