"""The settings that our tasks take from `--metadata`, by name: a misspelt one would change nothing, and nobody knew."""

import difflib
import inspect
from collections.abc import Iterable

from pcc_bench.core import registry
from pcc_bench.core.errors import UsageError

SETTINGS = (
    # Rows: where they come from and which are asked.
    *("data", "dataset", "split", "hub", "lab_rows", "lab_seed", "documents", "draw"),
    *("population", "population_filter", "protocol", "official_references", "compress"),
    # The tokenizer that counts.
    *("tokenizer", "decoder", "pretrained", "subfolder", "gguf_file", "trust_remote_code"),
    # What is asked.
    *("prompt", "demonstrations", "seeds", "seed", "calibration", "negatives", "cue", "keys"),
    # How long.
    *("tokens", "characters", "continuation_tokens", "segment_length", "lengths", "depths", "distances", "per_cell"),
)


def check_spelling(names: Iterable[str]) -> None:
    """See that none of the names that reach a task is a setting misspelt.

    `lm_eval` hands `--model_args` to the tasks too, so that unknown names are no mistake there; those that are nearly a
    setting's are, unless a model takes them.
    """
    for name in names:
        near = difflib.get_close_matches(name, SETTINGS, n=1, cutoff=0.85)
        if not near or name in SETTINGS:
            continue
        from pcc_bench.host.arguments import FROM_PRETRAINED, HfOptions, RunnerOptions  # heavy, and seldom asked

        methods = map(registry.get, registry.names())
        options = {option for method in methods for option in inspect.signature(method.load).parameters}
        if name not in {*FROM_PRETRAINED, *HfOptions.model_fields, *RunnerOptions.model_fields, *options}:
            raise UsageError(f"--metadata: no task has a setting '{name[:100]}': did you mean '{near[0]}'?")


def check_settings(names: Iterable[object], where: str = "--metadata") -> None:
    for name in names:
        if name not in SETTINGS:
            shown = str(name)[:100]
            raise UsageError(f"{where}: no task has a setting '{shown}'{registry.suggest(shown, list(SETTINGS))}")
