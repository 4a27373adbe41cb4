"""LaTeX tables: of a readable size, within a page, nothing left out; compiled where pdflatex is."""

from __future__ import annotations

import re
import shutil
import subprocess
from importlib import resources
from itertools import chain, pairwise
from pathlib import Path

import pandas as pd
import pytest

from pcc_bench.reports import render, report
from pcc_bench.reports.table import Cell, Column, Row, Table
from pcc_bench.results.collection import Results, load

RESULTS = Path(str(resources.files("pcc_bench")))
TABLE = re.compile(
    r"\\begin{table\*}\[tp\]\n(?P<head>.*?)\\begin{tabular}{(?P<shape>[^\n]*)}\n(?P<body>.*?)\\end{tabular}", re.DOTALL
)


@pytest.fixture(scope="module")
def tables() -> list[Table]:
    """Every table: of real results, of the lab's training runs, and of what is only published."""
    published = report.tables(Results((), (), pd.DataFrame()), published=True)
    broad = Table(
        key="broad",
        title="Names as others write them",
        columns=tuple(Column(key=f"c{j}", group=f"set {j // 2}", name="F1") for j in range(40)),
        rows=tuple(
            Row(key=f"r{i}", label=f"a_method & 100 % of {i} {'words ' * (i % 9)}", method="") for i in range(60)
        ),
        cells=tuple(tuple(Cell(value=float(i + j), low=0.0, high=1e3) for j in range(40)) for i in range(60)),
        notes=("Braces { and } and a tilde ~ in a note.",),
    )
    return [*report.tables(load([RESULTS / "suites" / "results" / "real-table2"])), *published[1:], broad]


def cells_of(line: str) -> list[str]:
    return re.split(r"(?<!\\)&", line.removesuffix(r"\\"))


def test_tables_are_readable_and_fit_a_page(tables: list[Table]) -> None:
    for table in tables:
        text = render.latex(table)
        parts = list(TABLE.finditer(text))
        assert len(parts) == text.count(r"\begin{") - text.count(r"\begin{minipage}") - text.count(r"\begin{tabular}")
        assert text.count(r"\begin{") == text.count(r"\end{")
        for part in parts:
            assert r"\footnotesize" in part["head"] and "resizebox" not in text  # 8 pt
            shape = re.sub(r">{[^{}]*}p{[^{}]*}", "p", part["shape"])
            rows = [line for line in part["body"].splitlines() if line.endswith(r"\\")]
            widths = [0.0] * len(shape)
            for line in rows:
                if r"\multicolumn" in line:
                    continue
                assert len(cells_of(line)) == len(shape), line
                for j, cell in enumerate(map(str.strip, cells_of(line))):
                    letters = len(re.sub(r"\\textbf{(.*)}", r"\1", cell).replace("\\", ""))
                    widths[j] = max(widths[j], 4.0 * letters if shape[j] != "p" else 4.0 * render.BROAD)
            assert sum(widths) + 6 * (len(shape) - 1) < 480, f"{table.key}: wider than a page of A4"
            assert len(rows) <= 48, f"{table.key}: taller than a page"


def test_a_caption_has_one_number(tables: list[Table]) -> None:
    text = "".join(map(render.latex, tables))
    captions = re.findall(r"\\caption{(.*)}\n", text)
    assert any(caption.startswith("Questions on contexts (Table 2 of the PCC paper)") for caption in captions)
    assert not [caption for caption in captions if re.match(r"Table|.*:.*Table \d+:", caption)]
    labels = re.findall(r"\\label{(.*?)}", text)
    assert len(labels) == len(set(labels)) == len(captions)


def test_divided_tables_say_all_that_the_whole_says(tables: list[Table]) -> None:
    for table in tables:
        bodies = re.sub(
            r"\\(top|mid|bottom)rule\n", "", "".join(p["body"] for p in TABLE.finditer(render.latex(table)))
        )
        cells = (re.sub(r"\\textbf{(.*)}", r"\1", cell.strip()) for cell in re.split(r"(?<!\\)&|\\\\\n", bodies))
        shown = {re.sub(r"\\text(asciitilde|less|greater|bar){}", "", cell).replace("\\", "") for cell in cells}
        lines = render.markdown(table).splitlines()
        rows = [a.strip("| ").split(" | ") for a, b in pairwise([*lines, ""]) if a[:1] == "|" and b[:3] != "|--"]
        for cell in chain.from_iterable(rows):
            text = re.sub("[~<>|]", "", cell.strip().replace("**", ""))
            assert not text or set(text) == {"-"} or text in shown, text


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_the_document_of_a_report_compiles_and_nothing_sticks_out(tables: list[Table], tmp_path: Path) -> None:
    for table in tables:
        (tmp_path / f"{table.key}.tex").write_text(render.latex(table), "utf-8")
    (tmp_path / "all.tex").write_text(render.document(tables), "utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "all.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, errors="replace")
    assert done.returncode == 0, done.stdout[-2000:]
    wide = [float(points) for points in re.findall(r"Overfull \\hbox \(([\d.]+)pt too wide\)", done.stdout)]
    assert not [points for points in wide if points > 20], done.stdout
    assert "Float too large" not in done.stdout
