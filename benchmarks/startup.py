"""What the start-up hook costs: `python -c pass` and `lm_eval --help` in an environment with and without pcc-bench.

    python benchmarks/startup.py [--repeats 300]

Run it where pcc-bench is installed. Goals: 1 ms for every interpreter's start, 50 ms for `lm_eval --help`.

`PCC_BENCH_NO_HOOK=1` would not be a fair "without": the start-up file is read all the same. So two throw-away
environments are made of links to everything in the site-packages of this one, which makes them equal in all that an
interpreter's start looks at; one lacks the files of pcc-bench, the other has its two start-up files. The runs
alternate, so that a change of the machine's load meets both. For an editable installation there is a third one, with
all that is installed: setuptools brings a start-up file of its own there, which costs several milliseconds and is not
ours.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
import venv
from importlib.metadata import distributions
from pathlib import Path

START_UP = {"_pcc_bench_startup.py", "pcc_bench_startup.pth"}
COMMANDS = {  # what is run, its share of the repeats, goal in ms
    "python -c pass": (["-c", "pass"], 1.0, 1.0),
    "lm_eval --help": (["-m", "lm_eval", "--help"], 0.15, 50.0),
}


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n", maxsplit=1)[0])
    parser.add_argument("--repeats", type=int, default=300, help="runs of `python -c pass` in each environment")
    repeats = parser.parse_args().repeats
    ours = installed_names()
    if not ours >= START_UP:
        sys.exit("pcc-bench is not installed here, or without its start-up files: pip install it first")
    left_out = {"without": ours, "with the hook": ours - START_UP}
    if any(name.startswith("__editable__") for name in ours):
        left_out["editable"] = set()
    with tempfile.TemporaryDirectory() as folder:
        pythons = {name: make_environment(Path(folder, name), out) for name, out in left_out.items()}
        for name, python in pythons.items():
            check_hook(python, expected=name != "without")
        print(f"{'command':16}{'environment':16}{'runs':>5}{'median':>12}{'quartiles':>19}{'added':>11}   goal")
        for command, (arguments, share, goal) in COMMANDS.items():
            times = measure(pythons, arguments, max(5, round(repeats * share)))
            for name, values in times.items():
                print_row(command, name, values, times["without"], goal)


def installed_names() -> set[str]:
    """What pcc-bench has at the top of site-packages."""
    installed = distributions(name="pcc-bench", path=[sysconfig.get_path("purelib")])
    names = {file.parts[0] for distribution in installed for file in distribution.files or []}
    return names - {"..", "__pycache__"}


def make_environment(folder: Path, left_out: set[str]) -> Path:
    """A virtual environment of links to everything in the current one's site-packages but `left_out`; its python."""
    venv.create(folder, symlinks=True)
    python = folder / "bin" / "python"
    (packages,) = folder.glob("lib/python*/site-packages")
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if entry.name not in left_out and not (packages / entry.name).exists():
            (packages / entry.name).symlink_to(entry)
    return python


def check_hook(python: Path, expected: bool) -> None:
    """Make sure that the comparison compares what it says."""
    code = "import sys; print(any(type(finder).__name__ == 'LmEvalFinder' for finder in sys.meta_path))"
    answer = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    if answer != str(expected):
        sys.exit(f"the hook should be {'on' if expected else 'off'} in {python}: is PCC_BENCH_NO_HOOK set?")


def measure(pythons: dict[str, Path], arguments: list[str], repeats: int) -> dict[str, list[float]]:
    """Milliseconds of each run in each environment, after one to warm up."""
    times: dict[str, list[float]] = {name: [] for name in pythons}
    for _ in range(repeats + 1):
        for name, python in pythons.items():
            start = time.perf_counter()
            subprocess.run([python, *arguments], stdout=subprocess.DEVNULL, check=True)
            times[name].append((time.perf_counter() - start) * 1000)
    return {name: values[1:] for name, values in times.items()}


def print_row(command: str, name: str, values: list[float], without: list[float], goal: float) -> None:
    """Median and quartiles, and what the environment adds to the one without: the median over alternating pairs."""
    low, _, high = statistics.quantiles(values, n=4)
    row = f"{command:16}{name:16}{len(values):5}{statistics.median(values):9.2f} ms{low:8.2f} ..{high:6.2f} ms"
    if values is not without:
        added = statistics.median(a - b for a, b in zip(values, without, strict=True))
        row += f"{added:+8.2f} ms   {f'< {goal:g} ms' if name == 'with the hook' else '(setuptools)'}"
    print(row)


if __name__ == "__main__":
    main()
