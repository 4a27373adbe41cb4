"""Tables whose tasks show something before the question, as text or compressed: in-context learning and role play."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial

from pcc_bench.reports.table import Table
from pcc_bench.reports.tables.build import build
from pcc_bench.reports.tables.lines import FULL, NONE, ROLES, Line, check_comparable, distinct, grouped
from pcc_bench.reports.tables.spec import Spec
from pcc_bench.results.collection import Results
from pcc_bench.results.run import Run

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
