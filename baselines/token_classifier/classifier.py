"""A token classification model of transformers, and what it says of every token of a text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from pcc_bench.baselines.hard import read_classifier
from pcc_bench.core.architecture import from_folder
from pcc_bench.core.checkpoint_files import resolve
from pcc_bench.core.decoder import Decoder
from pcc_bench.core.errors import UsageError

METHOD = "token-classifier"
CHUNK = 512  # tokens, special ones included, where the classifier takes as many
HEAD = "ForTokenClassification"
OUTSIDE = "O"  # the label of tokens that are part of nothing, in models that mark entities


@dataclass(frozen=True)
class Reading:
    """How a classifier is read.

    Attributes:
        labels: Numbers of the labels that mean "keep"; their probabilities are added.
        chunk: Tokens a forward, special ones included.
        overlap: Tokens that neighbouring chunks share.
        batch: Chunks a forward; changes no result.
    """

    labels: tuple[int, ...]
    chunk: int
    overlap: int
    batch: int


class Classifier:
    """A token classification model of transformers with its tokenizer.

    Args:
        model: The model.
        tokenizer: Its tokenizer, a fast one.
        reading: How it is read.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, reading: Reading) -> None:
        self.model = model.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.reading = reading
        self.unknown = tokenizer.unk_token_id
        self.special = set(tokenizer.all_special_ids) - {self.unknown}
        framed = tokenizer("a", return_special_tokens_mask=True)
        ids, special = framed["input_ids"], framed["special_tokens_mask"]
        self.before, self.behind = ids[: special.index(0)], ids[len(ids) - special[::-1].index(0) :]

    def tokens(self, texts: Sequence[str]) -> Any:
        """Their tokens with offsets and words; look-alikes of special tokens are ordinary characters."""
        return self.tokenizer(
            list(texts),
            add_special_tokens=False,
            split_special_tokens=True,
            return_offsets_mapping=True,
            return_attention_mask=False,
            verbose=False,
        )

    def probabilities(self, rows: Sequence[Sequence[int]]) -> list[list[float]]:
        """For each token of each text, how probable it is that it is kept.

        Where chunks overlap, a token is read in the one in which it stands farther from the ends.
        """
        room = self.reading.chunk - len(self.before) - len(self.behind)
        starts = [(row, start) for row, ids in enumerate(rows) for start in self._starts(len(ids), room)]
        kept = [[0.0] * len(ids) for ids in rows]
        margin = [[-1] * len(ids) for ids in rows]
        starts.sort(key=lambda place: -min(room, len(rows[place[0]]) - place[1]))
        for first in range(0, len(starts), self.reading.batch):
            places = starts[first : first + self.reading.batch]
            chunks = [list(rows[row][start : start + room]) for row, start in places]
            for (row, start), values in zip(places, self._forward(chunks), strict=True):
                last = start + len(values) == len(rows[row])
                for index, value in enumerate(values):
                    distance = min(index if start else room, room if last else len(values) - index)
                    if distance > margin[row][start + index]:
                        margin[row][start + index], kept[row][start + index] = distance, value
        return kept

    def _starts(self, length: int, room: int) -> Iterator[int]:
        """Where the chunks of a text begin."""
        step = room - self.reading.overlap
        yield from range(0, max(length - self.reading.overlap, 1) if length else 0, step)

    def _ordinary(self, token: int) -> int:
        """The token, or "unknown" for a special one: unigram models have pieces that spell theirs in any text."""
        return token if token not in self.special or self.unknown is None else int(self.unknown)

    @torch.inference_mode()
    def _forward(self, chunks: Sequence[list[int]]) -> list[list[float]]:
        lines = [[*self.before, *map(self._ordinary, chunk), *self.behind] for chunk in chunks]
        width = max(map(len, lines))
        ids = torch.full((len(lines), width), self.tokenizer.pad_token_id or 0)
        mask = torch.zeros_like(ids)
        for index, line in enumerate(lines):
            ids[index, : len(line)], mask[index, : len(line)] = torch.tensor(line), 1
        device = self.model.device
        logits = self.model(input_ids=ids.to(device), attention_mask=mask.to(device)).logits
        kept = logits.float().softmax(-1)[..., list(self.reading.labels)].sum(-1).tolist()
        first = len(self.before)
        return [row[first : first + len(chunk)] for row, chunk in zip(kept, chunks, strict=True)]


def open_classifier(
    pretrained: str, decoder: Decoder, keep: str | None, chunk: int | None, overlap: int, batch: int
) -> Classifier:
    """A token classification model on the decoder's device; arguments as in `compressor.TokenClassifier.load`.

    Raises:
        UsageError: As there.
    """
    folder = resolve(pretrained, "token classifier")
    config = from_folder(str(folder))
    heads = config.architectures or []
    if not any(head.endswith(HEAD) for head in heads):
        holds = " ".join(heads) or f"a {config.model_type}"
        raise UsageError(f"{pretrained} holds {holds}, no token classification model (...{HEAD}): pass one")
    model, tokenizer = read_classifier(folder, "auto", use_safetensors=None)
    if not tokenizer.is_fast:
        raise UsageError(f"{pretrained} has a slow tokenizer, which says of no token where it stands: save a fast one")
    most = min(tokenizer.model_max_length, (getattr(config, "max_position_embeddings", None) or CHUNK) - 2)
    size = min(CHUNK, most) if chunk is None else chunk
    if not 16 <= size <= most:
        raise UsageError(f"{METHOD}: chunk={size}, but {pretrained} reads 16 to {most:,} tokens at once")
    if not 0 <= overlap <= size // 2 or batch < 1:
        raise UsageError(
            f"{METHOD}: overlap={overlap}, chunk_batch={batch}: an overlap is at most half of the chunk "
            f"({size} tokens), a batch at least 1"
        )
    names: Any = config.id2label
    labels = kept_labels([str(names[number]) for number in range(len(names))], keep, pretrained)
    return Classifier(model.to(decoder.device), tokenizer, Reading(labels, size, overlap, batch))


def kept_labels(names: Sequence[str], keep: str | None, pretrained: str) -> tuple[int, ...]:
    """Numbers of the labels that mean "keep".

    Raises:
        UsageError: None is named and it can't be told which, or one is named that the model has not.
    """
    if keep is None:
        if len(names) == 2:
            return (1,)
        if OUTSIDE in names:
            return tuple(number for number, name in enumerate(names) if name != OUTSIDE)
        raise UsageError(f"{pretrained} tells {', '.join(names)} apart: pass keep=<labels worth keeping>")
    wanted = keep.split()
    if unknown := [name for name in wanted if name not in names] or ([] if wanted else [keep]):
        raise UsageError(f"keep={unknown[0]}: {pretrained} has no such label; it has {', '.join(names)}")
    return tuple(number for number, name in enumerate(names) if name in wanted)
