"""What is in the checkout is in the wheel, and imports point one way (nothing imports the command line)."""

from __future__ import annotations

import ast
import base64
import configparser
import csv
import hashlib
import importlib
import importlib.metadata
import io
import os
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from email.parser import Parser
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import pcc_bench
from pcc_bench.core.registry import METHODS

ROOT = Path(__file__).parent.parent
FOLDERS = {
    "pcc_bench": "pcc_bench",
    "baselines": "pcc_bench.baselines",
    "model": "pcc_bench.model",
    "reports": "pcc_bench.reports",
    "tasks": "pcc_bench.tasks",
}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


def tree(pattern: str) -> Iterator[tuple[Path, str]]:
    """Files of the checkout that match, with the path they have once installed."""
    for folder, package in FOLDERS.items():
        for path in sorted((ROOT / folder).rglob(pattern)):
            yield path, f"{package.replace('.', '/')}/{path.relative_to(ROOT / folder).as_posix()}"


def dotted(installed: str) -> str:
    """`pcc_bench/tasks/data.py` -> `pcc_bench.tasks.data`, and a package's `__init__.py` -> the package."""
    return installed.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


MODULES = {dotted(installed): path for path, installed in tree("*.py")}
PACKAGES = [dotted(installed) for _, installed in tree("__init__.py")]


def test_top_level_folders_are_named_alike_and_nothing_else_of_the_checkout_is_found() -> None:
    mapped = PROJECT["tool"]["setuptools"]["package-dir"]
    assert mapped == {package: folder for folder, package in FOLDERS.items()}
    assert mapped.keys() == {"pcc_bench", *(f"pcc_bench.{name}" for name in pcc_bench.FOLDERS)}
    for name in ("pcc_bench", "pcc_bench.core.errors", "tests", "benchmarks", "build_backend", "docs"):
        with pytest.raises(ModuleNotFoundError):
            importlib.import_module(f"pcc_bench.{name}")


def test_a_checkout_that_shadows_an_installation_finds_its_own_folders(tmp_path: Path) -> None:
    (tmp_path / "pcc_bench").mkdir()
    (tmp_path / "pcc_bench" / "__init__.py").write_bytes((ROOT / "pcc_bench" / "__init__.py").read_bytes())
    for name in pcc_bench.FOLDERS:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").touch()
    code = "from pcc_bench import baselines, model, reports, tasks; print(tasks.__path__[0])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.split() == [str(tmp_path / "tasks")]


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_import(package: str) -> None:
    importlib.import_module(package)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[zipfile.ZipFile]:
    """The wheel, built by the backend without pip (no build environment, no network)."""
    folder = tmp_path_factory.mktemp("wheel")
    build = "import backend, sys; print(backend.build_wheel(sys.argv[1]))"
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "build_backend")}
    command = [sys.executable, "-c", build, str(folder)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(folder / done.stdout.splitlines()[-1]) as archive:
        yield archive


def test_the_wheel_has_all_modules_and_data(wheel: zipfile.ZipFile) -> None:
    expected = {
        installed
        for path, installed in tree("*")
        if path.is_file() and path.suffix not in (".pyc", ".pyo") and not path.name.startswith(".")
    }
    shipped = {name for name in wheel.namelist() if name.startswith("pcc_bench/")}
    assert shipped == expected


def test_the_wheel_has_the_start_up_files_and_nothing_else_at_top_level(wheel: zipfile.ZipFile) -> None:
    tops = {name.split("/")[0] for name in wheel.namelist()}
    information = f"pcc_bench-{PROJECT['project']['version']}.dist-info"
    assert tops == {"pcc_bench", information, "_pcc_bench_startup.py", "pcc_bench_startup.pth"}
    assert wheel.read("_pcc_bench_startup.py") == (ROOT / "pcc_bench" / "host" / "startup.py").read_bytes()
    lines = wheel.read("pcc_bench_startup.pth").decode().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("import ")  # `site` runs no other lines


def test_record_is_true(wheel: zipfile.ZipFile) -> None:
    (record,) = [name for name in wheel.namelist() if name.endswith(".dist-info/RECORD")]
    rows = {name: (digest, size) for name, digest, size in csv.reader(io.StringIO(wheel.read(record).decode()))}
    assert rows.pop(record) == ("", "")
    assert rows.keys() | {record} == set(wheel.namelist())
    for name, (digest, size) in rows.items():
        content = wheel.read(name)
        encoded = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        assert (digest, int(size)) == (f"sha256={encoded}", len(content)), name


@pytest.fixture(scope="module")
def tracked() -> list[str]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("this is no git checkout")
    return listed.stdout.rstrip("\0").split("\0")


def test_a_clone_is_small_enough_to_be_carried(tracked: list[str]) -> None:
    files = [path for name in tracked if (path := ROOT / name).is_file()]
    assert len(files) > 500
    assert sum(path.stat().st_size for path in files) <= 48 * 2**20, "weights in int8? results packed?"


def test_no_scratch_folder_is_tracked(tracked: list[str]) -> None:
    folders = {name.split("/")[0] for name in tracked if "/" in name}
    assert folders == {*FOLDERS, ".ci", ".github", "benchmarks", "build_backend", "docs", "tests"}


def test_entry_points_name_every_method(wheel: zipfile.ZipFile) -> None:
    (points,) = [name for name in wheel.namelist() if name.endswith(".dist-info/entry_points.txt")]
    parser = configparser.ConfigParser(delimiters=("=",))
    parser.read_string(wheel.read(points).decode())
    assert dict(parser["lm_eval.models"]) == {n: f"pcc_bench.host.models:{n.replace('-', '_')}" for n in METHODS}
    assert dict(parser["console_scripts"]) == {"pcc-bench": "pcc_bench.cli:main"}
    assert dict(parser["pytest11"]) == {"pcc-bench": "pcc_bench.gate.pytest_plugin"}


def test_the_version_is_stated_once_more_and_equal() -> None:
    assert importlib.import_module("pcc_bench").__version__ == PROJECT["project"]["version"]


def test_constraints_pin_every_dependency() -> None:
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    pinned = {canonicalize_name(pin.name): str(pin.specifier).removeprefix("==") for pin in pins}
    assert all(len(pin.specifier) == 1 and str(pin.specifier).startswith("==") and not pin.url for pin in pins)
    extras = PROJECT["project"]["optional-dependencies"].values()
    for text in [*PROJECT["project"]["dependencies"], *(text for extra in extras for text in extra)]:
        requirement = Requirement(text)
        if requirement.name != PROJECT["project"]["name"]:
            assert requirement.specifier.contains(pinned[canonicalize_name(requirement.name)]), text


# ---------------------------------------------------------------- imports


def imports(module: str) -> set[str]:
    """Everything a module imports, anywhere in it: `from a import b` counts as `a.b` if that is a module, else `a`."""
    found = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: imports are absolute"
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {full if full in MODULES else str(node.module) for full in inner}
    return found


def within(name: str, packages: tuple[str, ...]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


MAY_IMPORT = {  # a room: the rooms and modules that it stands on
    "core": ("core",),
    "tasks": ("core", "host.settings", "tasks"),
    "baselines": ("core", "baselines"),
    "model": ("core", "model"),
    "results": ("core", "cost.records", "results"),
    "reports": ("core", "results", "stats", "reports"),
    "gate": ("core", "cost.records", "results", "stats", "gate"),
    "cost": ("core", "host", "model", "cost"),
    "host": ("core", "model", "tasks", "suite.spec", "host"),
    "suite": ("core", "cost", "host", "reports", "results", "tasks", "suite"),
    "lab": ("core", "host", "baselines", "model", "tasks", "stats", "lab"),
}


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_one_way(module: str) -> None:
    room = module.removeprefix("pcc_bench.").split(".")[0]
    ours = {name for name in imports(module) if within(name, ("pcc_bench",))} - {"pcc_bench"}
    if room != "cli":
        assert not {name for name in ours if within(name, ("pcc_bench.cli",))}, "nothing imports the command line"
    allowed = MAY_IMPORT.get(room)
    wrong = {name for name in ours if allowed and not within(name, tuple(f"pcc_bench.{part}" for part in allowed))}
    assert not wrong, f"{room} imports only {allowed} of the project"


@pytest.mark.parametrize("module", [name for name in MODULES if name.startswith("pcc_bench.")])
def test_the_host_never_asks_which_method_it_runs(module: str) -> None:
    if within(module, ("pcc_bench.lab", "pcc_bench.baselines", "pcc_bench.model", "pcc_bench.reports")):
        return  # the lab makes some of them, and old result files have no label
    compared = [
        node for node in ast.walk(ast.parse(MODULES[module].read_text("utf-8"))) if isinstance(node, ast.Compare)
    ]
    asked = {part.value for node in compared for part in ast.walk(node) if isinstance(part, ast.Constant)}
    assert not asked & set(METHODS), "a method's members say what it is"


def test_nobody_imports_a_bare_folder() -> None:
    for path in (path for folder in (*FOLDERS, "tests", "benchmarks") for path in (ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
            assert not {name.split(".")[0] for name in names} & {"model", "tasks", "baselines", "reports"}, path


def test_every_third_party_import_is_a_declared_dependency(wheel: zipfile.ZipFile) -> None:
    (metadata,) = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
    required = Parser().parsestr(wheel.read(metadata).decode()).get_all("Requires-Dist", [])
    declared = {canonicalize_name(Requirement(text).name) for text in required}
    distributions = importlib.metadata.packages_distributions()
    for module in MODULES:
        tops = {name.split(".")[0] for name in imports(module)} - set(sys.stdlib_module_names) - {"pcc_bench"}
        for top in tops:
            names = {canonicalize_name(name) for name in distributions.get(top, [top])}
            assert names & declared, f"{module} imports {top}"
