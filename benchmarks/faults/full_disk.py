"""Every command that writes, on a disk that fills up somewhere on its way, and once more with room.

Each verb runs once to its end, which shows how much it writes. Then, trial by trial, its output folder lies on a disk
with only a part of that room. Wrong is

- a traceback, or a status other than 2 (1 of `run`, which names the cells that failed), where the room was not enough;
- a file that is neither the old nor the new one, for verbs that write over files, or a part left beside it;
- the same command, run again with room, whose result differs from the uninterrupted one.

The disk is a small tmpfs where this process may mount one (as root). Elsewhere the size of files is limited, which
ends writes in the same way (`File too large`) but leaves room for any number of small files.

    python benchmarks/faults/full_disk.py --trials 4 --output results/full-disk
"""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from verbs import State, Verb, compared, drawn, fill, prepared, run_to_end, short_verbs, start, torn, verbs

PAGE = 4096
LARGE = 2**30


class Disk:
    """A folder whose room can be limited.

    Args:
        place: The folder.
    """

    def __init__(self, place: Path) -> None:
        self.place, self.old = place, place.with_name(f"{place.name}-old")
        self.mounted = False

    @contextmanager
    def fresh(self) -> Iterator[Path]:
        """An empty disk with room."""
        self.place.mkdir(parents=True, exist_ok=True)
        self.mounted = self._mount("mount", "-t", "tmpfs", "-o", f"size={LARGE}", "tmpfs")
        try:
            yield self.place / "out"
        finally:
            if self.mounted:
                subprocess.run(["umount", "--lazy", str(self.place)], check=True)
            shutil.rmtree(self.place, ignore_errors=True)

    def _mount(self, *words: str) -> bool:
        return subprocess.run([*words, str(self.place)], capture_output=True, check=False).returncode == 0

    def used(self) -> int:
        """Bytes written; of the largest file, where files are limited."""
        if self.mounted:
            state = os.statvfs(self.place)
            return (state.f_blocks - state.f_bfree) * state.f_frsize
        return max((path.stat().st_size for path in self.place.rglob("*") if path.is_file()), default=0)

    def limit(self, size: int) -> Callable[[], object]:
        """Leave room for so many bytes; what a child has to do for it."""
        if self.mounted:
            self._mount("mount", "-o", f"remount,size={max(size, PAGE)}")
            return lambda: None

        def prepare() -> None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # a limit of results, not of what is printed

        return prepare


def reference(verb: Verb, disk: Disk) -> tuple[State, State, int, int]:
    """What lies there before, what the command makes of it with room, and how much each takes."""
    with disk.fresh() as folder:
        fill(folder, verb, disk.old)
        old, before = (verb.read(folder) if verb.replaces else {}), disk.used()
        run_to_end(verb.words(folder), disk.place.with_suffix(".log"))
        return old, verb.read(folder), before, disk.used()


def trial(verb: Verb, disk: Disk, old: State, whole: State, room: int) -> tuple[int, str]:
    """Fill the disk up, look, run again with room, compare: the status, and what was wrong ("" for nothing)."""
    log = disk.place.with_suffix(".log")
    with disk.fresh() as folder:
        fill(folder, verb, disk.old)
        prepare = disk.limit(room if not disk.mounted else disk.used() + room)
        _, ended = os.waitpid(start(verb.words(folder), log, prepare), 0)
        status, refusal = os.waitstatus_to_exitcode(ended), verb.refusal
        text = "".join(path.read_text("utf-8", "replace") for path in (log, log.with_suffix(".out")))
        says = text.count(refusal[1]) if status else 0
        if status not in (0, refusal[0]) or "Traceback (most recent call last):" in text or says != bool(status):
            return status, f"status {status}: {' / '.join(text.splitlines()[-3:])[-300:]}"
        if names := torn(verb, folder, old, whole):
            return status, f"neither old nor new: {names}"
        if parts := [path.name for path in folder.rglob("*.part")]:
            return status, f"left behind: {parts}"
        disk.limit(LARGE)
        return status, compared(verb, folder, whole, log)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a table; status 1 where something was wrong."""
    options, root = prepared(__doc__, 4, "results/full-disk", arguments)
    total = refused = wrong = 0
    print(f"{'verb':24} {'bytes':>10} {'trials':>7} {'refused':>8} {'wrong':>6}", flush=True)
    for verb in (*verbs(root), *short_verbs(root)):
        if options.only not in verb.name:
            continue
        disk = Disk(root / "disks" / verb.name.replace(" ", ""))
        old, whole, before, after = reference(verb, disk)
        written = max(after - before, after // 2)  # over files of the same size, the new ones lie beside the old first
        rooms = [int(written * (n + drawn(options, verb, n)) / options.trials) for n in range(options.trials)]
        outcomes = [(room, *trial(verb, disk, old, whole, room)) for room in rooms]
        broken = [outcome for outcome in outcomes if outcome[2]]
        full = sum(status > 0 for _, status, _ in outcomes)
        total, refused, wrong = total + len(outcomes), refused + full, wrong + len(broken)
        print(f"{verb.name:24} {written:10,} {len(outcomes):7} {full:8} {len(broken):6}", flush=True)
        for room, _, says in broken:
            print(f"    with room for {room:,} bytes: {says}", flush=True)
    print(f"{total} disks, {refused} were full and said so, {wrong} wrong")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
