"""Options that several verbs have: one spelling, one meaning, one help text."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from pcc_bench.host.evaluate import Command


def _unless_auto(value: str | None) -> str | None:
    return None if value == "auto" else value


Model = Annotated[str, typer.Option(help="A method ('pcc-bench ls methods') or any model of lm-eval.")]
ModelArgs = Annotated[
    str, typer.Option(help="Arguments of the model, e.g. pretrained=CKPT,rate=4,decoder=FOLDER; by default what ships.")
]
Metadata = Annotated[
    str | None,
    typer.Option(
        help='Settings of the tasks, e.g. \'{"data": "FOLDER", "protocol": "official", "population": "all"}\'.'
    ),
]
Limit = Annotated[float | None, typer.Option(help="Rows a task; a fraction below 1. For trials only.")]
BatchSize = Annotated[str, typer.Option(help="A number, or auto.")]
Device = Annotated[
    str | None,
    typer.Option(help="cuda, cuda:1, cpu ...; auto, the default, is a GPU where there is one.", callback=_unless_auto),
]
Dtype = Annotated[
    str | None,
    typer.Option(help="float32, bfloat16 or float16; auto, the default, is as the files are.", callback=_unless_auto),
]
Data = Annotated[str | None, typer.Option(help="Where rows come from: hub, lab or a folder.")]
FewShot = Annotated[int | None, typer.Option("--num-fewshot", help="Examples before each question.")]
ChatTemplate = Annotated[
    bool, typer.Option("--apply-chat-template", help="Put prompts into the tokenizer's chat template.")
]
Seed = Annotated[str | None, typer.Option(help="One seed, or four (python,numpy,torch,fewshot).")]
Wide = Annotated[bool, typer.Option("--wide", help="All columns of the table.")]
Output = Annotated[Path, typer.Option("--output", "-o", help="Folder of the results; one command each.")]
CompressPart = Annotated[
    str | None, typer.Option("--compress", help="Part of lm-eval's own tasks: auto, a field, a template or a map.yaml.")
]
Extra = Annotated[list[str] | None, typer.Argument(help="After --: further options of 'lm_eval run'.")]
Rate = Annotated[int | None, typer.Option(help="Source tokens per slot; one of the rates the checkpoint declares.")]


@dataclass(frozen=True)
class RunOptions:
    """What `eval` and `validate` both take; their signatures spell it out (`takes`)."""

    model: Model = "pcc"
    model_args: ModelArgs = ""
    limit: Limit = None
    batch_size: BatchSize = "1"
    device: Device = None
    dtype: Dtype = None
    data: Data = None
    metadata: Metadata = None
    num_fewshot: FewShot = None
    apply_chat_template: ChatTemplate = False
    seed: Seed = None
    wide: Wide = False
    compress_part: CompressPart = None
    extra: Extra = None

    def command(self, tasks: str, output: Path) -> Command:
        """The run that they ask for.

        Raises:
            UsageError: The type or the data are named twice.
        """
        from pcc_bench.host.evaluate import Command, with_setting

        return Command(
            model=self.model,
            model_args=with_setting(self.model_args, "dtype", self.dtype) or "",
            tasks=tasks,
            output=output,
            limit=self.limit,
            batch_size=self.batch_size,
            device=self.device,
            metadata=with_setting(self.metadata, "data", self.data),
            num_fewshot=self.num_fewshot,
            chat_template=self.apply_chat_template,
            seed=self.seed,
            extra=tuple(self.extra or ()),
            compress=self.compress_part,
        )


def takes(options: type) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """For a verb whose last argument is a dataclass of options: typer reads an option for each of its fields."""
    shared = inspect.signature(options, eval_str=True).parameters

    def spell_out(verb: Callable[..., None]) -> Callable[..., None]:
        *own, _ = inspect.signature(verb, eval_str=True).parameters.values()

        def spelled_out(**values: Any) -> None:
            joint = options(**{name: values.pop(name) for name in shared})
            verb(**values, options=joint)

        parameters = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in (*own, *shared.values())]
        spelled_out.__name__, spelled_out.__doc__ = verb.__name__, verb.__doc__
        spelled_out.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        return spelled_out

    return spell_out
