"""Our tasks by name, and their settings in `--metadata`: a misspelt one would change nothing, and nobody knew."""

import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from pcc_bench import tasks
from pcc_bench.core import documents, registry
from pcc_bench.core.errors import UsageError

SETTINGS = (
    *("data", "dataset", "split", "hub", "lab_rows", "lab_seed", "documents", "draw"),  # which rows
    *("population", "population_filter", "protocol", "official_references", "compress"),
    *("tokenizer", "decoder", "pretrained", "subfolder", "gguf_file", "trust_remote_code"),  # which counts
    *("prompt", "demonstrations", "seeds", "seed", "calibration", "negatives", "cue", "keys"),  # what is asked
    *("tokens", "characters", "continuation_tokens", "segment_length", "lengths", "depths", "distances", "per_cell"),
)


def check_spelling(names: Iterable[str]) -> None:
    """See that no name is nearly a setting's: others are no mistake, as lm-eval hands `--model_args` to tasks too."""
    for name in names:
        near = difflib.get_close_matches(name, SETTINGS, n=1, cutoff=0.85)
        if not near or name in SETTINGS:
            continue
        from pcc_bench.host.arguments import FROM_PRETRAINED, HfOptions, RunnerOptions  # heavy, and seldom asked

        methods = map(registry.get, registry.names())
        options = {option for method in methods for option in registry.options_of(method).model_fields}
        if name not in {*FROM_PRETRAINED, *HfOptions.model_fields, *RunnerOptions.model_fields, *options}:
            raise UsageError(f"--metadata: no task has a setting '{name[:100]}': did you mean '{near[0]}'?")


def check_settings(names: Iterable[object], where: str = "--metadata") -> None:
    for name in names:
        if name not in SETTINGS:
            shown = str(name)[:100]
            raise UsageError(f"{where}: no task has a setting '{shown}'{registry.suggest(shown, list(SETTINGS))}")


class _Reader(yaml.SafeLoader):  # which does not import the functions that lm-eval's YAML names
    ...


_Reader.add_multi_constructor("!function", lambda loader, suffix, node: None)


def task_names() -> list[str]:
    return sorted(task_summaries())


class TaskSummary(NamedTuple):  # or group
    line: str  # about it
    file: str = ""  # in a data folder
    hub: str = ""  # "" for groups


def task_summaries() -> dict[str, TaskSummary]:
    found: dict[str, TaskSummary] = {}
    for path in sorted(Path(tasks.__path__[0]).rglob("*.yaml")):
        config = _config(path)
        if "group" in config:
            found[config["group"]] = TaskSummary(f"group: {', '.join(config['task'])}")
        else:
            metadata = config["metadata"]
            file = f"{metadata['dataset']}/{metadata['split']}.jsonl"
            hub = (metadata["hub"] or {}).get("path", "")
            readme, line = path.with_name("README.md"), ""
            if readme.is_file():  # its first sentence, behind the heading
                line = " ".join(documents.read_text(readme).split("\n\n", 2)[1].split()).split(". ")[0].rstrip(".")
            found[config["task"]] = TaskSummary(line, file, hub)
    return found


def _config(path: Path) -> dict[str, Any]:
    own: dict[str, Any] = yaml.load(path.read_text(encoding="utf-8"), Loader=_Reader)
    if "include" not in own:
        return own
    base = _config(path.parent / own["include"])
    return {**base, **own, "metadata": {**base.get("metadata", {}), **own.get("metadata", {})}}
