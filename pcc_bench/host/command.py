"""One run of lm-eval as `pcc-bench eval` and suites ask for it."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pcc_bench.core.errors import UsageError

ANSWERS = "answers"  # lm-eval adds _rank0.db


@dataclass(frozen=True)
class Command:
    """What to run: the options of `lm-eval run` that matter here.

    Attributes:
        model: A method of ours, or any model of lm-eval.
        model_args: As in lm-eval, `key=value,key=value`.
        tasks: Names, comma-separated.
        output: Folder of the results.
        limit: Rows a task; a fraction below 1.
        batch_size: A number or `auto`.
        device: As in lm-eval.
        metadata: As in lm-eval: JSON or `key=value,key=value`.
        num_fewshot: Examples before the question.
        chat_template: Use the tokenizer's chat template.
        seed: As in lm-eval.
        extra: Further arguments of `lm-eval run`.
        memory_store: Folder that keeps memories exactly as they are; methods of ours only.
        compress: Which part of lm-eval's own tasks is compressed; see `pcc_bench.tasks.foreign`.
    """

    model: str
    model_args: str
    tasks: str
    output: Path
    limit: float | None = None
    batch_size: str = "1"
    device: str | None = None
    metadata: str | None = None
    num_fewshot: int | None = None
    chat_template: bool = False
    seed: str | None = None
    extra: tuple[str, ...] = ()
    memory_store: Path | None = None
    compress: str | None = None

    @property
    def identity(self) -> dict[str, Any]:
        """What decides the answers; batch size, device and a store of exact memories do not."""
        compress = {} if self.compress is None else {"compress": self.compress}  # runs from before it existed go on
        return {
            "model": self.model,
            "model_args": self.model_args,
            "tasks": self.tasks,
            "limit": self.limit,
            "metadata": self.metadata,
            "num_fewshot": self.num_fewshot,
            "chat_template": self.chat_template,
            "seed": self.seed,
            "extra": list(self.extra),
            "PCC_DATA": os.environ.get("PCC_DATA"),
            **compress,
        }

    @property
    def task_metadata(self) -> str | None:
        """`metadata` as tasks are given it: with `compress`.

        Raises:
            UsageError: The metadata can't be read, or name another part.
        """
        if self.compress is None:
            return self.metadata
        from pcc_bench.host.arguments import parse_metadata  # imports torch and lm-eval

        settings = parse_metadata(self.metadata) if self.metadata else {}
        if settings.get("compress", self.compress) != self.compress:
            raise UsageError(f"--compress {self.compress} and --metadata name different parts: leave one out")
        return json.dumps({**settings, "compress": self.compress})

    @property
    def arguments(self) -> list[str]:
        """The arguments of `lm-eval run`."""
        pairs = {
            "--model": self.model,
            "--model_args": self.model_args or None,
            "--tasks": self.tasks,
            "--limit": None if self.limit is None else f"{self.limit:g}",
            "--batch_size": self.batch_size,
            "--device": self.device,
            "--metadata": self.task_metadata,
            "--num_fewshot": self.num_fewshot,
            "--seed": self.seed,
            "--output_path": self.output,
            "--use_cache": self.output / ANSWERS,
        }
        flags = ["--log_samples", *(["--apply_chat_template"] if self.chat_template else [])]
        given = [str(word) for name, value in pairs.items() if value is not None for word in (name, value)]
        return [*given, *flags, *self.extra]
