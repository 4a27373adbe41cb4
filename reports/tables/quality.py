"""Scores by method and rate: the paper's tables 2 to 5, pretraining and the ablations."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial

from pcc_bench.reports.table import Better, Table
from pcc_bench.reports.tables.build import build
from pcc_bench.reports.tables.lines import FULL, NONE, ROLES, Line, Spec, check_comparable, distinct, grouped, lines
from pcc_bench.results.collection import Results
from pcc_bench.results.run import Run

SETS = {"squad": "SQuAD", "hotpotqa": "HotpotQA", "adversarialqa": "AdversarialQA", "nq": "NQ"}
METRICS = {"exact_match": "EM", "f1": "F1", "contains": "contains"}
TASKS = tuple(f"pcc_{name}" for name in SETS)
APART = ("ablations", "table5")  # suites whose checkpoints are not those of Table 2


def _specs(lines: Sequence[Line]) -> tuple[list[Spec], str]:
    """A column a set and metric, and plain averages; with the key of the main column.

    The average is over the four sets. Where no line has all four, a second one is over the sets that all lines share.
    """
    parts: dict[str, tuple[tuple[str, ...], ...]] = {name: ((f"pcc_{name}",),) for name in SETS}
    parts["average"] = tuple((task,) for task in TASKS)
    headings, headline = SETS | {"average": "average"}, "average"
    if lines and not any(line.tasks >= set(TASKS) for line in lines):
        shared = [name for name in SETS if all(f"pcc_{name}" in line.tasks for line in lines)]
        headline = max(SETS, key=lambda name: sum(f"pcc_{name}" in line.tasks for line in lines))
        if len(shared) > 1:
            headline, headings["shared"] = "shared", "average of " + " and ".join(SETS[name] for name in shared)
            parts["shared"] = tuple((f"pcc_{name}",) for name in shared)
    specs = [
        Spec(f"{name}.{metric}", headings[name], heading, metric, tasks, name, detail=metric == "contains")
        for name, tasks in parts.items()
        for metric, heading in METRICS.items()
    ]
    return specs, f"{headline}.f1"


def of_table2(results: Results) -> list[Run]:
    """The runs that Table 2 is about."""
    return [run for run in results.runs if not run.labels or not all(name.endswith(APART) for name in run.labels)]


def table2(results: Results) -> Table:
    """EM and F1 on the four sets, by method and rate."""
    made = lines(of_table2(results), TASKS.__contains__)
    check_comparable(made)
    return build("table2", "Table 2: questions on contexts", made, *_specs(made))


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
    specs, headline = _specs(made)
    return build("table5", "Table 5: other decoders", made, [*specs, gsm8k], headline, notes=notes)


def ablations(results: Results) -> Table:
    """Runs of a suite whose name ends in `ablations`, by their labels there."""
    runs = [run for run in results.runs if _ablation(run)]
    made = lines(runs, TASKS.__contains__, _ablation)
    check_comparable(made)
    return build("ablations", "Ablations", made, *_specs(made))


def _ablation(run: Run) -> str:
    return next((text for name, text in run.labels.items() if name.endswith("ablations")), "")


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


ICL = {
    "gsm8k": ("GSM8K", "exact_match", {"750": "4", "1500": "8"}),
    "sst2": ("SST-2", "acc_calibrated", {"750": "750", "1500": "1500"}),
    "wsc": ("WSC", "acc_calibrated", {"750": "750", "1500": "1500"}),
}
DIALOGUES = {"hpd": "HPD", "msc": "MSC", "personachat": "PersonaChat"}
FORMS = ("none", "text", "memory")
LARGE = "The paper does not say which PCC this is: only PCC-Large has settings for GSM8K, so it is taken to be that."
LITE = "The paper does not say which PCC this is: only PCC-Lite has settings for HPD, so it is taken to be that."


def table3(results: Results) -> Table:
    """Accuracy with about 750 and 1500 tokens of demonstrations, by how they are shown."""
    specs = [
        Spec(f"{name}.{size}", heading, f"~{size} tokens", metric, (_alternatives(name, size_name),), name, size)
        for name, (heading, metric, sizes) in ICL.items()
        for size, size_name in sizes.items()
    ]
    made = _lines(results.runs, [f"pcc_{name}" for name in ICL], "demonstrations")
    check_comparable(made)
    title = "Table 3: in-context learning, accuracy by tokens of demonstrations"
    return build("table3", title, made, specs, "gsm8k.750", {"pcc": "pcc-large"}, [LARGE])


def table4(results: Results) -> Table:
    """Perplexity of the response and its rank among others, with one or two shots of earlier dialogue."""
    specs = [
        spec for name, heading in DIALOGUES.items() for shots in ("1", "2") for spec in _dialogue(name, heading, shots)
    ]
    made = _lines(results.runs, [f"pcc_{name}" for name in DIALOGUES], "shots")
    check_comparable(made)
    return build("table4", "Table 4: role play", made, specs, "hpd.1.perplexity", {"pcc": "pcc-lite"}, [LITE])


def _dialogue(name: str, heading: str, shots: str) -> list[Spec]:
    tasks, words = (_alternatives(name, shots),), "1 shot" if shots == "1" else f"{shots} shots"
    key = f"{name}.{shots}"
    return [
        Spec(f"{key}.perplexity", heading, f"PPL, {words}", "perplexity", tasks, name, shots, "lower", 2),
        Spec(f"{key}.ranking_acc", heading, f"ranking, {words}", "ranking_acc", tasks, name, shots),
    ]


def _alternatives(name: str, size: str) -> tuple[str, ...]:
    """The task of this size in each form, and the one that shows nothing."""
    nothing = f"pcc_{name}_0" if name in DIALOGUES else f"pcc_{name}"
    return f"pcc_{name}_{size}_text", f"pcc_{name}_{size}_memory", nothing


def _form(task: str) -> str:
    return next((form for form in FORMS[1:] if task.endswith(f"_{form}")), FORMS[0])


def _lines(runs: Iterable[Run], stems: Sequence[str], what: str) -> list[Line]:
    """Lines by setting and form of what is shown: one run may make several."""
    runs = list(runs)
    made = [_as(line, form, what) for form in FORMS for line in grouped(runs, partial(_is_of, stems, form))]
    return distinct(sorted(made, key=lambda line: ROLES.index(line.row.role)))


def _is_of(stems: Sequence[str], form: str, task: str) -> bool:
    return _form(task) == form and any(task == stem or task.startswith(f"{stem}_") for stem in stems)


def _as(line: Line, form: str, what: str) -> Line:
    """A line under the name of what it shows; a decoder that reads everything is the floor where nothing is shown."""
    row = line.row
    method, role, label = row.method, row.role, row.label
    if row.role == "ceiling":
        method, role = (NONE, "floor") if form == "none" else (FULL, "ceiling")
        label = f"no {what}" if form == "none" else f"{what} as text"
    elif form != "memory":
        role = "floor" if form == "none" else "ceiling"
        label = f"{label}, {'no ' if form == 'none' else ''}{what}{' as text' if form == 'text' else ''}"
    return replace(line, row=row.model_copy(update={"method": method, "role": role, "label": label}))
