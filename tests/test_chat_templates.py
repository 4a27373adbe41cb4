"""Chat templates, which come with a decoder from anyone: refused in one sentence, or they say all that was said."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pcc_bench.baselines.pisco import chat_words
from pcc_bench.core.context import Kind, Prompt, literal, mark
from pcc_bench.core.decoder import Decoder
from pcc_bench.core.errors import UsageError
from pcc_bench.host import compressing
from pcc_bench.host import models as lm_models
from pcc_bench.model import init

PLAIN = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% endfor %}"
REFUSED = {
    "sandbox": "{{ messages[0].content.__class__.__mro__[1].__subclasses__() }}",
    "format": "{{ '{0.__class__}'.format(messages) }}{{ messages.append(1) }}",
    "syntax": "{% for %}",
    "unknown": "{{ launch() }}",
    "its own": "{{ raise_exception('no such role') }}",
    "endless": "{% for i in range(10**10) %}{% endfor %}",
    "an error": "{{ 1 // 0 }}",
}
CHANGED = {
    "says nothing": "<|user|>",
    "json": PLAIN.replace("m.content", "m.content | tojson"),
    "upper case": PLAIN.replace("m.content", "m.content | upper"),
    "shortened": PLAIN.replace("m.content", "m.content[:30]"),
    "twice": PLAIN.replace("m.content", "m.content ~ m.content"),
}


@pytest.fixture(scope="module")
def decoder(models: Path) -> Decoder:
    return init.open_decoder(str(models / "llama"))


@pytest.fixture(scope="module")
def model(models: Path) -> Any:
    return lm_models.full_context(pretrained=str(models / "llama"), device="cpu")  # type: ignore[attr-defined]


TURNS = [
    {"role": "user", "content": mark("It rains in Paris, and the trains are late.") + "Question: " + literal("Who?")}
]


@pytest.mark.parametrize("template", [*REFUSED.values(), *CHANGED.values()], ids=[*REFUSED, *CHANGED])
def test_a_template_that_can_not_be_used_is_one_sentence(decoder: Decoder, model: Any, template: str) -> None:
    says = "can't be applied" if template in REFUSED.values() else "drops, changes or repeats what is said"
    (memory,) = model.compressor.compress(["It rains in Paris."])
    asked = compressing.ContextMemory(memory, model.compressor)
    for tokenizer, apply in (
        (model.tokenizer, lambda: model.apply_chat_template(TURNS)),
        (decoder.tokenizer, lambda: decoder.chat(TURNS, add_generation_prompt=True)),
        (decoder.tokenizer, lambda: asked.plan("Who?", "chat")),
        (decoder.tokenizer, lambda: chat_words(decoder)),
    ):
        for one in (tokenizer, model.tokenizer):
            one.chat_template = template
        with pytest.raises(UsageError, match=rf"the chat template of '.*' .*({says}|can't be applied)") as error:
            apply()
        assert "\n" not in str(error.value)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    said=st.lists(
        st.tuples(st.sampled_from(["user", "assistant"]), st.text(max_size=9), st.text(max_size=9)), max_size=4
    ),
    change=st.sampled_from(["", " | trim", " | upper", " | tojson", "[:9]", " ~ m.content"]),
)
def test_a_template_says_what_was_said_or_is_refused(model: Any, said: list[tuple[str, str, str]], change: str) -> None:
    model.tokenizer.chat_template = PLAIN.replace("m.content", f"m.content{change}")
    turns = [{"role": role, "content": mark(context) + "?" + literal(question)} for role, context, question in said]
    parts = [text for _, context, question in said for text in (context, question)]
    try:
        prompt = Prompt.parse(model.apply_chat_template(turns))
    except UsageError as error:
        assert change or "can't be applied" in str(error)  # transformers refuses some turns by itself
    else:
        assert [part.text for part in prompt.parts if part.kind is not Kind.TEXT] == parts
        assert not re.search(r"[\x02\x03\x04\x0e\x11]", "".join(p.text for p in prompt.parts if p.kind is Kind.TEXT))
