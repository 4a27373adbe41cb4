"""Part 2: parity. Golden PCC models and all shipped checkpoints, in float32 and bfloat16 on the device.

Golden models are held against the values that the original code left on a CPU (slots after the converter, logits,
greedy ids); shipped checkpoints against this package on the CPU in float32 (memories, answers to the lab's questions).
Errors are the largest difference over the largest value. What bfloat16 costs on the CPU stands beside what it costs on
the device: the goal is that the device's is at most twice as large.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

import torch
from rows import Row, Setting, part
from safetensors.torch import load_file
from speed import questions, requests

from pcc_bench.core import shipped
from pcc_bench.core.context import Prompt
from pcc_bench.core.documents import read_json
from pcc_bench.core.errors import first_line
from pcc_bench.core.generation import generate
from pcc_bench.core.plan import Plan
from pcc_bench.cost import measure
from pcc_bench.host import models, startup
from pcc_bench.host.lm import CompressedLM
from pcc_bench.model import init
from pcc_bench.model.compressor import PccCompressor
from pcc_bench.model.training import objectives
from pcc_bench.model.training.objectives import Task

PART = "parity"
EXACT = 1e-3  # in float32: the order of summation, nothing else
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
METHODS = ("pcc", "icae", "cocom", "autocompressor", "llmlingua2")
Output = tuple[list[torch.Tensor], list[str]]  # vectors to compare, and answers


def run(setting: Setting) -> None:
    """Golden models, then checkpoints; one that fails is a row."""
    startup.install()
    device = measure.find_device(None)
    sys.path.append(str(Path(__file__).parents[2] / "tests"))
    from golden_files import GOLDEN

    folders = sorted(path.parent for path in (GOLDEN / "pcc").rglob("io.safetensors"))
    if not folders:
        setting.add(Row(PART, "golden", note=f"no golden models under {GOLDEN / 'pcc'}", met=False))
    for folder in folders[: 2 if setting.small else None]:
        expected = (golden_values(folder), golden_answers(folder))
        name = f"golden {folder.parent.name} {folder.name}"
        compare(setting, name, expected, partial(golden_output, folder), device)
    prompts = questions(["pcc_squad"], "lab", 4 if setting.small else 100)
    names = [name for name in shipped.names() if method_of(name)]
    for name in names if not setting.small else ("pcc-lab-4x", "cocom-lab-4x"):
        try:
            expected = checkpoint_output(name, prompts, torch.device("cpu"), torch.float32)
        except Exception as error:
            setting.add(Row(PART, name, note=first_line(error), met=False))
            continue
        compare(
            setting, name, expected, lambda place, dtype, at=name: checkpoint_output(at, prompts, place, dtype), device
        )


def compare(
    setting: Setting,
    name: str,
    expected: Output,
    output: Callable[[torch.device, torch.dtype], Output],
    device: torch.device,
) -> None:
    """The rows of one model: float32 and bfloat16 on the device, beside bfloat16 on the CPU."""
    try:
        yardstick = difference(expected[0], output(torch.device("cpu"), torch.bfloat16)[0])
        for label, dtype in DTYPES.items():
            vectors, answers = output(device, dtype)
            error = difference(expected[0], vectors)
            same = sum(a == b for a, b in zip(expected[1], answers, strict=True))
            exact = dtype is torch.float32
            limit = EXACT if exact else 2 * max(yardstick, EXACT)
            met = error <= limit and (same == len(answers) or not exact)
            goal = f"<= {limit:.2g}{', answers equal' if exact else ''}"
            note = f"{same} of {len(answers)} answers equal" + (
                "" if exact else f"; bfloat16 on the CPU {yardstick:.2g}"
            )
            setting.add(Row(PART, f"{name}, {label}", error, "largest error", goal, met, note))
    except Exception as error:  # the other models still count
        setting.add(Row(PART, name, note=first_line(error), met=False))


def difference(expected: Sequence[torch.Tensor], vectors: Sequence[torch.Tensor]) -> float:
    """Largest difference over the largest value, of all tensors; 0 where a method gives words."""
    pairs = [(a.float().cpu(), b.float().cpu()) for a, b in zip(expected, vectors, strict=True)]
    errors = [(a - b).abs().max() / a.abs().max() for a, b in pairs]
    return float(torch.stack(errors).max()) if errors else 0.0  # torch's max: NaN stays NaN


def golden_values(folder: Path) -> list[torch.Tensor]:
    """What the original code left of case a: slots after the converter, and logits of reconstruction."""
    io = load_file(folder / "io.safetensors")
    return [io["a.slots_converter"], io["a.ae.logits"]]


def golden_answers(folder: Path) -> list[str]:
    """Its greedy ids."""
    return [str(read_json(folder / "expected.json")["fp32"]["a.gen.ae"]["ids"])]


@torch.inference_mode()
def golden_output(folder: Path, device: torch.device, dtype: torch.dtype) -> Output:
    """The same of ours."""
    config, io = read_json(folder / "config.json"), load_file(folder / "io.safetensors")
    samples, expected = (read_json(folder / "expected.json")[key] for key in ("samples", "fp32"))
    decoder = init.open_decoder(str(folder / config["decoder"]), dtype)
    decoder.model.to(device)
    compressor = PccCompressor.load(
        str(folder / (config["adapter"] or config["encoder"])),
        decoder,
        encoder=str(folder / config["encoder"]) if config["adapter"] else None,
        rate=config["rate"],
        segment_length=config["segment_length"],
    )
    contexts = [row["llm_ids" if config["use_lora"] else "compress_ids"] for row in samples["a"]]
    targets = [row["llm_ids"] + [config["ids"]["decoder_eos"]] for row in samples["a"]]
    encoded = compressor.pcc.encode(contexts)
    slots = torch.stack([torch.cat(one.slots) for one in encoded])
    plans = objectives.memory_plans(compressor.pcc, decoder, encoded, Task.RECONSTRUCTION)
    inputs = objectives.behind(decoder, plans, targets)
    logits = decoder.model(inputs_embeds=inputs.vectors.to(dtype), attention_mask=inputs.mask).logits
    first = inputs.vectors.shape[1] - io["a.ae.target_ids"].shape[1]
    logits = logits[:, io["a.ae.logits_pos"].long() + first - 1]
    (memory,) = compressor.compress([samples["a"][0]["text"]])
    assert memory.vectors is not None
    prompt = decoder.tokenizer.encode(expected["a.gen.ae"]["prompt"], add_special_tokens=False)
    vectors = Plan((decoder.bos, memory, prompt)).vectors(decoder)
    out = generate(decoder, [vectors], 20, compressor.layout.stop_token_ids, compressor.layout.suppressed_token_ids)
    return [slots, logits], [str(out.ids[0])]


def method_of(name: str) -> str:
    """The method that a shipped checkpoint is of; "" for a decoder."""
    return next((method for method in METHODS if name.startswith(f"{method}-")), "")


def checkpoint_output(name: str, prompts: Sequence[Prompt], device: torch.device, dtype: torch.dtype) -> Output:
    """Memories of the prompts' contexts, and answers, as lm-eval gets them."""
    method = method_of(name)
    label = next(label for label, value in DTYPES.items() if value is dtype)
    options = {"decoder": "lab-llama", "rate": 4} if method == "llmlingua2" else {}
    model: CompressedLM = getattr(models, method)(
        pretrained=name, dtype=label, batch_size=16, device=str(device), **options
    )
    contexts = list(dict.fromkeys(context for prompt in prompts for context in prompt.contexts))[:16]
    memories = model.compressor.compress(contexts)
    vectors = [memory.vectors for memory in memories if memory.vectors is not None]
    return vectors, answers_of(model, prompts)


def answers_of(model: CompressedLM, prompts: Iterable[Prompt]) -> list[str]:
    """Greedy answers of up to 16 tokens."""
    answers = model.generate_until(requests(prompts, 16, until=["\n"]), disable_tqdm=True)
    return list(map(str, answers))


if __name__ == "__main__":
    part(run)
