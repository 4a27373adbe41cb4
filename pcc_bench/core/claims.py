"""One command at a time on an output folder: the second one is refused, with the name of the first."""

import json
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from pcc_bench.core.documents import read_json, write_text
from pcc_bench.core.errors import UsageError

LOCK, OWNER = ".pcc_bench{}.lock", ".pcc_bench{}.owner.json"


@contextmanager
def claimed(folder: Path, part: str = "", wait: bool = False) -> Iterator[None]:
    """Hold an output folder, or a `part` of it, for as long as a command runs; made if missing.

    A killed command blocks nobody. Of several processes of one command (`accelerate launch`), the first holds it.
    `wait`: for another command to end, instead of a UsageError.
    """
    if os.environ.get("RANK", "0") != "0":
        yield
        return
    owner = folder / OWNER.format(part and f".{part}")
    lock = FileLock(folder / LOCK.format(part and f".{part}"), timeout=-1 if wait else 0)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        who = "another command"
        with suppress(UsageError, LookupError, TypeError):  # between its lock and its name
            who = "'{command}' (process {pid} on {host}, since {since})".format(**read_json(owner))
        raise UsageError(f"{folder} is in use by {who}: wait for its end, or choose another folder") from None
    except (OSError, NotImplementedError) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise UsageError(f"{folder} can't be written ({reason}): choose another folder") from None
    try:
        command = " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])[:200]
        since = datetime.now(UTC).isoformat(timespec="seconds")
        me = {"pid": os.getpid(), "host": socket.gethostname(), "command": command, "since": since}
        write_text(owner, json.dumps(me))
        yield
    finally:
        owner.unlink(missing_ok=True)
        lock.release()


def is_claim(path: Path) -> bool:  # a file of one, which says nothing about what a folder holds
    return path.name.startswith(".pcc_bench") and path.name.endswith((".lock", ".owner.json", ".part"))
