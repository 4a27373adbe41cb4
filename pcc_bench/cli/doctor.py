"""`pcc-bench doctor`: what is installed, what is missing, and the command that fixes it."""

import os
import shutil
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path
from typing import NamedTuple

import psutil
from packaging.requirements import Requirement

from pcc_bench.core import registry
from pcc_bench.core.provenance import installed
from pcc_bench.host import inventory, settings, startup

PYTHON = (3, 11)
REINSTALL = "pip install --force-reinstall --no-deps <folder or wheel of pcc_bench>"
GPU_BUILD = "where there is one, install torch's build for it (https://pytorch.org/get-started/locally)"


class Finding(NamedTuple):
    what: str
    found: str  # what is there
    good: bool = True  # whether that is enough
    needed: bool = True  # whether nothing works without it
    fix: str = ""  # the command that fixes it, where it is not good

    @property
    def mark(self) -> str:
        return "OK" if self.good else "MISSING" if self.needed else "note"


def examine() -> Iterator[Finding]:
    active = any(type(finder).__name__ == startup.LmEvalFinder.__name__ for finder in sys.meta_path)
    version, least = (".".join(map(str, numbers)) for numbers in (sys.version_info[:3], PYTHON))
    yield Finding("Python", version, sys.version_info >= PYTHON, fix=f"install Python >= {least}, then: make demo")
    yield from _packages()
    curves = installed("tensorboard")
    missing = "not installed (for training curves)"
    yield Finding("tensorboard", curves or missing, curves is not None, False, "pip install tensorboard")
    off = os.environ.get(startup.OFF_SWITCH, "") not in ("", "0")
    found = "active" if active else f"off ({startup.OFF_SWITCH} is set)" if off else "absent: plain lm_eval lacks us"
    yield Finding("start-up hook", found, active, False, f"unset {startup.OFF_SWITCH}" if off else REINSTALL)
    yield from _devices()
    yield _data()
    cache = Path(os.environ.get("HF_HOME", "~/.cache/huggingface")).expanduser()
    free = shutil.disk_usage(next(folder for folder in (cache, *cache.parents) if folder.is_dir())).free / 2**30
    fix = "free some space, or export HF_HOME=<folder on a larger disk>"
    yield Finding("disk", f"{free:.0f} GiB free for models ({cache})", free > 20, False, fix)
    size = psutil.virtual_memory().available / 2**30
    yield Finding("memory", f"{size:.1f} GiB free", size > 2, False, "close other programs")
    yield from _lm_eval()


def _packages() -> Iterator[Finding]:
    try:
        requirements = [Requirement(line) for line in requires("pcc-bench") or []]
    except PackageNotFoundError:
        yield Finding("pcc-bench", "not installed (run from its source)", False, False, "pip install -e .")
        return
    for requirement in requirements:
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            version = installed(requirement.name)
            good = version is not None and requirement.specifier.contains(version, prereleases=True)
            remedy = f"pip install '{requirement.name}{requirement.specifier}'"
            yield Finding(requirement.name, version or "not installed", good, fix=remedy)


def _devices() -> Iterator[Finding]:
    import torch

    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        yield Finding(f"cuda:{index}", f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB")
    if torch.backends.mps.is_available():
        yield Finding("mps", "available")
    if not torch.cuda.is_available():
        yield Finding("GPU", "none that torch can use: the CPU will do for small models", False, False, GPU_BUILD)
    yield Finding("CPU", f"{os.cpu_count()} cores, {torch.get_num_threads()} threads in use")


def _data() -> Finding:
    if os.environ.get("PCC_DATA") == "lab":
        return Finding("PCC_DATA", "lab: rows are generated", needed=False)
    folder = inventory.data_folder()
    if folder is None:
        return Finding("PCC_DATA", "not set: rows come from the hub", needed=False)
    if not folder.is_dir():
        return Finding("PCC_DATA", f"no folder {folder}", False, True, "export PCC_DATA=<folder>, or unset PCC_DATA")
    rows = [row for row in inventory.data_table().rows if row[2] != inventory.NOBODY]
    found = ", ".join(f"{file} ({count} rows)" for file, count, _ in rows)
    fix = "put <data set>/<split>.jsonl there ('pcc-bench ls tasks' names them)"
    return Finding("PCC_DATA", f"{folder}: {found or 'nothing that a task reads'}", bool(rows), False, fix)


def _lm_eval() -> Iterator[Finding]:
    try:
        startup.install()
        import lm_eval.models  # noqa: F401  # fills the registry
        from lm_eval.api.registry import model_registry
        from lm_eval.tasks import TaskManager

        unknown = [name for name in registry.names() if name not in model_registry]
        tasks = set(settings.task_names()) - set(TaskManager().match_tasks(["pcc_*"]))
    except Exception as error:  # whatever is broken in there, the doctor reports it
        yield Finding("lm-eval", f"can't be used ({error!r})", False, fix="pip install 'lm-eval[hf]==0.4.13'")
        return
    for what, unheard in (("lm-eval's models", unknown), ("lm-eval's tasks", sorted(tasks))):
        said = ", ".join(unheard) + " unknown" if unheard else "ours are known"
        yield Finding(what, said, not unheard, fix=REINSTALL)
