"""Mutations of files: bytes, what lies at a place, values of documents, lines, tensors, option strings."""

from __future__ import annotations

import copy
import json
import lzma
import random
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import load_file, save_file

from pcc_bench.core.documents import COMPRESSED

UNKNOWN = "a_key_that_nobody_knows"
HOSTILE: tuple[Any, ...] = (
    *(None, True, -1, 0, 3, 10**6, 10**9, 10**30, 0.5, -1.5, float("nan"), float("inf")),
    *("", "x", "p" * 5_000, "\ud800", "a\0b", "../../x", "2020-99-99", [], [1], {}, {"a": {}}, [[]] * 3),
)
WORDS = (
    *("", "=", ",", "x", "-1", "0", "nan", "inf", "1e999", "9" * 5_000, "None", "True", "[]", "{}", "{", '"', "\ud800"),
    *("a\0b", "../..", "/", "auto", "int8", "float32", "\u0663", "=4", "x=y", "rate", "pretrained", "2020-99-99"),
)


def change_bytes(path: Path, draw: random.Random) -> bool:
    """Flip, cut, repeat or overwrite some bytes."""
    data = bytearray(path.read_bytes())
    for _ in range(draw.choice((1, 1, 3, 20))):
        at = draw.randrange(len(data)) if data else 0
        near = draw.randrange(min(len(data), 400)) if data else 0  # headers are where it hurts
        at = draw.choice((at, near))
        size = draw.choice((1, 4, 64))
        match draw.randrange(5):
            case 0 if data:
                data[at] ^= 1 << draw.randrange(8)
            case 1:
                del data[at : at + size]
            case 2:
                data[at:at] = data[at : at + size]
            case 3:
                data[at : at + size] = bytes(draw.randrange(256) for _ in range(size))
            case _:
                del data[draw.choice((at, len(data) // 2)) :]
    path.write_bytes(bytes(data))
    return False


def change_place(path: Path, draw: random.Random) -> bool:
    """Put something else where the file is: nothing, a folder, a link, an empty file, one in another encoding."""
    data = path.read_bytes()
    path.unlink()
    match draw.randrange(9):
        case 0:
            path.write_bytes(b"")
        case 1:
            path.mkdir()
        case 2:
            path.symlink_to(path.with_name("nowhere"))
        case 3:
            path.symlink_to(path.name)
        case 4:
            path.write_bytes(b"\xef\xbb\xbf" + data)
        case 5:
            path.write_bytes(data.decode("latin-1").encode("utf-16"))
        case 6:
            path.write_bytes(data[: draw.randrange(len(data))])
        case 7:
            path.write_bytes(data + b"\0" * draw.choice((1, 64)))
        case _:
            path.write_bytes(b"[" * 100_000 + data)
    return False


def restore(path: Path, good: bytes) -> None:
    """The good file again, whatever lies there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    elif path.is_symlink():
        path.unlink()
    path.write_bytes(good)


def twice(text: str, draw: random.Random) -> str:
    """JSON with one of its keys a second time in the same place."""
    keys = list(re.finditer(r'"(\w+)": ', text))
    if not keys:
        return text
    key = draw.choice(keys)
    return f"{text[: key.start()]}{key[0]}{json.dumps(draw.choice((None, 1, 'x')))}, {text[key.start() :]}"


def change_lines(path: Path, draw: random.Random) -> bool:
    """JSON Lines, of which one has another value, is lost, stands twice or is none."""
    if draw.random() < 0.2:
        return draw.choice((change_bytes, change_place))(path, draw)
    opened = COMPRESSED.get(path.suffix, open)
    with opened(path, "rt", encoding="utf-8") as file:
        lines = file.read().splitlines()
    number = draw.randrange(len(lines))
    match draw.randrange(6):
        case 0:
            lines.insert(number, lines[number])
        case 1:
            del lines[number]
        case 2:
            lines[number] = draw.choice(("null", "[]", "3", "{}", '"x"', "{", "\t", "\\ud800"))
        case 3:
            lines[number] = twice(lines[number], draw)
        case _:
            lines[number] = json.dumps(change_state(json.loads(lines[number]), draw)[0])
    with opened(path, "wt", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")
    return False


def change_packed(path: Path, draw: random.Random) -> bool:
    """Compressed JSON: of its values mostly."""
    if draw.random() < 0.2:
        return draw.choice((change_bytes, change_place))(path, draw)
    with lzma.open(path, "rt", encoding="utf-8") as file:
        state = json.loads(file.read())
    with lzma.open(path, "wt", encoding="utf-8") as file:
        file.write(json.dumps(change_state(state, draw)[0]))
    return False


def change_words(path: Path, draw: random.Random) -> bool:
    """`key=value,key=value`, of which a key or value is another, twice, cut or foreign; or JSON."""
    pairs = [pair.partition("=")[::2] for pair in path.read_text("utf-8").split(",")]
    number = draw.randrange(len(pairs))
    key, value = pairs[number]
    match draw.randrange(6):
        case 0:
            pairs.append((key, draw.choice(WORDS)))
        case 1:
            pairs[number] = (draw.choice(WORDS), value)
        case 2:
            pairs[number] = (key[:-1] + draw.choice("xyz"), value)
        case 3:
            state, _ = change_state(dict(pairs), draw)
            path.write_text(json.dumps(state), "utf-8")
            return False
        case _:
            pairs[number] = (key, draw.choice(WORDS))
    text = ",".join(f"{key}={value}" for key, value in pairs)
    path.write_text(text, "utf-8", errors="surrogatepass")
    return False


def change_state(state: Any, draw: random.Random) -> tuple[Any, bool]:
    """Exchange, drop or add a value somewhere in plain data; and whether an unknown key now stands at the top."""
    state = copy.deepcopy(state)
    places = list(_places(state))
    if not places or draw.random() < 0.05:
        return draw.choice(HOSTILE), False
    holder, key = draw.choice(places)
    value = holder[key]
    match draw.randrange(9):
        case 6:
            holder[key] = draw.choice((str(value), [value], {"x": value}, [value] * 2, bool(value), json.dumps(value)))
        case 7 if isinstance(holder, dict):
            holder[draw.choice(("", "\ud800", str(key).upper(), f"{key} "))] = holder.pop(key)
        case 8:
            for _ in range(draw.choice((30, 400))):
                value = [value]
            holder[key] = value
        case 0 if isinstance(holder, dict):
            del holder[key]
        case 1 if isinstance(state, dict):
            state[UNKNOWN] = draw.choice(HOSTILE)
            return state, True
        case 2 if isinstance(holder[key], int | float) and not isinstance(holder[key], bool):
            holder[key] = -holder[key] if draw.random() < 0.5 else holder[key] * 1000 + 1
        case _:
            holder[key] = draw.choice(HOSTILE)
    return state, False


def _places(state: Any) -> Iterator[tuple[Any, Any]]:
    items = state.items() if isinstance(state, dict) else enumerate(state) if isinstance(state, list) else ()
    for key, value in items:
        yield state, key
        yield from _places(value)


def change_json(path: Path, draw: random.Random) -> bool:
    """Values mostly, bytes now and then."""
    if draw.random() < 0.25:
        return draw.choice((change_bytes, change_place))(path, draw)
    if draw.random() < 0.1:
        path.write_text(twice(path.read_text("utf-8"), draw), "utf-8")
        return False
    state, unknown = change_state(json.loads(path.read_text("utf-8")), draw)
    path.write_text(json.dumps(state), "utf-8")
    return unknown


def change_yaml(path: Path, draw: random.Random) -> bool:
    """As `change_json`."""
    if draw.random() < 0.25:
        return draw.choice((change_bytes, change_place))(path, draw)
    state, unknown = change_state(yaml.safe_load(path.read_text("utf-8")), draw)
    try:
        text = yaml.safe_dump(state, allow_unicode=True, sort_keys=False)
    except RecursionError:
        text = json.dumps(state)  # is YAML too
    path.write_text(text, "utf-8", errors="surrogatepass")
    return unknown


def change_tensors(path: Path, draw: random.Random) -> bool:
    """A tensor with NaN or infinity, of another dtype or shape, lost or renamed; bytes now and then."""
    if draw.random() < 0.4:
        return draw.choice((change_bytes, change_bytes, change_place))(path, draw)
    with open(path, "rb") as file:  # noqa: PTH123
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    metadata, tensors = header.get("__metadata__", {}), load_file(path)
    name = draw.choice(sorted(tensors))
    value = tensors[name]
    match draw.randrange(7):
        case 0 if value.is_floating_point() and value.numel():
            value.view(-1)[draw.randrange(value.numel())] = draw.choice((float("nan"), float("inf"), -float("inf")))
        case 1:
            tensors[name] = value.to(draw.choice((torch.int8, torch.int64, torch.bool)))
        case 2:
            tensors[name] = value[:-1].clone() if value.dim() and len(value) else value[None].clone()
        case 3:
            tensors[name] = value.flatten().clone() if value.dim() > 1 else value[None].clone()
        case 4:
            del tensors[name]
        case 5:
            tensors[UNKNOWN] = tensors.pop(name)
        case _ if metadata:
            key = draw.choice(sorted(metadata))
            start = metadata[key].find("{")
            inner = metadata[key][max(start, 0) :]
            try:
                state, _ = change_state(json.loads(inner), draw)
                metadata[key] = metadata[key][: max(start, 0)] + json.dumps(state)
            except ValueError:
                metadata[key] = inner[: len(inner) // 2]
    save_file(tensors, path, metadata)
    return False
