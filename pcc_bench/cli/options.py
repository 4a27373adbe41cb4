"""Options that several verbs have: one spelling, one meaning, one help text."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Option

from pcc_bench.host.evaluate import Command, with_setting


def unless_auto(value: str | None) -> str | None:
    return None if value == "auto" else value


Limit = Annotated[float | None, Option(help="Rows a task; a fraction below 1. For trials only.")]
Device = Annotated[
    str | None, Option(help="cuda, cuda:1, cpu ...; auto, the default: a GPU where there is one.", callback=unless_auto)
]
Dtype = Annotated[
    str | None, Option(help="float32, bfloat16 or float16; auto, the default: as the files are.", callback=unless_auto)
]
Data = Annotated[str | None, Option(help="Where rows come from: hub, lab or a folder.")]
Output = Annotated[Path, Option("--output", "-o", help="Folder of the results; one command each.")]
NewFolder = Annotated[Path, Option("--output", "-o", help="Folder to write.")]
Rate = Annotated[int | None, Option(help="Source tokens per slot; one of the rates the checkpoint declares.")]


@dataclass(frozen=True)
class RunOptions:
    """What `eval` and `validate` both take; their signatures spell it out (`takes`)."""

    model: Annotated[str, Option(help="A method ('pcc-bench ls methods') or any model of lm-eval.")] = "pcc"
    model_args: Annotated[
        str, Option(help="Arguments of the model, e.g. pretrained=CKPT,rate=4,decoder=FOLDER; by default what ships.")
    ] = ""
    limit: Limit = None
    batch_size: Annotated[str, Option(help="A number, or auto.")] = "1"
    device: Device = None
    dtype: Dtype = None
    data: Data = None
    metadata: Annotated[
        str | None,
        Option(help='Settings of the tasks, e.g. \'{"data": "FOLDER", "protocol": "official", "population": "all"}\'.'),
    ] = None
    num_fewshot: Annotated[int | None, Option(help="Examples before each question.")] = None
    apply_chat_template: Annotated[
        bool, Option("--apply-chat-template", help="Put prompts into the tokenizer's chat template.")
    ] = False
    seed: Annotated[str | None, Option(help="One seed, or four (python,numpy,torch,fewshot).")] = None
    wide: Annotated[bool, Option("--wide", help="All columns of the table.")] = False
    compress: Annotated[str | None, Option(help="Part of lm-eval's tasks: auto, field, template or map.yaml.")] = None
    extra: Annotated[list[str] | None, Argument(help="After --: further options of 'lm_eval run'.")] = None

    def command(self, tasks: str, output: Path) -> Command:
        """The run that they ask for. Raises UsageError: the type or the data are named twice."""
        same = ("model", "limit", "batch_size", "device", "num_fewshot", "seed", "compress")
        return Command(
            **{name: getattr(self, name) for name in same},
            tasks=tasks,
            output=output,
            model_args=with_setting(self.model_args, "dtype", self.dtype) or "",
            metadata=with_setting(self.metadata, "data", self.data),
            chat_template=self.apply_chat_template,
            extra=tuple(self.extra or ()),
        )


def takes(options: type) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """For a verb whose last argument is a dataclass of options: typer reads an option for each of its fields."""
    shared = inspect.signature(options).parameters

    def spell_out(verb: Callable[..., None]) -> Callable[..., None]:
        *own, _ = inspect.signature(verb).parameters.values()

        def spelled_out(**values: Any) -> None:
            joint = options(**{name: values.pop(name) for name in shared})
            verb(**values, options=joint)

        parameters = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in (*own, *shared.values())]
        spelled_out.__name__, spelled_out.__doc__ = verb.__name__, verb.__doc__
        spelled_out.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        return spelled_out

    return spell_out
