"""The memory store: nothing wrong comes out, nothing that is there is made again."""

from __future__ import annotations

import errno
import os
import pickle
import resource
import shutil
import signal
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from lm_eval.api.instance import Instance
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from pcc_bench import cli
from pcc_bench.baselines.controls import Bm25Context, FullContext
from pcc_bench.core import int8, tiny
from pcc_bench.core.compressor import Compressor, Memory
from pcc_bench.core.context import Prompt, literal, mark
from pcc_bench.core.decoder import Decoder
from pcc_bench.core.errors import UsageError
from pcc_bench.host import compressing
from pcc_bench.host import models as lm_models
from pcc_bench.host.lm import CompressedLM
from pcc_bench.host.store import store as store_folder
from pcc_bench.host.store.entry import PRECISIONS
from pcc_bench.host.store.store import MARKER, MemoryStore, StoreFolder
from pcc_bench.model import init
from pcc_bench.model.compressor import PccCompressor

TEXTS = ["It rains in Paris.", "Käse, 日本 and 🎈. " * 40, "One word. " * 300]


class Counting(Compressor):
    """A soft toy whose memory is a function of the text; it counts the texts it was given."""

    name = "counting"
    soft = True

    def __init__(self, decoder: Decoder) -> None:
        super().__init__(decoder)
        self.made: list[str] = []
        self.width = decoder.hidden_size

    def compress(self, contexts: Sequence[str]) -> list[Memory]:
        self.made += contexts
        return [self.memory(text) for text in contexts]

    def memory(self, text: str) -> Memory:
        values = torch.Generator().manual_seed(len(text))
        return Memory(len(text), 2, 3, slots=4, seconds=1.0, vectors=torch.randn(4, self.width, generator=values))


@pytest.fixture(scope="module")
def decoder(models: Path) -> Decoder:
    return init.open_decoder(str(models / "llama"))


@pytest.fixture(scope="module")
def pcc(models: Path) -> Compressor:
    return compressing.open_compressor(str(models / "pcc"), None, "cpu", "float32", {"rate": 4})


@pytest.fixture
def toy(decoder: Decoder) -> Counting:
    return Counting(decoder)


def files(root: Path) -> list[Path]:
    return sorted(root.glob("??/*"))


def keep(store: MemoryStore, texts: Sequence[str] = TEXTS) -> list[Memory]:
    return store.compress(texts, [""] * len(texts))


def same(one: Memory, other: Memory) -> bool:
    """Equal to the last bit, but for the time it took."""
    names = ("source_tokens", "compressor_tokens", "source_bytes", "slots", "boundary", "truncated_bytes", "text")
    vectors = one.vectors is other.vectors is None
    if one.vectors is not None and other.vectors is not None:
        vectors = one.vectors.dtype == other.vectors.dtype and torch.equal(one.vectors, other.vectors)
    return vectors and all(getattr(one, name) == getattr(other, name) for name in names)


# ---------------------------------------------------------------- what comes back


def test_a_memory_comes_back_to_the_last_bit_and_is_made_once(toy: Counting, tmp_path: Path) -> None:
    first, second = MemoryStore(tmp_path / "new" / "store", toy), MemoryStore(tmp_path / "new" / "store", toy)
    made, found = keep(first), keep(second)
    assert all(map(same, made, found))
    assert toy.made == TEXTS
    assert (dict(first.counts), dict(second.counts)) == ({"misses": 3, "written": 3, "evicted": 0}, {"hits": 3})
    assert all(memory.seconds < 1 for memory in found)  # of reading, not of making


@pytest.mark.parametrize("precision", PRECISIONS)
def test_what_a_store_gives_first_it_gives_again(pcc: Compressor, tmp_path: Path, precision: str) -> None:
    first, second = MemoryStore(tmp_path, pcc, precision), MemoryStore(tmp_path, pcc, precision)
    made, found = keep(first, ["", *TEXTS]), keep(second, ["", *TEXTS])
    assert all(map(same, made, found))
    for memory, plain in zip(made, pcc.compress(["", *TEXTS]), strict=True):
        assert memory.vectors is not None and plain.vectors is not None
        assert (memory.slots, memory.boundary, memory.source_tokens) == (
            plain.slots,
            plain.boundary,
            plain.source_tokens,
        )
        close = {"exact": 0.0, "float32": 1e-6, "bfloat16": 2e-2, "float16": 2e-3, "int8": 2e-2}[precision]
        assert (memory.vectors - plain.vectors).norm() <= close * max(1e-9, float(plain.vectors.norm()))


def test_text_comes_back_and_a_question_has_a_memory_of_its_own(decoder: Decoder, tmp_path: Path) -> None:
    full, aware = FullContext(decoder), Bm25Context.load("", decoder, rate=4)
    assert keep(MemoryStore(tmp_path, full)) and all(map(same, keep(MemoryStore(tmp_path, full)), full.compress(TEXTS)))
    text = "Rain falls in Paris. Cheese comes from Gouda. Nobody knows why. " * 3
    for question in ("Where does rain fall?", "Where does cheese come from?"):
        for _ in range(2):
            (memory,) = (store := MemoryStore(tmp_path, aware)).compress([text], [question])
            assert same(memory, aware.compress_for([text], [question])[0])
        assert store.counts["hits"] == 1


def test_whatever_decides_a_memory_is_in_its_key(models: Path, decoder: Decoder, tmp_path: Path) -> None:
    def key(text: str = "a", precision: str = "exact", dtype: str = "float32", **options: Any) -> str:
        compressor = compressing.open_compressor(str(models / "pcc"), None, "cpu", dtype, {"rate": 4, **options})
        return MemoryStore(tmp_path, compressor, precision).key(text)

    keys = [
        key(),
        key("b"),
        key(precision="int8"),
        key(dtype="bfloat16"),
        key(rate=16),
        key(boundaries="once"),
        key(slots="proportional"),
        key(memory_dtype="decoder", dtype="bfloat16"),
    ]
    assert len(set(keys)) == len(keys)
    assert key() == keys[0]
    other = init.fresh(str(models / "encoder"), decoder, [4], tmp_path / "other", seed=1)
    assert MemoryStore(tmp_path / "s", PccCompressor(other, decoder)).key("a") not in keys


def test_a_tokenizer_that_cuts_otherwise_finds_nothing(models: Path, toy: Counting, tmp_path: Path) -> None:
    before = MemoryStore(tmp_path, toy).key("a")
    toy.decoder.tokenizer(["a", "b b"], padding=True, truncation=True, max_length=3)  # leaves its settings behind
    assert MemoryStore(tmp_path, toy).key("a") == before
    other = Decoder(toy.decoder.model, tiny.make_tokenizer(["other words"] * 50, 400), toy.decoder.name)
    assert MemoryStore(tmp_path, Counting(other)).key("a") != before


# ---------------------------------------------------------------- evaluations


def load(models: Path, **arguments: Any) -> CompressedLM:
    kind = lm_models.pcc  # type: ignore[attr-defined]
    model: CompressedLM = kind(pretrained=str(models / "pcc"), device="cpu", dtype="float32", batch_size=4, **arguments)
    return model


def questions(rows: Sequence[dict[str, Any]]) -> list[Instance]:
    greedy = {"until": [], "do_sample": False, "max_gen_toks": 6}
    prompts = [Prompt.parse(f"{mark(row['context'])}Question: {literal(row['question'])} Answer: ") for row in rows]
    return [Instance("generate_until", {}, (p, dict(greedy)), i, metadata=("t", i, 1)) for i, p in enumerate(prompts)]


def forwards(model: CompressedLM) -> list[int]:
    """Grows with every forward of the encoder."""
    calls: list[int] = []
    model.compressor.pcc.encoder.register_forward_pre_hook(lambda *_: calls.append(1))  # type: ignore[attr-defined]
    return calls


def test_a_second_run_makes_no_encoder_forward(models: Path, rows: list[dict[str, Any]], tmp_path: Path) -> None:
    requests = questions(rows[:8])
    distinct = len({row["context"] for row in rows[:8]})
    plain = load(models).generate_until(requests, True)
    for expected in ({"misses": distinct, "hits": 0}, {"misses": 0, "hits": distinct}):
        model = load(models, memory_store=str(tmp_path))
        calls = forwards(model)
        assert model.generate_until(requests, True) == plain
        described = model.describe()
        assert described["memory_store"].items() >= expected.items()
        assert described["compressions"] == expected["misses"]
        assert bool(calls) == bool(expected["misses"])


def test_answers_from_int8_memories_do_not_depend_on_what_is_stored(
    models: Path, rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    requests = questions(rows[:6])
    options = {"memory_store": str(tmp_path), "memory_store_dtype": "int8"}
    first, second = load(models, **options), load(models, **options)
    assert first.generate_until(requests, True) == second.generate_until(requests, True)
    assert second.describe()["compressions"] == 0
    assert second.describe()["memory_store_dtype"] == "int8"
    assert first.fingerprint() != load(models).fingerprint()  # answers cached from exact memories are not these


def test_shortened_contexts_are_stored_too(models: Path, rows: list[dict[str, Any]], tmp_path: Path) -> None:
    for expected in (True, False):
        model = load(models, memory_store=str(tmp_path), max_length=130, overflow="truncate")
        calls = forwards(model)
        model.generate_until(questions(rows[:1]), True)
        assert bool(calls) is expected


# ---------------------------------------------------------------- damage


def flipped(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


def recount(path: Path) -> None:
    """Another count of slots in the header, the file otherwise sound."""
    data = path.read_bytes()
    path.write_bytes(data.replace(b'\\"slots\\"', b'\\"slotz\\"'))


class Harmful:
    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return (pytest.fail, ("a file was executed",))


DAMAGE: dict[str, Callable[[Path], Any]] = {
    "a link to itself": lambda path: (path.unlink(), path.symlink_to(path.name)),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-5]),
    "cut in its header": lambda path: path.write_bytes(path.read_bytes()[:40]),
    "empty": lambda path: path.write_bytes(b""),
    "one bit of a tensor": lambda path: flipped(path, -1),
    "one bit of the header": lambda path: flipped(path, 60),
    "other counts": recount,
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "foreign text": lambda path: path.write_text("not a memory", "utf-8"),
    "foreign safetensors": lambda path: save_file({"vectors": torch.zeros(4, 8)}, path),
    "pickle": lambda path: path.write_bytes(pickle.dumps(Harmful())),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_memory_is_made_again_and_replaced(toy: Counting, tmp_path: Path, damage: str) -> None:
    keep(MemoryStore(tmp_path, toy))
    path = files(tmp_path)[1]
    whole = path.read_bytes()
    DAMAGE[damage](path)
    toy.made.clear()
    store = MemoryStore(tmp_path, toy)
    assert all(map(same, keep(store), map(toy.memory, TEXTS)))
    assert len(toy.made) == 1
    assert dict(store.counts) == {"hits": 2, "damaged": 1, "written": 1, "evicted": 0}
    assert path.read_bytes() == whole
    assert keep(store) and store.counts["hits"] == 5


def test_another_memory_under_a_wrong_name_is_not_returned(toy: Counting, tmp_path: Path) -> None:
    store = MemoryStore(tmp_path, toy)
    keep(store)
    one, other = files(tmp_path)[:2]
    shutil.copy(one, other)
    assert all(map(same, keep(store), map(toy.memory, TEXTS)))
    assert store.counts["damaged"] == 1


def test_files_hold_tensors_only(toy: Counting, tmp_path: Path) -> None:
    keep(MemoryStore(tmp_path, toy))
    assert [set(load_file(path)) for path in files(tmp_path)] == [{"vectors"}] * 3


# ---------------------------------------------------------------- processes


def forked(work: Callable[[], None]) -> int:
    """Run something in a process of its own; its id."""
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        except BaseException:
            os._exit(1)
    return child


def test_two_processes_share_a_store(toy: Counting, tmp_path: Path) -> None:
    texts = [f"text {'x' * n}" for n in range(60)]

    def work() -> None:
        store = MemoryStore(tmp_path, toy)
        for text in texts:
            assert same(keep(store, [text])[0], toy.memory(text))

    children = [forked(work), forked(work)]
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]
    assert len(files(tmp_path)) == 60
    store = MemoryStore(tmp_path, toy)
    assert all(map(same, keep(store, texts), map(toy.memory, texts)))
    assert (toy.made, store.counts["hits"]) == ([], 60)


def test_a_killed_process_leaves_whole_memories_only(toy: Counting, tmp_path: Path) -> None:
    texts = [f"text {'x' * n}" for n in range(2000)]

    def work() -> None:
        store = MemoryStore(tmp_path, toy)
        for text in texts:
            keep(store, [text])

    def there_now() -> int:
        return len(list(tmp_path.glob("??/*.safetensors")))

    for _ in range(5):
        before, deadline = there_now(), time.monotonic() + 60
        child = forked(work)
        while there_now() == before and time.monotonic() < deadline:  # a busy machine starts it late
            time.sleep(0.01)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    there = there_now()
    store = MemoryStore(tmp_path, toy)
    assert all(map(same, keep(store, texts[:there]), map(toy.memory, texts)))
    assert there > 0
    assert dict(store.counts) == {"hits": there}


# ---------------------------------------------------------------- size


def test_the_memories_not_used_for_longest_are_deleted(toy: Counting, tmp_path: Path) -> None:
    texts = [f"text {'x' * n}" for n in range(6)]
    store = MemoryStore(tmp_path, toy)
    for text in texts:
        keep(store, [text])
    keep(store, texts[:1])  # the oldest one is used again
    (tmp_path / "notes.txt").write_text("mine", "utf-8")
    size = files(tmp_path)[0].stat().st_size
    tight = MemoryStore(tmp_path, toy, gib=(4 * size + 10) / 2**30)
    keep(tight, ["text more"])
    assert tight.counts["evicted"] == 3
    there = {path.stem for path in files(tmp_path)}
    assert there == {store.key(text) for text in (texts[0], texts[4], texts[5], "text more")}
    assert (tmp_path / "notes.txt").exists()


def test_what_a_killed_writer_left_is_deleted_in_time(toy: Counting, tmp_path: Path) -> None:
    store = MemoryStore(tmp_path, toy, gib=1)
    keep(store)
    old, new = (files(tmp_path)[0].with_name(f"{name}.part") for name in ("old", "new"))
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))
    keep(store, ["more"])
    assert (old.exists(), new.exists()) == (False, True)


# ---------------------------------------------------------------- mistakes and full disks


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Let the system refuse larger files, as a full disk refuses all."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_disk_that_fills_up_costs_no_result(models: Path, rows: list[dict[str, Any]], tmp_path: Path) -> None:
    requests = questions(rows[:4])
    plain = load(models).generate_until(requests, True)
    model = load(models, memory_store=str(tmp_path))
    with largest_file(2000), pytest.warns(UserWarning, match="could not keep a memory.*the run goes on"):
        assert model.generate_until(requests, True) == plain
    described = model.describe()["memory_store"]
    assert described["unwritten"] == described["misses"] > 0
    assert "File too large" in described["trouble"]
    assert not [path for path in files(tmp_path) if path.is_file()]


def test_a_folder_that_cannot_be_written_stops_a_run_before_its_work(
    toy: Counting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way", "utf-8")
    with pytest.raises(UsageError, match=r"memory store .*file/store can't be written \(Not a directory\)"):
        MemoryStore(tmp_path / "file" / "store", toy)
    MemoryStore(tmp_path / "store", toy)

    def refuse(path: Path, data: bytes) -> Path:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(store_folder, "write_whole", refuse)
    with pytest.raises(UsageError, match=r"can't be written \(Read-only file system\): give a folder that can"):
        MemoryStore(tmp_path / "store", toy)


def test_a_store_of_another_checkpoint_is_said_to_be_one_and_never_used(
    decoder: Decoder, toy: Counting, pcc: Compressor, tmp_path: Path
) -> None:
    keep(MemoryStore(tmp_path, toy))
    with pytest.warns(
        UserWarning, match=r"was made for other checkpoints or options \(none of 3 memories looked at fits\)"
    ):
        store = MemoryStore(tmp_path, pcc)
    assert all(map(same, keep(store), pcc.compress(TEXTS)))
    assert (store.counts["hits"], store.counts["misses"]) == (0, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        MemoryStore(tmp_path, pcc)
        MemoryStore(tmp_path / "new", pcc)


@pytest.mark.parametrize("marker", ['{"format": 2}', "{}", "[]", "no JSON"])
def test_a_store_of_another_format_is_refused(toy: Counting, tmp_path: Path, marker: str) -> None:
    MemoryStore(tmp_path, toy)
    (tmp_path / MARKER).write_text(marker, "utf-8")
    with pytest.raises(UsageError, match=r"has format (2|unknown), this version keeps 1: give another folder"):
        MemoryStore(tmp_path, toy)


def test_a_folder_of_other_things_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine", "utf-8")
    with pytest.raises(UsageError, match="holds other files and is no memory store"):
        StoreFolder(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"precision": "int4"}, "memory_store_dtype=int4 is unknown: pass one of exact, float32"),
        ({"precision": "int8"}, "counting has none: pass exact"),
    ],
)
def test_options_that_make_no_sense_are_refused(
    toy: Counting, tmp_path: Path, options: dict[str, Any], says: str
) -> None:
    with pytest.raises(UsageError, match=says):
        MemoryStore(tmp_path / "store", toy, **options)
    assert not (tmp_path / "store").exists()


def test_memories_that_depend_on_their_batch_are_refused(models: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"depend on the texts compressed beside them \(padding=attended\)"):
        load(models, memory_store=str(tmp_path), padding="attended")


def test_a_misspelt_option_is_named(models: Path) -> None:
    with pytest.raises(UsageError, match="did you mean 'memory_store'"):
        load(models, memory_stor="x")


# ---------------------------------------------------------------- precision


def test_int8_takes_a_byte_a_channel_and_errs_by_half_a_step() -> None:
    slots = torch.randn(16, 200) * torch.logspace(-3, 3, 200)
    whole, scales = int8.quantise(slots)
    assert (whole.dtype, whole.shape) == (torch.int8, slots.shape)
    assert scales.shape == (16, 4)  # 64 channels share one
    steps = scales.repeat_interleave(64, dim=1)[:, :200]
    assert ((int8.dequantise(whole, scales) - slots).abs() <= steps * 0.5001).all()
    zeros = torch.zeros(2, 48)
    assert torch.equal(int8.dequantise(*int8.quantise(zeros)), zeros)


def test_int8_files_are_smaller(pcc: Compressor, tmp_path: Path) -> None:
    sizes = {}
    for precision in ("exact", "int8"):
        keep(MemoryStore(tmp_path / precision, pcc, precision))
        sizes[precision] = sum(path.stat().st_size for path in files(tmp_path / precision))
    assert sizes["int8"] < 0.5 * sizes["exact"]


# ---------------------------------------------------------------- the command


def test_compress_fills_a_store_that_evaluations_read(models: Path, rows: list[dict[str, Any]], tmp_path: Path) -> None:
    words = ["compress", str(models / "pcc"), "--text", rows[0]["context"], "--store", str(tmp_path), "--device", "cpu"]
    for says in ("written", "it was there"):
        done = CliRunner().invoke(cli.app, words)
        assert done.exit_code == 0, done.output
        assert f"memory store {tmp_path}: {says}" in done.output
    model = load(models, memory_store=str(tmp_path))
    calls = forwards(model)
    model.generate_until(questions(rows[:1]), True)
    assert not calls


def test_compress_wants_a_place_for_the_memory(models: Path) -> None:
    done = CliRunner().invoke(cli.app, ["compress", str(models / "pcc"), "--text", "It rains."])
    assert isinstance(done.exception, UsageError)
    assert "no place to go: pass --output FILE, --store FOLDER, or both" in str(done.exception)
