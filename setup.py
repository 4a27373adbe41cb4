"""What `pyproject.toml` cannot compute: the packages below the folders it maps, and lm-eval's names of all methods."""

import ast
import tomllib
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
FOLDERS = tomllib.loads((HERE / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]["package-dir"]
REGISTRY = ast.parse((HERE / "pcc_bench" / "core" / "registry.py").read_text("utf-8"))
(METHODS,) = (
    ast.literal_eval(node.value)
    for node in REGISTRY.body
    if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "METHODS" and node.value
)

setup(
    packages=[
        name
        for package, folder in FOLDERS.items()
        for name in (package, *(f"{package}.{below}" for below in find_packages(folder)))
    ],
    entry_points={
        "console_scripts": ["pcc-bench = pcc_bench.cli:main"],
        "pytest11": ["pcc-bench = pcc_bench.gate.pytest_plugin"],
        # Read by lm-eval after 0.4.13; up to then the start-up hook (pcc_bench/host/startup.py) does it.
        "lm_eval.models": [f"{name} = pcc_bench.host.models:{name.replace('-', '_')}" for name in METHODS],
    },
)
