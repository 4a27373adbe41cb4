"""Costs measured, phase by phase: each repeat of a mode reads new random tokens, greedily and never stopping early."""

import gc
import re
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import Any, NamedTuple

import torch

from pcc_bench.core.decoder import Decoder, now
from pcc_bench.core.errors import UsageError, foreign, memory_errors
from pcc_bench.core.generation import autocast_for, keep_logits
from pcc_bench.core.plan import Plan, common_dtype
from pcc_bench.cost.geometry import at_rate
from pcc_bench.cost.records import CostRecord, Mode
from pcc_bench.cost.work import FULL_TEXT, Laps, Point, Setting, Shape, records
from pcc_bench.model.pcc import PCC

Tell = Callable[[str], None]
_CLEAR = Path("/proc/self/clear_refs")
WARM_UP = 2  # rounds before the clock counts; the last one looks for the peak of memory


class Subject(NamedTuple):
    shape: Shape
    pcc: PCC
    decoder: Decoder
    setting: Setting  # device, dtype, provenance


def measure(
    subject: Subject, point: Point, modes: Sequence[Mode], reuse: Sequence[int], repeats: int, tell: Tell
) -> list[CostRecord]:
    """The records of one point, with a total for each of `reuse`; where memory runs out, of half the batch, or of none.

    A point without a rate takes the modes of the full text only, one with a rate those of a memory.
    """
    device = subject.decoder.device
    while True:
        try:
            with memory_errors(f"measuring {point}", "give a smaller --batch-size"):
                measured: list[CostRecord] = []
                for mode in modes:
                    runner = Runner(subject, point)
                    for _ in range(WARM_UP):
                        reset_peaks(device)
                        runner.run(mode)
                    held = {"peak_device_bytes": peak_device(device), "peak_host_bytes": peak_host()}
                    laps = [runner.run(mode) for _ in range(repeats)]
                    held |= {"slots": runner.slots, "boundary": runner.boundary}
                    held["memory_bytes"] = sum(memory.nbytes for memory in runner.memories)
                    measured += records(subject.shape, point, mode, laps, reuse, subject.setting, **held)
                return measured
        except UsageError as error:  # `memory_errors` raises it, and nothing else inside
            reason = str(error).partition(":")[0]
        release(device)
        if point.batch == 1:
            tell(f"{reason}: left out")
            return []
        point = point._replace(batch=point.batch // 2)
        tell(f"{reason}: trying batch {point.batch}")


class Runner:
    def __init__(self, subject: Subject, point: Point) -> None:
        self.point, self.decoder = point, subject.decoder
        self.pcc = at_rate(subject.pcc, point.rate) if point.rate else subject.pcc
        self.bos = subject.decoder.bos if subject.shape.bos else []
        self.memories: list[torch.Tensor] = []
        self.slots = self.boundary = 0
        self.watch = Stopwatch(subject.decoder.device)

    @torch.inference_mode()
    def run(self, mode: Mode) -> Laps:
        """One round: compress or prefill what is needed, read the question, decode."""
        once, prefill, cache, token = self._prefill(mode)
        for _ in range(self.point.new - 1):
            with self._autocast(self.memories[0] if self.memories else None):
                out = self.decoder.model(input_ids=token, past_key_values=cache, use_cache=True)
            token = out.logits[:, -1:].argmax(-1)
        return Laps(once, prefill, self.watch.lap())

    def _prefill(self, mode: Mode) -> tuple[float, float, Any, torch.Tensor]:
        """Seconds once a context and of the prefill, the cache, the first new token of each row [batch, 1]."""
        question, once = self._ids(self.point.question), 0.0
        if mode in FULL_TEXT:
            start = torch.tensor(self.bos, dtype=torch.long, device=self.decoder.device)
            context = torch.cat([start.expand(self.point.batch, -1), self._ids(self.point.context)], 1)
            ids = torch.cat([context, question], 1) if mode is Mode.FULL else context
            self.watch.lap()
            cache, token = self._read(input_ids=ids)
            if mode is Mode.PREFIX_CACHED:
                once = self.watch.lap()
                cache, token = self._read(input_ids=question, past_key_values=cache)
            return once, self.watch.lap(), cache, token
        if mode is Mode.COLD or not self.memories:
            contexts = self._encoder_ids()
            self.watch.lap()
            self._compress(contexts)
        elapsed = self.watch.lap()
        plans = [Plan((self.bos, *row)) for row in zip(self.memories, question.tolist(), strict=True)]
        dtype = common_dtype(plans, self.decoder)
        cache, token = self._read(torch.stack([plan.vectors(self.decoder).to(dtype=dtype) for plan in plans]))
        return elapsed if mode is Mode.COLD else 0.0, self.watch.lap(), cache, token

    def _compress(self, contexts: Sequence[Sequence[int]]) -> None:
        """Memories of contexts in the encoder's tokens: [slots + boundary, hidden size], on the host as in a run."""
        dtype = torch.float32 if self.pcc.config.memory_dtype == "float32" else self.decoder.dtype
        memories = [self.pcc.memory(context) for context in self.pcc.encode(contexts)]
        self.slots, self.boundary = memories[0].slots, memories[0].boundary
        self.memories = [memory.vectors.to(dtype).cpu() for memory in memories if memory.vectors is not None]

    def _read(self, vectors: torch.Tensor | None = None, **inputs: Any) -> tuple[Any, torch.Tensor]:
        """One forward: the cache, and the first new token of each row [batch, 1]."""
        last = torch.tensor([-1], device=self.decoder.device)
        inputs |= {} if vectors is None else {"inputs_embeds": vectors}
        with self._autocast(vectors):
            out = self.decoder.model(**inputs, use_cache=True, **keep_logits(self.decoder, last))
        return out.past_key_values, out.logits[:, -1:].argmax(-1)

    def _autocast(self, vectors: torch.Tensor | None) -> AbstractContextManager[Any]:
        return nullcontext() if vectors is None else autocast_for(self.decoder, vectors)

    def _ids(self, count: int) -> torch.Tensor:
        rows = len(self.decoder.embedding.weight)
        return torch.randint(rows, (self.point.batch, count), device=self.decoder.device)

    def _encoder_ids(self) -> list[list[int]]:
        rows = min(self.pcc.encoder.memory_ids)
        ids: list[list[int]] = torch.randint(rows, (self.point.batch, self.point.context)).tolist()
        return ids


def find_device(name: str | None) -> torch.device:
    """The device of a name; by default a GPU where there is one. Raises UsageError: there is no such device here."""
    remedy = "pass --device cpu, or --predict"
    with foreign(f"--device {name} can't be used", remedy), memory_errors(f"trying --device {name}", remedy):
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.zeros(1, device=device)
    return device


def hardware(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    with suppress(OSError):
        known = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        if match := re.search(r"^model name\s*:\s*(.+)$", known, re.MULTILINE):
            return match[1]
    return device.type


def speed(device: torch.device) -> tuple[float, float]:
    """FLOP/s of a matrix product and bytes/s of a copy, the better of three, here and now."""
    dtype, width = (torch.bfloat16, 8192) if device.type == "cuda" else (torch.float32, 1024)
    a, b = torch.ones(width, width, dtype=dtype, device=device), torch.empty(width, width, dtype=dtype, device=device)
    watch = Stopwatch(device)
    product = min(watch.lap_of(lambda: torch.mm(a, a, out=b)) for _ in range(3))
    copy = min(watch.lap_of(lambda: b.copy_(a)) for _ in range(3))
    return 2 * width**3 / product, 2 * a.nbytes / copy


class Stopwatch:
    """Wall-clock, with the device's queue waited for at every look."""

    def __init__(self, device: torch.device) -> None:
        self.device, self._last = device, now(device)

    def lap(self) -> float:
        """Seconds since the last look."""
        before, self._last = self._last, now(self.device)
        return self._last - before

    def lap_of(self, work: Callable[[], object]) -> float:
        self.lap()
        work()
        return self.lap()


def reset_peaks(device: torch.device) -> None:
    """Start anew to look for the fullest moment."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with suppress(OSError):  # not Linux: `peak_host` tells nothing then
        _CLEAR.write_text("5")  # proc(5): sets the peak resident set to what is resident now


def peak_device(device: torch.device) -> int | None:
    """Most bytes of tensors on a GPU since `reset_peaks`; None on other devices."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None


def peak_host() -> int | None:
    """Largest resident set of this process since `reset_peaks`, in bytes; None where Linux does not tell it."""
    if not _CLEAR.exists():
        return None
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    match = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    return int(match[1]) * 1024 if match else None


def release(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
