"""What `generation_kwargs` and `--gen_kwargs` may say: names, types and limits, before anything is compressed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt, model_validator

from pcc_bench.core.documents import checked
from pcc_bench.core.processors import OWN_SETTINGS

Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]


class GenerationOptions(BaseModel):
    """Arguments of a generation: lm-eval's names for length and ends, transformers' for the rest.

    What would change a row's answer with the clock or return several answers is not among them.
    """

    model_config = ConfigDict(extra="forbid")

    until: str | list[str] = []
    max_gen_toks: PositiveInt | None = None
    max_new_tokens: PositiveInt | None = None
    max_tokens: PositiveInt | None = None
    max_completion_tokens: PositiveInt | None = None
    do_sample: bool | None = None
    temperature: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    top_k: NonNegativeInt | None = None
    top_p: Share | None = None
    min_p: Share | None = None
    top_h: Share | None = None
    typical_p: Share | None = None
    epsilon_cutoff: Share | None = None
    eta_cutoff: Share | None = None
    num_beams: PositiveInt | None = None
    cache_implementation: str | None = None
    num_return_sequences: Literal[1] | None = None
    early_stopping: bool | Literal["never"] | None = None
    length_penalty: Finite | None = None
    renormalize_logits: bool | None = None
    remove_invalid_values: bool | None = None
    # Over the new tokens (`pcc_bench.core.processors`)
    repetition_penalty: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    no_repeat_ngram_size: NonNegativeInt | None = None
    min_new_tokens: NonNegativeInt | None = None
    forced_eos_token_id: NonNegativeInt | list[NonNegativeInt] | None = None
    bad_words_ids: Any = None
    sequence_bias: Any = None
    exponential_decay_length_penalty: Any = None
    suppress_tokens: Any = None
    begin_suppress_tokens: Any = None
    # Refused there, with what to pass in their place
    min_length: Any = None
    max_length: Any = None
    stop_strings: Any = None
    forced_bos_token_id: Any = None
    encoder_repetition_penalty: Any = None
    encoder_no_repeat_ngram_size: Any = None
    guidance_scale: Any = None
    watermarking_config: Any = None

    @model_validator(mode="after")
    def _sampling_has_a_temperature(self) -> Self:
        if self.do_sample and self.temperature == 0:
            raise ValueError("do_sample=True with temperature=0: leave do_sample out, or give a temperature above 0")
        return self


def typed(options: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The options, each in its type; null is as if an option were not given, and switches off a setting of our own.

    Raises:
        UsageError: An unknown name, or a value that it can't have; `where` says whose they are.
    """
    values = checked(GenerationOptions, options, where).model_dump(exclude_unset=True)
    return {name: value for name, value in values.items() if value is not None or name in OWN_SETTINGS}
