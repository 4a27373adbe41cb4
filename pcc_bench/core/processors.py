"""Settings of a generation: penalties, bans and least lengths go by the new tokens of a row.

transformers' processors look at all of a row: the prompt too where it is token ids, padding included, but not where it
is vectors. Here they see the tokens that the row has generated, whatever the prompt was made of, so that a setting acts
alike for all methods and batches; what has no meaning without the prompt's tokens is refused.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

import torch
from pydantic import BaseModel, Field, NonNegativeInt, PositiveInt, create_model, model_validator
from transformers import LogitsProcessor, LogitsProcessorList
from transformers.generation import logits_process as process
from transformers.generation.configuration_utils import ALL_CACHE_IMPLEMENTATIONS

from pcc_bench.core.decoder import Decoder, now
from pcc_bench.core.documents import checked
from pcc_bench.core.errors import UsageError, foreign

# Value, ids that end a row, most new tokens -> the processor; in the order in which transformers applies them.
_Build = Callable[[Any, list[int], int], LogitsProcessor]
_PROCESSORS: dict[str, _Build] = {
    "sequence_bias": lambda value, ends, most: process.SequenceBiasLogitsProcessor(value),
    "repetition_penalty": lambda value, ends, most: process.RepetitionPenaltyLogitsProcessor(float(value)),
    "no_repeat_ngram_size": lambda value, ends, most: process.NoRepeatNGramLogitsProcessor(value),
    "bad_words_ids": lambda value, ends, most: process.NoBadWordsLogitsProcessor(value, ends),
    "min_new_tokens": lambda value, ends, most: process.MinNewTokensLengthLogitsProcessor(0, value, ends),
    "forced_eos_token_id": lambda value, ends, most: process.ForcedEOSTokenLogitsProcessor(most, value),
    "exponential_decay_length_penalty": lambda value, ends, most: process.ExponentialDecayLengthPenalty(value, ends, 0),
    "suppress_tokens": lambda value, ends, most: process.SuppressTokensLogitsProcessor(value),
    "begin_suppress_tokens": lambda value, ends, most: process.SuppressTokensAtBeginLogitsProcessor(value, 0),
}
_NEED_ENDS = {"min_new_tokens", "exponential_decay_length_penalty"}
_OFF_AT_1 = {"repetition_penalty", "guidance_scale", "encoder_repetition_penalty"}  # as at None and 0
# What counts or reads the prompt's tokens, and what says the same in new tokens.
_REFUSED: dict[str, str | None] = {"min_length": "min_new_tokens", "max_length": "max_gen_toks"}
_REFUSED |= {"stop_strings": "until"} | dict.fromkeys(("forced_bos_token_id", "guidance_scale", "watermarking_config"))
_REFUSED |= {f"encoder_{name}": name for name in ("repetition_penalty", "no_repeat_ngram_size")}
OWN_SETTINGS = frozenset((*_PROCESSORS, *_REFUSED))


def set_by_decoder(decoder: Decoder) -> dict[str, Any]:
    """What the decoder's own generation_config switches on among the settings of this module, for the results."""
    values = {name: getattr(decoder.model.generation_config, name, None) for name in _PROCESSORS}
    return {name: value for name, value in values.items() if _is_on(name, value)}


def over_new_tokens(
    decoder: Decoder,
    options: Mapping[str, Any],
    start: int,
    max_new_tokens: int,
    ends: Sequence[int],
    suppressed: Sequence[int] = (),
) -> tuple[LogitsProcessorList, dict[str, Any]]:
    """The processor of one call of `generate`, if any; and the options that remain, transformers' own off.

    The decoder's generation_config counts where the options say nothing. `start`: ids of the prompt, padding included,
    at the beginning of each row that `generate` sees; `ends` end a row; `suppressed` are never chosen.
    """
    own = decoder.model.generation_config
    settings = {name: options.get(name, getattr(own, name, None)) for name in (*_PROCESSORS, *_REFUSED)}
    if "max_length" not in options:
        settings["max_length"] = None  # a decoder's own limit gives way to that of the request
    for name, instead in _REFUSED.items():
        if _is_on(name, settings[name]):
            where = "generation arguments" if name in options else f"generation_config of the decoder {decoder.name}"
            remedy = f"pass {instead}" if instead else "leave it out"
            if name not in options:
                neutral = 1.0 if name in _OFF_AT_1 else 0 if isinstance(settings[name], int | float) else "null"
                remedy = f"switch it off with --gen_kwargs '{{\"{name}\": {neutral}}}'"
                remedy += f" and pass {instead}, if you want it" if instead else ""
            problem = "goes by the tokens of the whole prompt, which a memory does not have and which methods differ in"
            raise UsageError(f"{name}={settings[name]!r} (the {where}) {problem}: {remedy}")
    if suppressed:
        settings["suppress_tokens"] = [*(settings["suppress_tokens"] or ()), *suppressed]
    rows = int(decoder.model.get_output_embeddings().weight.shape[0])
    for name in ("forced_eos_token_id", "suppress_tokens", "begin_suppress_tokens"):
        value = settings[name]
        for token in value if isinstance(value, list | tuple) else [value]:
            if isinstance(token, int) and not 0 <= token < rows:
                raise UsageError(f"generation setting {name}={value!r}: the decoder has tokens 0 to {rows - 1}")
    processors = LogitsProcessorList()
    for name, build in _PROCESSORS.items():
        if _is_on(name, settings[name]) and (ends or name not in _NEED_ENDS):
            with foreign(f"generation setting {name}={settings[name]!r} can't be used"):
                processors.append(build(settings[name], list(ends), max_new_tokens))
    rest = {name: value for name, value in options.items() if name not in settings}
    off = dict.fromkeys(_PROCESSORS) | {"repetition_penalty": 1.0}
    return LogitsProcessorList([_NewTokens(processors, start)] if processors else []), {**rest, **off}


def _is_on(name: str, value: Any) -> bool:
    if name in ("forced_eos_token_id", "forced_bos_token_id"):
        return value is not None
    return bool(value) and not (name in _OFF_AT_1 and value == 1)


@dataclass
class _NewTokens(LogitsProcessor):  # shows processors what a row has generated, behind the `start` ids of its prompt
    processors: LogitsProcessorList
    start: int

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        new: Any = input_ids[:, self.start :]
        return self.processors(new, scores)


@dataclass
class FirstTokenClock(LogitsProcessor):
    """Notes when the logits of the first new token are there, which ends the prefill, and that they are numbers."""

    decoder: Decoder
    first: float = 0.0

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        if not self.first:
            self.first = now(self.decoder.device)
            if bool((scores.isnan() | scores.isposinf()).any()):
                raise self.decoder.not_finite("scores of the next token")
        return scores


COLDEST, HOTTEST = 1e-6, 1e6  # beyond them a score over the temperature may leave float32
Number = Annotated[float, Field(allow_inf_nan=False)]
Share = Annotated[Number, Field(ge=0, le=1)]
# lm-eval's names for length and ends, transformers' for the rest. What would change a row's answer with the clock or
# return several answers is not among them; `_REFUSED` is, for `over_new_tokens` to say what to pass in its place.
_TYPES: list[tuple[Any, tuple[str, ...]]] = [
    (PositiveInt, ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")),
    (Annotated[int, Field(gt=0, le=1_000)], ("num_beams",)),  # rows of the decoder's input for one of the prompt's
    (NonNegativeInt, ("top_k", "no_repeat_ngram_size", "min_new_tokens")),
    (NonNegativeInt | list[NonNegativeInt], ("forced_eos_token_id",)),
    (Share, ("top_p", "min_p", "epsilon_cutoff", "eta_cutoff")),
    (Annotated[Share, Field(gt=0)], ("top_h", "typical_p")),
    (Annotated[Number, Field(gt=0)], ("repetition_penalty",)),
    (Annotated[Number, Field(ge=-10, le=10)], ("length_penalty",)),  # a power of the length
    (bool, ("renormalize_logits", "remove_invalid_values")),
    (bool | Literal["never"], ("early_stopping",)),
    (Literal[tuple(ALL_CACHE_IMPLEMENTATIONS)], ("cache_implementation",)),
    (Literal[1], ("num_return_sequences",)),
    (Any, ("bad_words_ids", "sequence_bias", "exponential_decay_length_penalty", *_REFUSED)),
    (Any, ("suppress_tokens", "begin_suppress_tokens")),
]


class _Sampling(BaseModel, extra="forbid"):
    until: str | list[str] = []
    do_sample: bool | None = None
    temperature: Annotated[Number, Field(ge=0, le=HOTTEST)] | None = None

    @model_validator(mode="after")
    def _sampling_has_a_temperature(self) -> Self:
        if self.do_sample and self.temperature == 0:
            raise ValueError("do_sample=True with temperature=0: leave do_sample out, or give a temperature above 0")
        if self.temperature and self.temperature < COLDEST:
            divisor = f"temperature={self.temperature:g} divides by less than {COLDEST:g}"
            raise ValueError(f"{divisor}: give 0 for greedy answers")
        return self


_FIELDS: Any = {name: (kind | None, None) for kind, names in _TYPES for name in names}
GenerationOptions = create_model("GenerationOptions", __base__=_Sampling, **_FIELDS)


def typed(options: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The options, each in its type; null is as if it were not given, and switches off a setting of our own."""
    values = checked(GenerationOptions, options, where).model_dump(exclude_unset=True)
    return {name: value for name, value in values.items() if value is not None or name in OWN_SETTINGS}
