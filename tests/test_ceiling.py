"""Where the full context is not above no context, every table says so, in one sentence of one function."""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from result_files import POPULATION
from written_results import right, write

from pcc_bench.reports import render, report
from pcc_bench.reports.compare import summarise
from pcc_bench.reports.words import ceilings
from pcc_bench.results.collection import load
from pcc_bench.suite.runner import table

SAYS = r"pcc_squad: full context is not above no context \(F1 30\.0 against 30\.0, difference \[-\d+\.\d, \d+\.\d\], "
SAYS += r"60 rows\): this decoder cannot do this task with this prompt; try --metadata with prompt short or chat"


def runs(folder: Path, full: float, floor: float, **changes: Any) -> Path:
    """Full context, no context and PCC on SQuAD; F1 is all right or all wrong."""
    population = {**POPULATION, "prompt": "official"}
    for method, share, rate in (("full-context", full, None), ("no-context", floor, None), ("pcc", 0.2, 4.0)):
        scores = [1.0] * round(60 * share) + [0.0] * round(60 * (1 - share))
        scores = scores[::-1] if method == "no-context" else scores
        tasks = {"pcc_squad": {"f1": scores, "exact_match": scores}}
        other = changes if method == "full-context" else {}
        write(folder / method, method, tasks, rate, **{"population": population, **other})
    return folder


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*/results_*.json"))


def page(folder: Path) -> str:
    report.write([folder], folder / "report")
    return html.unescape((folder / "report" / "index.html").read_text())


def rag(folder: Path) -> Any:
    return report.BUILDERS["table2"](load([folder]))


SURFACES: dict[str, Callable[[Path], str]] = {
    "eval and demo": lambda folder: summarise(files(folder)).markdown(),
    "suite": lambda folder: table([(path.parent.name, path) for path in files(folder)]).markdown(),
    "Markdown of the report": lambda folder: render.markdown(rag(folder)),
    "LaTeX of the report": lambda folder: render.latex(rag(folder)),
    "README": lambda folder: render.brief(rag(folder)),
    "page": page,
}


@pytest.mark.parametrize("surface", SURFACES)
def test_every_table_says_it_once(tmp_path: Path, surface: str) -> None:
    text = SURFACES[surface](runs(tmp_path, 0.3, 0.3)).replace("\\", "")
    assert len(re.findall(SAYS, text)) == 1


@pytest.mark.parametrize("surface", SURFACES)
def test_no_table_says_it_where_the_ceiling_is_above_the_floor(tmp_path: Path, surface: str) -> None:
    assert "not above no context" not in SURFACES[surface](runs(tmp_path, 0.8, 0.2))


def test_it_is_the_paired_interval_that_decides(tmp_path: Path) -> None:
    """The same means: pairs that agree in most rows show a difference that pairs at random do not show."""
    for name, floor in (("paired", [1.0] * 10 + [0.0] * 50), ("crossed", [0.0] * 50 + [1.0] * 10)):
        for method, scores in (("full-context", [1.0] * 18 + [0.0] * 42), ("no-context", floor)):
            write(tmp_path / name / method, method, {"pcc_squad": {"f1": scores}}, per_context=1)
    assert ceilings(load([tmp_path / "paired"]).runs) == ()
    assert len(ceilings(load([tmp_path / "crossed"]).runs)) == 1


@pytest.mark.parametrize(
    "changes",
    [{"decoder": "another/decoder"}, {"samples": False}, {"population": {**POPULATION, "prompt": "short"}}],
    ids=["another decoder", "no samples", "another prompt"],
)
def test_runs_that_do_not_pair_say_nothing(tmp_path: Path, changes: dict[str, Any]) -> None:
    assert ceilings(load([runs(tmp_path, 0.3, 0.3, **changes)]).runs) == ()


def test_a_perplexity_is_above_where_it_is_lower(tmp_path: Path) -> None:
    for name, share in (("good", -10.0), ("bad", -30.0)):
        for method, score in (("full-context", share), ("no-context", -20.0)):
            pairs = [(score + noise, 10.0) for noise in right(0.5, 60, 7)]
            write(tmp_path / name / method, method, {"pcc_completion": {"perplexity": pairs}})
    assert ceilings(load([tmp_path / "good"]).runs) == ()
    (said,) = ceilings(load([tmp_path / "bad"]).runs)
    assert said.startswith("pcc_completion: full context is not above no context (PPL ")
    assert "difference" not in said and said.endswith("try another decoder, or more rows.")
