"""What a PCC checkpoint is: sizes, policies, and the decoder it was made for (`config.json`)."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from pcc_bench.core.documents import Strict, checked, read_json
from pcc_bench.core.errors import UsageError

FORMAT = 1  # version of the checkpoint folder; raised when an old reader could not read a new folder
MEMORY_TOKENS = 64  # `<mem_0>`..`<mem_63>`, always all 64 (official model.py)
Rate = Annotated[int, Field(gt=0, le=100_000_000)]
# How many slots a short last segment gets: as many as a full one (1 token may become 64 slots), or ceil(tokens / rate).
Slots = Literal["official", "proportional"]
# Where `<mem>` and `</mem>` stand in the decoder's input: around each segment (official since 2025-07), or around all.
Boundaries = Literal["per_segment", "once", "none"]
# Position ids of slots in the decoder's input: they count as tokens (official), or each stands at the centre of the
# tokens it stands for; what follows counts on behind the last of these.
SlotPositions = Literal["consecutive", "centre"]
# What becomes a slot: the last hidden state at a memory token behind the segment (the paper), or the mean of the last
# hidden states of `rate` neighbouring tokens.
Pooling = Literal["memory_tokens", "mean"]
# The padding of a batch: never seen, so that a context's memory does not depend on its neighbours; or, as in the
# official code, short rows are padded to the longest and the padding is compressed as well.
Padding = Literal["masked", "attended"]


class EncoderConfig(Strict):
    kind: Literal["full", "lora"]  # all weights (PCC-Lite), or a LoRA adapter on `base` (PCC-Large)
    config: dict[str, Any]  # of transformers
    base: str | None = None  # base model of a LoRA encoder: a hub id, or a folder, also relative to the checkpoint
    lora: dict[str, Any] | None = None  # configuration of peft
    # The encoder is the first so many layers of the decoder, with its final norm, its tokenizer and its input
    # embedding, which is shared and never trained; such a checkpoint has no `base`.
    layers: int | None = Field(default=None, ge=0, le=2_000)

    @field_validator("config")
    @classmethod
    def _without_its_folder(cls, config: dict[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in config.items() if key != "_name_or_path"}


class DecoderConfig(Strict):
    name: str | None = None  # a hub id, or a folder, also relative to the checkpoint; None: the caller must name it
    hidden_size: int = Field(gt=0, le=1_000_000)  # width of its input vectors
    fingerprint: str | None = None  # `Decoder.fingerprint`; published checkpoints do not record it
    stop_tokens: tuple[str, ...] = ("<|eot_id|>",)  # end an answer, besides the end of sequence, where it has them


class PccConfig(Strict):
    """A PCC checkpoint. The defaults of the policies are the official behaviour."""

    pcc_bench: int = FORMAT
    rate: Rate  # compression of a full segment, segment_length / slots
    rates: tuple[Rate, ...] = ()  # all that the checkpoint was trained for
    segment_length: int = Field(default=256, gt=0, le=100_000_000)  # in the encoder's tokens; 256 in the paper
    slots: Slots = "official"  # of a short last segment; with mean pooling always proportional
    pooling: Pooling = "memory_tokens"
    # A slot is the converter's output plus sqrt(n) times the mean of the n pooled tokens' own input vectors, so that a
    # converter whose last layer is zero gives the decoder what it would read at rate 1. With `gate`, their weighted sum
    # over the root of the sum of squared weights: the same where weights are equal, the vector itself where one token
    # has all weight. Needs mean pooling and an encoder made of the decoder's layers.
    residual: bool = False
    # With mean pooling, the tokens of a group are weighted by a softmax of a learned score of their hidden states;
    # scores of zero are the plain mean, one high score keeps a single token.
    gate: bool = False
    boundaries: Boundaries = "per_segment"
    slot_positions: SlotPositions = "consecutive"  # the centres are counted in the encoder's tokens
    padding: Padding = "masked"
    encoder_bos: bool = True  # the encoder's tokenizer adds its special tokens (Llama: BOS at the start of the text)
    memory_dtype: Literal["float32", "decoder"] = "float32"  # through the decoder's prefill; the latter is faster
    suppress_special: bool = False  # never generate `<mem>`, `</mem>`, `<ae>` where the decoder's vocabulary has them
    weights: str | None = None  # folder beside this one with the weights: one checkpoint of several rates
    prompt: str | None = None  # words of the question it was tuned to answer (`pcc_bench.core.questions`), if known
    lab: bool = False  # one of the models that ship with the project
    notes: str = ""  # for the model card
    encoder: EncoderConfig
    decoder: DecoderConfig

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        for rate in {self.rate, *self.rates}:
            check_rate(rate, self.segment_length, self.pooling)
        if self.rates and self.rate not in self.rates:
            raise ValueError(f"rate {self.rate} is not one of the checkpoint's rates {list(self.rates)}")
        if self.slot_positions == "centre" and self.boundaries == "none":
            raise ValueError(
                "slot_positions centre needs boundary vectors: what follows a memory counts on from </mem>"
            )
        if self.pooling == "mean" and self.slots != "proportional":
            raise ValueError("mean pooling has a slot for every 'rate' tokens: slots must be 'proportional'")
        if self.pooling == "mean" and self.padding == "attended":
            raise ValueError("mean pooling does not read padding: padding must be 'masked'")
        if self.residual and (self.pooling != "mean" or self.encoder.layers is None):
            raise ValueError("residual needs mean pooling and an encoder made of the decoder's layers (encoder.layers)")
        if self.gate and self.pooling != "mean":
            raise ValueError("gate weights the tokens of a pooled group: it needs mean pooling")
        return self

    @property
    def slots_per_segment(self) -> int:
        return self.segment_length // self.rate

    @property
    def declared_rates(self) -> tuple[int, ...]:
        return self.rates or (self.rate,)

    def with_options(self, **options: Any) -> "PccConfig":
        """A copy with other policies; a `UsageError` for a rate that was not trained, or a policy that is none."""
        rate = options.get("rate", self.rate)
        if rate not in self.declared_rates:
            declared = ", ".join(f"{rate}x" for rate in self.declared_rates)
            raise UsageError(f"rate {rate} was not trained: this checkpoint declares {declared}; pass one of these")
        return checked(PccConfig, {**self.model_dump(mode="json"), **options}, "the options given")

    @classmethod
    def read(cls, folder: Path) -> "PccConfig":
        path = folder / "config.json"
        if not path.is_file():
            raise UsageError(f"{path} is missing: is {folder} a checkpoint folder?")
        state = read_json(path)
        if isinstance(state, dict) and state.get("pcc_bench", FORMAT) != FORMAT:
            raise UsageError(f"{path} has checkpoint format {state['pcc_bench']}, this version reads {FORMAT}")
        return checked(PccConfig, state, str(path))


def check_rate(rate: int, segment_length: int, pooling: Pooling = "memory_tokens") -> None:
    """A `ValueError` unless a rate cuts a segment into whole slots, at most one a memory token (official quirk Q5)."""
    if segment_length % rate:
        raise ValueError(f"rate {rate} does not divide segments of {segment_length} tokens")
    if pooling == "memory_tokens" and segment_length // rate > MEMORY_TOKENS:
        raise ValueError(
            f"rate {rate} needs {segment_length // rate} slots for a segment of {segment_length} tokens, "
            f"but there are {MEMORY_TOKENS} memory tokens"
        )
