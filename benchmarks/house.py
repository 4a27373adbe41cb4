"""How the code is built: its size, its cycles, names that repeat, and the way of one question through the modules.

    python benchmarks/house.py [--compare REVISION] [--list] [--no-trace]

A *room* is a package right below `pcc_bench`; the modules that lie in `pcc_bench` itself are one room. A *cycle* is a
group of modules that import each other, directly or around a corner; imports inside functions count, those for type
checkers only do not. A private function's *callers* are the functions, classes and module levels of its own module that
name it. One question is the first sample row of `pcc_squad`, answered by the shipped `pcc` after the model was loaded;
a *change of room* is a call from one room into another, what lies in between (lm-eval, torch) aside.

`--compare` puts another revision beside the current tree; one question is traced in the current tree only.
"""

from __future__ import annotations

import argparse
import ast
import inspect
import io
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "pcc_bench"
LONG_MODULE, LONG_FUNCTION = 300, 60
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass(frozen=True)
class Module:
    """One file of the import package."""

    name: str
    path: Path
    tree: ast.Module
    lines: int

    @property
    def package(self) -> str:
        """The package that its relative imports start from."""
        return self.name if self.path.name == "__init__.py" else self.name.rpartition(".")[0]


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n", maxsplit=1)[0])
    parser.add_argument("--compare", metavar="REVISION", help="another git revision, side by side")
    parser.add_argument("--list", action="store_true", help="name what the current tree's counts are made of")
    parser.add_argument("--no-trace", action="store_true", help="do not answer a question")
    options = parser.parse_args()
    columns = {}
    if options.compare:
        columns[options.compare] = of_revision(options.compare)
    names = git("ls-files", "-z").decode().split("\0")
    size = sum(path.lstat().st_size for name in names if name and (path := ROOT / name).exists())
    columns["current tree"] = {**survey(ROOT), "tracked bytes": [size]}
    if not options.no_trace:
        columns["current tree"] |= trace()
    width = max(len(row) for column in columns.values() for row in column)
    print(" " * width, *(f"{heading:>14}" for heading in columns))
    for row in columns["current tree"]:
        figures = (_figure(column.get(row)) for column in columns.values())
        print(row.ljust(width), *(f"{figure:>14}" for figure in figures))
    if options.list:
        for row, members in columns["current tree"].items():
            for member in members if members and isinstance(members[0], str) else []:
                print(f"{row}: {member}")


def git(*arguments: str) -> bytes:
    """What git prints."""
    return subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True).stdout


def _figure(members: list[Any] | None) -> str:
    if members is None:
        return "-"
    return f"{members[0]:,}" if members and isinstance(members[0], int) else f"{len(members):,}"


def of_revision(revision: str) -> dict[str, list[Any]]:
    """The figures of another revision's tree."""
    with tempfile.TemporaryDirectory() as folder, tarfile.open(fileobj=io.BytesIO(git("archive", revision))) as archive:
        archive.extractall(folder, filter="data")
        figures = survey(Path(folder))
    tree = git("ls-tree", "-r", "-l", revision).decode().splitlines()
    return {**figures, "tracked bytes": [sum(int(line.split(maxsplit=4)[3]) for line in tree)]}


# ---------------------------------------------------------------- what the source says


def survey(root: Path) -> dict[str, list[Any]]:
    """Row of the table -> its number, or the names that are counted."""
    modules = list(read(root))
    classes: dict[str, list[str]] = defaultdict(list)
    files: dict[str, list[str]] = defaultdict(list)
    for module in modules:
        if module.path.name != "__init__.py":
            files[module.path.name].append(module.name)
        for node in ast.walk(module.tree):
            if isinstance(node, ast.ClassDef):
                classes[node.name].append(module.name)
    private = [(module, function, count) for module in modules for function, count in callers(module).items()]
    return {
        "modules": [len(modules)],
        "lines, tests aside": [sum(module.lines for module in modules)],
        "private functions": [len(private)],
        "private functions with one caller": [f"{m.name}.{function}" for m, function, count in private if count == 1],
        "import cycles": cycles(imports(modules)),
        "class names used twice or more": [f"{name}: {', '.join(at)}" for name, at in classes.items() if len(at) > 1],
        "file names used twice or more": [f"{name}: {', '.join(at)}" for name, at in files.items() if len(at) > 1],
        f"modules over {LONG_MODULE} lines": [f"{m.name}: {m.lines}" for m in modules if m.lines > LONG_MODULE],
        f"functions over {LONG_FUNCTION} lines": [
            f"{module.name}.{node.name}: {length}"
            for module in modules
            for node in ast.walk(module.tree)
            if isinstance(node, FUNCTIONS) and (length := (node.end_lineno or 0) - node.lineno + 1) > LONG_FUNCTION
        ],
    }


def read(root: Path) -> Iterator[Module]:
    """The modules of the package, whose folders `pyproject.toml` maps."""
    settings = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]
    for package, folder in settings["package-dir"].items():
        for path in sorted((root / folder).rglob("*.py")):
            parts = path.relative_to(root / folder).with_suffix("").parts
            name = ".".join([package, *(part for part in parts if part != "__init__")])
            text = path.read_text("utf-8")
            yield Module(name, path, ast.parse(text), len(text.splitlines()))


def callers(module: Module) -> dict[str, int]:
    """Private function or method -> how many places of its module name it, its own body aside."""
    places: dict[str, set[str]] = defaultdict(set)
    private = []

    def visit(node: ast.AST, place: str) -> None:
        if isinstance(node, (*FUNCTIONS, ast.ClassDef)):
            if isinstance(node, FUNCTIONS) and node.name.startswith("_") and not node.name.endswith("__"):
                private.append(node.name)
            place = f"{place}.{node.name}"
        if isinstance(node, ast.Name | ast.Attribute):
            name = node.id if isinstance(node, ast.Name) else node.attr
            if name not in place.split("."):
                places[name].add(place)
        for child in ast.iter_child_nodes(node):
            visit(child, place)

    visit(module.tree, "")
    return {name: len(places[name]) for name in private}


def imports(modules: list[Module]) -> dict[str, set[str]]:
    """Module -> modules of the package that it imports anywhere, blocks for type checkers aside."""
    names = {module.name for module in modules}
    graph: dict[str, set[str]] = {name: set() for name in names}

    def visit(node: ast.AST, module: Module) -> None:
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            return
        targets: list[str] = []
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                start = module.package.split(".")[: None if node.level == 1 else 1 - node.level]
                base = ".".join([*start, *([base] if base else [])])
            wholes = [f"{base}.{alias.name}" for alias in node.names]
            targets = [whole if whole in names else base for whole in wholes]
        graph[module.name].update(target for target in targets if target in names and target != module.name)
        for child in ast.iter_child_nodes(node):
            visit(child, module)

    for module in modules:
        visit(module.tree, module)
    return graph


def cycles(graph: Mapping[str, set[str]]) -> list[str]:
    """Groups of modules of which each can be reached from each (strongly connected components of two or more)."""
    reach: dict[str, set[str]] = {}
    for start in graph:
        reach[start], front = set(), list(graph[start])
        while front:
            if (name := front.pop()) not in reach[start]:
                reach[start].add(name)
                front.extend(graph[name])
    groups = {
        frozenset(other for other in reach[name] if name in reach[other]) for name in graph if name in reach[name]
    }
    return sorted(", ".join(sorted(group)) for group in groups)


# ---------------------------------------------------------------- what one question passes


def room(module: str) -> str:
    """The package below `pcc_bench` that holds a module, or `pcc_bench`."""
    parts = module.split(".")
    known = sys.modules.get(".".join(parts[:2]))
    return parts[1] if len(parts) > 1 and hasattr(known, "__path__") else PACKAGE


def trace() -> dict[str, list[Any]]:
    """Answer one row as `lm_eval` does, and note each call that enters a module of ours."""
    import lm_eval
    from lm_eval.tasks import TaskManager

    from pcc_bench.core import shipped
    from pcc_bench.host import models
    from pcc_bench.tasks import data  # noqa: F401  # an import is no step of a question's way

    model = models.pcc(pretrained=shipped.DEFAULT)
    metadata = {"data": str(ROOT / "tests" / "fixtures" / "sample"), "pretrained": shipped.DEFAULT}
    manager = TaskManager(metadata=metadata, include_path=str(ROOT / "tasks"), include_defaults=False)
    entered: Counter[str] = Counter()
    changes: list[str] = []
    resumed: set[FrameType] = set()

    def note(frame: FrameType, event: str, _: Any) -> None:
        module = str(frame.f_globals.get("__name__", ""))
        if event != "call" or not _ours(module) or frame.f_code.co_name == "<module>" or frame in resumed:
            return
        if frame.f_code.co_flags & inspect.CO_GENERATOR:
            resumed.add(frame)  # a generator is entered anew for each item, which is no other call
        entered[module] += 1
        caller = frame.f_back
        while caller is not None and not _ours(str(caller.f_globals.get("__name__", ""))):
            caller = caller.f_back
        if caller is not None and room(before := str(caller.f_globals["__name__"])) != room(module):
            changes.append(f"{before} -> {module}.{frame.f_code.co_name}")

    sys.setprofile(note)
    try:
        lm_eval.simple_evaluate(
            model=model, tasks=["pcc_squad"], limit=1, task_manager=manager, metadata=metadata, bootstrap_iters=0
        )
    finally:
        sys.setprofile(None)
    return {
        "modules that one question enters": sorted(entered),
        "rooms that one question enters": sorted({room(module) for module in entered}),
        "changes of room for one question": changes,
    }


def _ours(module: str) -> bool:
    return module == PACKAGE or module.startswith(f"{PACKAGE}.")


if __name__ == "__main__":
    main()
