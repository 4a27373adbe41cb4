"""What verbs take and print: options (one spelling, one meaning, one help text), tables, Markdown with markers."""

import inspect
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Exit, Option, echo

from pcc_bench.core.documents import read_text, write_text
from pcc_bench.core.errors import UsageError
from pcc_bench.core.texttable import TextTable
from pcc_bench.host.evaluate import Command, with_setting

NAME = 50  # letters of the longest text that is kept on one line


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


def show(table: TextTable) -> None:
    """Print a table, as wide as the terminal at most; as Markdown into a pipe or a file, which have no width."""
    if not table.rows:
        return
    if not sys.stdout.isatty():
        sys.stdout.write(table.markdown() + "\n")
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    pretty = Table(box=box.SIMPLE_HEAD)
    for place, column in enumerate(table.columns):
        name = place == 0 and max(len(row[0]) for row in table.rows) <= NAME
        pretty.add_column(column, no_wrap=name, overflow="fold")  # names stay whole, nothing is left out
    for row in table.rows:
        pretty.add_row(*map(Text, row))
    console = Console()
    console.print(pretty)
    for note in table.sentences():
        console.print(Text(note))


def show_frame(frame: Any) -> None:
    """As `show`, a table of pandas."""
    rows = (tuple(map(str, row)) for row in frame.itertuples(index=False))
    show(TextTable(tuple(map(str, frame)), tuple(rows)))


def show_marks(lines: Sequence[tuple[str, str, str]]) -> None:
    """Print a check list: a mark, what was looked at, what was found; one line each, however long."""
    from rich.console import Console
    from rich.text import Text

    console = Console(soft_wrap=True)
    colours = {"OK": "green", "note": "yellow"}
    widths = [max(len(line[i]) for line in lines) for i in (0, 1)]
    for mark, what, says in lines:
        coloured = (mark.ljust(widths[0]), colours.get(mark, "red"))
        console.print(Text.assemble(coloured, f"  {what.ljust(widths[1])}  {says}"))


@contextmanager
def resumable(state: Callable[[], str]) -> Iterator[None]:
    """Let an interrupted verb say what is kept (`state`) and that the same command goes on; its status is 130."""
    try:
        yield
    except KeyboardInterrupt:
        echo(f"\nstopped: {state()}; the same command goes on", err=True)
        raise Exit(130) from None


def filled(text: str, kind: str, tables: Mapping[str, str], partly: bool = False, where: str = "") -> str:
    """A Markdown text with the tables between `<!-- KIND:KEY -->` and `<!-- /KIND -->` renewed.

    `tables`: key -> Markdown. `partly`: leave markers alone that ask for other tables, if there is one for these.
    """
    blocks = re.compile(rf"(<!-- {kind}:([\w.-]+) -->\n).*?(<!-- /{kind} -->)", re.DOTALL)
    keys = {block[2] for block in blocks.finditer(text)}
    if not keys or (partly and not keys & set(tables)):
        markers = f"'<!-- {kind}:{next(iter(tables), 'table2')} -->' ... '<!-- /{kind} -->'"
        raise UsageError(f"{where}there is no {markers} to fill: add the two lines where the table belongs")
    if unknown := [] if partly else sorted(keys - set(tables)):
        known = ", ".join(tables) or "none"
        raise UsageError(f"{where}a marker asks for the table '{unknown[0]}': there are {known}")

    def renew(block: re.Match[str]) -> str:
        body = tables.get(block[2])
        return block[0] if body is None else f"{block[1]}{body.rstrip()}\n{block[3]}"

    return blocks.sub(renew, text)


def fill(path: Path, kind: str, tables: Mapping[str, str], partly: bool = False) -> bool:
    """Renew the tables in a file, see `filled`; returns whether anything changed."""
    before = read_text(path)
    after = filled(before, kind, tables, partly, f"{path}: ")
    if after != before:
        write_text(path, after)
    return after != before
