"""What there is of the machine: a device, threads, memory."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

from fcpts_onnx.errors import FcptsError
from fcpts_onnx.team import local_place, local_size

__all__ = ["available", "device_of", "limited_threads", "peak_bytes", "taken"]

_UNLIMITED = 2**60  # what is above is no limit
_GROUPS = Path("/sys/fs/cgroup")
_CGROUPS = (
    ("memory.max", "memory.current", "memory.stat"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat"),
)


@contextmanager
def limited_threads(count: int) -> Iterator[None]:
    """Limit torch's threads for a while.

    Raises:
        FcptsError: the count is negative.
    """
    if count < 0:
        raise FcptsError(f"{count} threads; expected 1 or more, or 0 for as many as are there.")
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def device_of(name: str, engine: str) -> torch.device:
    """The device that --device and --engine name, one for each process where there are several.

    Raises:
        FcptsError: there is no such device or engine, or fewer devices than processes.
    """
    if engine not in ("torch", "ort"):
        raise FcptsError(f"The engine is {engine!r}; expected torch or ort.")
    if engine == "ort" and name == "auto":
        name = "cpu"
    if engine == "ort" and name == "cuda":
        raise FcptsError("--engine ort runs on the processor, not on cuda. Use --device cpu.")
    if name not in ("auto", "cpu", "cuda"):
        raise FcptsError(f"The device is {name!r}; expected auto, cpu or cuda.")
    if name == "cuda" and not torch.cuda.is_available():
        raise FcptsError("--device cuda: this machine has no usable CUDA device. Use cpu or auto.")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cpu":
        return torch.device(name)
    if local_size() > torch.cuda.device_count():
        raise FcptsError(
            f"{torch.cuda.device_count()} CUDA device(s) for {local_size()} processes. Start as "
            "many processes as there are, or use --device cpu."
        )
    return torch.device(name, local_place())


def available(device: torch.device) -> int | None:
    """Bytes that this process may still take; None where the system does not tell."""
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + cached
    found = [_of_machine(), _of_cgroup(), _of_address_space()]
    return min((room for room in found if room is not None), default=None)


def taken(device: torch.device) -> int:
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


def peak_bytes() -> int | None:
    """The most memory that this process ever took; None where the system does not tell."""
    if sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
