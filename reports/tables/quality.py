"""Scores by method and rate: the paper's tables 2 to 5, pretraining, ablations; and who is told from whom."""

from collections.abc import Sequence

from pcc_bench import stats
from pcc_bench.reports import measure
from pcc_bench.reports.table import ANSWER_METRICS, NAMES, Better, Cell, Column, Table, p_value
from pcc_bench.reports.tables import FULL, NONE, OURS, ROLES, Line, Spec, distinct, grouped
from pcc_bench.reports.tables.build import ALPHA, build
from pcc_bench.results.collection import Results
from pcc_bench.results.run import Run

SETS = {"squad": "SQuAD", "hotpotqa": "HotpotQA", "adversarialqa": "AdversarialQA", "nq": "NQ"}
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
        Spec(f"{name}.{metric}", headings[name], NAMES[metric], metric, tasks, detail=metric == "contains")
        for name, tasks in parts.items()
        for metric in ANSWER_METRICS
    ]
    return specs, f"{headline}.f1"


def of_table2(results: Results) -> list[Line]:
    runs = [run for run in results.runs if not run.labels or not all(name.endswith(APART) for name in run.labels)]
    return distinct(grouped(runs, TASKS))


def table2(results: Results) -> Table:
    """EM and F1 on the four sets, by method and rate."""
    measured = of_table2(results)
    return build("table2", "Table 2: questions on contexts", measured, *_specs(measured))


def table5(results: Results) -> Table:
    """The same by decoder, and GSM8K: runs of a suite `table5`, else all where there are several decoders."""
    runs = [run for run in results.runs if any(name.endswith("table5") for name in run.labels)]
    free = [run for run in results.runs if not run.labels and set(TASKS) & set(run.tasks)]
    if not runs and len({run.decoder for run in free}) > 1:
        runs = free
    demonstrated = ("pcc_gsm8k", "pcc_gsm8k_4_memory", "pcc_gsm8k_4_text")
    measured = distinct(grouped(runs, (*TASKS, *demonstrated)), lambda run: run.decoder)
    gsm8k = Spec("gsm8k.exact_match", "GSM8K", "acc", "exact_match", (demonstrated[::-1],))
    note = "Decoders count tokens in their own way: rows may differ between decoders, not within one."
    specs, headline = _specs(measured)
    notes = [note] if measured else []
    return build("table5", "Table 5: other decoders", measured, [*specs, gsm8k], headline, notes=notes)


def ablations(results: Results) -> Table:
    """Runs of a suite whose name ends in `ablations`, by their labels there."""

    def label(run: Run) -> str:
        return next((text for name, text in run.labels.items() if name.endswith("ablations")), "")

    measured = distinct(grouped(filter(label, results.runs), TASKS, label))
    return build("ablations", "Ablations", measured, *_specs(measured))


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
    specs = []
    for task, metric, heading, better, digits in COLUMNS:
        name = task.removeprefix("pcc_")
        specs.append(Spec(f"{name}.{metric}", name, heading, metric, ((task,),), "", better, digits))
    measured = distinct(grouped(results.runs, (RECONSTRUCTION, COMPLETION)))
    title = "Pretraining: reconstruction and completion by rate"
    return build("pretraining", title, measured, specs, "completion.perplexity", notes=[ENCODER])


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
        Spec(f"{name}.{size}", heading, f"~{size} tokens", metric, (_alternatives(name, size_name),), size)
        for name, (heading, metric, sizes) in ICL.items()
        for size, size_name in sizes.items()
    ]
    measured = _lines(results.runs, [f"pcc_{name}" for name in ICL], "demonstrations")
    title = "Table 3: in-context learning, accuracy by tokens of demonstrations"
    return build("table3", title, measured, specs, "gsm8k.750", {"pcc": "pcc-large"}, [LARGE])


def table4(results: Results) -> Table:
    """Perplexity of the response and its rank among others, with one or two shots of earlier dialogue."""
    specs = []
    for name, heading in DIALOGUES.items():
        for shots, words in (("1", "1 shot"), ("2", "2 shots")):
            tasks, key = (_alternatives(name, shots),), f"{name}.{shots}"
            specs += [
                Spec(f"{key}.perplexity", heading, f"PPL, {words}", "perplexity", tasks, shots, "lower", 2),
                Spec(f"{key}.ranking_acc", heading, f"ranking, {words}", "ranking_acc", tasks, shots),
            ]
    measured = _lines(results.runs, [f"pcc_{name}" for name in DIALOGUES], "shots")
    return build("table4", "Table 4: role play", measured, specs, "hpd.1.perplexity", {"pcc": "pcc-lite"}, [LITE])


def _alternatives(name: str, size: str) -> tuple[str, ...]:
    """The task of this size in each form, and the one that shows nothing."""
    nothing = f"pcc_{name}_0" if name in DIALOGUES else f"pcc_{name}"
    return f"pcc_{name}_{size}_text", f"pcc_{name}_{size}_memory", nothing


def _lines(runs: Sequence[Run], stems: Sequence[str], what: str) -> list[Line]:
    """Lines by setting and form of what is shown, named for it: one run may make several."""
    known = {task for run in runs for task in run.tasks if any(f"{task}_".startswith(f"{stem}_") for stem in stems)}
    forms = {task: next((form for form in FORMS[1:] if task.endswith(f"_{form}")), FORMS[0]) for task in known}
    by_form = []
    for form in FORMS:
        for line in grouped(runs, [task for task in known if forms[task] == form]):
            shown, kind = (f"no {what}", "floor") if form == "none" else (f"{what} as text", "ceiling")
            if line.row.role == "ceiling":  # a decoder that reads everything is the floor where nothing is shown
                line = line.under(method=NONE if form == "none" else FULL, role=kind, label=shown)
            elif form != "memory":
                line = line.under(role=kind, label=f"{line.row.label}, {shown}")
            by_form.append(line)
    return distinct(sorted(by_form, key=lambda line: ROLES.index(line.row.role)))


METRIC = "f1"
COMPARED = (
    Column(key="difference", name="difference", unit="points"),
    *(Column(key=name, group="rows", name=name, digits=0) for name in ("wins", "losses", "ties")),
    Column(key="detectable", name="MDE", unit="points"),
    Column(key="p", name="p (Holm)"),
)
LEGEND = (
    "difference: average F1 over the sets that both have, the first less the second, with its 95 % interval "
    "from paired rows, contexts being what is drawn. Bold: told apart (5 %, Holm over this table).",
    "wins, losses, ties: rows on which the first's F1 is higher, lower, the same.",
    f"MDE: the smallest true difference that this test would find with a probability of {100 * measure.POWER:.0f} %.",
)


def comparisons(results: Results) -> Table:
    """A row a pair of methods of one requested rate: the best PCC there (else the best method) and each other."""

    def average(line: Line) -> float:
        values = [score.value for task in TASKS if (score := measure.measure(line.runs, task, METRIC)) is not None]
        return sum(values) / len(values) if values else float("-inf")

    rows, lines, ps = [], [], []
    methods = [line for line in of_table2(results) if line.row.role == "method" and line.row.rate is not None]
    for decoder, rate in dict.fromkeys((line.row.decoder, line.row.rate) for line in methods):
        rivals = [line for line in methods if (line.row.decoder, line.row.rate) == (decoder, rate)]
        best = max([line for line in rivals if line.row.method in OURS] or rivals, key=average)
        for other in (line for line in rivals if line is not best):
            scores = ([measure.measure(line.runs, task, METRIC) for line in (best, other)] for task in TASKS)
            parts = [(mine, theirs) for mine, theirs in scores if mine is not None and theirs is not None]
            difference = measure.combined([measure.compare(*part) for part in parts])
            if difference is None:  # rows that do not pair
                continue
            label, runs = f"{best.row.label} less {other.row.label}", (*best.row.runs, *other.row.runs)
            rows.append(other.row.model_copy(update={"key": label, "label": label, "runs": runs}))
            tallies = [measure.tally(mine.rows, theirs.rows) for mine, theirs in parts if mine.rows and theirs.rows]
            counts = [sum(numbers) for numbers in zip(*tallies, strict=True)]  # wins, losses, ties
            low, high = (100 * float(end) for end in difference.interval(measure.LEVEL))
            value, n = sum(mine.value - theirs.value for mine, theirs in parts) / len(parts), sum(counts)
            cells = [Cell(value=value, low=low, high=high, n=n), *(Cell(value=count, n=n) for count in counts)]
            lines.append([*cells, Cell(value=100 * measure.minimal(difference))])
            ps.append(measure.two_sided(difference))
    adjusted = stats.holm(ps).tolist() if ps else []
    return Table(
        key="comparisons",
        title="Comparisons: average F1, row by row",
        columns=COMPARED,
        rows=tuple(rows),
        cells=tuple(
            (first.model_copy(update={"best": p < ALPHA}), *others, Cell(text=p_value(p)))
            for (first, *others), p in zip(lines, adjusted, strict=True)
        ),
        notes=LEGEND if rows else (),
        own_notes=LEGEND if rows else (),
    )
