"""What a suite file says, checked, its cells, and how an engine is to run them. It is light: `--help` imports it."""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

from pydantic import Field, model_validator

from pcc_bench.core import documents, registry
from pcc_bench.core.documents import Strict
from pcc_bench.core.errors import UsageError
from pcc_bench.host.evaluate import Command

FOLDER = Path(__file__).parent.parent / "suites"


class Settings(Strict):
    """What may be said for all cells (`defaults`) or for one; the latter wins, key by key."""

    model_args: dict[str, bool | int | float | str] = Field(default={})
    metadata: dict[str, Any] = Field(default={})  # settings of the tasks, as in lm-eval
    limit: float | None = None  # rows a task; for trials
    batch_size: int | str | None = None  # a number or `auto`
    num_fewshot: int | None = None  # lm-eval's examples
    chat_template: bool | None = None  # use the tokenizer's
    seed: str | None = None
    compress: str | None = Field(default=None, min_length=1)  # of lm-eval's own tasks, as `pcc-bench eval --compress`

    def over(self, base: "Settings") -> "Settings":
        """These settings where they say something, `base` where they do not."""
        merged = {name: getattr(base if getattr(self, name) is None else self, name) for name in Settings.model_fields}
        merged |= {name: getattr(base, name) | getattr(self, name) for name in ("model_args", "metadata")}
        return Settings(**merged)


class SuiteEntry(Settings):
    """One method on some tasks; the model is loaded once for all of them."""

    label: str = Field(min_length=1)  # its line in the table
    method: str  # a method of ours or a model of lm-eval
    tasks: tuple[str, ...] = Field(min_length=1)  # names of tasks or groups


class Matrix(Settings):
    """Every checkpoint with every decoder: a cell each."""

    method: str = "pcc"  # as in `SuiteEntry`
    tasks: tuple[str, ...] = Field(min_length=1)  # as in `SuiteEntry`
    checkpoints: dict[str, str] = Field(min_length=1)  # label -> `pretrained`
    decoders: dict[str, str] = Field(min_length=1)  # label -> `decoder`

    def entries(self) -> Iterator[SuiteEntry]:
        shared = self.model_dump(exclude={"checkpoints", "decoders", "model_args"})
        for (checkpoint, pretrained), (label, decoder) in product(self.checkpoints.items(), self.decoders.items()):
            args = {**self.model_args, "pretrained": pretrained, "decoder": decoder}
            yield SuiteEntry(label=f"{checkpoint} on {label}", model_args=args, **shared)


class Cell(NamedTuple):
    label: str  # its line in the table
    command: Command  # what is run, with the folder of its results


class Suite(Strict):
    name: str = Field(pattern=r"^[\w.-]+$")  # marks the folder of its results
    purpose: str = ""  # one sentence
    metrics: tuple[str, ...] = ()  # shown in the table, in this order; by default the usual ones of each task
    defaults: Settings = Settings()  # settings of all cells
    cells: tuple[SuiteEntry, ...] = ()  # methods on tasks
    matrix: tuple[Matrix, ...] = ()  # checkpoints by decoders

    @classmethod
    def read(cls, name: str) -> Self:
        """A shipped suite by its name, or a file. Raises UsageError: there is none, or it is not as described here."""
        path = shipped().get(name, Path(name))
        if not documents.is_file(path):
            raise UsageError(f"no suite '{name}': give a file, or one of {', '.join(shipped())}")
        return documents.checked(cls, documents.read_yaml(path), f"the suite {path} can't be run")

    @model_validator(mode="after")
    def _cells_differ(self) -> Self:
        labels = [entry.label for entry in self.entries]
        if not labels:
            raise ValueError("it has neither cells nor a matrix")
        if twice := sorted({label for label in labels if labels.count(label) > 1}):
            raise ValueError(f"two cells are called '{twice[0]}'")
        return self

    @property
    def entries(self) -> list[SuiteEntry]:
        return [*self.cells, *(entry for matrix in self.matrix for entry in matrix.entries())]

    def plan(
        self, out: Path, changes: Settings, device: str | None = None, memory_store: Path | None = None
    ) -> list[Cell]:
        """The cells with what is to be run for each, below `out`; `changes` (of the command line) win over the file."""
        cells = []
        for entry in self.entries:
            settings = changes.over(entry.over(self.defaults))
            for key, value in settings.model_args.items():
                if "," in str(value) or "=" in str(value):
                    unreadable = f"model_args {key}={value} has a comma or =, which lm-eval can't read"
                    raise UsageError(f"cell '{entry.label}': {unreadable}")
            command = Command(
                **{name: getattr(settings, name) for name in ("limit", "num_fewshot", "seed", "compress")},
                model=entry.method,
                model_args=",".join(f"{key}={value}" for key, value in settings.model_args.items()),
                tasks=",".join(entry.tasks),
                output=out,
                batch_size=str(settings.batch_size or 1),
                device=device,
                metadata=json.dumps(settings.metadata, sort_keys=True) if settings.metadata else None,
                chat_template=bool(settings.chat_template),
            )
            # A changed cell is another run: it gets another folder, and the old one stays as it is.
            name = re.sub(r"[^\w.-]+", "-", entry.label).strip("-")
            folder = out / f"{name}-{documents.digest(command.identity)[:8]}"
            store = memory_store if entry.method in registry.names() else None
            cells.append(Cell(entry.label, replace(command, output=folder, memory_store=store)))
        return cells


def shipped() -> dict[str, Path]:
    return {path.stem: path for path in sorted(FOLDER.glob("*.yaml"))}


Executor = Literal["local", "ray", "submitit"]


class Terms(NamedTuple):
    gpus: float = 0  # Of a machine, for a cell; a fraction shares one (Ray). 0 leaves the matter to the engine.
    cpus: int = 1  # CPU cores for a cell
    retries: int | None = None  # see `Engine`; None is the engine's own default, and so it is with `at_once`
    at_once: int | None = None  # see `Engine`
    options: Sequence[str] = ()  # the engine's own, `KEY=VALUE` each
