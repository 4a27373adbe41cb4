"""Golden vectors of the original implementations: those of `$PCC_GOLDEN`, or of the archive beside this file.

Folders share many tensors, so the archive takes 3.6 MB for 8.7. To write it anew:

    tar --sort=name --owner=0 --group=0 --numeric-owner --mtime=@0 -C FOLDER -c . | xz -9e > tests/golden.tar.xz
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tarfile
import tempfile
from pathlib import Path

ARCHIVE = Path(__file__).with_name("golden.tar.xz")


def unpacked() -> Path:
    """The archive's folder, made beside it by the first process that asks; git ignores it."""
    folder = ARCHIVE.with_name(f".golden-{hashlib.sha256(ARCHIVE.read_bytes()).hexdigest()[:12]}")
    if not folder.is_dir():
        part = Path(tempfile.mkdtemp(prefix=".golden-part-", dir=folder.parent))
        with tarfile.open(ARCHIVE) as archive:
            archive.extractall(part, filter="data")
        try:
            part.rename(folder)
        except OSError:  # another process was first
            shutil.rmtree(part)
    return folder


SHIPPED = unpacked()
GOLDEN = Path(os.environ.get("PCC_GOLDEN", SHIPPED))
