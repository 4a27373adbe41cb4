"""What PCC is trained on: reconstruction, completion and answering from memory.

Each is a target that the frozen decoder must emit after a memory (paper section 4; `PCC.forward` of the official code).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import torch
from torch import nn

from pcc_bench.core.decoder import Decoder
from pcc_bench.core.generation import autocast_for, continued, pad_token_id
from pcc_bench.core.plan import Plan, positions
from pcc_bench.model.pcc import AE, PCC, Encoded

IGNORED = -100


class Task(StrEnum):
    """Which target follows the memory. Only reconstruction has a token between them: `<ae>`."""

    RECONSTRUCTION = "ae"
    COMPLETION = "next_token"
    ANSWERING = "rag"


@dataclass(frozen=True)
class Inputs:
    vectors: torch.Tensor  # [batch, length, hidden size]: BOS, memory, `<ae>` where the task has it, target, padding
    # [batch, length], 1 where `vectors` is not padding; where several targets share a row, [batch, 1, length, length],
    # what is added to the scores of a position that reads another.
    mask: torch.Tensor
    labels: torch.Tensor  # [batch, length], the target's ids at their positions, -100 elsewhere
    positions: torch.Tensor | None = None  # [batch, length], position ids where they do not count from 0


def memory_plans(pcc: PCC, decoder: Decoder, encoded: Sequence[Encoded], task: Task) -> list[Plan]:
    """BOS (where the decoder has one), the memory, and `<ae>` for reconstruction: the layout of an evaluation."""
    closing = [pcc.special_vector(AE).float()[None]] if task is Task.RECONSTRUCTION else []
    return [Plan((decoder.bos, pcc.memory(context), *closing)) for context in encoded]


def behind(
    decoder: Decoder,
    plans: Sequence[Plan],
    targets: Sequence[Sequence[int]],
    labels: Sequence[Sequence[int]] | None = None,
) -> Inputs:
    """Lay out targets behind plans, which predict the target's first token and are not scored themselves.

    `targets`: decoder ids, end of sequence included. `labels`: aligned with them, -100 where not scored; None: all are.
    """
    pairs = zip(plans, targets, strict=True)
    rows = [torch.cat([plan.vectors(decoder).float(), decoder.embed(target).float()]) for plan, target in pairs]
    width, device = max(map(len, rows)), decoder.device
    vectors = decoder.embed([pad_token_id(decoder)]).float().expand(len(rows), width, -1).clone()
    mask = torch.zeros(len(rows), width, dtype=torch.long, device=device)
    marked = torch.full((len(rows), width), IGNORED, dtype=torch.long, device=device)
    for i, (plan, row) in enumerate(zip(plans, rows, strict=True)):
        vectors[i, : len(row)], mask[i, : len(row)] = row, 1
        marked[i, plan.length : len(row)] = torch.tensor((labels or targets)[i], device=device)
    known = positions(plans, None)
    ids = None if known is None else continued(known, list(map(len, rows))).to(device)
    return Inputs(vectors, mask, marked, ids)


def can_share(decoder: Decoder, length: int) -> bool:
    """Can several targets stand in one row of so many positions? Attention must take a mask of any shape."""
    config: Any = decoder.model.config
    window = getattr(config, "sliding_window", None)
    return config._attn_implementation in ("eager", "sdpa") and (window is None or length <= window)


def sharing(
    decoder: Decoder,
    plans: Sequence[Plan],
    targets: Sequence[Sequence[Sequence[int]]],
    labels: Sequence[Sequence[Sequence[int]]],
) -> Inputs:
    """As `behind`, with all targets of a plan in one row: each reads the plan and itself, as if it stood alone."""
    # The first label of each target must be -100: its own row would predict it from the plan's last position, which
    # here belongs to all of them. See `can_share`.
    ids = [[token for target in row for token in target] for row in targets]
    scored = [[label for target in row for label in target] for row in labels]
    inputs = behind(decoder, plans, ids, scored)
    batch, width = inputs.labels.shape
    owner = torch.full((batch, width), -1)
    places = torch.zeros(batch, width, dtype=torch.long)
    for i, (plan, row) in enumerate(zip(plans, targets, strict=True)):
        known = torch.tensor(plan.positions(), dtype=torch.long)
        start = int(known.max()) + 1
        spans = [known, *(torch.arange(start, start + len(target)) for target in row)]
        length = plan.length + len(ids[i])
        places[i, :length] = torch.cat(spans)
        owner[i, :length] = torch.cat([torch.full_like(span, k) for k, span in enumerate(spans)])
    reads = (owner[:, None] == owner[..., None]) | (owner[:, None] == 0)
    reads &= torch.ones(width, width, dtype=torch.bool).tril()
    mask = torch.zeros(batch, 1, width, width, dtype=decoder.dtype)
    mask.masked_fill_(~reads[:, None], torch.finfo(decoder.dtype).min)
    return Inputs(inputs.vectors, mask.to(decoder.device), inputs.labels, places.to(decoder.device))


def predictions(decoder: Decoder, inputs: Inputs) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits [labels, vocabulary], float32, at the positions that predict a label, and those labels, row after row."""
    scored = inputs.labels[:, 1:].ne(IGNORED)
    predicting = nn.functional.pad(scored, (0, 1))

    # the vocabulary head sees neither memories nor prompts nor padding
    def only_predicting(head: nn.Module, hidden: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return (hidden[0][predicting], *hidden[1:])

    hook = decoder.model.get_output_embeddings().register_forward_pre_hook(only_predicting)
    try:
        with autocast_for(decoder, inputs.vectors):
            places = {} if inputs.positions is None else {"position_ids": inputs.positions}
            out = decoder.model(inputs_embeds=inputs.vectors, attention_mask=inputs.mask, use_cache=False, **places)
    finally:
        hook.remove()
    return out.logits.float(), inputs.labels[:, 1:][scored]


def token_nll(decoder: Decoder, inputs: Inputs) -> torch.Tensor:
    """Negative log-likelihood of each label: [batch, length], at the label's own position, 0 where there is none."""
    logits, labels = predictions(decoder, inputs)
    losses = nn.functional.cross_entropy(logits, labels, reduction="none")
    return losses.new_zeros(inputs.labels.shape).masked_scatter(inputs.labels.ne(IGNORED), losses)
