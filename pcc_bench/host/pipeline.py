"""`transformers.pipeline("compressed-text-generation", model=pcc)`: a context and questions in, answers out.

Importing `ContextCompressor` from `pcc_bench` registers the task.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from transformers import AutoModelForCausalLM, Pipeline
from transformers.pipelines import PIPELINE_REGISTRY

from pcc_bench.core.errors import UsageError
from pcc_bench.core.questions import OFFICIAL
from pcc_bench.host.api import ContextCompressor

TASK = "compressed-text-generation"


class CompressedTextGenerationPipeline(Pipeline):
    """Compresses each context once and asks its memory all questions.

    Called with a context or several, and `question=` or `questions=`; `max_new_tokens`, `prompt` and the options of
    `model.generate` go to `ContextMemory.answer`. Returns `answer` or `answers`, and `ratio`, the achieved compression,
    in a dictionary for each context.

    Args:
        model: A loaded method.
        **kwargs: What `transformers.pipeline` passes on.

    Raises:
        UsageError: `model` is something else; no question, or both `question` and `questions`.
    """

    _load_processor = False  # type: ignore[assignment]
    _load_tokenizer = False  # type: ignore[assignment]
    _load_image_processor = False  # type: ignore[assignment]
    _load_video_processor = False  # type: ignore[assignment]
    _load_feature_extractor = False  # type: ignore[assignment]

    def __init__(self, model: ContextCompressor, **kwargs: Any) -> None:
        if not isinstance(model, ContextCompressor):
            raise UsageError(f"pipeline('{TASK}') takes model=ContextCompressor.from_pretrained(...)")
        self.pcc = model
        super().__init__(**{**kwargs, "model": model.model, "tokenizer": model.tokenizer, "device": model.model.device})

    def _sanitize_parameters(
        self,
        question: str | None = None,
        questions: Sequence[str] | None = None,
        max_new_tokens: int = 30,
        prompt: str = OFFICIAL,
        **options: Any,
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        if question is not None and questions is not None:
            raise UsageError("pass question= or questions=, not both")
        asked = list(questions or ()) if question is None else [question]
        forward = {"asked": asked, "answering": (max_new_tokens, prompt), "options": options}
        return {}, forward, {"one": questions is None}

    def preprocess(self, context: str) -> dict[str, Any]:  # type: ignore[override]
        """A context, as it is."""
        return {"context": context}

    def _forward(  # type: ignore[override]
        self, inputs: Mapping[str, Any], asked: Sequence[str], answering: tuple[int, str], options: Mapping[str, Any]
    ) -> dict[str, Any]:
        if not asked:
            raise UsageError("a context without a question has no answer: pass question= or questions=")
        context = inputs["context"]
        if self.pcc.compressor.query_aware:
            memories = self.pcc.compress([context] * len(asked), query=list(asked))
        else:
            memories = [self.pcc.compress(context)] * len(asked)
        answers = [
            memory.answer(question, *answering, **options) for memory, question in zip(memories, asked, strict=True)
        ]
        return {"answers": answers, "ratio": memories[0].ratio}

    def postprocess(self, outputs: Mapping[str, Any], one: bool) -> dict[str, Any]:  # type: ignore[override]
        """The answers, or the only one."""
        return {"answer": outputs["answers"][0], "ratio": outputs["ratio"]} if one else dict(outputs)


PIPELINE_REGISTRY.register_pipeline(
    TASK, pipeline_class=CompressedTextGenerationPipeline, pt_model=AutoModelForCausalLM
)
