"""setuptools as the build backend, plus the two start-up files that let lm-eval find pcc-bench.

setuptools has no supported way to put a `.pth` file beside the package in a wheel *and* in an editable installation.
PEP 517 has: whatever is in the wheel (an editable installation is one too) gets installed, and uninstalled again.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import os
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from setuptools import build_meta
from setuptools.build_meta import (  # noqa: F401 - the hooks that stay as they are
    build_sdist,
    get_requires_for_build_editable,
    get_requires_for_build_sdist,
    get_requires_for_build_wheel,
    prepare_metadata_for_build_editable,
    prepare_metadata_for_build_wheel,
)

SOURCE = Path(__file__).resolve().parents[1] / "pcc_bench" / "host" / "startup.py"
MODULE = "_pcc_bench_startup"  # a copy at top level: an interpreter's start should not run pcc_bench/__init__.py

# `site` runs lines of a .pth file that begin with "import", and prints a traceback of what fails. This stays silent.
PTH = f'import sys; exec("try:\\n from {MODULE} import start\\n start()\\nexcept Exception:\\n pass")\n'


def build_wheel(
    wheel_directory: str, config_settings: dict[str, Any] | None = None, metadata_directory: str | None = None
) -> str:
    """The wheel of setuptools with the start-up files."""
    with fresh_build_folder():
        name = build_meta.build_wheel(wheel_directory, config_settings, metadata_directory)
    return add_startup_files(Path(wheel_directory, name))


def build_editable(
    wheel_directory: str, config_settings: dict[str, Any] | None = None, metadata_directory: str | None = None
) -> str:
    """The editable wheel of setuptools with the start-up files.

    They are copies here too: reinstall after a change of `pcc_bench/host/startup.py`.
    """
    name = build_meta.build_editable(wheel_directory, config_settings, metadata_directory)
    return add_startup_files(Path(wheel_directory, name))


@contextmanager
def fresh_build_folder() -> Iterator[None]:
    """Let setuptools build elsewhere than in `build/`, whose left-overs (a task deleted since) it would pack again."""
    extra = "DIST_EXTRA_CONFIG"  # names one more of distutils' configuration files
    if extra in os.environ:
        yield
        return
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder, "build.cfg")
        config.write_text(f"[build]\nbuild_base = {folder}\n", encoding="utf-8")
        os.environ[extra] = str(config)
        try:
            yield
        finally:
            del os.environ[extra]


def add_startup_files(wheel: Path) -> str:
    """Rewrite a wheel with the start-up files and their lines in RECORD; returns its file name."""
    files = {f"{MODULE}.py": SOURCE.read_bytes(), "pcc_bench_startup.pth": PTH.encode()}
    rewritten = wheel.with_suffix(".tmp")
    with zipfile.ZipFile(wheel) as old, zipfile.ZipFile(rewritten, "w", zipfile.ZIP_DEFLATED) as new:
        record = next(item for item in old.infolist() if item.filename.endswith(".dist-info/RECORD"))
        for item in old.infolist():
            if item is not record:
                new.writestr(item, old.read(item))
        for name, content in files.items():
            new.writestr(_entry(name, like=record), content)
        lines = old.read(record).decode() + "".join(_record_line(name, content) for name, content in files.items())
        new.writestr(record, lines)
    rewritten.replace(wheel)
    return wheel.name


def _entry(name: str, like: zipfile.ZipInfo) -> zipfile.ZipInfo:
    """A file of the wheel with the date and rights of another one, so that equal sources give equal wheels."""
    entry = zipfile.ZipInfo(name, date_time=like.date_time)
    entry.external_attr = like.external_attr
    entry.compress_type = zipfile.ZIP_DEFLATED
    return entry


def _record_line(name: str, content: bytes) -> str:
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow([name, f"sha256={digest}", len(content)])
    return line.getvalue()
