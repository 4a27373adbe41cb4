"""Shipped recipes are readable, planned offline, and the paper's; dry runs count what torch counts."""

from __future__ import annotations

import csv
import json
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM, PreTrainedConfig

from pcc_bench.core import tiny
from pcc_bench.core.errors import UsageError
from pcc_bench.cost import dry_run
from pcc_bench.cost import sizes as sizes_of
from pcc_bench.model import checkpoint, init
from pcc_bench.model.encoder import fuse_gelu
from pcc_bench.model.training.loop import PccForTraining, starting_point
from pcc_bench.model.training.recipe import Recipe, shipped

TABLE = Path(__file__).parent / "fixtures" / "paper_hyperparameters.csv"
PAPER = {(row["encoder"], row["stage"]): row for row in csv.DictReader(TABLE.read_text("utf-8").splitlines())}
# (row of the table, rate) of every recipe that the table speaks of
PUBLISHED = {
    row["recipes"].format(rate=rate): (row, int(rate)) for row in PAPER.values() for rate in row["rates"].split()
}
ADAPTS = {name for name in shipped() if name.startswith("adapt-")}
ABLATIONS = {"", "-random", "-memory-tokens", "-whole", "-squad", "-squad-kl"}
# for a pretrained decoder on a CPU
SMALL = {
    "smollm2",
    "smollm2-squad",
    "smollm2-1x",
    *(f"smollm2-ablation{name}" for name in ABLATIONS),
}


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("a dry run went to the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)


# ---------------------------------------------------------------- shipped recipes


@pytest.mark.parametrize("name", shipped())
def test_every_recipe_is_planned_offline(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for start in ("smollm2", "squad", "smollm2-ablation"):
        pretrained(tmp_path / "runs" / start)
    recipe = Recipe.read(name)
    assert recipe.name == name
    plan = dry_run.plan(recipe, device="A100", devices=1 if name in SMALL else 4)
    text = dry_run.render(plan)
    assert plan.parts[-1].name == "decoder"
    assert plan.parts[-1].trained == 0
    assert 0 < plan.weights.trained < plan.weights.parameters
    assert plan.memory.total < 80e9, "the paper's cards have 80 GB"
    for shown in (
        name,
        f"{plan.weights.trained:,}",
        f"{plan.steps:,}",
        f"{plan.flops:.2e}",
        "estimate",
        "time",
        "A100",
    ):
        assert shown in text


def pretrained(folder: Path) -> None:
    """The configuration of what the recipe `smollm2` makes."""
    folder.mkdir(parents=True)
    encoder = {"kind": "lora", "config": {}, "lora": {"r": 32}, "layers": 12}
    state = {"rate": 4, "pooling": "mean", "slots": "proportional", "residual": True, "encoder": encoder}
    (folder / "config.json").write_text(json.dumps({"pcc_bench": 1, **state, "decoder": {"hidden_size": 576}}))


def test_a_plan_of_an_encoder_made_of_decoder_layers_counts_what_is_its_own() -> None:
    parts = {part.name: part for part in dry_run.plan(Recipe.read("smollm2")).parts}
    products = 12 * (2 * 576 * 576 + 2 * 576 * 192 + 3 * 576 * 1536)
    assert parts["encoder"] == dry_run.Weights("encoder", products + 12 * 2 * 576 + 576, 0)
    assert parts["LoRA"].trained == 32 * 12 * (2 * 2 * 576 + 2 * (576 + 192) + 3 * (576 + 1536))
    assert parts["special vectors"].trained == 3 * 576
    assert "memory tokens" not in parts
    assert parts["decoder"].parameters == 134_515_008


@pytest.mark.parametrize("name", shipped())
def test_every_recipe_is_short_and_says_what_it_is(name: str) -> None:
    lines = shipped()[name].read_text("utf-8").splitlines()
    assert len(lines) <= 50
    assert all(len(line) <= 120 for line in lines)
    comment = "\n".join(line for line in lines[: lines.index(f"name: {name}")] if line.startswith("# "))
    for word in ("Source:", "Not certain:"):
        assert word in comment


def test_a_recipe_like_another_says_what_differs(tmp_path: Path) -> None:
    one, other = Recipe.read("smollm2-ablation"), Recipe.read("smollm2-ablation-whole", ["optimisation.warmup_steps=3"])
    changes = {"name": other.name, "purpose": other.purpose, "lora_rank": 0, "lora_alpha": None}
    rates = {"optimizer": "muon", "learning_rate": 1e-3, "warmup_steps": 3}
    optimisation = one.optimisation.model_copy(update=rates)
    assert other == one.model_copy(update={**changes, "optimisation": optimisation})
    (tmp_path / "twice.yaml").write_text("name: twice\nlike: smollm2-ablation-whole\n")
    with pytest.raises(UsageError, match=r"twice\.yaml is like a recipe that is like another one: name that one"):
        Recipe.read(str(tmp_path / "twice.yaml"))
    (tmp_path / "none.yaml").write_text("name: none\nlike: nothing\n")
    with pytest.raises(UsageError, match="no recipe 'nothing'"):
        Recipe.read(str(tmp_path / "none.yaml"))


def test_the_paper_s_runs_the_adapts_and_the_small_ones_are_shipped_and_nothing_else() -> None:
    assert shipped().keys() == PUBLISHED.keys() | ADAPTS | SMALL
    assert len(ADAPTS) == 3


@pytest.mark.parametrize("name", PUBLISHED)
def test_optimisation_is_the_papers(name: str) -> None:
    row, _ = PUBLISHED[name]
    recipe = Recipe.read(name)
    _assert_optimisation(recipe, row)
    assert set(recipe.train) == {"encoder", "converter"}
    assert recipe.optimisation.epochs in (None, int(row["epochs"]))
    parts = {part.name: part for part in dry_run.plan(recipe).parts}
    assert ("LoRA" in parts) == bool(row["lora_rank"])
    if row["lora_rank"]:
        lora = init.lora_config(int(row["lora_rank"]))
        assert (lora.lora_alpha, lora.lora_dropout) == (int(row["lora_alpha"]), float(row["lora_dropout"]))
        assert parts["LoRA"].trained == 176_246_784
        assert recipe.encoder is None or recipe.lora_rank == int(row["lora_rank"])


def _assert_optimisation(recipe: Recipe, row: dict[str, str]) -> None:
    optimisation = recipe.optimisation
    assert row["optimizer"] == optimisation.optimizer
    assert optimisation.learning_rates == {}
    assert optimisation.schedule == row["schedule"]
    assert optimisation.learning_rate == float(row["learning_rate"])
    assert optimisation.batch_size == int(row["batch_size"])
    assert optimisation.warmup_steps == int(row["warmup_steps"])
    assert optimisation.max_grad_norm == float(row["max_grad_norm"])


@pytest.mark.parametrize("name", PUBLISHED)
def test_lengths_and_rates_are_the_papers(name: str) -> None:
    row, rate = PUBLISHED[name]
    last = Recipe.read(name).phases[-1]
    assert (last.segment_length, last.rate) == (int(row["segment_length"]), rate)


@pytest.mark.parametrize("name", [name for name, (row, _) in PUBLISHED.items() if row["stage"] == "pretrain"])
def test_pretraining_sees_the_papers_tokens(name: str) -> None:
    row, _ = PUBLISHED[name]
    recipe = Recipe.read(name)
    first, last = dry_run.plan(recipe).phases
    assert (first.segment_length, first.rate) == (int(row["first_segment_length"]), int(row["first_rate"]))
    for phase, tokens in ((first, int(row["first_tokens"])), (last, int(row["tokens"]))):
        a_step = recipe.optimisation.batch_size * phase.segment_length
        assert 0 <= phase.tokens - tokens < a_step
    assert recipe.optimisation.tokens == int(row["first_tokens"]) + int(row["tokens"])


@pytest.mark.parametrize("name", [name for name, (row, _) in PUBLISHED.items() if row["stage"] == "pretrain"])
def test_warm_up_reads_the_papers_corpus_and_mostly_reconstructs(name: str) -> None:
    row, _ = PUBLISHED[name]
    recipe = Recipe.read(name)
    assert row["first_corpus"] in recipe.data_at(0).path
    assert row["corpus"].lower() in recipe.data_at(-1).path.lower()
    assert recipe.completion_at(0) < 0.5 == recipe.completion_at(-1)


FINE_TUNED = [name for name, (row, _) in PUBLISHED.items() if row["train_rows"]]


@pytest.mark.parametrize("name", FINE_TUNED)
def test_fine_tuning_takes_the_papers_rows_and_steps(name: str) -> None:
    row, rate = PUBLISHED[name]
    recipe = Recipe.read(name)
    rows, held_out = int(row["train_rows"]), int(row["held_out_rows"] or 0)
    assert dry_run.KNOWN_ROWS[recipe.data.path] == rows + held_out
    # The last batch of a pass is filled up from the next one: 679 steps of SQuAD, 211 of GSM8K, 124 of HPD.
    assert dry_run.plan(recipe).steps == 3 * -(-rows // int(row["batch_size"]))
    assert recipe.start == f"BroAlanTaps/Stage1-PCC-{row['encoder'].capitalize()}-{rate}x"


@pytest.mark.parametrize("encoder", ["lite", "large"])
def test_hours_are_the_papers_at_forty_percent(encoder: str) -> None:
    row = PAPER[encoder, "pretrain"]
    plan = dry_run.plan(Recipe.read(f"{encoder}-4x"), device=row["device"], devices=int(row["devices"]))
    assert plan.seconds / 3600 == pytest.approx(float(row["hours"]), rel=0.05)


@pytest.mark.parametrize("name", sorted(ADAPTS))
def test_adapts_start_from_lite_and_keep_the_pretraining_values(name: str) -> None:
    recipe = Recipe.read(name)
    assert recipe.start == "BroAlanTaps/Stage1-PCC-Lite-4x"
    assert set(recipe.train) == {"encoder", "converter"}
    assert recipe.phases[-1].rate == 4
    _assert_optimisation(recipe, PAPER["lite", "pretrain"])


# ---------------------------------------------------------------- parameters


@pytest.mark.parametrize(
    ("name", "parameters"),
    {
        "openai-community/gpt2-large": 774_030_080,
        "meta-llama/Meta-Llama-3-8B-Instruct": 8_030_261_248,
        "BroAlanTaps/PCC-Decoder-Llama3-8B-Instruct": 8_030_261_248 + 3 * 2 * 4096,
        "mistralai/Mistral-7B-Instruct-v0.3": 7_248_023_552,
        "Qwen/Qwen2.5-7B-Instruct": 7_615_616_512,
        "microsoft/Phi-3.5-mini-instruct": 3_821_079_552,
    }.items(),
)
def test_known_models_have_their_published_sizes(name: str, parameters: int) -> None:
    assert sizes_of.measure(sizes_of.config_of(name)).parameters == parameters


def test_lite_trains_gpt2_large_its_memory_tokens_and_the_converter() -> None:
    parts = {part.name: part for part in dry_run.plan(Recipe.read("lite-4x")).parts}
    assert parts["encoder"].trained == 774_030_080
    assert parts["memory tokens"].trained == 64 * 1280
    assert parts["converter"].trained == 22_029_568
    assert parts["decoder"].parameters == 8_030_261_248


def test_large_trains_lora_and_the_converter_only() -> None:
    for name in ("large-4x", "large-4x-squad", "large-4x"):  # again: nothing a plan does changes the next one
        parts = {part.name: part for part in dry_run.plan(Recipe.read(name)).parts}
        assert parts["encoder"] == dry_run.Weights("encoder", 8_030_261_248, 0)
        assert parts["memory tokens"] == dry_run.Weights("memory tokens", 2 * 64 * 4096, 0)  # embedding and head
        assert parts["LoRA"].trained == 176_246_784
        assert parts["converter"].trained == 33_566_720


def test_a_narrower_choice_trains_less(models: Path) -> None:
    whole = dry_run.plan(small(models, "pcc"))
    rows = dry_run.plan(small(models, "pcc", train=["converter", "memory_tokens"]))
    converter = dry_run.plan(small(models, "pcc", train=["converter"]))
    assert rows.weights.trained - converter.weights.trained == 64 * 48
    assert whole.flops > rows.flops > converter.flops
    assert whole.memory.total > rows.memory.total > converter.memory.total


@pytest.mark.parametrize("name", ["pcc", "pcc-large"])
def test_parts_add_up_to_what_is_loaded(models: Path, name: str) -> None:
    decoder = init.open_decoder(str(models / "llama"))
    pcc = checkpoint.load(str(models / name), decoder)
    plan = dry_run.plan(small(models, name))
    loaded = sum(p.numel() for p in [*pcc.parameters(), *decoder.model.parameters()])
    assert plan.weights.parameters == loaded


# ---------------------------------------------------------------- FLOPs and memory


def small(models: Path, name: str, **changes: Any) -> Recipe:
    """One step with one sample of one 64-token segment at 4x, reconstructed."""
    optimisation = {"learning_rate": 1e-4, "batch_size": 1, "micro_batch_size": 1, "steps": 1}
    state = {"name": "small", "start": str(models / name), "decoder": str(models / "llama"), "data": {"path": "x"}}
    state |= {"objective": {"completion": 0}, "phases": [{"segment_length": 64, "rate": 4}]}
    return Recipe.model_validate({**state, "optimisation": optimisation, **changes})


def counted(run: Any) -> int:
    """FLOPs that torch counts; attention as plain products, since fused CPU kernels are not counted."""
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


def tiny_config(family: str, layers: int = 2) -> PreTrainedConfig:
    if family == "gpt2":
        return tiny.FAMILIES[family](n_embd=64, n_layer=layers, n_head=4, vocab_size=512)
    sizes = {"hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": layers, "num_attention_heads": 4}
    return tiny.FAMILIES[family](**sizes, num_key_value_heads=2, vocab_size=512, pad_token_id=0)


@pytest.mark.parametrize("family", tiny.FAMILIES)
@pytest.mark.parametrize("head", [False, True], ids=["encoder", "decoder"])
def test_flops_of_a_model_are_what_torch_counts(family: str, head: bool) -> None:
    config = tiny_config(family)
    model: Any = AutoModelForCausalLM.from_config(config)
    vectors = torch.randn(1, 80, 64, requires_grad=True)
    sizes = sizes_of.measure(config)
    for trained in (True, False):
        model.requires_grad_(trained)
        out: list[torch.Tensor] = []
        called = model if head else model.base_model
        forward = counted(lambda called=called, out=out: out.append(called(inputs_embeds=vectors, use_cache=False)[0]))
        backward = counted(lambda out=out: out[0].sum().backward())
        assert sizes.read(80, predicted=80 * head) == pytest.approx(forward, rel=0.01)
        assert sizes.backward(80, head=head, trained=trained) == pytest.approx(backward, rel=0.01)


@pytest.mark.parametrize("name", ["pcc", "pcc-large"])
def test_flops_of_a_training_step_are_what_torch_counts(models: Path, name: str) -> None:
    decoder = init.open_decoder(str(models / "llama"))
    decoder.model.requires_grad_(False)
    pcc = checkpoint.load(str(models / name), decoder, segment_length=64)
    for key, parameter in pcc.named_parameters():
        parameter.requires_grad_(name == "pcc" or "lora_" in key or "converter" in key)

    def step() -> None:
        (encoded,) = pcc.encode([list(range(5, 69))])
        memory = pcc.frame(encoded.slots)
        target = decoder.embed([7] * (1 + 1 + 64 + 1)).float()  # BOS, `<ae>`, text, end: their order costs nothing
        vectors = torch.cat([memory, target])[None]
        decoder.model(inputs_embeds=vectors, use_cache=False).logits.sum().backward()

    assert dry_run.plan(small(models, name)).flops == pytest.approx(counted(step), rel=0.02)


@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen2", "phi3"])
@pytest.mark.parametrize("trained", [True, False])
def test_activations_are_about_what_is_saved(family: str, trained: bool) -> None:
    # Differences, so that the copies of weights that autocast makes and the parts outside of blocks fall out.
    three, one = (
        saved_bytes(tiny_config(family, layers), trained, 128) - saved_bytes(tiny_config(family, layers), trained, 64)
        for layers in (3, 1)
    )
    sizes = sizes_of.measure(tiny_config(family, layers=2))
    assert sizes.activations(trained=trained) == pytest.approx((three - one) / 64, rel=0.1)


def saved_bytes(config: PreTrainedConfig, trained: bool, positions: int) -> int:
    """Bytes kept for backward under bfloat16 autocast, parameters aside."""
    model: Any = AutoModelForCausalLM.from_config(config).requires_grad_(trained)
    fuse_gelu(model.eval())  # a CPU has no attention kernel with dropout
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, torch.Tensor] = {}  # holds the tensors, so that no address is used twice

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    vectors = torch.randn(1, positions, 64, requires_grad=True)
    hooks = torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor)
    with hooks, torch.autocast("cpu", torch.bfloat16):
        model.base_model(inputs_embeds=vectors, use_cache=False)
    return sum(tensor.untyped_storage().nbytes() for address, tensor in kept.items() if address not in own)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("name", "train"),
    [
        ("pcc", ["encoder", "converter"]),
        ("pcc", ["converter"]),
        ("pcc", ["converter", "memory_tokens"]),
        ("pcc-large", ["encoder", "converter"]),
        ("pcc-large", ["converter"]),
    ],
)
def test_weights_take_the_bytes_that_training_holds(
    models: Path, tmp_path: Path, name: str, train: list[str], precision: str
) -> None:
    optimisation = {"learning_rate": 1e-4, "batch_size": 1, "micro_batch_size": 1, "steps": 1, "precision": precision}
    recipe = small(models, name, train=train, optimisation=optimisation)
    decoder = init.open_decoder(recipe.decoder, torch.bfloat16 if precision == "bfloat16" else torch.float32)
    model = PccForTraining(starting_point(recipe, decoder, tmp_path), decoder, recipe)
    held = [*model.parameters(), *decoder.model.parameters()]
    plan = dry_run.plan(recipe)
    assert plan.memory.weights == sum(p.numel() * p.element_size() for p in held)
    assert plan.memory.gradients == 4 * sum(p.numel() for p in model.parameters() if p.requires_grad)


def test_a_lora_s_frozen_base_is_counted_in_bfloat16() -> None:
    plan = dry_run.plan(Recipe.read("large-4x"))
    base, rows, lora, converter, decoder = (part.parameters for part in plan.parts)
    assert plan.memory.weights == 2 * (base + rows + decoder) + 4 * (lora + converter)
    assert plan.memory.weights / 2**30 == pytest.approx(30.7, abs=0.05)


def test_checkpointing_trades_time_for_memory() -> None:
    recipe = Recipe.read("lite-4x")
    other = recipe.optimisation.model_copy(update={"gradient_checkpointing": True})
    plain, recomputed = dry_run.plan(recipe), dry_run.plan(recipe.model_copy(update={"optimisation": other}))
    assert recomputed.memory.activations < plain.memory.activations
    assert recomputed.flops > plain.flops


# ---------------------------------------------------------------- what is refused


def refused(tmp_path: Path, change: dict[str, Any]) -> str:
    """The sentence about a shipped recipe with some keys changed (None: taken out)."""
    state = {**yaml.safe_load(shipped()["lite-4x"].read_text("utf-8")), **change}
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({key: value for key, value in state.items() if value is not None}))
    with pytest.raises(UsageError) as error:
        Recipe.read(str(path))
    assert "\n" not in str(error.value)
    assert str(error.value).startswith(f"{path}: ")
    return str(error.value)


STEPS = {"learning_rate": 1e-4, "batch_size": 256, "micro_batch_size": 4, "steps": 10}


@pytest.mark.parametrize(
    ("change", "words"),
    {
        "unknown key": ({"optimizer": "adamw"}, ["optimizer"]),
        "unknown inner key": ({"optimisation": {**STEPS, "lr": 1}}, ["optimisation.lr"]),
        "impossible value": ({"optimisation": {**STEPS, "learning_rate": -1}}, ["optimisation.learning_rate"]),
        "batch": ({"optimisation": {**STEPS, "micro_batch_size": 3}}, ["optimisation", "multiple"]),
        "no end": ({"optimisation": {**STEPS, "epochs": 1}}, ["optimisation", "steps or epochs"]),
        "rate": ({"phases": [{"segment_length": 256, "rate": 3}]}, ["phases.0", "rate 3"]),
        "too many slots": ({"phases": [{"segment_length": 256, "rate": 2}]}, ["phases.0", "64 memory tokens"]),
        "start and encoder": ({"start": "somewhere"}, ["start", "encoder"]),
        "neither": ({"encoder": None}, ["start", "encoder"]),
        "no decoder": ({"decoder": None}, ["decoder"]),
        "order": ({"phases": [{"until": 20}, {"until": 10}, {}]}, ["phases", "order"]),
        "open phase": ({"phases": [{}, {}]}, ["until"]),
        "nothing learns": ({"train": []}, ["train"]),
        "decoder learns": ({"train": ["decoder"]}, ["train.0"]),
        "streamed rows": ({"data": {"kind": "gsm8k", "path": "x", "streaming": True}}, ["data", "gsm8k", "streaming"]),
        "unknown kind": ({"data": {"kind": "riddles", "path": "x"}}, ["data.kind"]),
        "impossible share": ({"phases": [{"completion": 1.5}]}, ["phases.0.completion"]),
        "passes over two data sets": (
            {"phases": [{"data": {"path": "x"}}], "optimisation": {**STEPS, "steps": None, "epochs": 1}},
            ["epochs", "phase"],
        ),
    }.values(),
)
def test_a_wrong_recipe_is_one_sentence_with_file_and_key(
    tmp_path: Path, change: dict[str, Any], words: list[str]
) -> None:
    sentence = refused(tmp_path, change)
    for word in words:
        assert word in sentence


def test_a_recipe_that_is_not_there_or_not_yaml(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no recipe 'lite-5x'.*lite-4x"):
        Recipe.read("lite-5x")
    path = tmp_path / "mine.yaml"
    path.write_text("name: [")
    with pytest.raises(UsageError, match=r"mine\.yaml is not readable YAML"):
        Recipe.read(str(path))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"device": "H900"}, "device 'H900'.*H100"),
        ({"utilisation": 0}, "utilisation 0"),
        ({"utilisation": 1.5}, "utilisation 1.5"),
        ({"devices": 3}, "lite-4x.*256.*3 devices"),
        ({"devices": 0}, "0 devices"),
    ],
)
def test_options_that_make_no_sense(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        dry_run.plan(Recipe.read("lite-4x"), **options)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"decoder": "nobody/nothing"}, "nobody/nothing.*configuration"),
        ({"start": "nobody/nothing"}, "start 'nobody/nothing'"),
    ],
)
def test_recipes_that_cant_be_planned(models: Path, change: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        dry_run.plan(small(models, "pcc", **change))


def test_epochs_need_a_number_of_rows(models: Path, tmp_path: Path) -> None:
    optimisation = {"learning_rate": 1e-4, "batch_size": 2, "micro_batch_size": 1, "epochs": 3}
    path = tmp_path / "rows.jsonl"
    change = {"data": {"kind": "qa", "path": str(path)}, "optimisation": optimisation}
    with pytest.raises(UsageError, match=r"optimisation\.steps"):
        dry_run.plan(small(models, "pcc", **change))
    answered, unanswerable = ({"context": "a", "question": "b", "answers": texts} for texts in (["c"], []))
    path.write_text("".join(json.dumps(row) + "\n" for row in [answered] * 5 + [unanswerable] * 3))
    plan = dry_run.plan(small(models, "pcc", **change))
    assert plan.steps == 6  # 3 passes over 5 answerable rows, one of them held out, in batches of 2
    assert any("optimisation.tokens" in note for note in plan.notes)
