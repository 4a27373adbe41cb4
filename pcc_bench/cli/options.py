"""Options that several verbs have: one spelling, one meaning, one help text."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def _unless_auto(value: str | None) -> str | None:
    return None if value == "auto" else value


Model = Annotated[str, typer.Option(help="A method ('pcc-bench ls methods') or any model of lm-eval.")]
ModelArgs = Annotated[
    str,
    typer.Option(help="Arguments of the model, e.g. pretrained=CKPT,rate=4,decoder=FOLDER; by default what ships."),
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
