"""Clock and memory gauge of a device."""

from __future__ import annotations

import gc
import re
import time
from collections.abc import Callable
from pathlib import Path

import torch

from pcc_bench.core.errors import UsageError

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")
_RESET_PEAK = "5"  # proc(5): sets the peak resident set to what is resident now


def find_device(name: str | None) -> torch.device:
    """The device of a name; by default a GPU where there is one. Raises UsageError: there is no such device here."""
    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UsageError(f"--device {name} can't be used ({first[:120]}): pass --device cpu, or --predict") from None
    return device


def hardware(device: torch.device) -> str:
    """Name of the accelerator, or of the processor."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        match = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:
        match = None
    return match[1] if match else device.type


def speed(device: torch.device) -> tuple[float, float]:
    """FLOP/s of a matrix product and bytes/s of a copy, the better of three, here and now."""
    dtype, width = (torch.bfloat16, 8192) if device.type == "cuda" else (torch.float32, 1024)
    a, b = torch.ones(width, width, dtype=dtype, device=device), torch.empty(width, width, dtype=dtype, device=device)

    def seconds(work: Callable[[], object]) -> float:
        watch = Stopwatch(device)
        work()
        return watch.lap()

    product = min(seconds(lambda: torch.mm(a, a, out=b)) for _ in range(3))
    copy = min(seconds(lambda: b.copy_(a)) for _ in range(3))
    return 2 * width**3 / product, 2 * a.nbytes / copy


class Stopwatch:
    """Wall-clock, with the device's queue waited for at every look."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._last = self._now()

    def lap(self) -> float:
        """Seconds since the last look."""
        before, self._last = self._last, self._now()
        return self._last - before

    def _now(self) -> float:
        if self.device.type != "cpu":
            torch.accelerator.synchronize(self.device)
        return time.perf_counter()


def reset_peaks(device: torch.device) -> None:
    """Start anew to look for the fullest moment."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    try:
        _CLEAR.write_text(_RESET_PEAK)
    except OSError:
        return  # not Linux: `peak_host` tells nothing then


def peak_device(device: torch.device) -> int | None:
    """Most bytes of tensors on a GPU since `reset_peaks`; None on other devices."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None


def peak_host() -> int | None:
    """Largest resident set of this process since `reset_peaks`, in bytes; None where Linux does not tell it."""
    if not _CLEAR.exists():
        return None
    match = re.search(r"^VmHWM:\s+(\d+) kB$", _STATUS.read_text(encoding="utf-8"), re.MULTILINE)
    return int(match[1]) * 1024 if match else None


def release(device: torch.device) -> None:
    """Give back what is no longer used."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
