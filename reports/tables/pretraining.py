"""Reconstruction and completion by rate."""

from __future__ import annotations

from pcc_bench.reports.table import Better, Table
from pcc_bench.reports.tables.build import build
from pcc_bench.reports.tables.lines import check_comparable, lines
from pcc_bench.reports.tables.spec import Spec
from pcc_bench.results.collection import Results

RECONSTRUCTION, COMPLETION = "pcc_reconstruction", "pcc_completion"
COLUMNS: tuple[tuple[str, str, str, Better, int], ...] = (
    (RECONSTRUCTION, "bleu", "BLEU", "higher", 1),
    (RECONSTRUCTION, "bleu_official", "BLEU (paper's)", "higher", 1),
    (RECONSTRUCTION, "rougeL", "ROUGE-L", "higher", 1),
    (RECONSTRUCTION, "exact", "exact", "higher", 1),
    (RECONSTRUCTION, "token_accuracy", "tokens", "higher", 1),
    (RECONSTRUCTION, "error_word", "word errors", "lower", 1),
    (RECONSTRUCTION, "error_number", "number errors", "lower", 1),
    (RECONSTRUCTION, "error_name", "name errors", "lower", 1),
    (COMPLETION, "perplexity", "PPL", "lower", 2),
    (COMPLETION, "byte_perplexity", "PPL/byte", "lower", 3),
)
ENCODER = "The paper's reconstruction BLEU is not known by encoder: its rows are called PCC."


def pretraining(results: Results) -> Table:
    """What a memory says again, and how well the decoder goes on from it."""
    specs = [
        Spec(
            f"{task.removeprefix('pcc_')}.{metric}",
            task.removeprefix("pcc_"),
            name,
            metric,
            ((task,),),
            task.removeprefix("pcc_"),
            "",
            better,
            digits,
        )
        for task, metric, name, better, digits in COLUMNS
    ]
    made = lines(results.runs, (RECONSTRUCTION, COMPLETION).__contains__)
    check_comparable(made)
    title = "Pretraining: reconstruction and completion by rate"
    return build("pretraining", title, made, specs, "completion.perplexity", notes=[ENCODER])
