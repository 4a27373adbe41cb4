"""The report's tables: every number is what its samples say, and what was published stands beside it."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Callable
from importlib import resources
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import sacrebleu
from result_files import POPULATION
from written_results import questions, right, write

from pcc_bench.core.errors import UsageError
from pcc_bench.reports import render, report, words
from pcc_bench.reports.measure import measure
from pcc_bench.reports.table import Cell, Column, Row, Table
from pcc_bench.reports.tables import family
from pcc_bench.reports.tables.build import published
from pcc_bench.results.collection import Results, load
from pcc_bench.results.files import result_files
from pcc_bench.results.reading import read_answers, read_run
from pcc_bench.results.rows import samples
from pcc_bench.suite import runner

SETS = ("squad", "hotpotqa", "adversarialqa", "nq")
RUNS: list[tuple[str, float | None, float]] = [
    ("full-context", 1.0, 0.8),
    ("pcc", 4.0, 0.75),
    ("pcc", 16.0, 0.3),
    ("icae", 4.0, 0.4),
    ("no-context", None, 0.1),
]


def table(folder: Path, key: str) -> Table:
    return report.BUILDERS[key](load([folder]))


@pytest.fixture(scope="module")
def rag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rag")
    for number, (method, rate, share) in enumerate(RUNS):
        checkpoint = f"x/pcc-lite-{rate:g}x" if method == "pcc" else "x/model"
        write(folder / f"{method}-{rate}", method, questions(share, seed=100 * number), rate, checkpoint)
    return folder


def samples_of(folder: Path, task: str) -> pd.DataFrame:
    """The samples of a task, read by pandas alone."""
    (path,) = folder.glob(f"samples_{task}_*.jsonl")
    return pd.read_json(path, lines=True)


FOLDERS = {
    "full context": "full-context-1.0",
    "PCC-Lite 4x": "pcc-4.0",
    "PCC-Lite 16x": "pcc-16.0",
    "ICAE 4x": "icae-4.0",
    "no context": "no-context-None",
}


@pytest.mark.parametrize("row", FOLDERS)
def test_every_cell_of_table_2_is_what_pandas_makes_of_the_samples(rag: Path, row: str) -> None:
    made, frames = table(rag, "table2"), {name: samples_of(rag / FOLDERS[row], f"pcc_{name}") for name in SETS}
    for metric in ("exact_match", "f1", "contains"):
        for name, frame in frames.items():
            cell = made.cell(row, f"{name}.{metric}")
            assert cell.value == pytest.approx(100 * frame[metric].mean())
            assert (cell.n, cell.contexts) == (60, 30)
            account = frame["compression"].apply(pd.Series)
            positions = (account["slots"] + account["boundary"]).sum()
            assert cell.ratio == (pytest.approx(account["source_tokens"].sum() / positions) if positions else None)
        average = np.mean([100 * frame[metric].mean() for frame in frames.values()])
        assert made.cell(row, f"average.{metric}").value == pytest.approx(average)


LAB = {
    "table2": {
        "full context": "full-context",
        "truncated context 4x": "truncated-context-4x",
        "random context 4x": "random-context-4x",
        "BM25 context 4x": "bm25-context-4x",
        "PCC-Lite 4x": "PCC-4x",
        "PCC-Large 4x": "PCC-Large-4x",
        "truncated context 16x": "truncated-context-16x",
        "random context 16x": "random-context-16x",
        "BM25 context 16x": "bm25-context-16x",
        "PCC-Lite 16x": "PCC-16x",
        "PCC-Lite 64x": "PCC-64x",
        "PCC-Large 16x": "PCC-Large-16x",
        "LLMLingua-2 2x": "LLMLingua-2-2x",
        "LLMLingua-2 4x": "LLMLingua-2-4x",
        "AutoCompressor 4x": "AutoCompressor-4x",
        "ICAE 4x": "ICAE-4x",
        "COCOM 4x": "COCOM-4x",
        "no context": "no-context",
    },
    "pretraining": {
        "full context": "full-context",
        "PCC 4x": "PCC-4x-pretrained",
        "PCC-Lite 4x": "PCC-4x-fine-tuned",
        "PCC-Large 4x": "PCC-Large-4x-fine-tuned",
        "PCC-Lite 16x": "PCC-16x-fine-tuned",
        "PCC-Lite 64x": "PCC-64x-fine-tuned",
        "no context": "no-context",
    },
}


def recomputed(frame: pd.DataFrame, metric: str) -> float:
    """A metric of raw samples, by its definition and with no code of the reports."""
    if metric == "bleu":
        references, answers = zip(*frame["bleu"], strict=True)
        return float(sacrebleu.corpus_bleu(list(answers), [list(references)]).score)
    if metric.endswith("perplexity"):
        return math.exp(-frame[metric].str[0].sum() / frame[metric].str[1].sum())
    if metric.startswith("error_"):
        return float(100 * frame[metric].str[0].sum() / frame[metric].str[1].sum())
    return float(100 * frame[metric].mean())


@pytest.mark.parametrize("key", LAB)
def test_every_measured_cell_of_the_shipped_tables_is_recomputed_from_samples(key: str) -> None:
    folder = report.shipped() / ("lab-table2" if key == "table2" else "lab-pretraining")
    made = report.BUILDERS[key](load([folder]))
    lines = zip(made.rows, made.cells, strict=True)
    measured = {row.label for row, cells in lines if any(cell.value is not None for cell in cells)}
    assert measured == set(LAB[key])
    checked = 0
    for label, name in LAB[key].items():
        (run,) = (path for path in folder.iterdir() if path.name.rpartition("-")[0] == name)
        means: dict[str, list[float]] = {}
        for path in sorted(run.rglob("samples_*.jsonl.*")):
            task = path.name.removeprefix("samples_pcc_").split("_2")[0]
            frame = pd.DataFrame(samples(path))
            for column in made.columns:
                group, _, metric = column.key.partition(".")
                if group == task and column.source is None:
                    cell = made.cell(label, column.key)
                    assert cell.value == pytest.approx(recomputed(frame, metric)), (label, column.key)
                    assert cell.n in (len(frame), None)
                    means.setdefault(metric, []).append(recomputed(frame, metric))
                    checked += 1
        for metric, values in means.items() if key == "table2" else ():
            assert made.cell(label, f"average.{metric}").value == pytest.approx(np.mean(values))
            checked += 1
    assert checked == sum(cell.value is not None for line in made.cells for cell in line)


def test_intervals_count_contexts_and_not_rows(tmp_path: Path) -> None:
    scores = right(0.5, 40, 0)
    alone = {"pcc_squad": {"f1": scores}}
    together = {"pcc_squad": {"f1": [score for score in scores for _ in range(10)]}}
    for name, tasks, size in (("alone", alone, 1), ("together", together, 10)):
        write(tmp_path / name, "pcc", tasks, 4.0, per_context=size)
    cells = [table(tmp_path / name, "table2").cell("PCC 4x", "squad.f1") for name in ("alone", "together")]
    widths = [cell.high - cell.low for cell in cells]
    assert widths[1] == pytest.approx(widths[0], rel=0.06)  # ten times the rows on as many contexts say as much


@pytest.mark.parametrize("share", [0.5, 0.95])
def test_intervals_cover(tmp_path: Path, share: float) -> None:
    covered = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        chances = rng.beta(8 * share, 8 * (1 - share), 50).repeat(3)  # rows on one context are alike
        write(tmp_path / str(seed), "pcc", {"pcc_squad": {"f1": rng.binomial(1, chances).tolist()}}, 4.0, per_context=3)
        loaded = load([tmp_path / str(seed)])
        found = measure(loaded.runs, "pcc_squad", "f1")
        assert found is not None
        low, high = found.interval() or (math.nan, math.nan)
        covered.append(low <= 100 * share <= high)
    assert np.mean(covered) >= 0.85  # of 60: 95 % but for chance


def test_an_average_has_an_interval_over_all_sets(rag: Path) -> None:
    made = table(rag, "table2")
    cells = [made.cell("PCC-Lite 4x", f"{name}.f1") for name in (*SETS, "average")]
    widths = [cell.high - cell.low for cell in cells]
    assert widths[-1] == pytest.approx(math.sqrt(sum(width**2 for width in widths[:-1])) / 4, rel=0.03)


def test_the_best_method_is_marked_and_whatever_is_not_told_from_it(tmp_path: Path) -> None:
    best = right(0.8, 200, 1)
    near = [1 - score if row == 0 else score for row, score in enumerate(best)]
    for name, rate, scores in (("best", 4.0, best), ("near", 8.0, near), ("worse", 16.0, right(0.3, 200, 2))):
        write(tmp_path / name, "pcc", {"pcc_squad": {"f1": scores}}, rate)
    write(tmp_path / "full", "full-context", {"pcc_squad": {"f1": [1.0] * 200}}, 1.0)
    made = table(tmp_path, "table2")
    cells = {row.label: made.cell(row.key, "squad.f1") for row in made.rows if row.runs}
    marks = {label: (cell.best, cell.tied) for label, cell in cells.items()}
    assert sum(best for best, _ in marks.values()) == 1
    assert {label for label, mark in marks.items() if any(mark)} == {"PCC 4x", "PCC 8x"}
    assert marks["full context"] == (False, False)  # ceilings do not compete


def test_normalised_values_lie_between_floor_and_ceiling(rag: Path) -> None:
    made = table(rag, "table2")
    low, high, cell = (made.cell(row, "squad.f1") for row in ("no context", "full context", "PCC-Lite 16x"))
    assert (low.normalised, high.normalised) == (0, 100)
    assert cell.normalised == pytest.approx(100 * (cell.value - low.value) / (high.value - low.value))


def test_there_is_no_place_between_a_floor_and_a_ceiling_that_are_not_told_apart(tmp_path: Path) -> None:
    for method, rate, share in (("full-context", 1.0, 0.5), ("no-context", None, 0.48), ("pcc", 4.0, 0.9)):
        write(tmp_path / method, method, {"pcc_squad": {"f1": right(share, 60, 0)}}, rate)
    made = table(tmp_path, "table2")
    assert [made.cell(row.key, "squad.f1").normalised for row in made.rows if row.runs] == [None] * 3


def test_perplexities_and_shares_of_errors_are_ratios_of_sums(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    tokens = rng.integers(5, 50, 30)
    logprobs = [[-float(count * rng.uniform(1, 3)), int(count)] for count in tokens]
    errors = [[int(rng.integers(0, 4)), 6] for _ in tokens]
    tasks: dict[str, Any] = {"pcc_completion": {"perplexity": logprobs}, "pcc_reconstruction": {"error_number": errors}}
    write(tmp_path, "pcc", tasks, 4.0)
    made = table(tmp_path, "pretraining")
    frame = pd.DataFrame(logprobs, columns=["top", "of"])
    cell = made.cell("PCC 4x", "completion.perplexity")
    assert cell.value == pytest.approx(math.exp(-frame["top"].sum() / frame["of"].sum()))
    assert cell.low < cell.value < cell.high
    share = made.cell("PCC 4x", "reconstruction.error_number")
    assert share.value == pytest.approx(100 * pd.DataFrame(errors)[0].sum() / pd.DataFrame(errors)[1].sum())


def test_the_interval_of_a_perplexity_holds_its_value(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    logprobs = [[-float(count * rng.uniform(1, 3)), int(count)] for count in rng.integers(5, 50, 30)]
    write(tmp_path, "pcc", {"pcc_completion": {"perplexity": logprobs}}, 4.0)
    loaded = load([tmp_path])
    score = measure(loaded.runs, "pcc_completion", "perplexity")
    assert score is not None
    low, high = score.interval() or (math.nan, math.nan)
    assert 1 < low < score.value < high
    cell = table(tmp_path, "pretraining").cell("PCC 4x", "completion.perplexity")
    assert cell.low < cell.value < cell.high


def test_seeds_are_averaged_row_by_row(tmp_path: Path) -> None:
    scores = [right(0.6, 60, seed) for seed in range(3)]
    for seed, values in enumerate(scores):
        write(tmp_path / str(seed), "pcc", {"pcc_squad": {"f1": values}}, 4.0, seed=seed)
    made = table(tmp_path, "table2")
    cell = made.cell("PCC 4x", "squad.f1")
    assert (cell.value, cell.seeds, cell.n) == (pytest.approx(100 * np.mean(scores)), 3, 60)
    assert "SQuAD: 60 rows on 30 contexts, mean of 3 seeds." in made.notes


# ---------------------------------------------------------------- tables of other tasks


def test_table_3_has_text_as_its_ceiling_and_nothing_as_its_floor(tmp_path: Path) -> None:
    write(tmp_path / "none", "full-context", {"pcc_gsm8k": {"exact_match": right(0.3, 40, 0)}}, 1.0)
    write(tmp_path / "text", "full-context", {"pcc_gsm8k_4_text": {"exact_match": right(0.7, 40, 1)}}, 1.0, seed=1)
    tasks = {f"pcc_gsm8k_{n}_memory": {"exact_match": right(0.5, 40, n)} for n in (4, 8)}
    write(tmp_path / "large", "pcc", tasks, 4.0, "BroAlanTaps/Stage2-PCC-Large-4x")
    made = table(tmp_path, "table3")
    roles = {row.label: row.role for row in made.rows if row.runs}
    assert roles == {"demonstrations as text": "ceiling", "PCC-Large 4x": "method", "no demonstrations": "floor"}
    floor = made.cell("no demonstrations", "gsm8k.750")
    assert floor.value == made.cell("no demonstrations", "gsm8k.1500").value  # nothing is shown in either
    assert floor.paper is not None
    assert floor.paper.value == 64.82
    memory = made.cell("PCC-Large 4x", "gsm8k.750")
    assert memory.paper is not None
    assert memory.paper.value == 74.91
    assert 0 < (memory.normalised or 0) < 100


def test_table_4_prefers_low_perplexity(tmp_path: Path) -> None:
    for name, rate, nll in (("good", 4.0, 2.0), ("bad", 16.0, 3.0)):
        rows = [[-nll * 10 - row % 3, 10] for row in range(30)]
        write(tmp_path / name, "pcc", {"pcc_hpd_1_memory": {"perplexity": rows}}, rate, f"pcc-lite-{rate:g}x")
    made = table(tmp_path, "table4")
    assert made.cell("PCC-Lite 4x", "hpd.1.perplexity").best
    assert not made.cell("PCC-Lite 16x", "hpd.1.perplexity").tied


def suite(folder: Path, name: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "suite.json").write_text(json.dumps({"suite": name}), "utf-8")
    return folder


def test_ablations_are_called_by_their_labels_and_stay_out_of_table_2(tmp_path: Path) -> None:
    cells = suite(tmp_path / "ablations", "lab-ablations")
    write(cells / "PCC-4x-0123abcd" / "m", "pcc", questions(0.7), 4.0, "pcc-lab-4x")
    write(cells / "PCC-4x-without-pretraining-4567cdef" / "m", "pcc", questions(0.3), 4.0, "pcc-lab-4x-no-pretraining")
    also = suite(tmp_path / "table2", "lab-table2")
    write(also / "PCC-4x-0123abcd" / "m", "pcc", questions(0.7), 4.0, "pcc-lab-4x", stamp="2026-01-02", date=1.9e9)
    loaded = load([tmp_path])
    made = report.BUILDERS["ablations"](loaded)
    assert [row.label for row in made.rows] == ["PCC 4x", "PCC 4x without pretraining"]
    assert [row.label for row in table(tmp_path, "table2").rows if row.runs] == ["PCC-Lite 4x"]
    assert any("PCC-4x-0123abcd" in note and "is older and left out" in note for note in loaded.notes)


def test_table_5_compares_rows_within_a_decoder_only(tmp_path: Path) -> None:
    cells = suite(tmp_path, "table5")
    for decoder, fingerprint in (("llama", "a"), ("mistral", "b")):
        for method, rate, share in (("full-context", 1.0, 0.9), ("pcc", 4.0, 0.6), ("no-context", None, 0.1)):
            told = {**POPULATION, "fingerprint": fingerprint}
            folder = cells / f"{method}-{decoder}-0123abcd"
            write(folder, method, questions(share), rate, decoder=f"x/{decoder}", population=told)
    made = table(tmp_path, "table5")
    labels = [row.label for row in made.rows if row.runs]
    assert labels[2:4] == ["PCC 4x, llama", "PCC 4x, mistral"]
    assert made.cell("full context, mistral", "squad.f1").normalised == 100


def test_a_model_of_lm_eval_is_a_ceiling(tmp_path: Path) -> None:
    path = write(tmp_path, "hf", questions(0.9), checkpoint="meta/x")
    data = json.loads(path.read_text("utf-8"))
    del data["config"]["pcc_bench"]
    data["config"]["model_args"] = "pretrained=meta/x,dtype=float32"  # as older versions of lm-eval wrote it
    path.write_text(json.dumps(data), "utf-8")
    made = table(tmp_path, "table2")
    assert (made.rows[0].role, made.rows[0].label, made.rows[0].decoder) == ("ceiling", "hf", "meta/x")


def test_a_training_run_stands_beside_the_papers_settings(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    recipe = {"optimisation": {"optimizer": "adamw", "learning_rate": 1e-4}, "phases": [{"rate": 4}, {"rate": 16}]}
    (folder / "recipe.json").write_text(json.dumps(recipe), "utf-8")
    (folder / "log.jsonl").write_text('{"step": 1, "loss": 2.0, "tokens_seen": 4096}\n', "utf-8")
    made = table(tmp_path, "hyperparameters")
    assert made.cell("rate", "mine").text == "4 / 16"
    assert made.cell("tokens seen", "mine").text == "4,096"
    assert made.cell("time", "PCC-Lite.paper").text == "123 h on 4 A100-80G"
    assert made.measured


def test_costs_stand_by_phase_and_the_newest_measurement_counts(tmp_path: Path) -> None:
    shared = {"encoder": "", "decoder": "tiny", "context_tokens": 1024, "question_tokens": 8, "new_tokens": 8}
    shared |= {"slots": 0, "boundary": 0, "batch": 2, "reuse": 1, "mode": "full", "p95_s": 0.4, "repeats": 5}
    shared |= {"tokens_per_s": None, "peak_device_bytes": None, "peak_host_bytes": 2**30, "kv_bytes": 3 * 2**20}
    shared |= {"memory_bytes": 0, "flops": 1.0, "device": "cpu", "dtype": "float32", "threads": 1, "predicted": False}
    told = {"weights": "random", "seed": 0, "code": "", "versions": {}, "hardware": "x"}
    lines = [
        {"method": "full-context", "rate": None, "phase": phase, "median_s": seconds, "provenance": told, **shared}
        for phase, seconds in (("prefill", 9.0), ("prefill", 0.25), ("ttft", 0.3))
    ]
    (tmp_path / "cost_x.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n", "utf-8")
    made = table(tmp_path, "cost")
    label = "full context on tiny, 2 x 1,024 tokens, full, cpu"
    assert [row.label for row in made.rows if row.role == "ceiling"] == [label]
    cell = made.cell("point 0", "prefill.1")
    assert (cell.value, cell.n) == (250.0, 5)
    assert made.cell("point 0", "ttft.1").value == 300.0
    assert made.cell("point 0", "kv_bytes").value == 3.0


# ---------------------------------------------------------------- published values

NOTHING = Results((), (), pd.DataFrame())


def test_all_known_cells_of_the_paper_appear_and_no_others() -> None:
    shown = set()
    for made in report.tables(NOTHING, published=True):
        for _, cells in made.lines():
            for column, cell in zip(made.columns, cells, strict=True):
                if cell.paper and column.source is None:
                    shown.add((made.key, cell.paper.printed, cell.paper.source))
    known = {(cell.table, cell.published.printed, cell.published.source) for cell in published()}
    assert shown == known
    assert len(published()) == 34  # the lines of the list that the numbers were taken from


@pytest.mark.parametrize(
    ("key", "row", "column", "printed", "certainty"),
    [
        ("table2", "published full context", "average.f1", "66.29", "B"),
        ("table2", "published PCC-Large 4x", "squad.exact_match", "60.04", "Q?"),
        ("table2", "published AutoCompressor", "average.f1", "19.35", "B"),
        ("table3", "published PCC-Large 4x", "wsc.750", "69.55", "B"),
        ("table3", "published PCC-Large 16x", "gsm8k.1500", "67.48", "Q"),
        ("table4", "published PCC-Lite 4x", "hpd.2.perplexity", "20.31", "Q"),
        ("pretraining", "published PCC 16x", "reconstruction.bleu_official", "98 to 98.8", "B"),
        ("cost", "published PCC 4x, 8x4096 tokens", "memory.saved_gb", "39.34", "C"),
    ],
)
def test_a_published_value_stands_where_it_belongs(
    key: str, row: str, column: str, printed: str, certainty: str
) -> None:
    (made,) = [made for made in report.tables(NOTHING, published=True) if made.key == key]
    told = made.cell(row, column).paper
    assert told is not None
    assert (told.printed, told.certainty) == (printed, certainty)


def test_later_papers_have_columns_of_their_own(rag: Path) -> None:
    made = table(rag, "table2")
    assert made.cell("PCC-Lite 16x", "squad.f1").paper is None  # the paper's is not known
    told = made.cell("PCC-Lite 16x", "squad.f1.BenchPress").paper
    assert told is not None
    assert told.value == 67.63


def test_a_table_of_published_values_alone_is_only_there_when_asked_for() -> None:
    assert report.tables(NOTHING) == []
    assert {made.key for made in report.tables(NOTHING, published=True)} >= {"table2", "table3", "table4", "cost"}


def test_a_difference_is_only_printed_where_data_and_decoder_are_the_papers(tmp_path: Path) -> None:
    hub = {**POPULATION, "source": "hub"}
    write(
        tmp_path / "hub", "pcc", questions(0.6), 4.0, "Stage2-PCC-Large-4x", "x/PCC-Decoder-Llama3-8B", population=hub
    )
    write(tmp_path / "lab", "pcc", questions(0.6), 4.0, "Stage2-PCC-Large-4x", "x/PCC-Decoder-Llama3-8B")
    theirs, lab = table(tmp_path / "hub", "table2"), table(tmp_path / "lab", "table2")
    assert theirs.comparable
    difference = theirs.cell("PCC-Large 4x", "average.f1").difference
    assert f"63.62 (B, ours {difference:+.1f})" in render.markdown(theirs)
    assert "ours" not in render.markdown(lab).split("\n\n")[1]
    assert any("compare shapes only" in note for note in lab.notes)


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"fingerprint": "bar"}, "data fingerprint"),
        ({"protocol": "official"}, "protocol"),
        ({"population": "all"}, "population"),
        ({"source": "hub"}, "data source"),
    ],
)
def test_a_report_names_the_file_that_differs(tmp_path: Path, change: dict[str, str], what: str) -> None:
    write(tmp_path / "one", "pcc", questions(0.5), 4.0)
    write(tmp_path / "other", "pcc", questions(0.5), 16.0, population={**POPULATION, **change})
    with pytest.raises(
        UsageError, match=f"other/results_.*one/results_.*do not belong in one table: {what} of pcc_squad"
    ):
        report.tables(load([tmp_path / "one", tmp_path / "other"]))


def test_a_table_takes_its_rows_from_one_source(tmp_path: Path) -> None:
    write(tmp_path / "one", "pcc", {"pcc_squad": {"f1": [1.0, 0.0]}}, 4.0, per_context=1)
    hub = {**POPULATION, "source": "hub"}
    write(tmp_path / "other", "pcc", {"pcc_nq": {"f1": [1.0, 0.0]}}, 4.0, per_context=1, population=hub)
    with pytest.raises(UsageError, match="pcc_nq come from hub, those of pcc_squad from lab"):
        report.tables(load([tmp_path]))


def test_samples_of_another_run_are_noticed(tmp_path: Path) -> None:
    path = write(tmp_path, "pcc", {"pcc_squad": {"f1": [1.0, 0.0, 1.0, 1.0]}}, 4.0)
    path.write_text(path.read_text("utf-8").replace('"f1,none": 0.75', '"f1,none": 0.5'), "utf-8")
    with pytest.raises(UsageError, match=r"says f1 of pcc_squad is 0.5, and the samples beside it give 0.75"):
        report.tables(load([tmp_path]))


# ---------------------------------------------------------------- printing


def test_csv_and_markdown_print_the_tables_numbers(rag: Path) -> None:
    made = table(rag, "table2")
    lines = {(line["row"], line["column"]): line for line in csv.DictReader(io.StringIO(render.as_csv(made)))}
    text = render.markdown(made)
    for row, cells in made.lines():
        for column, cell in zip(made.columns, cells, strict=True):
            if cell.value is None:
                continue
            assert float(lines[row.label, column.key]["value"]) == cell.value
            assert float(lines[row.label, column.key]["low"]) == cell.low
            if not column.detail:
                assert f"{cell.value:.1f} [{cell.low:.1f}, {cell.high:.1f}]" in text


def balanced(text: str) -> bool:
    depth = 0
    for i, letter in enumerate(text):
        if letter in "{}" and text[i - 1] != "\\":
            depth += 1 if letter == "{" else -1
        if depth < 0:
            return False
    return depth == 0


def cells_of(line: str) -> int:
    spans = [int(part.split("{")[1].split("}")[0]) - 1 for part in line.split(r"\multicolumn")[1:]]
    return line.replace(r"\&", "").count("&") + 1 + sum(spans)


@pytest.mark.parametrize("key", ["table2", "hyperparameters", "cost"])
def test_latex_has_as_many_cells_in_every_line_and_closes_what_it_opens(rag: Path, key: str) -> None:
    text = render.latex(table(rag, key))
    assert balanced(text)
    for part in text.split(r"\begin{table*}")[1:]:
        columns = part.split(r"\begin{tabular}{")[1].split("}")[0]
        lines = [line for line in part.splitlines() if line.endswith(r"\\")]
        assert {cells_of(line) for line in lines} == {len(columns)}
        names = [sorted(word.split("}")[0] for word in part.split(f"\\{what}{{")[1:]) for what in ("begin", "end")]
        assert sorted([*names[0], "table*"]) == names[1] and "tabular" in names[0]


def test_latex_escapes_what_is_special(tmp_path: Path) -> None:
    made = Table(key="x", title="50 % of_all & #1 {a} ~^\\", columns=(), rows=(), cells=())
    assert r"50 \% of\_all \& \#1 \{a\} \textasciitilde{}\textasciicircum{}\textbackslash{}" in render.latex(made)


def test_a_rate_of_nothing_is_a_dash(rag: Path) -> None:
    line = next(line for line in render.markdown(table(rag, "table2")).splitlines() if "| no context" in line)
    assert line.split("|")[2].strip() == "-"


@pytest.fixture
def half(tmp_path: Path) -> Callable[[str, float], Path]:
    def cut(pattern: str, share: float) -> Path:
        write(tmp_path, "pcc", questions(0.5), 4.0)
        (path,) = tmp_path.glob(pattern)
        text = path.read_text("utf-8")
        path.write_text(text[: int(share * len(text))], "utf-8")
        return tmp_path

    return cut


def test_a_half_written_result_file_is_one_sentence(half: Callable[[str, float], Path]) -> None:
    with pytest.raises(UsageError, match="is not valid JSON"):
        load([half("results_*.json", 0.5)])


def test_a_cut_file_of_samples_is_one_sentence(half: Callable[[str, float], Path]) -> None:
    with pytest.raises(UsageError, match=r"samples_pcc_nq.*, line \d+ is not valid JSON"):
        report.tables(load([half("samples_pcc_nq_*.jsonl", 0.55)]))


REAL = {  # of the suite and of the report
    "full context": "full context",
    "full context, tuned": "tuned context",
    "truncated context 4x": "truncated context 4x",
    "PCC 2x": "PCC pooled 2x",
    "PCC 4x": "PCC pooled 4x",
    "PCC 16x": "PCC pooled 16x",
    "no context": "no context",
}


def test_real_results_are_averaged_over_the_sets_they_share_and_named_by_their_encoder() -> None:
    folder = Path(str(resources.files("pcc_bench"))) / "suites" / "results" / "real-table2"
    table = report.BUILDERS["table2"](load([folder]))
    assert set(REAL.values()) <= {row.label for row in table.rows if row.runs}
    (head,) = [column for column in table.columns if column.key == table.headline]
    assert head.heading == "average of SQuAD and AdversarialQA F1"
    for label in REAL.values():
        parts = [table.cell(label, f"{name}.f1").value for name in ("squad", "adversarialqa")]
        assert table.cell(label, head.key).value == pytest.approx(np.mean(parts))
    tuned, ours = (table.cell(label, head.key) for label in ("tuned context", "PCC pooled 2x"))
    assert tuned.normalised == pytest.approx(100) and not tuned.best and not tuned.tied and ours.best
    assert "PCC pooled 2x reaches" in words.sentences([table])[0]


def test_achieved_compression_is_one_number_in_suites_and_reports() -> None:
    folder = Path(str(resources.files("pcc_bench"))) / "suites" / "results" / "real-table2"
    table = report.BUILDERS["table2"](load([folder]))
    paths = {label: path for path in result_files([folder]) for label in REAL if _in_cell(path, label)}
    assert set(paths) == set(REAL)
    of_suite = {line[0]: line[1] for line in runner.table(list(paths.items())).rows}
    for label, name in REAL.items():
        (row,) = [row for row in table.rows if row.label == name and row.runs]
        assert of_suite[label] == (f"{row.ratio:.2f}x" if row.ratio else "")
        assert f"{name} | {of_suite[label] or '-'} |" in re.sub(" +", " ", render.markdown(table))


def _in_cell(path: Path, label: str) -> bool:
    return path.parents[1].name.rpartition("-")[0] == label.replace(", ", "-").replace(" ", "-")


def test_an_old_file_of_a_pooled_encoder_is_not_called_large(tmp_path: Path) -> None:
    folder = Path(str(resources.files("pcc_bench"))) / "suites" / "results" / "real-table2"
    (path,) = [path for path in result_files([folder]) if "PCC-4x" in str(path)]
    state = json.loads(path.read_text("utf-8"))
    state["config"]["pcc_bench"]["label"] = "PCC-Large"
    (tmp_path / path.name).write_text(json.dumps(state), "utf-8")
    assert family(read_run(tmp_path / path.name)) == "pcc-pooled"


def longest_answer(results: Results) -> Table:
    """A table of another package: one function."""
    runs = [run for run in results.runs if "pcc_squad" in run.tasks]
    lengths = [max(len(answer.answer) for answer in read_answers(run.tasks["pcc_squad"])) for run in runs]
    return Table(
        key="longest",
        title="Longest answer",
        columns=(Column(key="letters", name="letters"),),
        rows=tuple(Row(key=run.id, label=run.id, method=run.method, runs=(run.id,)) for run in runs),
        cells=tuple((Cell(value=float(length)),) for length in lengths),
    )


def test_a_table_from_elsewhere_is_one_function(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("longest", f"{__name__}:longest_answer", report.PLUGIN_GROUP)
    monkeypatch.setattr(report, "entry_points", lambda group: [point] if group == report.PLUGIN_GROUP else [])
    write(tmp_path / "in", "pcc", {"pcc_squad": {"f1": right(0.5, 8, 0)}}, 4.0)
    made = report.write([tmp_path / "in"], tmp_path / "out")
    assert made.tables[-1].key == "longest"
    for suffix in (".md", ".tex", ".csv"):
        assert "letters" in (tmp_path / "out" / "tables" / f"longest{suffix}").read_text("utf-8")
    assert "Longest answer" in (tmp_path / "out" / "index.html").read_text("utf-8")
