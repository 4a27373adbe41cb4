"""Muon beside AdamW: what each takes, one learning rate for both, and runs that go on exactly."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from pcc_bench.model.training.optimizer import MuonAndAdamW


def tied_model() -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(7, 4), nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 7, bias=False))
    model[3].weight = model[0].weight
    return model


def one_step(model: nn.Module, optimizer: Any) -> None:
    logits = model(torch.arange(7))
    nn.functional.cross_entropy(logits, torch.arange(7).flip(0)).backward()
    optimizer.step()
    optimizer.zero_grad()


def test_muon_takes_linear_matrices_and_no_embedding_though_it_is_a_head_too() -> None:
    model = tied_model()
    optimizer = MuonAndAdamW(model.modules(), 1e-2)
    taken = {name: inner.param_groups[0]["params"] for name, inner in optimizer.inner.items()}
    assert [id(weight) for weight in taken["muon"]] == [id(model[1].weight)]
    assert any(weight is model[0].weight for weight in taken["adamw"])
    assert len(taken["adamw"]) == 4  # embedding, bias, norm weight, norm bias


def test_frozen_weights_are_in_neither() -> None:
    model = tied_model()
    model[1].requires_grad_(False)
    assert set(MuonAndAdamW(model.modules(), 1e-2).inner) == {"adamw"}


def test_a_scheduler_reaches_both() -> None:
    model = tied_model()
    optimizer = MuonAndAdamW(model.modules(), 1e-2)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.0 if step else 1.0)
    one_step(model, optimizer)
    schedule.step()
    before = copy.deepcopy(model.state_dict())
    one_step(model, optimizer)
    assert all(torch.equal(before[name], weight) for name, weight in model.state_dict().items())


def test_a_restored_state_goes_on_to_the_same_bits() -> None:
    whole = tied_model()
    optimizer = MuonAndAdamW(whole.modules(), 1e-2)
    one_step(whole, optimizer)
    cut = tied_model()
    cut.load_state_dict(whole.state_dict())
    restored = MuonAndAdamW(cut.modules(), 1e-2)
    restored.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    one_step(whole, optimizer)
    one_step(cut, restored)
    assert all(torch.equal(weight, cut.state_dict()[name]) for name, weight in whole.state_dict().items())


def test_a_step_of_muon_turns_by_the_size_of_adamws() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(48, 32, bias=False)
    before = layer.weight.detach().clone()
    optimizer = MuonAndAdamW([layer], 1e-2)
    layer.weight.grad = torch.randn_like(layer.weight)
    optimizer.step()
    values = torch.linalg.svdvals((before - layer.weight.detach()) / (1e-2 * 0.2 * 48**0.5))
    assert values.min() > 0.6 and values.max() < 1.3  # all directions alike, as Newton and Schulz leave them
    assert (before - layer.weight).square().mean().sqrt().item() == pytest.approx(0.2 * 1e-2, rel=0.2)
