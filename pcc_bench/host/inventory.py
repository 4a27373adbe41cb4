"""What there is to run: methods, tasks, data sets. Reads names and files; loads neither lm-eval nor a model."""

import os
from collections.abc import Callable
from pathlib import Path

from pcc_bench.core import documents, registry, shipped
from pcc_bench.core.texttable import TextTable
from pcc_bench.host.settings import task_summaries
from pcc_bench.tasks.rows import REAL, real_folder

NOBODY = "no task"


def methods() -> TextTable:
    from pcc_bench.core.compressor import Compressor

    rows = []
    for name in registry.names():
        kind = registry.get(name)
        own = kind.decoder_path.__func__ is not Compressor.decoder_path.__func__  # type: ignore[attr-defined]
        memory, aware = "soft" if kind.soft else "hard", "yes" if kind.query_aware else "no"
        decoder, pretrained = "own" if kind.owns_decoder else "any", "a checkpoint" if own else "the decoder"
        rows.append((name, memory, aware, decoder, pretrained, kind.summary))
    return TextTable(("method", "memory", "query-aware", "decoder", "pretrained= names", "what it is"), tuple(rows))


def task_table() -> TextTable:
    rows = ((name, task.line, task.file, task.hub) for name, task in sorted(task_summaries().items()))
    return TextTable(("task", "what it is", "in a data folder", "on the hub"), tuple(rows))


def data_table() -> TextTable:
    folder = data_folder()
    readers: dict[str, list[str]] = {}
    for name, task in sorted(task_summaries().items()):
        readers.setdefault(task.file, []).append(name)
    rows = []
    for path in sorted(folder.glob("*/*.jsonl")) if folder and folder.is_dir() else []:
        file = f"{path.parent.name}/{path.name}"
        with path.open("rb") as lines:
            count = sum(bool(line.strip()) for line in lines)
        rows.append((file, str(count), ", ".join(readers.get(file, [])) or NOBODY))
    return TextTable(("file", "rows", "read by"), tuple(rows))


def data_folder() -> Path | None:
    """The folder named by `PCC_DATA`; None where the hub is the source."""
    name = os.environ.get("PCC_DATA", "hub")
    if name == REAL:
        return real_folder()
    return None if name in ("", "hub", "lab") else Path(name).expanduser()


def recipes() -> TextTable:
    from pcc_bench.model.training.recipe import Recipe
    from pcc_bench.model.training.recipe import shipped as names

    read = {name: Recipe.read(name) for name in names()}
    rows = [(name, f"{recipe.final.rate}x", recipe.decoder, recipe.purpose) for name, recipe in read.items()]
    return TextTable(("recipe", "rate", "decoder", "purpose"), tuple(rows))


def models() -> TextTable:
    rows = []
    for name in shipped.names():
        folder = shipped.find(name)
        assert folder is not None
        config = documents.read_json(folder / "config.json")
        adapter = folder / "adapter_config.json"
        config |= documents.read_json(adapter) if adapter.is_file() else {}
        size = sum(path.stat().st_size for path in folder.glob("*.safetensors")) / 2**20
        method = shipped.method_of(name)
        rates = config.get("rates") or ([registry.get(method).recorded_rate(str(folder), {})] if method else [])
        rate = ", ".join(f"{rate:g}x" for rate in rates if rate)
        own = config.get("decoder")
        read_by = own["name"] if isinstance(own, dict) else config.get("decoder_model_name")
        read_by = Path(read_by or config.get("base_model_name_or_path") or "any").name
        rows.append((name, method or "decoder", rate, read_by if method else "", f"{size:.1f} MiB"))
    return TextTable(("model", "method", "rate", "decoder", "size"), tuple(rows))


def decoders() -> TextTable:
    rows = [(name, row.about, row.licence, shipped.available(name)) for name, row in shipped.TABLE.items()]
    lab = (name for name in shipped.names() if name.startswith("lab-"))
    rows += [(name, "of the lab, trained on its test world", "MIT", "ships") for name in lab]
    return TextTable(("decoder", "what it is", "licence", "from"), tuple(rows))


def suites() -> TextTable:
    from pcc_bench.suite.spec import Suite
    from pcc_bench.suite.spec import shipped as names

    read = {name: Suite.read(name) for name in names()}
    rows = ((name, str(len(suite.entries)), suite.purpose) for name, suite in read.items())
    return TextTable(("suite", "cells", "purpose"), tuple(rows))


LISTS: dict[str, Callable[[], TextTable]] = {"methods": methods, "tasks": task_table, "data": data_table}
LISTS |= {"models": models, "decoders": decoders, "recipes": recipes, "suites": suites}  # of `pcc-bench ls`
