"""Token classifiers: what they share as compressors, and what one says of every token of a text."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForTokenClassification, PreTrainedModel, PreTrainedTokenizerBase

from pcc_bench.baselines.hard import HardCompressor
from pcc_bench.core import shipped
from pcc_bench.core.checkpoint_files import check_finite, from_folder, load_tokenizer, resolve
from pcc_bench.core.checkpoint_files import pretrained as pretrained_model
from pcc_bench.core.decoder import Decoder, plain_tokens
from pcc_bench.core.errors import UsageError

METHOD = "token-classifier"
CHUNK = 512  # tokens, special ones included, where the classifier takes as many
HEAD = "ForTokenClassification"
OUTSIDE = "O"  # the label of tokens that are part of nothing, in models that mark entities


class ClassifierCompressor(HardCompressor):
    """A hard method around a token classifier; its budget is a rate (2 by default), or tokens to leave of a context."""

    default = "llmlingua2-lab"

    def __init__(
        self,
        decoder: Decoder,
        tokenizer: PreTrainedTokenizerBase,
        digest: str,
        rate: float | None,
        target_tokens: int | None,
    ) -> None:
        super().__init__(decoder)
        if rate and target_tokens:
            raise UsageError(
                f"{self.name}: rate={rate} and target_tokens={target_tokens} exclude each other: pass one of them"
            )
        self.rate, self.target_tokens = None if target_tokens else float(rate or 2), target_tokens
        self._tokenizer, self._digest = tokenizer, digest

    @classmethod
    def decoder_path(cls, pretrained: str, decoder: str | None) -> str:
        """A classifier records no decoder: it has to be named, unless it is the lab's."""
        if not decoder and pretrained != cls.default:
            raise UsageError(f"--model {cls.name} needs model_args decoder=<folder or hub id> beside pretrained=")
        return decoder or shipped.DECODER

    def weights_fingerprint(self) -> str:
        return self._digest

    @property
    def tokenizers(self) -> tuple[PreTrainedTokenizerBase, ...]:
        return (self.decoder.tokenizer, self._tokenizer)


def words_of(given: Sequence[str] | str) -> list[str]:
    r"""Forced words as a list, or as `--model_args` give them: blanks between them, `\n`, `\t` and `\c` escaped."""
    texts = map(str, given) if isinstance(given, list | tuple) else str(given).split()
    # lm-eval ends an argument at a comma
    words = [text.replace(r"\n", "\n").replace(r"\t", "\t").replace(r"\c", ",") for text in texts]
    if "" in words or len(set(words)) != len(words):
        raise UsageError(f"force_tokens={words} has an empty text or one twice: leave it out")
    return words


def read_classifier(folder: Path, dtype: torch.dtype | str, **options: Any) -> tuple[Any, PreTrainedTokenizerBase]:
    tokenizer = load_tokenizer(folder)
    model = pretrained_model(folder, dtype, AutoModelForTokenClassification, **options)
    check_finite(model.named_parameters(), f"the token classifier {folder}")
    return model, tokenizer


class Classifier:
    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,  # a fast one
        labels: tuple[int, ...],  # numbers of the labels that mean "keep"; their probabilities are added
        chunk: int,  # tokens a forward, special ones included
        overlap: int,  # tokens that neighbouring chunks share
        batch: int,  # chunks a forward
    ) -> None:
        self.model, self.tokenizer = model.eval().requires_grad_(False), tokenizer
        self.labels, self.chunk, self.overlap, self.batch = labels, chunk, overlap, batch
        self.unknown = tokenizer.unk_token_id
        self.special = set(tokenizer.all_special_ids) - {self.unknown}
        framed = tokenizer("a", return_special_tokens_mask=True)
        ids, special = framed["input_ids"], framed["special_tokens_mask"]
        self.before, self.behind = ids[: special.index(0)], ids[len(ids) - special[::-1].index(0) :]

    def tokens(self, texts: Sequence[str]) -> Any:
        """Their tokens with offsets and words; look-alikes of special tokens are ordinary characters."""
        return plain_tokens(self.tokenizer, texts, return_offsets_mapping=True, return_attention_mask=False)

    @torch.inference_mode()
    def probabilities(self, rows: Sequence[Sequence[int]]) -> list[list[float]]:
        """For each token of each text, how probable it is that it is kept."""
        # Where chunks overlap, a token is read in the one in which it stands farther from the ends.
        # Unigram models have pieces that spell a special token in any text: these are "unknown".
        unknown = {} if self.unknown is None else dict.fromkeys(self.special, int(self.unknown))
        room = self.chunk - len(self.before) - len(self.behind)
        last_start = [max(len(ids) - self.overlap, 1) if ids else 0 for ids in rows]
        starts = [(row, start) for row, end in enumerate(last_start) for start in range(0, end, room - self.overlap)]
        kept = [[0.0] * len(ids) for ids in rows]
        margin = [[-1] * len(ids) for ids in rows]
        starts.sort(key=lambda place: -min(room, len(rows[place[0]]) - place[1]))
        for first in range(0, len(starts), self.batch):
            places = starts[first : first + self.batch]
            chunks = [[unknown.get(token, token) for token in rows[row][start : start + room]] for row, start in places]
            lines = [torch.tensor([*self.before, *chunk, *self.behind], device=self.model.device) for chunk in chunks]
            ids = pad_sequence(lines, batch_first=True, padding_value=self.tokenizer.pad_token_id or 0)
            mask = pad_sequence(list(map(torch.ones_like, lines)), batch_first=True)
            logits = self.model(input_ids=ids, attention_mask=mask).logits
            read = logits.float().softmax(-1)[..., list(self.labels)].sum(-1)[:, len(self.before) :].tolist()
            for (row, start), chunk, values in zip(places, chunks, read, strict=True):
                last = start + len(chunk) == len(rows[row])
                for index, value in enumerate(values[: len(chunk)]):
                    distance = min(index if start else room, room if last else len(chunk) - index)
                    if distance > margin[row][start + index]:
                        margin[row][start + index], kept[row][start + index] = distance, value
        return kept


def open_classifier(
    pretrained: str, decoder: Decoder, keep: str | None, chunk: int | None, overlap: int, batch: int
) -> Classifier:
    """A token classification model on the decoder's device; arguments and errors as in `TokenClassifier.load`."""
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
    return Classifier(model.to(decoder.device), tokenizer, labels, size, overlap, batch)


def kept_labels(names: Sequence[str], keep: str | None, pretrained: str) -> tuple[int, ...]:
    """Numbers of the labels that mean "keep": those named, the second of two, or all but `O`."""
    if keep is None:
        if len(names) == 2:
            return (1,)
        if OUTSIDE in names:
            return tuple(number for number, name in enumerate(names) if name != OUTSIDE)
        raise UsageError(f"{pretrained} tells {', '.join(names)} apart: pass keep=<labels worth keeping>")
    labels = keep.split()
    if unknown := [name for name in labels if name not in names] or ([] if labels else [keep]):
        raise UsageError(f"keep={unknown[0]}: {pretrained} has no such label; it has {', '.join(names)}")
    return tuple(number for number, name in enumerate(names) if name in labels)
