"""What strangers' documents can't do: every refusal is one sentence, and no file is ever half written."""

import ast
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict

from pcc_bench.core import documents
from pcc_bench.core.errors import UsageError


class Row(BaseModel):
    model_config = ConfigDict(extra="forbid")
    count: int


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"[" * 100_000, "nested too deeply"),
        (b"1" * 5_000, "too many digits"),
        ("{'ä': 1}".encode("latin-1"), "not UTF-8"),
        (b'{"a": "\0"}', "NUL"),
        (b'{\n"a": }', "line 2, column 6"),
    ],
)
def test_json_that_can_not_be_read_is_one_sentence(tmp_path: Path, content: bytes, says: str):
    path = tmp_path / "strange.json"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=says) as raised:
        documents.read_json(path)
    assert str(path) in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "text",
    ["a: " + "[" * 5_000, "a: 2020-99-99", "!!python/object/apply:os.system [ls]", "a: [1", "1" * 5_000, "&a [*a"],
)
def test_yaml_that_can_not_be_read_is_one_sentence(tmp_path: Path, text: str):
    path = tmp_path / "strange.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match=r"strange\.yaml") as raised:
        documents.read_yaml(path)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("text", ['{"a": {"b": 1, "b": 1}}', '[{"b": 1, "c": 2, "b": null}]'])
def test_a_key_that_stands_twice_is_no_json_of_ours(text: str):
    with pytest.raises(UsageError, match=r"^it has the key 'b' twice"):
        documents.parse_json(text, "it")


@pytest.mark.parametrize("read", [documents.parse_json, documents.parse_yaml])
def test_nesting_has_a_limit(read: Callable[[str, str], object]):
    assert read("[" * 100 + "]" * 100, "it")
    for depth in (102, 400):
        with pytest.raises(UsageError, match=r"^it is nested too deeply"):
            read("[" * depth + "]" * depth, "it")
        with pytest.raises(UsageError, match=r"^it is nested too deeply"):
            read('{"a": ' * depth + "1" + "}" * depth, "it")


@pytest.mark.parametrize("text", ["a: {b: 1, b: 1}", "a:\n- b: 1\n  c: 2\n  b: 3"])
def test_a_key_that_stands_twice_is_no_yaml_of_ours(text: str):
    with pytest.raises(UsageError, match=r"^it is not readable YAML .the key 'b' stands twice.*line"):
        documents.parse_yaml(text, "it")


def test_merge_keys_of_yaml_are_read():
    merged = documents.parse_yaml("x: &x {a: 1}\ny: &y {b: 2}\nz: {<<: *x, a: 3}\n", "it")
    assert merged["z"] == {"a": 3}


def test_a_byte_order_mark_is_no_part_of_a_text(tmp_path: Path):
    path = tmp_path / "windows.json"
    path.write_bytes(b"\xef\xbb\xbf" + b'{"a": 1}')
    assert documents.read_json(path) == {"a": 1}


@pytest.mark.parametrize("name", ["missing.json", "."])
def test_what_is_no_file_is_one_sentence(tmp_path: Path, name: str):
    with pytest.raises(UsageError):
        documents.read_json(tmp_path / name)


def test_json_lines_name_the_line_that_is_broken(tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": 1}\n\n{"a": "\u2028"}\n{')
    rows = documents.read_json_lines(path)
    assert [next(rows), next(rows)] == [(1, {"a": 1}), (3, {"a": "\u2028"})]
    with pytest.raises(UsageError, match="line 4"):
        next(rows)


@given(st.binary(max_size=200))
def test_no_bytes_bring_a_traceback(tmp_path_factory: pytest.TempPathFactory, content: bytes):
    path = tmp_path_factory.getbasetemp() / "any"
    path.write_bytes(content)
    for read in (documents.read_json, documents.read_yaml):
        try:
            read(path)
        except UsageError as error:
            assert str(path) in str(error)


@pytest.mark.parametrize("state", [None, 3, [], {}, {"count": "x"}, {"count": 1, "other": 2}])
def test_a_wrong_shape_is_one_sentence(state: object):
    with pytest.raises(UsageError, match=r"^the row: "):
        documents.checked(Row, state, "the row")


def test_an_interrupted_write_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path):
    path = tmp_path / "out.json"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), documents.replaced(path) as part:
        part.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_one_sentence_and_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "out.json"
    documents.write_text(path, json.dumps([1]))
    monkeypatch.setattr(
        Path, "write_text", lambda *a, **k: (_ for _ in ()).throw(OSError(28, "No space left on device"))
    )
    with pytest.raises(UsageError, match=r"No space left.*old file is untouched"):
        documents.write_text(path, "[2]")
    monkeypatch.undo()
    assert documents.read_json(path) == [1]


SAVE_WITH_LITTLE_ROOM = """
import resource, signal, sys, torch
from pathlib import Path
from pcc_bench.core.documents import writing
from pcc_bench.core.errors import UsageError

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
path, state = Path(sys.argv[1]), {"large": torch.zeros(3000), "small": [torch.zeros(5) for _ in range(20)]}
torch.save(state, path)
for room in range(0, path.stat().st_size, 97):
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))
    try:
        with writing(path):
            torch.save(state, path)
    except UsageError:
        continue
    raise SystemExit(f"saved with room for {room} bytes")
"""


def test_wherever_the_disk_ends_torchs_own_errors_are_one_sentence(tmp_path: Path):
    subprocess.run([sys.executable, "-c", SAVE_WITH_LITTLE_ROOM, str(tmp_path / "state.pt")], check=True)


WRITING = {"write_text", "write_bytes", "savefig", "save_pretrained", "to_csv"}
WRITERS = ("torch.save", "save_file", "np.save", "pickle.dump", "json.dump", "yaml.dump", "yaml.safe_dump")
# A store of several processes; folders that are moved or marked as done at their end; models for tests; Linux' own.
OWN_WAY = ("pcc_bench/lab/", "pcc_bench/core/converted.py", "pcc_bench/core/converted.py", "pcc_bench/core/tiny.py")
OWN_WAY += (
    "pcc_bench/host/store/store.py",
    "pcc_bench/cost/measure.py",
)


def _writes(node: ast.AST) -> bool:
    if not isinstance(node, ast.Call):
        return False
    name = ast.unparse(node.func)
    if name in WRITERS:
        return not (name == "torch.save" and "buffer" in ast.unparse(node))
    if name.endswith(".open") or name == "open":
        modes = [ast.unparse(argument).strip("'") for argument in (*node.args, *(k.value for k in node.keywords))]
        return any(mode in ("w", "wb", "x", "xb", "wt") for mode in modes)
    if name.endswith(".to_csv"):
        return bool(node.args)
    return name.rpartition(".")[2] in WRITING and name != "documents.write_text" and "." in name


def test_files_are_written_in_one_place() -> None:
    """What a user keeps goes through `replaced`, `filled` or `write_text`: whole, or one sentence and the old file."""
    beside = []
    root = Path(__file__).parent.parent
    for room in ("pcc_bench", "model", "tasks", "baselines", "reports"):
        for path in (root / room).rglob("*.py"):
            name = path.relative_to(root).as_posix()
            tree = ast.parse(path.read_text("utf-8"))
            safe = {
                inner
                for node in ast.walk(tree)
                if isinstance(node, ast.With)
                and any(part in ast.unparse(item) for item in node.items for part in ("replaced(", "filled("))
                for inner in ast.walk(node)
            }
            if not name.startswith((*OWN_WAY, "pcc_bench/core/documents.py")):
                beside += [f"{name}:{n.lineno}" for n in ast.walk(tree) if _writes(n) and n not in safe]
    assert beside == []
