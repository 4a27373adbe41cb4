"""How memories stand in the decoder's input: one value for evaluations, saved memories and servers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch

if TYPE_CHECKING:
    from pcc_bench.core.decoder import Decoder


@dataclass(frozen=True, eq=False)
class Frame:
    """What a soft method was trained to read around a whole prompt.

    Attributes:
        opening: Token ids after BOS, before everything else.
        closing: Between prompt and answer: token ids, or vectors [n, hidden size of the decoder].
        lead: Text between the last memory and the words behind it, tokenized with them; what they begin with already
            is not said twice.
    """

    opening: Sequence[int] = ()
    closing: Sequence[int] | torch.Tensor = ()
    lead: str = ""


@dataclass(frozen=True, eq=False)
class Layout:
    """What a method asks of the decoder's side. The defaults leave the decoder as lm-eval runs it.

    Attributes:
        starts_with_bos: BOS before the first memory: yes, no, or as the decoder's tokenizer does by itself (None).
        frame: What stands around a prompt.
        templated: The same where a chat template has put its own words around it already.
        reconstruction: What stands around a memory whose text is to be reconstructed, as the method was trained; None:
            it was not.
        memory_position: Position id of every vector of a memory, where memories take up no positions; None: they count
            as tokens.
        stop_token_ids: Ids that end an answer besides the decoder's own end of sequence.
        suppressed_token_ids: Ids an answer may not contain.
    """

    starts_with_bos: bool | None = None
    frame: Frame = Frame()
    templated: Frame = Frame()
    reconstruction: Frame | None = None
    memory_position: int | None = None
    stop_token_ids: tuple[int, ...] = ()
    suppressed_token_ids: tuple[int, ...] = ()


class Reader(Protocol):
    """Who says how memories are read: the compressor that makes them, or the file they were saved in."""

    @property
    def name(self) -> str:
        """The method."""

    @property
    def soft(self) -> bool:
        """Memories are vectors (True) or text (False)."""

    @property
    def decoder(self) -> Decoder:
        """The decoder that reads them."""

    @property
    def layout(self) -> Layout:
        """How they stand in its input."""

    def fingerprint(self) -> str:
        """A short hash of all that decided which memories came out."""
