"""FSDP: a sharded Large compressor learns what an unsharded one learns.

accelerate offers FSDP on accelerators only (on a CPU `accelerate launch` runs the same file unsharded), so these tests
call what it would call there, its `fsdp2_prepare_model`, in two gloo processes on the CPU, with the settings that its
launcher reads from our fsdp.yaml. Mixed precision is left out, so that the comparison can be exact.
"""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.multiprocessing
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils import FullyShardedDataParallelPlugin
from accelerate.utils.fsdp_utils import fsdp2_prepare_model
from accelerate.utils.launch import prepare_multi_gpu_env
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import register_fsdp_forward_method

from pcc_bench.model import checkpoint, init
from pcc_bench.model.training import loop
from pcc_bench.model.training.journal import shard_again
from pcc_bench.model.training.loop import PccForTraining
from pcc_bench.model.training.recipe import Recipe

CONFIG = Path(loop.__file__).parents[1] / "recipes" / "accelerate" / "fsdp.yaml"
STEPS, PROCESSES = 3, 2
CONTEXTS = [list(range(5, 45))]


def settings() -> dict[str, str]:
    """The environment in which accelerate's launcher would start our processes, as far as it says how to shard."""
    args, *_ = _validate_launch_command(launch_command_parser().parse_args(["--config_file", str(CONFIG), "-m", "x"]))
    return {key: value for key, value in prepare_multi_gpu_env(args).items() if key.startswith("FSDP_")}


def large(models: Path, folder: Path) -> PccForTraining:
    """A tiny PCC-Large with LoRA, without dropout: its draws would differ between processes."""
    state = {
        "name": "sharded",
        "encoder": str(models / "llama"),
        "lora_rank": 4,
        "decoder": str(models / "llama"),
        "data": {"path": "unused"},
        "phases": [{"segment_length": 16, "rate": 4}],
        "optimisation": {"learning_rate": 1e-3, "batch_size": 4, "micro_batch_size": 2, "steps": STEPS},
    }
    torch.manual_seed(0)  # of rows of the vocabulary head, which the encoder never uses
    recipe = Recipe.checked(state, "test recipe")
    decoder = init.open_decoder(recipe.decoder)
    model = PccForTraining(loop.starting_point(recipe, decoder, folder / "saved"), decoder, recipe)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return model


def shard(model: PccForTraining) -> None:
    """Apply accelerate's own preparation; needs a process group."""
    mesh = init_device_mesh("cpu", (PROCESSES,), mesh_dim_names=("shard",))
    accelerator = SimpleNamespace(
        state=SimpleNamespace(fsdp_plugin=FullyShardedDataParallelPlugin()),
        torch_device_mesh=mesh,
        parallelism_config=SimpleNamespace(fsdp_dim_names=("shard",)),
        mixed_precision="no",
        is_main_process=torch.distributed.get_rank() == 0,
        device=torch.device("cpu"),
    )
    fsdp2_prepare_model(accelerator, model)


def learn(model: PccForTraining, rank: int, processes: int) -> list[float]:
    """Three clipped AdamW steps on this process's share of four samples a step, as the Trainer takes them."""
    learned = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(learned, lr=1e-3, weight_decay=0.0)
    losses = []
    for step in range(STEPS):
        rows = [[(7 * i + 3 * j + step) % 200 + 5 for j in range(16)] for i in range(4)]
        share = rows[rank::processes]
        scored = torch.tensor(4 * 16)
        targets = {"ae": {"ids": share, "labels": share}}
        loss = model(share, targets, 0, 4, [0], torch.tensor(share), num_items_in_batch=scored)["loss"]
        (loss * processes).backward()  # gradients are averaged over processes
        torch.nn.utils.clip_grad_norm_(learned, 0.5)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def whole(model: PccForTraining) -> dict[str, torch.Tensor]:
    """All weights."""
    return {name: value.detach().clone() for name, value in model.named_parameters()}


def sharded_process(rank: int, models: Path, folder: Path, environment: dict[str, str]) -> None:
    """What one of the two processes does; the first leaves the results in a file."""
    os.environ |= environment
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=PROCESSES
    )
    model = large(models, folder)
    shard(model)
    register_fsdp_forward_method(model, "encode")  # as `Evaluation` does before the first step
    with torch.no_grad():
        model.encode(CONTEXTS)
    shard_again(model)
    losses: list[Any] = [None] * PROCESSES
    torch.distributed.all_gather_object(losses, learn(model, rank, PROCESSES))
    sizes = {name: value.to_local().numel() for name, value in model.named_parameters()}
    with torch.no_grad():
        slots = torch.cat(model.eval().encode(CONTEXTS)[0].slots)
    state = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    loop.gather(model)
    if rank == 0:
        result = {"losses": losses, "sizes": sizes, "weights": whole(model), "slots": slots, "state": list(state)}
        torch.save(result, folder / "result.pt")
        checkpoint.save(model.pcc, folder / "saved")
    torch.distributed.destroy_process_group()


def test_our_fsdp_settings_shard_block_by_block() -> None:
    told = settings()
    assert told["FSDP_VERSION"] == "2"
    assert told["FSDP_TRANSFORMER_CLS_TO_WRAP"] == "LlamaDecoderLayer"
    assert told["FSDP_RESHARD_AFTER_FORWARD"].lower() == "true"


def test_two_sharded_processes_learn_what_one_learns(models: Path, tmp_path: Path) -> None:
    torch.multiprocessing.spawn(sharded_process, (models, tmp_path, settings()), nprocs=PROCESSES)
    result = torch.load(tmp_path / "result.pt", weights_only=True)
    alone = large(models, tmp_path)
    before = whole(alone)
    losses = learn(alone, 0, 1)
    assert [sum(shares) for shares in zip(*result["losses"], strict=True)] == pytest.approx(losses, abs=1e-5)
    after = whole(alone)
    assert after.keys() == result["weights"].keys()
    for name, value in after.items():
        torch.testing.assert_close(result["weights"][name], value, atol=1e-5, rtol=0)
    moved = {name for name in after if not torch.equal(before[name], after[name])}
    assert moved == {name for name, parameter in alone.named_parameters() if parameter.requires_grad}
    assert set(result["state"]) == moved, "a resumable state holds what learns"
    with torch.no_grad():
        slots = torch.cat(alone.eval().encode(CONTEXTS)[0].slots)
        loaded = checkpoint.load(str(tmp_path / "saved"), alone.decoder)
        saved = torch.cat(loaded.encode(CONTEXTS)[0].slots)
    torch.testing.assert_close(result["slots"], slots, atol=1e-4, rtol=0)
    torch.testing.assert_close(saved, slots, atol=1e-4, rtol=0)
    assert sum(result["sizes"].values()) < 0.6 * sum(value.numel() for value in after.values()), "not sharded"
