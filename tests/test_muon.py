"""Muon beside AdamW: what each takes, one learning rate for both, and runs that go on exactly."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from pcc_bench.model.training.optimizer import MuonAndAdamW, StackedMuon


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


def test_stacked_steps_are_torchs_own() -> None:
    torch.manual_seed(0)
    shapes = [(8, 5), (5, 8), (8, 5), (6, 6), (5, 8), (8, 5)]
    ours = [nn.Parameter(torch.randn(shape)) for shape in shapes]
    theirs = [nn.Parameter(weight.detach().clone()) for weight in ours]
    start = [weight.detach().clone() for weight in ours]
    options = {"lr": 1e-2, "weight_decay": 0.1}
    stacked = StackedMuon(ours, **options)
    reference = torch.optim.Muon(theirs, **options, adjust_lr_fn="match_rms_adamw")
    for _ in range(3):
        for one, other in zip(ours, theirs, strict=True):
            one.grad = torch.randn_like(one)
            other.grad = one.grad.clone()
        stacked.step()
        reference.step()
    for one, other, before in zip(ours, theirs, start, strict=True):
        torch.testing.assert_close(one, other, atol=2e-4, rtol=0)  # bfloat16 products in another order
        assert (one - before).abs().max() > 1e-3
