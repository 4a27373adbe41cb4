"""Arguments of a generation are typed before anything is compressed; none of them ends in a traceback."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lm_eval.api.instance import Instance

from pcc_bench.core.context import literal, mark
from pcc_bench.core.errors import UsageError, memory_errors
from pcc_bench.core.processors import _PROCESSORS, _REFUSED, GenerationOptions, typed
from pcc_bench.host import models as lm_models
from pcc_bench.host.lm import CompressedLM


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"max_gen_toks": "x"}, "max_gen_toks: .*valid integer"),
        ({"max_gen_toks": 0}, "max_gen_toks: .*greater than 0"),
        ({"max_gen_toks": -1}, "max_gen_toks: .*greater than 0"),
        ({"max_gen_toks": 1.5}, "max_gen_toks: .*valid integer"),
        ({"until": 3}, "until"),
        ({"until": ["a", 3]}, "until"),
        ({"do_sample": "maybe"}, "do_sample: .*valid boolean"),
        ({"do_sample": True, "temperature": "x"}, "temperature: .*valid number"),
        ({"do_sample": True, "temperature": -1}, "temperature: .*greater than or equal to 0"),
        ({"do_sample": True, "temperature": 0}, ".*leave do_sample out"),
        ({"do_sample": True, "temperature": float("nan")}, "temperature"),
        ({"temperature": 3e-82}, "temperature=3e-82 divides by less than 1e-06: give 0"),
        ({"top_k": -4}, "top_k: .*greater than or equal to 0"),
        ({"top_p": 2}, "top_p: .*less than or equal to 1"),
        ({"num_beams": 0}, "num_beams: .*greater than 0"),
        ({"num_return_sequences": 2}, "num_return_sequences: Input should be 1"),
        ({"repetition_penalty": "x"}, "repetition_penalty: .*valid number"),
        ({"repetition_penalty": 0}, "repetition_penalty: .*greater than 0"),
        ({"num_beams": 6068007918983406.0}, "num_beams: .*less than or equal to 1000"),
        ({"temperature": 3.5e38}, "temperature: .*less than or equal to 1000000"),
        ({"length_penalty": 10**6}, "length_penalty: .*less than or equal to 10"),
        ({"top_h": 0}, "top_h: .*greater than 0"),
        ({"eos_token_id": 99999999}, "unknown key 'eos_token_id'"),
        ({"rubbish": 4}, "unknown key 'rubbish'"),
        ({"input_ids": 3}, "unknown key 'input_ids'"),
        ({"max_time": 1.0}, "unknown key 'max_time'"),
    ],
)
def test_arguments_of_a_generation_have_types(options: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=f"^generation_kwargs: {says}"):
        typed(options, "generation_kwargs")


def test_every_setting_of_ours_is_a_field() -> None:
    assert {*_PROCESSORS, *_REFUSED} <= set(GenerationOptions.model_fields)


def test_good_arguments_pass_as_they_are() -> None:
    good = {"until": ["\n", "x"], "max_gen_toks": 5, "do_sample": False, "temperature": 0.0, "num_beams": 2}
    assert typed(good, "it") == good
    assert typed({}, "it") == {}


@pytest.fixture(scope="module")
def lm(models: Path) -> CompressedLM:
    return lm_models.pcc(pretrained=str(models / "pcc"), batch_size=2)  # type: ignore[attr-defined, no-any-return]


def _requests(options: Any) -> list[Instance]:
    prompts = [mark("A mill was built. " * 9) + literal(f"Question {number}?") for number in range(2)]
    return [Instance("generate_until", {}, (prompt, options), 0, metadata=("t", 0, 1)) for prompt in prompts]


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 9),
    st.just(10**6),
    st.floats(),
    st.text(max_size=3),
    st.lists(st.integers(-3, 9)),
    st.lists(st.lists(st.integers(-1, 9))),
)
NAMES = st.sampled_from([*GenerationOptions.model_fields, "rubbish", "eos_token_id", "use_cache"])


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.dictionaries(NAMES, VALUES, max_size=2))
def test_no_argument_of_a_generation_is_a_traceback(lm: CompressedLM, options: dict[str, Any]) -> None:
    try:
        answers = lm.generate_until(_requests({"max_new_tokens": 3} | options), disable_tqdm=True)
    except UsageError as error:
        assert "\n" not in str(error)
    else:
        assert all(isinstance(answer, str) for answer in answers)


@pytest.mark.parametrize("times", [10**13, 6068007918983406])  # more than a machine has, and than a size can say
def test_a_tensor_beyond_any_memory_is_one_sentence(times: int) -> None:
    with (
        pytest.raises(UsageError, match=r"out of memory while trying .*: pass less"),
        memory_errors("trying", "pass less"),
    ):
        torch.ones(2, 95).repeat_interleave(times, dim=0)
