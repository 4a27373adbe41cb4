"""What compressors of the lab learn from (text and questions of the world, the same for all), and in which stages.

Each stage is a recipe that `pcc-bench train` could read.
"""

import itertools
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from pcc_bench.core.documents import write_text
from pcc_bench.lab import AdaptationRecipe, CompressorRecipe
from pcc_bench.model.training.recipe import Recipe
from pcc_bench.tasks.lab import rows
from pcc_bench.tasks.rows import Example, hotpotqa, nq, squad

SEGMENT = 64  # encoder tokens a segment
GROWING = ((4, 60), (8, 80), (16, 100), (32, 140))  # PCC-Large: segment lengths of the first steps, and how many steps
LENGTHENING = ((4, 40), (8, 40), (16, 60), (32, 60))  # the same of an adaptation, whose encoder has learned before
FIRST_STEPS, STAGE_STEPS = 40, 100  # of the stage of pretraining at 1x, which is easy; of each other before the last
FIRST_RATE = 4  # of a Large's pretraining
BATCH, HELD_OUT_ROWS, GENERATED_ROWS = 32, 64, 32

DATA = "data"  # folder of the training data, in the work folder
TEXT, TEXT_HELD_OUT, QUESTIONS = "text.jsonl", "text-held-out.jsonl", "questions.jsonl"
DOCUMENTS, ROWS, HELD_OUT_DOCUMENTS = 6_000, 6_000, 100  # of text; of each of the four question sets; of text
TUNING_SENTENCES = (6, 26)  # contexts of the fine-tuning rows
_READERS: dict[str, Callable[[Any], Any]] = {"squad": squad, "adversarialqa": squad, "hotpotqa": hotpotqa, "nq": nq}


def write_data(folder: Path) -> None:
    """Write what is not there yet: `TEXT`, `TEXT_HELD_OUT` and `QUESTIONS`."""

    def questions() -> Iterable[dict[str, Any]]:
        """Rows of all question sets with the context as the tasks show it, in turns."""
        sizes: dict[str, Any] = {"seed": 1, "sentences": TUNING_SENTENCES}
        sets = [[read(row) for row in rows(name, "train", ROWS, **sizes)] for name, read in _READERS.items()]
        for example in itertools.chain.from_iterable(zip(*sets, strict=True)):
            if isinstance(example, Example):
                yield {"context": example.context, "question": example.question, "answers": example.answers}

    lines: dict[str, Callable[[], Iterable[dict[str, Any]]]] = {
        TEXT: lambda: rows("text", "train", DOCUMENTS, seed=1),
        TEXT_HELD_OUT: lambda: rows("text", "validation", HELD_OUT_DOCUMENTS, seed=1),
        QUESTIONS: questions,
    }
    for name, read in lines.items():
        if not (folder / name).is_file():
            write_text(folder / name, "".join(json.dumps(line) + "\n" for line in read()))


def stages(recipe: CompressorRecipe) -> list[tuple[int, int]]:
    """Rate and steps of each stage of pretraining: short ones at rates that double, then the rate itself.

    A Lite begins at 1x; a Large at 4x, with short segments that grow.
    """
    if not recipe.pretraining:
        return []
    rates = itertools.takewhile(lambda rate: rate < recipe.rate, (2**power for power in itertools.count()))
    before = [(rate, FIRST_STEPS if rate == 1 else STAGE_STEPS) for rate in rates]
    if recipe.kind == "large":
        growing = sum(steps for _, steps in GROWING)
        before = [(rate, steps + growing * (rate == FIRST_RATE)) for rate, steps in before if rate >= FIRST_RATE]
    return [*before, (recipe.rate, recipe.pretraining - sum(steps for _, steps in before))]


def pretraining_recipe(
    name: str, recipe: CompressorRecipe, rate: int, steps: int, start: str, decoder: str, data: str
) -> Recipe:
    """A stage of pretraining.

    Reconstruction comes first, also in the last stage: completion from the start teaches the slots to do no harm, and
    the decoder never reads them.
    """
    final, only_completion = rate == recipe.rate, recipe.completion == 1
    phases = _reconstruction_first(rate, steps)
    if only_completion or not final:
        phases = phases[1:]
    if recipe.kind == "large" and rate == FIRST_RATE:
        phases = [*growing(GROWING, FIRST_RATE, float(only_completion)), *phases]
    models = {"start": start, "decoder": decoder, "seed": recipe.seed, "phases": phases}
    completion, every = (recipe.completion, 200) if final else (float(only_completion), steps)
    title = f"{name}, pretraining at {rate}x"
    return on_text(title, models, data, steps, completion=completion, evaluate_every=every)


def converting_recipe(name: str, recipe: AdaptationRecipe, rate: int, start: str, decoder: str, data: str) -> Recipe:
    """The first stage of an adaptation: only the converter learns, from segments of a single slot.

    The decoder must be able to read a slot before it can learn to find one among many.
    """
    models: dict[str, Any] = {"start": start, "decoder": decoder, "seed": recipe.seed, "train": ["converter"]}
    models["phases"] = [{"segment_length": rate, "rate": rate}]
    return on_text(f"{name}, converter", models, data, recipe.converting, completion=0.0)


def adapting_recipe(name: str, recipe: AdaptationRecipe, rate: int, start: str, decoder: str, data: str) -> Recipe:
    """The second stage of an adaptation: converter and encoder learn from segments that grow, reconstruction first."""
    steps = recipe.pretraining
    phases = [*growing(LENGTHENING, rate, 0.0), *_reconstruction_first(rate, steps)]
    models = {"start": start, "decoder": decoder, "seed": recipe.seed, "phases": phases}
    return on_text(f"{name}, pretraining at {rate}x", models, data, steps, completion=recipe.completion)


def on_questions(name: str, models: dict[str, Any], data: str, rate: int, steps: int) -> Recipe:
    source = {"kind": "qa", "path": f"{data}/{QUESTIONS}", "held_out_rows": HELD_OUT_ROWS}
    sections = {"data": source, "phases": [{"segment_length": SEGMENT, "rate": rate}]}
    return _stage(name, models | sections, optimisation(steps, 5e-4), evaluate_every=100, generated_rows=0)


def on_text(
    name: str, models: dict[str, Any], data: str, steps: int, *, completion: float, batch: int = BATCH, **checks: int
) -> Recipe:
    """A stage of reconstruction, completion or both; it is measured at its end, unless `checks` says otherwise."""
    text = {"path": f"{data}/{TEXT}", "held_out": f"{data}/{TEXT_HELD_OUT}", "held_out_rows": HELD_OUT_ROWS}
    sections = {"data": text, "objective": {"completion": completion, "completion_tokens": 48}}
    checks = {"evaluate_every": steps, "generated_rows": GENERATED_ROWS, **checks}
    return _stage(name, models | sections, optimisation(steps, 1e-3, batch), **checks)


def _stage(name: str, sections: dict[str, Any], optimisation: dict[str, Any], **checks: int) -> Recipe:
    state = {"name": name, "purpose": "A part of the lab.", **sections, "optimisation": optimisation}
    return Recipe.checked({**state, "checks": {"save_every": 100, "keep": 1, **checks}}, f"the lab's part {name}")


def _reconstruction_first(rate: int, steps: int) -> list[dict[str, Any]]:
    """Completion joins for the last 40 % of the steps."""
    phase = {"segment_length": SEGMENT, "rate": rate}
    return [{**phase, "completion": 0.0, "until": max(1, int(0.6 * steps))}, phase]


def growing(lengths: Sequence[tuple[int, int]], rate: int, completion: float) -> list[dict[str, Any]]:
    ends = itertools.accumulate(steps for _, steps in lengths)
    return [
        {"segment_length": length, "rate": rate, "completion": completion, "until": until}
        for (length, _), until in zip(lengths, ends, strict=True)
    ]


def optimisation(steps: int, learning_rate: float, batch: int = BATCH) -> dict[str, Any]:
    optimizer = {"optimizer": "muon", "learning_rate": learning_rate, "schedule": "linear", "warmup_steps": 20}
    sizes = {"batch_size": batch, "micro_batch_size": batch, "steps": steps, "max_grad_norm": 1.0}
    return {**optimizer, **sizes, "precision": "bfloat16", "attention": "eager"}
