"""The lab's baselines: what they are trained on is what their wrappers do, and their training goes on after a stop."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from pcc_bench.core import tiny
from pcc_bench.core.context import Kind, Part, Prompt
from pcc_bench.core.errors import UsageError
from pcc_bench.core.plan import PromptEncoder
from pcc_bench.core.registry import get
from pcc_bench.core.tiny import make_bert_tokenizer
from pcc_bench.lab import ClassifierRecipe, RivalRecipe, rivals, stages
from pcc_bench.lab import rivals as training
from pcc_bench.lab.lessons import corpus
from pcc_bench.lab.rivals import Rival
from pcc_bench.model import init
from pcc_bench.model.pcc import SPECIAL_TOKENS
from pcc_bench.model.training.loop import fit
from pcc_bench.model.training.objectives import Task
from pcc_bench.model.training.samples import Sample
from pcc_bench.tasks.lab.passages import draw_passage
from pcc_bench.tasks.lab.world import seeded

METHODS = ("icae", "cocom", "autocompressor")
CONTEXTS = [
    "Anna Baker lives in Paris. She works as a pilot. The market in Leeds was old. " * 6,
    "Noah Morris owns 25 books.",
]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A decoder, and little data."""
    folder = tmp_path_factory.mktemp("lab")
    tokenizer = tiny.make_tokenizer(corpus(0, 60), 600, prefix_space=True, special=SPECIAL_TOKENS)
    sizes: dict[str, Any] = {"width": 32, "layers": 2, "heads": 2, "num_key_value_heads": 2}
    tiny.make_model("llama", tokenizer, folder / "lab-llama", **sizes, tie_word_embeddings=True)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"DOCUMENTS": 40, "ROWS": 12, "HELD_OUT_DOCUMENTS": 10}.items():
            patch.setattr(stages, name, value)
        patch.setattr(training, "GROWING", ((4, 1), (8, 1)))
        patch.setattr(stages, "HELD_OUT_ROWS", 4)
        patch.setattr(stages, "GENERATED_ROWS", 1)
        yield folder


def toy(method: str, **changes: Any) -> RivalRecipe:
    return RivalRecipe.model_validate({"method": method, "pretraining": 4, "tuning": 2, "rank": 4} | changes)


def rival_of(lab: Path, method: str) -> Rival:
    """A baseline in float32 whose weights all differ from where they start, as its file will round them."""
    decoder = init.open_decoder(str(lab / "lab-llama"))
    recipe = training.tuning_recipe(method, toy(method), str(lab / "lab-llama"), "data")
    rival = Rival(decoder, recipe, method, 4)
    torch.manual_seed(1)
    for parameter in rival.parameters():
        if parameter.requires_grad:
            parameter.data = (parameter + 0.05 * torch.randn_like(parameter)).half().float()
    if method == "cocom":
        rival.encoder.special.copy_(rival.encoder.special.half().float())  # type: ignore[operator, union-attr]
    return rival.eval()


@pytest.mark.parametrize("method", METHODS)
def test_a_baseline_is_trained_on_what_its_wrapper_lays_out(method: str, lab: Path, tmp_path: Path) -> None:
    rival = rival_of(lab, method)
    rival.encoder.export(tmp_path, str(lab / "lab-llama"))
    decoder = init.open_decoder(str(lab / "lab-llama"))
    wrapper = get(method).load(str(tmp_path), decoder)
    with torch.no_grad():
        encoded = rival.encode(rival.reader.tokenize(CONTEXTS))
        plans = rival.plans(encoded, Task.ANSWERING)
    for context, before, memory in zip(CONTEXTS, plans, wrapper.compress(CONTEXTS), strict=True):
        prompt = Prompt([Part(context, Kind.CONTEXT, " "), Part("Question: Where does Anna Baker live?\n\nAnswer: ")])
        plan = PromptEncoder(wrapper).encode(prompt, [memory])
        rows = asked(rival, str(prompt.parts[1].text))
        expected = torch.cat([before.vectors(decoder), decoder.embed(rows)])
        torch.testing.assert_close(plan.vectors(decoder).float(), expected, rtol=1e-4, atol=1e-4)


def asked(rival: Rival, prompt: str) -> list[int]:
    """What training puts between memory and answer."""
    sample = Sample(0, 0, 4, (Task.ANSWERING,), [], "", "", prompt)
    (ids,) = rival.collator().targets(Task.ANSWERING, [sample])["ids"]
    end = rival.decoder.tokenizer.eos_token_id
    return ids[:-1] if ids[-1] == end else ids


@pytest.mark.parametrize("method", METHODS)
def test_training_changes_the_baseline_and_nothing_of_its_decoder(method: str, lab: Path) -> None:
    before = init.open_decoder(str(lab / "lab-llama")).model.state_dict()
    decoder = init.open_decoder(str(lab / "lab-llama"))
    recipe = training.tuning_recipe(method, toy(method), str(lab / "lab-llama"), "data")
    rival = Rival(decoder, recipe, method, 4)
    batch = rival.collator()([sample(rival, context, index) for index, context in enumerate(CONTEXTS)])
    loss = rival(**batch)["loss"]
    loss.backward()
    learning = {name for name, parameter in rival.named_parameters() if parameter.requires_grad}
    assert all("lora_" in name or name in ("encoder.table", "encoder.summary") for name in learning)
    moved = {name for name, parameter in rival.named_parameters() if parameter.grad is not None}
    assert moved == learning
    assert set(rival.state_dict()) - {"encoder.special"} == learning
    plain = {name.replace(".base_layer", ""): value for name, value in decoder.model.state_dict().items()}
    assert all(torch.equal(plain[name], value) for name, value in before.items())


def sample(rival: Rival, context: str, index: int) -> Any:
    (ids,) = rival.reader.tokenize([context])
    return Sample(index, 0, 4, (Task.ANSWERING,), ids, context, "Paris", "Question: Where?\n\nAnswer: ")


def test_autocompressor_reads_on_as_the_wrapper_does(lab: Path, tmp_path: Path) -> None:
    rival = rival_of(lab, "autocompressor")
    rival.encoder.export(tmp_path, str(lab / "lab-llama"))
    wrapper: Any = get("autocompressor").load(str(tmp_path), init.open_decoder(str(lab / "lab-llama")))
    ids = torch.randint(10, 500, (2, 4 * 64), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        sizes = {"phase": 0, "rate": rival.recipe.final.rate, "indices": [0, 1], "labels": ids}
        loss = float(rival(ids.tolist(), {Task.COMPLETION.value: {}}, **sizes)["loss"])
    expected = 0.0
    for row in ids.tolist():
        logits = []
        for start in range(0, 256, 64):  # each segment behind a memory of those before it
            (memory,) = wrapper.encoder.encode([row[:start]])
            vectors = torch.cat([memory, wrapper.decoder.embed(row[start : start + 64])])
            logits.append(wrapper.decoder.model(inputs_embeds=vectors[None]).logits[0, len(memory) :])
        whole = torch.cat(logits)[:-1]
        expected += float(torch.nn.functional.cross_entropy(whole, torch.tensor(row[1:]), reduction="sum"))
    assert loss == pytest.approx(expected / (2 * 255), rel=1e-4)


def test_an_interrupted_baseline_goes_on_where_it_stopped(lab: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    method = "cocom"
    recipe = toy(method)
    whole, stopped = lab / f"{method}-whole", lab / f"{method}-stopped"
    training.train_rival(lab, whole.name, recipe, lab / "work" / whole.name)
    with monkeypatch.context() as patch:
        patch.setattr(training, "tuning_recipe", _stop)
        with pytest.raises(KeyboardInterrupt):
            training.train_rival(lab, stopped.name, recipe, lab / "work" / stopped.name)
    with monkeypatch.context() as patch:
        patch.setattr(training, "fit", _only_tuning)
        training.train_rival(lab, stopped.name, recipe, lab / "work" / stopped.name)
    for file in whole.glob("*.safetensors"):
        assert file.read_bytes() == (stopped / file.name).read_bytes()
    assert json.loads((whole / "log.jsonl").read_text().splitlines()[-1])["step"] == 2


def test_what_another_version_has_learned_is_refused(lab: Path) -> None:
    work = lab / "work" / "older"
    (work / "pretraining").mkdir(parents=True)
    save_file({"table": torch.zeros(1)}, work / "pretraining" / training.LEARNED)
    with pytest.raises(UsageError, match=r"learned.safetensors was written by another version of pcc-bench: delete"):
        training.train_rival(lab, "older", toy("icae"), work)


def _stop(*arguments: Any) -> Any:
    raise KeyboardInterrupt


def _only_tuning(rival: Any, recipe: Any, folder: Path) -> bool:
    assert folder.name == "tuning", "pretraining had ended and must not be done again"
    return fit(rival, recipe, folder)


def test_the_classifiers_teacher_keeps_names_and_values() -> None:
    passage = draw_passage(seeded(0, "test"), 6, fillers=3)
    kept = {passage.text[first:last]: weight for first, last, weight in rivals.taught(passage)}
    for stated in passage.stated:
        for word in stated.fact.value.split():
            assert kept[word] >= rivals.NAME
    assert not {"The", "the", "of", "is", "in"} & set(kept)


def test_a_trained_classifier_keeps_values_and_drops_scenery(lab: Path, tmp_path: Path) -> None:
    recipe = ClassifierRecipe(width=32, layers=1, vocabulary=600, steps=60, learning_rate=5e-3)
    rivals.train_classifier(tmp_path / "made", recipe, tmp_path / "work")
    wrapper = get("llmlingua2").load(str(tmp_path / "made"), init.open_decoder(str(lab / "lab-llama")), rate=3)
    passages = [draw_passage(seeded(1, "test", i), 8, fillers=3) for i in range(10)]
    memories = wrapper.compress([passage.text for passage in passages])
    kept = [set((memory.text or "").replace(".", " ").split()) for memory in memories]
    values, others = [], []
    for passage, words in zip(passages, kept, strict=True):
        values += [word in words for stated in passage.stated for word in stated.fact.value.split()]
        others += [word in words for word in passage.text.split() if word in ("the", "of", "is", "in", "a")]
    assert sum(values) / len(values) > 0.7
    assert sum(others) / len(others) < 0.3


def test_the_classifiers_tokenizer_keeps_case() -> None:
    tokenizer = make_bert_tokenizer(["Anna Baker lives in Paris."] * 5, 200)
    assert tokenizer.tokenize("Paris") != tokenizer.tokenize("paris")
