"""Training: what learns and what does not, resumed equals uninterrupted, two processes equal one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from pcc_bench.core.decoder import Decoder
from pcc_bench.core.errors import UsageError
from pcc_bench.model import checkpoint, init
from pcc_bench.model.pcc import PCC, SPECIAL_TOKENS
from pcc_bench.model.training import journal, loop
from pcc_bench.model.training.corpus import (
    Corpus,
    Exchange,
    Position,
    corpora_of,
    exchanges,
    read_corpora,
    read_documents,
    split_text,
)
from pcc_bench.model.training.loop import PccForTraining
from pcc_bench.model.training.objectives import IGNORED, Task
from pcc_bench.model.training.recipe import Data, Recipe
from pcc_bench.model.training.samples import Collator, Sample, Samples, draw_tasks

GOLDEN_CURVE = Path(__file__).parent / "fixtures" / "training_curve.json"


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]]) -> Path:
    """A text file of about 80,000 characters, all documents different."""
    contexts = sorted({row["context"] for row in rows})
    words = " ".join(contexts).split()
    documents = [" ".join(words[i % 997 :] + words[: i % 997])[:4_000] for i in range(0, 2_000, 100)]
    path = tmp_path_factory.mktemp("text") / "train.txt"
    path.write_text("\n\n".join(documents), encoding="utf-8")
    return path


@pytest.fixture
def state(models: Path, text: Path) -> dict[str, Any]:
    """A recipe of ten steps whose segments grow."""
    return {
        "name": "test",
        "encoder": str(models / "encoder"),
        "decoder": str(models / "llama"),
        "data": {"path": str(text), "held_out_rows": 4},
        "objective": {"completion_tokens": 8},
        "phases": [{"until": 4, "segment_length": 16, "rate": 4}, {"segment_length": 32, "rate": 4, "segments": 2}],
        "optimisation": {"learning_rate": 1e-3, "warmup_steps": 2, "batch_size": 4, "micro_batch_size": 2, "steps": 10},
        "checks": {"evaluate_every": 5, "save_every": 3, "generated_rows": 2},
        "seed": 1,
    }


def checked(state: dict[str, Any], **changes: Any) -> Recipe:
    merged = {key: {**state[key], **value} if isinstance(value, dict) else value for key, value in changes.items()}
    return Recipe.checked({**state, **merged}, "test recipe")


def log(folder: Path, name: str = "log.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def losses(folder: Path) -> list[float]:
    return [line["loss"] for line in log(folder)]


def for_training(state: dict[str, Any], tmp_path: Path, **changes: Any) -> PccForTraining:
    recipe = checked(state, **changes)
    decoder = init.open_decoder(recipe.decoder)
    return PccForTraining(loop.starting_point(recipe, decoder, tmp_path), decoder, recipe)


def batch(model: PccForTraining) -> dict[str, Any]:
    corpora, _ = corpora_of(model.recipe)
    stream = iter(Samples(model.recipe, corpora, model.pcc.encoder))
    return Collator(model.decoder, model.recipe)(list(islice(stream, 2)))


def test_golden_ten_steps(state: dict[str, Any], tmp_path: Path) -> None:
    loop.train(checked(state), tmp_path)
    curve = losses(tmp_path)
    if os.environ.get("PCC_WRITE_GOLDEN"):
        GOLDEN_CURVE.write_text(json.dumps(curve))
    assert curve == pytest.approx(json.loads(GOLDEN_CURVE.read_text()), abs=1e-3)


def test_a_run_leaves_a_checkpoint_logs_and_reconstructions(state: dict[str, Any], tmp_path: Path) -> None:
    trained = loop.train(checked(state), tmp_path)
    assert trained is not None
    decoder = init.open_decoder(state["decoder"])
    loaded = checkpoint.load(str(tmp_path), decoder)
    assert checkpoint.weights_fingerprint(loaded) == checkpoint.weights_fingerprint(trained)
    assert (loaded.config.rate, loaded.config.segment_length) == (4, 32)
    assert [line["step"] for line in log(tmp_path)] == list(range(1, 11))
    assert log(tmp_path)[-1]["tokens_seen"] == 4 * 4 * 16 + 6 * 4 * 64
    evaluations = log(tmp_path, "evaluation.jsonl")
    assert [line["step"] for line in evaluations] == [0, 5, 10]
    assert {"ae_loss", "ae_accuracy", "next_token_perplexity", "bleu"} <= set(evaluations[0])
    assert evaluations[-1]["ae_loss"] < evaluations[0]["ae_loss"]
    assert [line["tokens_seen"] for line in evaluations] == [0, 4 * 4 * 16 + 4 * 64, log(tmp_path)[-1]["tokens_seen"]]
    rows = log(tmp_path, "evaluation-rows.jsonl")
    assert [row["measure"] for row in rows] == ["ae_loss", "next_token_loss"] * 3
    for row in rows:
        (line,) = [line for line in evaluations if line["step"] == row["step"]]
        assert sum(row["nll"]) / sum(row["tokens"]) == pytest.approx(line[row["measure"]])
    assert len(log(tmp_path, "reconstructions.jsonl")) == 3 * 2


@pytest.mark.parametrize("lora_rank", [0, 4])
def test_gradients_reach_every_trained_tensor_and_no_other(
    state: dict[str, Any], models: Path, tmp_path: Path, lora_rank: int
) -> None:
    encoder = str(models / ("llama" if lora_rank else "encoder"))
    model = for_training(state, tmp_path, encoder=encoder, lora_rank=lora_rank)
    before = {name: value.clone() for name, value in model.decoder.model.state_dict().items()}
    if lora_rank:  # one factor of a LoRA starts at zero, so the other has no gradient in the very first step
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                torch.nn.init.normal_(parameter, std=0.02)
    model(**batch(model))["loss"].backward()
    for name, parameter in model.named_parameters():
        reached = parameter.grad is not None and bool(parameter.grad.abs().sum() > 0)
        assert reached == parameter.requires_grad, name
    assert any(parameter.requires_grad for parameter in model.parameters())
    assert all(parameter.grad is None for parameter in model.decoder.model.parameters())
    after = model.decoder.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_the_decoder_is_bit_equal_after_training_and_in_no_state(state: dict[str, Any], tmp_path: Path) -> None:
    def file(path: str) -> bytes:
        return (Path(path) / "model.safetensors").read_bytes()

    before = file(state["decoder"])
    loop.train(checked(state), tmp_path)
    assert file(state["decoder"]) == before
    saved = load_file(tmp_path / "states" / "checkpoint-9" / "model.safetensors")
    assert saved
    assert not any("decoder" in name or name.endswith("special") for name in saved)


def test_only_memory_tokens_and_converter_can_learn(state: dict[str, Any], tmp_path: Path) -> None:
    model = for_training(state, tmp_path, train=["memory_tokens", "converter"])
    rows = model.pcc.encoder.body.get_input_embeddings().weight
    model(**batch(model))["loss"].backward()
    assert rows.grad is not None
    touched = rows.grad.abs().sum(1).nonzero().flatten().tolist()
    assert set(touched) <= set(model.pcc.encoder.memory_ids)
    assert touched
    assert choose_names(model) == {"converter", "wte"}


def choose_names(model: PccForTraining) -> set[str]:
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    return {"converter" if "converter" in name else name.split(".")[-2] for name in trained}


def test_recomputed_activations_change_no_loss(state: dict[str, Any], tmp_path: Path) -> None:
    short = {"steps": 5}
    loop.train(checked(state, optimisation=short), tmp_path / "kept")
    loop.train(checked(state, optimisation={**short, "gradient_checkpointing": True}), tmp_path / "recomputed")
    assert losses(tmp_path / "recomputed") == pytest.approx(losses(tmp_path / "kept"), abs=1e-5)


def test_training_only_the_converter_leaves_the_encoder(state: dict[str, Any], tmp_path: Path) -> None:
    model = for_training(state, tmp_path, train=["converter"])
    assert choose_names(model) == {"converter"}


def test_a_summed_loss_is_the_papers_formula(state: dict[str, Any], tmp_path: Path) -> None:
    # L = lambda * completion + (1 - lambda) * reconstruction, with means over their own tokens where these are equal.
    model = for_training(state, tmp_path, objective={"combination": "summed", "completion": 0.25}).eval()
    inputs = batch(model)
    assert set(inputs["targets"]) == {"ae", "next_token"}
    total = model(**inputs)["loss"].item()
    tokens = {task: sum(len(row) for row in rows["labels"]) for task, rows in inputs["targets"].items()}
    sums = {name: value[0] for name, value in model.sums.items()}
    weighted = 2 * (0.25 * sums["next_token"] + 0.75 * sums["ae"]) / sum(tokens.values())
    assert total == pytest.approx(weighted, rel=1e-5)


@pytest.mark.parametrize("micro", [1, 2, 4])
def test_a_steps_loss_is_the_mean_over_its_tokens_however_they_are_spread_over_micro_batches(
    state: dict[str, Any], tmp_path: Path, rows: list[dict[str, Any]], micro: int
) -> None:
    data = tmp_path / "rows.jsonl"
    answers = ["a", "a much longer answer of very many words " * 3, "two words", "x"]
    lines = [{**row, "answers": {"text": [answers[i % 4]]}} for i, row in enumerate(rows[:12])]
    data.write_text("".join(json.dumps(line) + "\n" for line in lines))
    recipe = checked(
        state,
        data={"kind": "qa", "path": str(data), "held_out_every": 6, "held_out_rows": 1},
        phases=[{"segment_length": 64, "rate": 4}],
        optimisation={"micro_batch_size": micro, "steps": 2},
    )
    loop.train(recipe, tmp_path / "run")
    for line in log(tmp_path / "run"):
        assert line["loss"] == pytest.approx(line["rag_loss"], rel=1e-5)


def test_objectives_are_drawn_by_step_and_lambda(state: dict[str, Any]) -> None:
    recipe = checked(state, objective={"completion": 0.3})
    drawn = [draw_tasks(recipe, step) for step in range(2_000)]
    assert drawn == [draw_tasks(recipe, step) for step in range(2_000)]
    assert sum(tasks == (Task.COMPLETION,) for tasks in drawn) / 2_000 == pytest.approx(0.3, abs=0.03)
    assert draw_tasks(checked(state, objective={"completion": 0.0}), 3) == (Task.RECONSTRUCTION,)


# The stream


def stream(recipe: Recipe, step: int = 0, position: Position | None = None) -> tuple[Samples, Iterator[Sample]]:
    decoder = init.open_decoder(recipe.decoder)
    pcc = loop.starting_point(recipe, decoder, Path())
    corpora, _ = corpora_of(recipe)
    samples = Samples(recipe, corpora, pcc.encoder, step, position or Position())
    return samples, iter(samples)


def test_a_stream_goes_on_exactly_where_it_stood(state: dict[str, Any]) -> None:
    recipe = checked(state)
    samples, whole = stream(recipe)
    first = list(islice(whole, 80))  # several passes over the text
    for step in (1, 5, 13):
        _, rest = stream(recipe, step, samples.positions[step])
        assert list(islice(rest, 80 - 4 * step)) == first[4 * step :]


def test_samples_are_windows_of_the_text_and_what_follows(state: dict[str, Any], text: Path) -> None:
    recipe = checked(state)
    _, samples = stream(recipe)
    whole = text.read_text()
    for sample in islice(samples, 40):
        assert len(sample.context) == (16 if sample.index < 16 else 64)
        assert sample.text + sample.continuation in whole


def test_held_out_text_is_never_trained_on(state: dict[str, Any]) -> None:
    data = checked(state).data
    trained, held_out = read_corpora(data, 0)
    assert trained.documents is not None
    assert held_out.documents
    assert not set(trained.documents) & set(held_out.documents)


def test_completion_targets_are_cut_and_end(state: dict[str, Any], tmp_path: Path) -> None:
    model = for_training(state, tmp_path, objective={"combination": "summed"})
    targets = batch(model)["targets"]
    end = model.decoder.tokenizer.eos_token_id
    assert all(len(ids) == 9 and ids[-1] == end for ids in targets["next_token"]["ids"])
    assert all(ids[-1] == end for ids in targets["ae"]["ids"])


def test_fine_tuning_scores_the_answer_only(state: dict[str, Any], rows: list[dict[str, Any]], tmp_path: Path) -> None:
    path = tmp_path / "qa.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    optimisation = {"learning_rate": 1e-3, "batch_size": 4, "micro_batch_size": 4, "epochs": 1, "steps": None}
    recipe = checked(
        state,
        data={"kind": "qa", "path": str(path), "held_out": str(path)},
        phases=[{"segment_length": 128, "rate": 4}],
        optimisation=optimisation,
    )
    loop.train(recipe, tmp_path / "out")
    assert len(log(tmp_path / "out")) == 6  # 24 rows, batches of 4, one pass
    assert "rag_loss" in log(tmp_path / "out")[0]
    _, samples = stream(recipe)
    decoder = init.open_decoder(recipe.decoder)
    rowed = Collator(decoder, recipe)([next(samples)])["targets"]["rag"]
    (ids,), (labels,) = rowed["ids"], rowed["labels"]
    scored = [token for token in labels if token != IGNORED]
    assert ids[-len(scored) :] == scored
    assert decoder.tokenizer.decode(ids[: -len(scored)]).endswith("Answer: ")


PROBLEMS = [{"question": f"What is {i} + {i}?", "answer": f"{i} + {i} = {2 * i}\n#### {2 * i}"} for i in range(20)]
SESSIONS = [
    {
        "Position": f"Book1-chapter{i}",
        "Speakers": ["Ron", "Harry"],
        "Scene": f"Room {i}.",
        "Dialogue": [f"Ron: Is this room {i}?", "Harry: I think so."],
        "Positive-Response": f"Harry: It is {i}." if i % 2 else [f"It is {i}."],
        "Negative-Responses": ["No."],
    }
    for i in range(20)
]


@pytest.fixture(params=["gsm8k", "dialogue"])
def demonstrated(request: pytest.FixtureRequest, tmp_path: Path) -> Data:
    """Rows whose context is other rows: 20, of which every tenth is held out."""
    if request.param == "gsm8k":
        path = written_rows(tmp_path / "problems.jsonl", PROBLEMS)
    else:
        path = tmp_path / "sessions.json"
        path.write_text(json.dumps({f"Session-{i}": row for i, row in enumerate(SESSIONS)}))
    return Data(kind=request.param, path=str(path), held_out_every=10, demonstrations=3)


def written_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def taught(data: Data, seed: int = 0) -> tuple[list[Exchange], list[Exchange]]:
    trained, held_out = read_corpora(data, seed)
    assert trained.documents is not None and held_out.documents is not None
    return list(trained.documents), list(held_out.documents)


def test_worked_problems_become_context_question_and_answer(tmp_path: Path) -> None:
    data = Data(kind="gsm8k", path=str(written_rows(tmp_path / "rows.jsonl", PROBLEMS)), demonstrations=2)
    first = taught(data)[0][0]
    assert (first.prompt, first.answer) == ("Question: What is 1 + 1?\nAnswer: ", "1 + 1 = 2\n#### 2")
    solved = {f"Question: {row['question']}\nAnswer: {row['answer']}" for row in PROBLEMS[2:]}
    assert len(first.context.split("\n\n")) == 2
    assert set(first.context.split("\n\n")) < solved
    assert taught(data) == taught(data)
    assert taught(data)[0][0].context != taught(data, seed=1)[0][0].context


def test_a_role_answers_after_the_sessions_before(tmp_path: Path) -> None:
    rows = written_rows(tmp_path / "rows.jsonl", SESSIONS)
    trained, _ = taught(Data(kind="dialogue", path=str(rows), demonstrations=2))
    sessions = [f"Scene: Room {i}.\n\nRon: Is this room {i}?\nHarry: I think so.\nHarry: " for i in range(20)]
    fifth = trained[4]
    assert (fifth.prompt, fifth.answer) == (sessions[5], "It is 5.")
    assert fifth.context == f"{sessions[3]}It is 3.\n\n{sessions[4]}It is 4."
    assert trained[0].context == f"{sessions[2]}It is 2.\n\n{sessions[3]}It is 3."  # nothing to train on is before it


def test_held_out_rows_demonstrate_nothing_and_no_row_itself(demonstrated: Data) -> None:
    trained, held_out = taught(demonstrated)
    assert (len(trained), len(held_out)) == (18, 2)
    assert all(one.answer not in both.context for one in held_out for both in [*trained, *held_out])
    assert all(one.answer not in one.context for one in trained)
    assert {one.context.count("\n\n") for one in [*trained, *held_out]} == {2 if demonstrated.kind == "gsm8k" else 5}


def test_demonstrated_rows_are_fine_tuned_on(demonstrated: Data, state: dict[str, Any], tmp_path: Path) -> None:
    optimisation = {"batch_size": 6, "micro_batch_size": 3, "epochs": 2, "steps": None}
    recipe = checked(state, data=demonstrated, phases=[{"segment_length": 128, "rate": 4}], optimisation=optimisation)
    loop.train(recipe, tmp_path / "out")
    assert len(log(tmp_path / "out")) == 2 * 3  # 18 rows, batches of 6, two passes
    assert log(tmp_path / "out")[-1]["rag_loss"] < log(tmp_path / "out")[0]["rag_loss"]
    assert {"rag_accuracy", "rag_perplexity"} <= set(log(tmp_path / "out", "evaluation.jsonl")[-1])


def test_rows_that_do_not_fit_their_kind_are_refused(state: dict[str, Any], tmp_path: Path) -> None:
    def data(kind: str, name: str, content: str) -> dict[str, Any]:
        (tmp_path / name).write_text(content)
        return {"kind": kind, "path": str(tmp_path / name)}

    refused = data("gsm8k", "a.jsonl", '{"question": "x"}\n')
    refuses(r"a\.jsonl,? line 1 has no column 'answer'", state, tmp_path / "a", data=refused)
    refused = data("dialogue", "b.json", '{"Session-1": {"Scene": "x", "Dialogue": []}}')
    refuses(r"b\.json entry 1 has no column 'positive_response'", state, tmp_path / "b", data=refused)
    refused = data("dialogue", "c.json", "3")
    refuses(r"c\.json is neither a list of rows", state, tmp_path / "c", data=refused)
    refused = data("gsm8k", "d.txt", "words")
    refuses("plain text, but fine-tuning needs", state, tmp_path / "d", data=refused)
    refused = data("gsm8k", "e.jsonl", "".join(json.dumps(row) + "\n" for row in PROBLEMS[:4]))
    refuses("has 3 training rows: a row with 4 demonstrations", state, tmp_path / "e", data=refused)


def test_text_shorter_than_every_segment_is_refused(state: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "short.txt").write_text("one short text.\n\n" * 400)
    short = {"path": str(written_rows(tmp_path / "short.jsonl", [{"text": "Much too short."}] * 60))}
    refuses("no text long enough for 64 encoder tokens", state, tmp_path / "out", data=short)


# Phases with data and a mixture of their own


@pytest.fixture
def phased(state: dict[str, Any], rows: list[dict[str, Any]], tmp_path: Path) -> dict[str, Any]:
    """Reconstruction on one text, both objectives on another (over two phases), then answering."""
    contexts = sorted({row["context"] for row in rows})
    (tmp_path / "other.txt").write_text("\n\n".join("Other text. " + " ".join(contexts) for _ in range(4)))
    answering = {"kind": "qa", "path": str(written_rows(tmp_path / "qa.jsonl", rows))}
    other = {"path": str(tmp_path / "other.txt"), "held_out_every": 3}
    state["phases"] = [
        {"until": 4, "segment_length": 16, "rate": 4, "completion": 0.0, "data": other},
        {"until": 7, "segment_length": 16, "rate": 4, "completion": 1.0},
        {"until": 10, "segment_length": 32, "rate": 4},
        {"segment_length": 128, "rate": 4, "data": answering},
    ]
    state["optimisation"] = {**state["optimisation"], "steps": 14}
    return state


def test_a_phase_has_its_own_data_and_mixture(phased: dict[str, Any]) -> None:
    recipe = checked(phased)
    samples, whole = stream(recipe)
    seen = list(islice(whole, 4 * 14))
    tasks = [{task for sample in seen if sample.phase == phase for task in sample.tasks} for phase in range(4)]
    assert tasks[0] == {Task.RECONSTRUCTION}
    assert tasks[1] == {Task.COMPLETION}
    assert tasks[3] == {Task.ANSWERING}
    text, other = Path(recipe.data.path).read_text(), Path(recipe.data_at(0).path).read_text()
    assert all(sample.text in other for sample in seen[:16])
    assert all(sample.text + sample.continuation in text for sample in seen[16:40])
    assert samples.positions[4].epoch == samples.positions[10].epoch == 0
    assert samples.positions[7] != Position(0, 0, 0), "the third phase reads on where the second stopped"


def test_a_stream_over_phases_goes_on_exactly_where_it_stood(phased: dict[str, Any]) -> None:
    recipe = checked(phased)
    samples, whole = stream(recipe)
    first = list(islice(whole, 4 * 14))
    for step in range(1, 14):
        _, rest = stream(recipe, step, samples.positions[step])
        assert list(islice(rest, 4 * (14 - step))) == first[4 * step :], step


class Interruption(Exception):
    pass


def train_until(recipe: Recipe, folder: Path, cut: int) -> None:
    """Train, and stop without a word in the step after `cut`."""

    def interrupt(self: Any, args: Any, run: Any, control: Any, **_: Any) -> None:
        if run.global_step > cut:
            raise Interruption

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Interruption):
        patch.setattr(loop.Evaluation, "on_step_end", interrupt)
        loop.train(recipe, folder)
    assert journal.last_state(folder) == folder / "states" / f"checkpoint-{cut}"


def test_a_run_over_phases_resumes_to_the_same_bits(phased: dict[str, Any], tmp_path: Path) -> None:
    recipe = checked(phased, checks={"save_every": 2, "evaluate_every": 50, "generated_rows": 0})
    loop.train(recipe, tmp_path / "whole")
    for cut in (4, 8, 10):  # where the text changes, within a phase, where rows follow text
        train_until(recipe, tmp_path / str(cut), cut)
        loop.train(recipe, tmp_path / str(cut))
        assert losses(tmp_path / str(cut)) == losses(tmp_path / "whole")
        whole, again = weights(tmp_path / "whole"), weights(tmp_path / str(cut))
        assert all(torch.equal(whole[name], again[name]) for name in whole)


def test_a_run_with_muon_and_eager_attention_resumes_to_the_same_bits(phased: dict[str, Any], tmp_path: Path) -> None:
    optimisation = {"optimizer": "muon", "attention": "eager"}
    recipe = checked(phased, optimisation=optimisation, checks={"save_every": 2, "evaluate_every": 50})
    loop.train(recipe, tmp_path / "whole")
    train_until(recipe, tmp_path / "cut", 4)
    loop.train(recipe, tmp_path / "cut")
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")
    loop.train(checked(phased, checks={"save_every": 50, "evaluate_every": 50}), tmp_path / "adamw")
    assert losses(tmp_path / "adamw") != losses(tmp_path / "whole")


def test_a_finished_run_is_not_trained_on(state: dict[str, Any], tmp_path: Path) -> None:
    recipe = checked(state)
    loop.train(recipe, tmp_path)
    before, lines = weights(tmp_path), log(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    loop.train(recipe, tmp_path)
    after = weights(tmp_path)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert log(tmp_path) == lines


@pytest.mark.parametrize("completion", [0, 1])
@pytest.mark.parametrize("combination", ["sampled", "summed"])
def test_a_single_objective_trains_alone(
    state: dict[str, Any], tmp_path: Path, completion: int, combination: str
) -> None:
    recipe = checked(state, objective={"completion": completion, "combination": combination})
    trained = loop.train(recipe, tmp_path)
    alone, other = ("next_token_loss", "ae_loss") if completion else ("ae_loss", "next_token_loss")
    assert all(alone in line and other not in line for line in log(tmp_path))
    assert all(line["loss"] == pytest.approx(line[alone], abs=1e-3) for line in log(tmp_path))
    loaded = checkpoint.load(str(tmp_path), init.open_decoder(state["decoder"]))
    assert trained is not None
    assert checkpoint.weights_fingerprint(loaded) == checkpoint.weights_fingerprint(trained)


def test_training_without_boundaries_saves_a_checkpoint_without_them(state: dict[str, Any], tmp_path: Path) -> None:
    loop.train(checked(state, boundaries="none"), tmp_path)
    evaluations = log(tmp_path, "evaluation.jsonl")
    assert evaluations[-1]["ae_loss"] < evaluations[0]["ae_loss"]
    loaded = checkpoint.load(str(tmp_path), init.open_decoder(state["decoder"]))
    (encoded,) = loaded.encode([list(range(5, 69))])  # two segments of 32 at 4x
    assert loaded.frame(encoded.slots).shape[0] == 16


def test_a_folder_of_an_older_version_is_the_same_recipes(state: dict[str, Any], tmp_path: Path) -> None:
    recipe = checked(state)
    loop.train(recipe, tmp_path)
    told = json.loads((tmp_path / "recipe.json").read_text())
    del told["data"]["demonstrations"], told["phases"][0]["completion"]  # keys that came later
    (tmp_path / "recipe.json").write_text(json.dumps(told))
    loop.train(recipe, tmp_path)
    assert len(log(tmp_path)) == 10


def test_long_files_are_cut_at_paragraphs() -> None:
    text = "\n\n".join("x" * 900 for _ in range(50))
    pieces = split_text(text)
    assert "".join(pieces) == text
    assert all(len(piece) < 9_100 for piece in pieces)


def test_a_checkpoint_can_be_adapted_to_another_decoder(state: dict[str, Any], models: Path, tmp_path: Path) -> None:
    loop.train(checked(state), tmp_path / "first")
    again = {"start": str(tmp_path / "first"), "encoder": None, "decoder": str(models / "mistral")}
    recipe = checked(state, phases=[{"segment_length": 32, "rate": 4}], train=["converter"], **again)
    loop.train(recipe, tmp_path / "second")
    decoder = init.open_decoder(str(models / "mistral"))
    adapted = checkpoint.load(str(tmp_path / "second"), decoder)
    first = checkpoint.load(str(tmp_path / "first"), init.open_decoder(state["decoder"]))
    assert adapted.config.decoder.fingerprint == decoder.fingerprint
    pairs = zip(adapted.encoder.parameters(), first.encoder.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)
    assert not torch.equal(adapted.converter.dense_in.weight, first.converter.dense_in.weight)


@pytest.fixture
def decoder_with_rows(models: Path, tmp_path: Path) -> Decoder:
    """A decoder whose vocabulary has the three tokens, in the order of the official patch."""
    decoder = init.open_decoder(str(models / "llama"))
    decoder.tokenizer.add_special_tokens({"additional_special_tokens": ["<mem>", "<ae>", "</mem>"]})
    decoder.model.resize_token_embeddings(len(decoder.tokenizer), mean_resizing=False)
    decoder.model.save_pretrained(tmp_path / "with-rows")
    decoder.tokenizer.save_pretrained(tmp_path / "with-rows")
    return init.open_decoder(str(tmp_path / "with-rows"))


def assert_has_the_rows_of(pcc: PCC, decoder: Decoder) -> None:
    for token in SPECIAL_TOKENS:
        row = decoder.embed([decoder.tokenizer.convert_tokens_to_ids(token)])[0]
        assert torch.equal(pcc.special_vector(token), row), token


def test_a_decoder_that_has_the_special_tokens_gives_its_rows(
    models: Path, tmp_path: Path, decoder_with_rows: Decoder
) -> None:
    fresh = init.fresh(str(models / "encoder"), decoder_with_rows, [4], tmp_path / "fresh")
    assert_has_the_rows_of(fresh, decoder_with_rows)
    other = checkpoint.load(str(models / "pcc"), init.open_decoder(str(models / "llama")))
    foreign = other.config.decoder.model_copy(update={"fingerprint": "another"})
    other.config = other.config.model_copy(update={"decoder": foreign})
    assert_has_the_rows_of(init.adapted(other, decoder_with_rows, tmp_path / "adapted"), decoder_with_rows)


def test_a_decoder_without_them_gets_random_rows_of_its_size(models: Path, tmp_path: Path) -> None:
    decoder = init.open_decoder(str(models / "llama"))
    one, same, other = (
        init.fresh(str(models / "encoder"), decoder, [4], tmp_path, seed=seed).special for seed in (0, 0, 1)
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert one.std().item() == pytest.approx(decoder.embedding.weight.std().item(), rel=0.2)


# Interruptions and processes


def command(recipe: Path, out: Path, launcher: tuple[str, ...] = ("-m",)) -> list[str]:
    return [sys.executable, *launcher, "pcc_bench.cli", "train", str(recipe), "--output", str(out)]


def written(state: dict[str, Any], path: Path) -> Path:
    import yaml

    path.write_text(yaml.safe_dump(json.loads(json.dumps(state, default=str))))
    return path


def environment(**more: str) -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"} | more


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def test_killed_and_resumed_equals_uninterrupted(state: dict[str, Any], tmp_path: Path) -> None:
    state["optimisation"] = {**state["optimisation"], "steps": 60}
    recipe = written(state, tmp_path / "recipe.yaml")
    loop.train(checked(state), tmp_path / "whole")
    process = subprocess.Popen(command(recipe, tmp_path / "cut"), env=environment(), stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (tmp_path / "cut" / "states" / "checkpoint-9" / journal.DONE).exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "cut" / "model.safetensors").exists()
    done = subprocess.run(command(recipe, tmp_path / "cut"), env=environment(), check=True, capture_output=True)
    assert b"60/60" in done.stderr
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")
    assert log(tmp_path / "cut", "evaluation.jsonl") == log(tmp_path / "whole", "evaluation.jsonl")
    whole, cut = weights(tmp_path / "whole"), weights(tmp_path / "cut")
    assert all(torch.equal(whole[name], cut[name]) for name in whole)


def test_two_processes_equal_one(state: dict[str, Any], tmp_path: Path) -> None:
    # Dropout draws differ between processes, so this law needs an encoder without it.
    import shutil

    shutil.copytree(state["encoder"], tmp_path / "encoder")
    told = json.loads((tmp_path / "encoder" / "config.json").read_text())
    told |= {"attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0}
    (tmp_path / "encoder" / "config.json").write_text(json.dumps(told))
    state["encoder"] = str(tmp_path / "encoder")
    recipe = written(state, tmp_path / "recipe.yaml")
    loop.train(checked(state), tmp_path / "one")
    launcher = ("-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "-m")
    two = subprocess.run(
        command(recipe, tmp_path / "two", launcher), env=environment(ACCELERATE_USE_CPU="true"), capture_output=True
    )
    assert two.returncode == 0, two.stderr[-3000:]
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), abs=1e-4)
    one, both = weights(tmp_path / "one"), weights(tmp_path / "two")
    for name in one:
        torch.testing.assert_close(one[name], both[name], atol=1e-4, rtol=1e-3)


# Mistakes: one sentence each.


def refuses(message: str, state: dict[str, Any], folder: Path, **changes: Any) -> None:
    with pytest.raises(UsageError, match=message) as error:
        loop.train(checked(state, **changes), folder)
    assert "\n" not in str(error.value)


def test_missing_and_empty_texts_are_refused(state: dict[str, Any], tmp_path: Path) -> None:
    refuses("training data '/no/such/file'", state, tmp_path / "a", data={"path": "/no/such/file"})
    (tmp_path / "empty.txt").write_text(" \n")
    refuses("has no text to train on", state, tmp_path / "b", data={"path": str(tmp_path / "empty.txt")})
    (tmp_path / "bad.jsonl").write_text('{"text": "fine"}\n{"text": }\n')
    refuses("bad.jsonl, line 2 is not valid JSON", state, tmp_path / "c", data={"path": str(tmp_path / "bad.jsonl")})
    (tmp_path / "other.jsonl").write_text('{"words": "x"}\n')
    refuses("line 1 has no column 'text'", state, tmp_path / "d", data={"path": str(tmp_path / "other.jsonl")})


def test_segments_longer_than_the_encoder_are_refused(state: dict[str, Any], tmp_path: Path) -> None:
    refuses(
        "takes 640 positions, the model has 512",
        state,
        tmp_path,
        phases=[{"segment_length": 512, "rate": 8}] and [{"segment_length": 576, "rate": 9}],
    )


def test_an_unfrozen_decoder_is_refused(state: dict[str, Any], tmp_path: Path) -> None:
    model = for_training(state, tmp_path)
    model.decoder.model.get_input_embeddings().weight.requires_grad_(True)
    with pytest.raises(UsageError, match="the decoder is not frozen"):
        PccForTraining(model.pcc, model.decoder, model.recipe)


def test_resuming_with_another_recipe_is_refused(state: dict[str, Any], tmp_path: Path) -> None:
    loop.train(checked(state), tmp_path)
    refuses("holds a run of another recipe", state, tmp_path, seed=2)


def test_a_full_disk_leaves_the_recipe_of_a_run(
    state: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop.claim(tmp_path, checked(state))
    before = (tmp_path / "recipe.json").read_bytes()

    def full(path: Path, text: str, **_: Any) -> None:
        path.write_bytes(text.encode()[:9])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(UsageError, match=r"No space left on device.*the old file is untouched"):
        loop.claim(tmp_path, checked(state))
    assert (tmp_path / "recipe.json").read_bytes() == before


def test_a_loss_that_is_not_finite_stops_and_names_the_step(
    state: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    predictions = loop.objectives.predictions

    def some(decoder: Decoder, inputs: Any) -> tuple[torch.Tensor, torch.Tensor]:
        calls.append(1)
        logits, labels = predictions(decoder, inputs)
        return logits * (float("nan") if len(calls) > 8 else 1.0), labels

    monkeypatch.setattr(loop.objectives, "predictions", some)
    refuses(r"loss is nan at step 5 \(samples 16 to 17\)", state, tmp_path)
    assert journal.last_state(tmp_path) == tmp_path / "states" / "checkpoint-3"


def test_a_full_disk_leaves_the_last_good_state(
    state: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import transformers.trainer as library

    save = library.Trainer._save_optimizer_and_scheduler

    def full(self: Any, folder: str) -> None:
        if folder.endswith("checkpoint-6"):
            raise OSError(28, "No space left on device")
        save(self, folder)

    monkeypatch.setattr(library.Trainer, "_save_optimizer_and_scheduler", full)
    refuses("No space left on device", state, tmp_path)
    assert journal.last_state(tmp_path) == tmp_path / "states" / "checkpoint-3"
    monkeypatch.undo()
    loop.train(checked(state), tmp_path)
    assert len(log(tmp_path)) == 10


def test_batches_that_processes_cannot_share_are_refused(state: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="batch_size 5 is not a multiple of micro_batch_size"):
        checked(state, optimisation={"batch_size": 5})


def test_streams_keep_their_first_documents_back(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    stream = datasets.Dataset.from_dict({"text": [f"document {i}" for i in range(600)]}).to_iterable_dataset()
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: stream)
    trained, held_out = read_corpora(Data(path="some/set", streaming=True), 3)
    kept = [text for _, text in islice(held_out.from_position(Position()), 200)]
    assert kept == [f"document {i}" for i in range(200)]
    whole = list(islice(trained.from_position(Position()), 400))
    assert not {text for _, text in whole} & set(kept)
    rest = list(islice(trained.from_position(whole[150][0]), 250))
    assert rest == whole[150:]


def test_unanswerable_rows_are_not_trained_on(tmp_path: Path) -> None:
    rows = [{"context": "c", "question": "q", "answers": {"text": texts}} for texts in ([], ["a", "b"])]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = Data(kind="qa", path=str(tmp_path / "rows.jsonl"))
    assert read_documents(data, data.path) == rows[1:]
    (taught,) = exchanges(data, rows, [1], [0], 0)
    assert taught == Exchange("c", "Question: q\n\nAnswer: ", "a")


def test_a_corpus_is_read_in_a_new_order_each_pass() -> None:
    corpus = Corpus(Data(path="x"), 0, list(range(20)))
    seen = [document for _, document in islice(corpus.from_position(Position()), 40)]
    assert sorted(seen[:20]) == sorted(seen[20:]) == list(range(20))
    assert seen[:20] != seen[20:]
