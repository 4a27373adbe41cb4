"""Decoders whose rotations depend on the length of the whole sequence: which prompts may be decoded together.

With `rope_type: longrope` (Phi-3.5, Phi-3-128k) every key is rotated by one set of factors up to an original window and
by another beyond it; with `dynamic` the factors change with every length beyond it. transformers chooses by the longest
row of a batch. A row is decoded as if it were alone if those beside it choose as it does, at every step.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from typing import Any

import torch
from transformers import PreTrainedModel

FIXED = ("default", "linear", "yarn", "llama3", "proportional", "mrope", "axial")


@dataclass(frozen=True)
class Ropes:
    """What of a decoder's rotations depends on length.

    Attributes:
        switching: Lengths beyond which another set of factors is used.
        growing: Lengths beyond which every length has factors of its own.
    """

    switching: tuple[int, ...] = ()
    growing: tuple[int, ...] = ()

    @classmethod
    def of(cls, model: PreTrainedModel) -> Ropes:
        """Those of a decoder; a type that is not known is taken to change with every length."""
        config = model.config.get_text_config(decoder=True)
        switching, growing = set(), set()
        for rope in _parameters(config):
            kind = str(rope.get("rope_type") or rope.get("type") or "default")
            if kind in ("longrope", "su"):
                original = rope.get("original_max_position_embeddings")
                original = original or getattr(config, "original_max_position_embeddings", None)
                switching.add(int(original or config.max_position_embeddings))
            elif kind not in FIXED:
                growing.add(int(config.max_position_embeddings) if "dynamic" in kind else 0)
        return cls(tuple(sorted(switching)), tuple(sorted(growing)))

    def company(self, positions: int, new_tokens: int) -> Hashable:
        """What rows of a batch must have in common.

        Args:
            positions: Those of the row's input, from 0 to the greatest.
            new_tokens: Tokens that are read after it: all but the last of those generated.
        """
        switching = (
            int(positions > limit) if positions > limit or positions + new_tokens <= limit else ("across", positions)
            for limit in self.switching
        )
        growing = (0 if positions + new_tokens <= limit else positions for limit in self.growing)
        return (*switching, *growing)

    def stay(self, positions: int) -> bool:
        """Are rotations up to a length those of the beginning alone?"""
        return all(positions <= limit for limit in (*self.switching, *self.growing))

    def forget(self, model: PreTrainedModel) -> None:
        """Have a growing rope forget the longest sequence it has read, which would rotate the next one."""
        if self.growing:
            with torch.inference_mode():
                model(input_ids=torch.zeros(1, 1, dtype=torch.long, device=model.device), use_cache=False)

    @contextmanager
    def rereading(self, model: PreTrainedModel, vectors: torch.Tensor | None) -> Iterator[None]:
        """Have `model.generate` read the whole prompt again where an answer leaves the original window.

        transformers does so for prompts of token ids (Phi-3), whose keys would be rotated by the factors of the window;
        behind a prompt of vectors they stayed so.

        Args:
            model: The decoder.
            vectors: The prompts, padded: [batch, length, hidden size]; None where they are token ids.
        """
        owner: Any = model
        prepare = owner.prepare_inputs_for_generation

        @wraps(prepare)  # transformers looks at its signature
        def prepare_whole(input_ids: torch.Tensor, past_key_values: Any = None, **kwargs: Any) -> Any:
            known = 0 if past_key_values is None else past_key_values.get_seq_length()
            if known not in self.switching or kwargs.get("is_first_iteration"):
                return prepare(input_ids, past_key_values=past_key_values, **kwargs)
            assert vectors is not None
            new = owner.get_input_embeddings()(input_ids).to(vectors.dtype)
            kwargs |= {"inputs_embeds": torch.cat([vectors, new], 1), "is_first_iteration": True}
            return prepare(input_ids, **{**kwargs, "next_sequence_length": None})

        if not self.switching or vectors is None:
            yield
            return
        owner.prepare_inputs_for_generation = prepare_whole
        try:
            yield
        finally:
            del owner.prepare_inputs_for_generation


def _parameters(config: Any) -> list[Mapping[str, Any]]:
    """The parameters of each rope: one, or one a type of layer."""
    given = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    nested = [value for value in given.values() if isinstance(value, Mapping)]
    return nested or [given]
