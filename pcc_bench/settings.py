"""The settings that our tasks take from `--metadata`, by name: a misspelt one would change nothing, and nobody knew."""

from __future__ import annotations

from collections.abc import Iterable

from pcc_bench import registry
from pcc_bench.errors import UsageError

SETTINGS = (
    # Rows: where they come from and which are asked.
    *("data", "dataset", "split", "hub", "lab_rows", "lab_seed", "documents"),
    *("population", "population_filter", "protocol", "official_references", "compress"),
    # The tokenizer that counts.
    *("tokenizer", "decoder", "pretrained", "subfolder", "gguf_file", "trust_remote_code"),
    # What is asked.
    *("prompt", "demonstrations", "seeds", "seed", "calibration", "negatives", "cue", "keys"),
    # How long.
    *("tokens", "characters", "continuation_tokens", "segment_length", "lengths", "depths", "distances", "per_cell"),
)


def check_settings(names: Iterable[object], where: str = "--metadata") -> None:
    """See that every setting has a meaning.

    Args:
        names: Of the settings given.
        where: Says who gave them, in the error.

    Raises:
        UsageError: One has none; names the nearest that has.
    """
    for name in names:
        if name not in SETTINGS:
            shown = str(name)[:100]
            raise UsageError(f"{where}: no task has a setting '{shown}'{registry.suggest(shown, list(SETTINGS))}")
