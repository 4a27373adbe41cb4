"""Questions on contexts: Table 2, Table 5 (other decoders) and the ablations."""

from __future__ import annotations

from pcc_bench.reports.table import Table
from pcc_bench.reports.tables.build import build
from pcc_bench.reports.tables.lines import check_comparable, lines
from pcc_bench.reports.tables.spec import Spec
from pcc_bench.results.collection import Results
from pcc_bench.results.run import Run

SETS = {"squad": "SQuAD", "hotpotqa": "HotpotQA", "adversarialqa": "AdversarialQA", "nq": "NQ"}
METRICS = {"exact_match": "EM", "f1": "F1", "contains": "contains"}
TASKS = tuple(f"pcc_{name}" for name in SETS)
AVERAGE = "average.f1"
APART = ("ablations", "table5")  # suites whose checkpoints are not those of Table 2


def specs() -> list[Spec]:
    """A column a set and metric, and the plain averages over the four sets."""
    parts: dict[str, tuple[tuple[str, ...], ...]] = {name: ((f"pcc_{name}",),) for name in SETS}
    parts["average"] = tuple((task,) for task in TASKS)
    return [
        Spec(
            f"{name}.{metric}", SETS.get(name, name), METRICS[metric], metric, tasks, name, detail=metric == "contains"
        )
        for name, tasks in parts.items()
        for metric in METRICS
    ]


def of_table2(results: Results) -> list[Run]:
    """The runs that Table 2 is about."""
    return [run for run in results.runs if not run.labels or not all(name.endswith(APART) for name in run.labels)]


def table2(results: Results) -> Table:
    """EM and F1 on the four sets, by method and rate."""
    made = lines(of_table2(results), TASKS.__contains__)
    check_comparable(made)
    return build("table2", "Table 2: questions on contexts", made, specs(), AVERAGE)


def table5(results: Results) -> Table:
    """The same by decoder, and GSM8K: runs of a suite `table5`, else all where there are several decoders."""
    runs = [run for run in results.runs if any(name.endswith("table5") for name in run.labels)]
    free = [run for run in results.runs if not run.labels and set(TASKS) & set(run.tasks)]
    if not runs and len({run.decoder for run in free}) > 1:
        runs = free
    demonstrated = ("pcc_gsm8k", "pcc_gsm8k_4_memory", "pcc_gsm8k_4_text")
    made = lines(runs, (*TASKS, *demonstrated).__contains__)
    check_comparable(made, lambda run: run.decoder)
    gsm8k = Spec("gsm8k.exact_match", "GSM8K", "acc", "exact_match", (demonstrated[::-1],), "gsm8k")
    notes = (
        ("Decoders count tokens in their own way: rows may differ between decoders, not within one.",) if made else ()
    )
    return build("table5", "Table 5: other decoders", made, [*specs(), gsm8k], AVERAGE, notes=notes)


def ablations(results: Results) -> Table:
    """Runs of a suite whose name ends in `ablations`, by their labels there."""
    runs = [run for run in results.runs if _ablation(run)]
    made = lines(runs, TASKS.__contains__, _ablation)
    check_comparable(made)
    return build("ablations", "Ablations", made, specs(), AVERAGE)


def _ablation(run: Run) -> str:
    return next((text for name, text in run.labels.items() if name.endswith("ablations")), "")
