"""JSON, YAML and text files of anyone: read within limits, refused in one sentence (UsageError), written whole."""

import gzip
import hashlib
import json
import lzma
import os
import re
import secrets
import shutil
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from pcc_bench.core.errors import UsageError, first_line

Model = TypeVar("Model", bound=BaseModel)
DEEPEST = 100  # levels of a document; libraries that read a part of it give up at about 250
_WRITE_FAILED = re.compile(r"[Nn]o space|os error \d+|writ(e|ing)|I/O|unexpected pos|iostream")  # torch.save too
PART = ".part"  # ends the name of a file that is being written
AGAIN = "make room or choose another folder, and run the same command again"
COMPRESSED: Mapping[str, Callable[..., Any]] = {".xz": lzma.open, ".gz": gzip.open}  # what a name ends in
# False too for what can be no path, where Path's own raise: a name of 5,000 characters, one with NUL.
is_file, is_folder = os.path.isfile, os.path.isdir


SURROGATE = re.compile("[\ud800-\udfff]")  # half of a pair, which is no character: no UTF-8, no tokenizer takes it


def is_unicode(text: str) -> bool:
    return not SURROGATE.search(text)


def read_text(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UsageError(f"{path} is missing: check the path") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 text (byte {error.start}): save it as UTF-8") from None
    except (OSError, ValueError) as error:  # ValueError: NUL in the name
        raise UsageError(f"{path} can't be read ({getattr(error, 'strerror', None) or type(error).__name__})") from None
    if "\0" in text:
        raise UsageError(f"{path} is not text (it has NUL characters): is it the right file?")
    return text


def _check_depth(value: Any) -> None:  # that whatever reads them later can take
    level, depth = [value], 0
    while level := [value for value in level if isinstance(value, dict | list)]:
        depth += 1
        if depth > DEEPEST + 1:
            raise RecursionError
        level = [inner for outer in level for inner in (outer.values() if isinstance(outer, dict) else outer)]


def parse_json(text: str, where: str) -> Any:
    """The value of a JSON text, no key twice in one object."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        state = dict(pairs)
        if len(state) < len(pairs):
            twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
            raise UsageError(f"{where} has the key '{twice[:100]}' twice in one place: which value is meant?")
        return state

    try:
        value = json.loads(text, object_pairs_hook=unique)
        if text.count("[") + text.count("{") > DEEPEST:
            _check_depth(value)
    except UsageError:
        raise
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}" if error.lineno > 1 else f"column {error.colno}"
        raise UsageError(f"{where} is not valid JSON ({error.msg}, {place})") from None
    except RecursionError:
        raise UsageError(f"{where} is nested too deeply to be read") from None
    except ValueError:
        raise UsageError(f"{where} has a number with too many digits to be read") from None
    if "\\ud" in text.lower() and not is_unicode(json.dumps(value, ensure_ascii=False)):
        raise UsageError(f"{where} has half of a character (a lone surrogate such as \\ud800): correct it")
    return value


def digest(state: Any, digits: int = 16) -> str:
    """A hash of plain data, independent of the order of keys: 16 digits to show and compare, 64 for a key."""
    return hashlib.sha256(json.dumps(state, sort_keys=True, default=str).encode()).hexdigest()[:digits]


def read_json(path: Path) -> Any:
    return parse_json(read_text(path), str(path))


def read_json_lines(path: Path) -> Iterator[tuple[int, Any]]:
    """Line numbers (from 1) and values of a JSON Lines file, `.gz` and `.xz` too, but for empty lines."""
    number = 0
    try:
        with COMPRESSED.get(path.suffix, open)(path, "rt", encoding="utf-8-sig", newline="\n") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield number, parse_json(line, f"{path}, line {number}")
    except FileNotFoundError:
        raise UsageError(f"{path} is missing: check the path") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path} is not UTF-8 text (after line {number}): save it as UTF-8") from None
    except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
        why = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise UsageError(f"{path} can't be read (after line {number}: {why})") from None


def parse_yaml(text: str, where: str) -> Any:
    """The value of a YAML text, plain data only, no key twice in one mapping."""
    import yaml  # here, since commands that read none start without it

    class Loader(yaml.SafeLoader):
        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            keys = Counter(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.value != "<<")
            if twice := [key for key, count in keys.items() if count > 1]:
                problem = f"the key '{twice[0][:100]}' stands twice in one place"
                raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
            return super().construct_mapping(node, deep)

    try:
        value = yaml.load(text, Loader)  # a SafeLoader
        _check_depth(value)
        return value
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise UsageError(f"{where} is not readable YAML ({problem}{place})") from None
    except RecursionError:
        raise UsageError(f"{where} is nested too deeply to be read") from None
    except (ValueError, OverflowError) as error:
        raise UsageError(f"{where} has a value that is none of YAML's ({str(error)[:100]})") from None


def read_yaml(path: Path) -> Any:
    return parse_yaml(read_text(path), str(path))


class Strict(BaseModel):
    """A record that nobody changes and that has no unknown fields."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def checked(model: type[Model], state: Any, where: str) -> Model:
    """A pydantic model from plain data; UsageError: one sentence about the first thing that is wrong."""
    try:
        return model.model_validate(state)
    except ValidationError as error:
        first = error.errors()[0]
        field = " ".join(".".join(map(str, first["loc"]))[:100].split())
        if first["type"] == "extra_forbidden":
            raise UsageError(f"{where}: unknown key '{field}' (check its spelling and its place)") from None
        message = " ".join(first["msg"].removeprefix("Value error, ").split())[:300]
        raise UsageError(f"{where}: {field + ': ' if field else ''}{message}") from None


def is_of_the_disk(error: Exception) -> bool:
    """Is it about writing? safetensors, tokenizers and torch have errors of their own for a full disk."""
    return isinstance(error, OSError) or bool(_WRITE_FAILED.search(first_line(error)))


@contextmanager
def writing(path: Path, remedy: str = AGAIN) -> Iterator[None]:
    try:
        yield
    except UsageError:
        raise
    except Exception as error:
        if not is_of_the_disk(error):
            raise
        old = "; the old file is untouched" if path.is_file() else ""
        reason = getattr(error, "strerror", None) or first_line(error)
        raise UsageError(f"{path} can't be written ({reason}){old}: {remedy}") from error


def move_over(part: Path, folder: Path, last: str = "") -> None:
    """Move the files of `part` into a folder on the same disk, names that begin with `last` after all others."""
    paths = [path for path in part.rglob("*") if path.is_file()]
    with writing(folder):
        for path in sorted(paths, key=lambda path: (bool(last) and path.name.startswith(last), path)):
            place = folder / path.relative_to(part)
            place.parent.mkdir(parents=True, exist_ok=True)
            path.replace(place)


@contextmanager
def filled(folder: Path) -> Iterator[Path]:
    """Write files into a folder inside `folder`, then move each over its own name: as `replaced`, for several."""
    part = folder / f".{os.getpid()}.part"
    try:
        with writing(folder):
            part.mkdir(parents=True, exist_ok=True)
            yield part
        move_over(part, folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


@contextmanager
def beside(path: Path) -> Iterator[Path]:
    """As `replaced`, in a folder that is there and with the disk's own errors."""
    part = path.with_name(f".{path.name}.{secrets.token_hex(8)}{PART}")  # a process id may be another machine's too
    try:
        yield part
        part.replace(path)
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """Write beside `path`, then move over it: whatever happens, the file is the old one or the new one, whole."""
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with beside(path) as part:
            yield part


def write_text(path: Path, text: str) -> None:
    with replaced(path) as part:
        part.write_text(text, encoding="utf-8", errors="backslashreplace", newline="\n")  # of lone surrogates
