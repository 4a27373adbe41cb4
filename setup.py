"""The list of packages, which `pyproject.toml` cannot compute: all below the folders that its `package-dir` maps."""

import tomllib
from pathlib import Path

from setuptools import find_packages, setup

SETTINGS = tomllib.loads(Path(__file__).with_name("pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]

setup(
    packages=[
        name
        for package, folder in SETTINGS["package-dir"].items()
        for name in (package, *(f"{package}.{below}" for below in find_packages(folder)))
    ]
)
