"""What can be known to be wrong with a suite before anything runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pcc_bench.core import registry, shipped
from pcc_bench.core.errors import UsageError
from pcc_bench.host import inventory
from pcc_bench.host.arguments import check_batch_size, default_checkpoint, parse_arguments, parse_metadata
from pcc_bench.host.settings import check_settings
from pcc_bench.suite.spec import Cell

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")


def check(cells: Iterable[Cell]) -> None:
    """See that methods and tasks exist and that decoders here have a tokenizer.

    Raises:
        UsageError: It names the cell and what is wrong in it.
    """
    cells = list(cells)
    for cell in cells:
        _method(cell)
        check_batch_size(cell.command.batch_size)
    _tasks(cells)
    ours = set(inventory.task_names())
    for cell in cells:
        if set(cell.command.tasks.split(",")) <= ours:
            settings = parse_metadata(cell.command.metadata) if cell.command.metadata else {}
            check_settings(settings, f"cell '{cell.label}', metadata")
    for cell in cells:
        _tokenizer(cell)


def arguments(cell: Cell) -> Mapping[str, Any]:
    """The model's arguments, by name."""
    return parse_arguments(cell.command.model_args)


def decoder(cell: Cell) -> str | None:
    """Folder or hub id of the decoder of a cell; None where only the run itself will tell.

    Raises:
        UsageError: The checkpoint can't be found, or does not name its decoder.
    """
    given = arguments(cell)
    if cell.command.model not in registry.names():
        return str(given["pretrained"]) if "pretrained" in given else None
    kind = registry.get(cell.command.model)
    named = str(given["decoder"]) if "decoder" in given else None
    pretrained = str(given.get("pretrained") or default_checkpoint(kind, given) or named or "")
    if not pretrained:
        return None
    return shipped.located(kind.decoder_path(pretrained, named), given.get("gguf_file"))


def _method(cell: Cell) -> None:
    name = cell.command.model
    if name in registry.names():
        return
    import lm_eval.models  # noqa: F401  # fills the registry
    from lm_eval.api.registry import model_registry

    known = sorted(model_registry.keys())
    if name not in known:
        hint = registry.suggest(name, registry.names())
        raise UsageError(f"cell '{cell.label}': unknown method '{name}'{hint} (models of lm-eval work too)")


def _tasks(cells: Iterable[Cell]) -> None:
    ours = inventory.task_names()
    wanted = {task: cell.label for cell in cells for task in cell.command.tasks.split(",") if task not in ours}
    if not wanted:
        return
    from lm_eval.tasks import TaskManager  # reads thousands of files

    manager = TaskManager()
    for task, label in wanted.items():
        if not manager.match_tasks([task]):
            raise UsageError(f"cell '{label}': unknown task '{task}'{registry.suggest(task, ours)}")


def _tokenizer(cell: Cell) -> None:
    """A decoder in a folder here has a tokenizer; one on the hub is looked at when its cell runs."""
    try:
        name = decoder(cell)
    except UsageError:
        return  # no such checkpoint: that cell will fail and say so, the others run
    folder = Path(name) if name else None
    if "tokenizer" in arguments(cell) or folder is None or not (folder / "config.json").is_file():
        return
    if not any((folder / file).is_file() for file in TOKENIZER_FILES):
        raise UsageError(
            f"cell '{cell.label}': the decoder {folder} lacks a tokenizer ({TOKENIZER_FILES[0]}): put it there, or "
            "pass model_args tokenizer=<folder or hub id>"
        )
