"""PCC equals the original implementation: tiny models of the original code, their files loaded as they are.

The folders are those of `$PCC_GOLDEN/pcc/*/` (default: of tests/golden.tar.xz). Sizes are read from the files.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from golden_files import GOLDEN
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from pcc_bench.core.decoder import Decoder
from pcc_bench.core.generation import generate
from pcc_bench.core.plan import Plan
from pcc_bench.model.compressor import PccCompressor
from pcc_bench.model.pcc import PCC
from pcc_bench.model.training import objectives
from pcc_bench.model.training.objectives import Task

ROOT = GOLDEN
FOLDERS = sorted(path.parent for path in (ROOT / "pcc").rglob("io.safetensors"))
TASKS = {"ae": Task.RECONSTRUCTION, "ar": Task.COMPLETION, "sft": Task.ANSWERING}


@dataclass
class Golden:
    folder: Path
    config: dict[str, Any]
    expected: dict[str, Any]
    io: dict[str, torch.Tensor]
    decoder: Decoder

    def load(self, **policies: Any) -> PccCompressor:
        checkpoint = self.folder / (self.config["adapter"] or self.config["encoder"])
        return PccCompressor.load(
            str(checkpoint),
            self.decoder,
            encoder=str(self.folder / self.config["encoder"]) if self.config["adapter"] else None,
            rate=self.config["rate"],
            segment_length=self.config["segment_length"],
            **policies,
        )

    def targets(self, case: str, task: str) -> tuple[list[list[int]], list[list[int]]]:
        """Target ids and labels of a case, end of sequence appended, as the original collator does."""
        column = {"ae": "llm_ids", "ar": "next_ids", "sft": "query_answer_ids"}[task]
        end = [self.config["ids"]["decoder_eos"]]
        rows = self.expected["samples"][case]
        ids = [row[column] + end for row in rows]
        return ids, [row["labels"] + end for row in rows] if task == "sft" else ids


def open_golden(folder: Path) -> Golden:
    config = json.loads((folder / "config.json").read_text())
    model = AutoModelForCausalLM.from_pretrained(folder / config["decoder"], dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder / config["decoder"])
    expected = json.loads((folder / "expected.json").read_text())
    return Golden(folder, config, expected, load_file(folder / "io.safetensors"), Decoder(model, tokenizer))


@pytest.fixture(scope="module", params=FOLDERS, ids=lambda folder: f"{folder.parent.name}-{folder.name}")
def golden(request: pytest.FixtureRequest) -> Golden:
    return open_golden(request.param)


@pytest.fixture(scope="module")
def pcc(golden: Golden) -> PCC:
    # The original attends to the padding of a batch (quirk Q1); case c shows it, the others have none.
    return golden.load(padding="attended").pcc


def close(actual: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(actual, expected, atol=1e-4, rtol=1e-4)


def context_ids(golden: Golden, case: str) -> list[list[int]]:
    column = "llm_ids" if golden.config["use_lora"] else "compress_ids"
    return [row[column] for row in golden.expected["samples"][case]]


def test_golden_folders_are_there() -> None:
    assert FOLDERS, f"no golden folder under {ROOT / 'pcc'}"


@pytest.mark.parametrize("case", ["a", "b", "c"])
def test_golden_slots_before_and_after_the_converter(golden: Golden, pcc: PCC, case: str) -> None:
    for convert, key in ((False, "slots_encoder"), (True, "slots_converter")):
        encoded = pcc.encode(context_ids(golden, case), convert=convert)
        close(torch.stack([torch.cat(one.slots) for one in encoded]), golden.io[f"{case}.{key}"])


def test_golden_converter_on_tiny_values(golden: Golden, pcc: PCC) -> None:
    close(pcc.converter(golden.io["converter_probe.in"]), golden.io["converter_probe.out"])


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("case", ["a", "b", "c"])
def test_golden_decoder_inputs_logits_and_losses(golden: Golden, pcc: PCC, case: str, task: str) -> None:
    targets, labels = golden.targets(case, task)
    encoded = pcc.encode(context_ids(golden, case))
    plans = objectives.memory_plans(pcc, golden.decoder, encoded, TASKS[task])
    inputs = objectives.behind(golden.decoder, plans, targets, labels)
    io, key = golden.io, f"{case}.{task}"
    if f"{key}.inputs_embeds" in io:
        close(inputs.vectors, io[f"{key}.inputs_embeds"])
    assert torch.equal(inputs.mask, io[f"{key}.attention_mask"].long())
    assert torch.equal(inputs.labels, io[f"{key}.labels"].long())

    logits = golden.decoder.model(inputs_embeds=inputs.vectors, attention_mask=inputs.mask).logits
    first = inputs.vectors.shape[1] - io[f"{key}.target_ids"].shape[1]  # where the target starts
    positions = io[f"{key}.logits_pos"].long() + first - 1
    close(logits[:, positions], io[f"{key}.logits"])

    nll = objectives.token_nll(golden.decoder, inputs)
    close(nll[:, first:], io[f"{key}.nll"])
    expected = golden.expected["fp32"][f"{key}_loss"]
    assert torch.nn.functional.cross_entropy(*objectives.predictions(golden.decoder, inputs)).item() == pytest.approx(
        expected, abs=1e-4
    )


def test_golden_gradients_reach_the_same_parameters_with_the_same_norms(golden: Golden) -> None:
    pcc = golden.load().pcc.requires_grad_(True)
    targets, _ = golden.targets("a", "ae")
    encoded = pcc.encode(context_ids(golden, "a"))
    plans = objectives.memory_plans(pcc, golden.decoder, encoded, Task.RECONSTRUCTION)
    inputs = objectives.behind(golden.decoder, plans, targets)
    loss = torch.nn.functional.cross_entropy(*objectives.predictions(golden.decoder, inputs))
    loss.backward()  # type: ignore[no-untyped-call]
    norms = {name: p.grad.norm().item() for name, p in pcc.named_parameters() if p.grad is not None}
    expected = golden.expected["fp32"]["a.ae_grad_norms"]
    for name, value in expected.items():
        ours = next(n for n in norms if n.endswith(_tail(name)))
        assert norms[ours] == pytest.approx(value, rel=1e-3, abs=1e-5), name
    assert all(p.grad is None for p in golden.decoder.model.parameters())


def _tail(original: str) -> str:
    """The part of an original parameter name that ours has too, adapter names aside."""
    name = original.removeprefix("compressor.model.").removeprefix("transformer.")
    name = name.replace("pcc_adapter", "default").removeprefix("base_model.model.").removeprefix("model.")
    return name


@pytest.mark.parametrize("prompt", ["ae", "qa"])
@pytest.mark.parametrize("case", ["a", "b"])
def test_golden_greedy_ids_and_text(golden: Golden, case: str, prompt: str) -> None:
    compressor = golden.load()
    expected = golden.expected["fp32"][f"{case}.gen.{prompt}"]
    text = golden.expected["samples"][case][0]["text"]
    (ids,) = compressor.pcc.encoder.tokenize([text])
    assert ids == golden.io[f"{case}.gen.compress_ids"].flatten().tolist()
    (memory,) = compressor.compress([text])
    assert memory.vectors is not None
    prompt_ids = golden.decoder.tokenizer.encode(expected["prompt"], add_special_tokens=False)
    vectors = Plan((golden.decoder.bos, memory, prompt_ids)).vectors(golden.decoder)
    if f"{case}.gen.{prompt}.inputs_embeds" in golden.io:
        close(vectors[None], golden.io[f"{case}.gen.{prompt}.inputs_embeds"])
    stops = compressor.layout.stop_token_ids
    out = generate(golden.decoder, [vectors], 20, stops, compressor.layout.suppressed_token_ids)
    assert out.ids == [expected["ids"]]
    assert golden.decoder.tokenizer.decode(out.ids[0], skip_special_tokens=True) == expected["text"]


def test_golden_masked_padding_makes_a_memory_independent_of_its_batch(golden: Golden) -> None:
    pcc = golden.load(padding="masked").pcc
    contexts = context_ids(golden, "c")
    together = pcc.encode(contexts)
    for ids, one in zip(contexts, together, strict=True):
        (alone,) = pcc.encode([ids])
        close(torch.cat(one.slots), torch.cat(alone.slots))


def test_golden_special_token_patch_equals_the_decoders_rows() -> None:
    for patch in (ROOT / "pcc").rglob("special_token_patch.pt"):
        golden = open_golden(patch.parent)
        names = golden.config["ids"]["decoder_special"]
        rows = golden.decoder.embed([names[name] for name in ("<mem>", "</mem>", "<ae>")])
        assert torch.equal(golden.load(special_tokens=str(patch)).pcc.special, rows)
        assert torch.equal(golden.load().pcc.special, rows)
