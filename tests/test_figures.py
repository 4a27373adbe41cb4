"""Figures: what they show is the data, nothing overlaps, and the same data gives the same bytes."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable
from functools import cache
from pathlib import Path

import made_results
import matplotlib.figure
import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.text import Text

from pcc_bench.reports.figures import Figure, draw_all, frames, save, style, tradeoffs, training
from pcc_bench.reports.figures.tasks import achieved, classes, heat_map, reconstruction_and_answers
from pcc_bench.reports.table import Table
from pcc_bench.reports.tables import quality
from pcc_bench.results import collection as reading
from pcc_bench.results.collection import Results

METHODS = ("PCC-Lite", "PCC-Large", "ICAE", "COCOM", "AutoCompressor", "LLMLingua-2", "random context")
RNG = np.random.default_rng(0)


def by_rate(values: float = 60.0) -> pd.DataFrame:
    """Seven methods at three rates, with the two level lines."""
    rows = [
        {"method": name, "rate": rate * (1 + 0.02 * place), "value": values - 7 * place - 4 * step}
        for place, name in enumerate(METHODS)
        for step, rate in enumerate((3.88, 14.2, 42.7))
    ]
    rows += [{"method": style.FULL, "value": 70.0}, {"method": style.NONE, "value": 8.0}]
    return pd.DataFrame(rows).assign(low=lambda f: f["value"] - 3, high=lambda f: f["value"] + 3)


def with_cost(cheapest: float, dearest: float) -> pd.DataFrame:
    frame = by_rate()
    costs = np.geomspace(dearest, cheapest, len(frame))
    return frame.assign(cost=costs, label=[f"{rate:.3g}x" if rate == rate else "" for rate in frame["rate"]])


def grid(*names: str) -> pd.DataFrame:
    cells = itertools.product(names, (0.0, 0.25, 0.5, 0.75, 1.0), (256, 512, 1024))
    return pd.DataFrame(
        [(n, d, size, RNG.random()) for n, d, size in cells], columns=["method", "depth", "length", "value"]
    )


def memory_frame() -> pd.DataFrame:
    points = itertools.product(("full context", "PCC 4x", "PCC 16x"), ("measured", "predicted"), range(6))
    rows = [(s, 512 * 2**i, 8, 20 + i**2 * len(s) / 9, how) for s, how, i in points]
    return pd.DataFrame(rows, columns=["series", "tokens", "batch", "gigabytes", "source"])


def curves_frame() -> pd.DataFrame:
    points = itertools.product((4, 16, 64), ("reconstruction\n(nats a token)", "BLEU"), range(0, 1501, 50))
    rows = [(f"PCC-Lite {rate}x", step, measure, 5 * np.exp(-step / rate / 90)) for rate, measure, step in points]
    return pd.DataFrame(rows, columns=["run", "step", "measure", "value"])


def tokens_frame() -> pd.DataFrame:
    rows = []
    for rate, measure in itertools.product((2, 4, 8), ("reconstruction\n(nats a token)", "BLEU")):
        line = training.Trend(tokens := [1e4, 3e4, 1e5, 3e5], values := [4 * rate, 3 * rate, 2.5 * rate, rate])
        rows += [(t, v, np.nan, np.nan, training.MEASURED, 0) for t, v in zip(tokens, values, strict=True)]
        rows += [(t, *line.at(t), part, 4) for t, part in ((1e4, "fit"), (3e5, "fit"), (3e6, training.AHEAD))]
        rows = [row if len(row) == 8 else (f"smollm2 {rate}x", measure, *row) for row in rows]
    return pd.DataFrame(rows, columns=training.COLUMNS)


def compared_frame() -> pd.DataFrame:
    names = ("smollm2-ablation 4x", "smollm2-ablation-memory-tokens 4x", "smollm2-ablation-whole 4x")
    points = itertools.product(("reconstruction\n(nats a token)", "completion\n(nats a token)"), enumerate(names))
    rows = [(name, measure, 3 + i, 2.8 + i, 3.3 + i, 51_200) for measure, (i, name) in points]
    rows += [
        (f"smollm2-ablation-{name} 4x", "answers\n(nats a token)", 3, 2.8, 3.3, 65_344)
        for name in ("squad", "squad-kl")
    ]
    return pd.DataFrame(rows, columns=["run", "measure", "value", "low", "high", "tokens"])


def test_a_panel_names_only_the_runs_that_have_its_measure() -> None:
    *_, answers = training.losses_compared(compared_frame()).axes
    assert [tick.get_text() for tick in answers.get_yticklabels()] == [
        "smollm2-ablation-squad 4x",
        "smollm2-ablation-squad-kl 4x",
    ]


def errors_frame() -> pd.DataFrame:
    points = itertools.product(("PCC-Lite 4x", "PCC-Lite 16x", "ICAE 4x", "COCOM 4x"), frames.ERRORS.values())
    rows = [(name, kind, 10 + i, 8 + i, 12 + i) for i, (name, kind) in enumerate(points)]
    return pd.DataFrame(rows, columns=["method", "kind", "value", "low", "high"])


def contexts_frame() -> pd.DataFrame:
    x = RNG.uniform(0, 1, 200)
    return pd.DataFrame({"method": ["PCC-Lite 4x", "ICAE 4x"] * 100, "reconstruction": x, "answers": x**2})


def ratios_frame() -> pd.DataFrame:
    points = [(rate, n) for rate in (4, 16, 64) for n in RNG.integers(60, 1100, 80)]
    rows = [(f"PCC-Lite {r}x", r, n, n / (-(-n // 256) * (256 // r + 2))) for r, n in points]
    return pd.DataFrame(rows, columns=["run", "requested", "tokens", "ratio"])


SETS = ("SQuAD", "HotpotQA", "AdversarialQA", "NQ")
FIGURES: dict[str, Callable[[], matplotlib.figure.Figure]] = {
    "rates": lambda: tradeoffs.against_rate(by_rate(), "average F1 (%)"),
    "four sets": lambda: tradeoffs.by_set(
        pd.concat([by_rate(60 - 3 * i).assign(set=s) for i, s in enumerate(SETS)]), "F1 (%)"
    ),
    "three sets": lambda: tradeoffs.by_set(pd.concat([by_rate().assign(set=s) for s in SETS[:3]]), "F1 (%)"),
    "Pareto, two decades": lambda: tradeoffs.pareto(
        with_cost(12, 3000), "average F1 (%)", "decoder positions a question"
    ),
    "Pareto, less than one": lambda: tradeoffs.pareto(with_cost(0.11, 0.63), "average F1 (%)", "seconds a question"),
    "memory": lambda: tradeoffs.memory(memory_frame()),
    "training": lambda: training.curves(curves_frame()),
    "training over tokens": lambda: training.curves_over_tokens(tokens_frame()),
    "runs after equal tokens": lambda: training.losses_compared(compared_frame()),
    "needles of one method": lambda: heat_map(grid("PCC-Lite 4x")),
    "needles of five": lambda: heat_map(grid("PCC-Lite 4x", "PCC-Lite 16x", "ICAE 4x", "COCOM 4x", "PISCO 16x")),
    "errors": lambda: classes(errors_frame()),
    "pairs": lambda: reconstruction_and_answers(contexts_frame()),
    "ratios": lambda: achieved(ratios_frame()),
}


SHEETS = {"column": style.COLUMN, "page": style.PAGE}


@cache
def made(name: str, sheet: str = "column") -> matplotlib.figure.Figure:
    with style.drawn_for(SHEETS[sheet]):
        return FIGURES[name]()


def texts(figure: matplotlib.figure.Figure) -> list[Text]:
    """What is drawn: ticks beyond the limits of an axis have labels too, but nobody sees them."""
    beyond = set()
    for panel in figure.axes:
        for axis, limits in ((panel.xaxis, panel.get_xlim()), (panel.yaxis, panel.get_ylim())):
            for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks()):
                if not min(limits) <= tick.get_loc() <= max(limits):
                    beyond |= {tick.label1, tick.label2}
    return [text for text in figure.findobj(Text) if _is_shown(text) and text not in beyond]


def _is_shown(text: Text) -> bool:
    return text.get_visible() and bool(text.get_text().strip()) and (text.axes is None or text.axes.get_visible())


@pytest.mark.parametrize("sheet", SHEETS)
@pytest.mark.parametrize("name", FIGURES)
def test_no_text_covers_another_or_leaves_the_figure(name: str, sheet: str) -> None:
    figure = made(name, sheet)
    with style.drawn_for(SHEETS[sheet]):
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
    shown = [(text.get_text(), text.get_window_extent()) for text in texts(figure)]
    for (one, box), (other, place) in itertools.combinations(shown, 2):
        assert not box.shrunk(0.9, 0.9).overlaps(place.shrunk(0.9, 0.9)), f"{one!r} and {other!r}"
    for text, box in shown:
        assert figure.bbox.x0 - 1 <= box.x0 and box.x1 <= figure.bbox.x1 + 1, text
        assert figure.bbox.y0 - 1 <= box.y0 and box.y1 <= figure.bbox.y1 + 1, text


@pytest.mark.parametrize("sheet", SHEETS)
def test_no_name_stands_on_an_interval(sheet: str) -> None:
    """The figure of the real results: a point close under a line, whose intervals overlap."""
    points = {
        "PCC": [(1.94, 22.0), (3.76, 18.7), (12.6, 13.2)],
        "truncated context, tuned": [(3.83, 16.3)],
        "truncated context": [(2.01, 9.9), (4.04, 9.8), (16.8, 7.0)],
        "no context": [(math.nan, 5.5)],
    }
    rows = [(name, x, y, y - 2.1, y + 2.1) for name, line in points.items() for x, y in line]
    with style.drawn_for(SHEETS[sheet]):
        figure = tradeoffs.against_rate(pd.DataFrame(rows, columns=["method", "rate", "value", "low", "high"]), "F1")
    figure.draw_without_rendering()
    (panel,) = figure.axes
    for name, x, _, low, high in (row for row in rows if row[1] == row[1]):
        (left, bottom), (right, top) = panel.transData.transform([(x, low), (x, high)])
        for text in panel.texts:
            box = text.get_window_extent()
            outside = box.x1 < left or box.x0 > right or box.y1 < bottom or box.y0 > top
            assert outside, f"{text.get_text()!r} on the interval of {name} at {x}"


@pytest.mark.parametrize("sheet", SHEETS)
def test_no_name_stands_on_the_axis(sheet: str) -> None:
    """The real results over positions: two floors close together, low down."""
    rows = [
        ("full context", 172.9, 13.66, 11.99, 15.61),
        ("tuned context", 173.9, 29.28, 26.68, 32.04),
        ("truncated context", 98.8, 9.85, 8.42, 11.59),
        ("PCC pooled", 100.3, 25.12, 22.66, 27.77),
        ("truncated context", 61.7, 9.74, 8.36, 11.44),
        ("PCC pooled", 63.5, 18.70, 16.55, 21.09),
        ("truncated context, tuned", 62.7, 16.31, 14.41, 18.48),
        ("truncated context", 33.9, 6.98, 5.85, 8.45),
        ("PCC pooled", 35.9, 12.19, 10.47, 14.21),
        ("no context", 23.2, 5.46, 4.71, 6.57),
        ("no context, tuned", 24.2, 4.47, 3.84, 5.46),
    ]
    with style.drawn_for(SHEETS[sheet]):
        figure = tradeoffs.pareto(
            pd.DataFrame(rows, columns=["method", "cost", "value", "low", "high"]),
            "average of SQuAD and AdversarialQA F1 (%)",
            "positions",
        )
    figure.draw_without_rendering()
    (panel,) = figure.axes
    for text in panel.texts:
        assert text.get_window_extent().y0 > panel.get_window_extent().y0, text.get_text()


@pytest.mark.parametrize("sheet", SHEETS)
@pytest.mark.parametrize("name", FIGURES)
def test_figures_are_as_wide_as_the_sheet_with_text_of_its_size(name: str, sheet: str) -> None:
    figure = made(name, sheet)
    assert figure.get_size_inches()[0] == SHEETS[sheet].width
    assert min(text.get_fontsize() for text in texts(figure)) >= SHEETS[sheet].text


def test_colours_differ_for_colour_blind_readers_too() -> None:
    # Viénot, Brettel and Mollon (1999): linear RGB as seen without red, and without green, cones.
    blind = {
        "normal": np.eye(3),
        "protanope": np.array([[0.11238, 0.88762, 0], [0.11238, 0.88762, 0], [0.00401, -0.00401, 1]]),
        "deuteranope": np.array([[0.29275, 0.70725, 0], [0.29275, 0.70725, 0], [-0.02234, 0.02234, 1]]),
    }
    for theme, (who, matrix) in itertools.product((0, 1), blind.items()):
        colours = [pair[theme] for pair in (*style.METHODS.values(), style.ENDS[style.FULL])]
        seen = [matrix @ np.array(to_rgb(colour)) ** 2.2 for colour in colours]
        for one, other in itertools.combinations(seen, 2):
            assert np.abs(np.cbrt(one) - np.cbrt(other)).max() > 0.08, who


def test_no_two_methods_share_a_colour_controls_are_grey_and_pcc_is_thickest() -> None:
    names = [*style.METHODS, *style.CONTROLS]
    looks = style.looks([*names, "plug-in", "another", "PCC-Lite 4x (wrong memory)"])
    assert len({look.colour for look in looks.values()}) == len(looks)
    assert len({dark for _, dark in style.THEMES.items()}) == len(style.THEMES)
    for name in (*style.CONTROLS, "PCC-Lite 4x (wrong memory)"):
        assert len(set(to_rgb(looks[name].colour))) == 1, name
    widths = {name: looks[name].width for name in names}
    assert min(widths[name] for name in names if name.startswith("PCC")) > max(
        width for name, width in widths.items() if not name.startswith("PCC")
    )


def test_rates_of_a_method_have_its_colour() -> None:
    looks = style.looks(["PCC-Lite 4x", "PCC-Lite 16x, lab-llama", "ICAE 4x"])
    assert looks["PCC-Lite 4x"].colour == looks["PCC-Lite 16x, lab-llama"].colour == style.METHODS["PCC-Lite"][0]
    assert looks["PCC-Lite 4x"].marker != looks["PCC-Lite 16x, lab-llama"].marker
    assert looks["ICAE 4x"].colour == style.METHODS["ICAE"][0]


def test_no_two_methods_differ_in_colour_alone() -> None:
    looks = style.looks([*METHODS, *(f"method {n}" for n in range(20))]).values()
    for one, other in itertools.combinations(looks, 2):
        assert one.marker != other.marker or one.colour != other.colour
        assert (one.colour, one.hatch) != (other.colour, other.hatch)
    for one, other in itertools.combinations(style.looks(METHODS).values(), 2):
        assert one.marker != other.marker
        assert one.hatch != other.hatch


def test_a_method_looks_the_same_whatever_stands_beside_it() -> None:
    assert style.looks(["ICAE", "new"])["ICAE"] == style.looks(["other", "PCC", "ICAE"])["ICAE"]


def test_the_same_data_gives_the_same_bytes(tmp_path: Path) -> None:
    written = []
    for folder in ("one", "two"):
        figure = save(classes, errors_frame(), "errors", "Errors", "In words", tmp_path / folder)
        ends = (".svg", ".pdf", ".png", ".csv", "-page.svg")
        written.append([figure.file(end).read_bytes() for end in ends])
    assert written[0] == written[1]


def test_the_data_beside_a_figure_is_what_it_shows(tmp_path: Path) -> None:
    figure = save(lambda frame: tradeoffs.against_rate(frame, "F1"), by_rate(), "rates", "Rates", "In words", tmp_path)
    pd.testing.assert_frame_equal(pd.read_csv(figure.file(".csv")), by_rate())


def test_lines_go_through_the_values_of_the_frame() -> None:
    (panel,) = tradeoffs.against_rate(by_rate(), "F1").axes
    drawn = {str(line.get_label()): line for line in panel.get_lines()}
    expected = by_rate().query("method == 'ICAE'")
    assert list(drawn["ICAE"].get_xdata()) == list(expected["rate"])
    assert list(drawn["ICAE"].get_ydata()) == list(expected["value"])
    assert list(drawn[style.FULL].get_ydata()) == [70.0, 70.0]


def test_the_front_is_what_nothing_beats_in_cost_and_score() -> None:
    frame = pd.DataFrame({"cost": [1.0, 2.0, 3.0, 2.0, 4.0], "value": [1.0, 3.0, 2.0, 3.0, 4.0]})
    assert list(tradeoffs.on_front(frame)) == [True, True, False, True, True]


def test_a_heat_map_says_each_cell_in_percent() -> None:
    frame = pd.DataFrame(
        [("PCC", 0.0, 256, 1.0), ("PCC", 1.0, 256, 0.25)], columns=["method", "depth", "length", "value"]
    )
    (panel,) = heat_map(frame).axes
    assert [text.get_text() for text in panel.texts] == ["100", "25"]
    assert panel.yaxis_inverted()  # the beginning is on top


# ---------------------------------------------------------------- from results


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return reading.load([made_results.make(tmp_path_factory.mktemp("results"))])


@pytest.fixture(scope="module")
def tables(measured: Results) -> list[Table]:
    return [quality.table2(measured), quality.pretraining(measured)]


@pytest.fixture(scope="module")
def drawn(measured: Results, tables: list[Table], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Figure]:
    return {figure.key: figure for figure in draw_all(measured, tables, tmp_path_factory.mktemp("figures"))}


def test_everything_that_was_measured_is_drawn(drawn: dict[str, Figure]) -> None:
    assert set(drawn) == {
        *("answers", "answers-positions", "answers-by-set", "reconstruction", "training"),
        "training-tokens",
        *("needle", "errors", "reconstruction-and-answers", "ratios"),
    }
    for figure in drawn.values():
        assert figure.file(".svg").read_text("utf-8").startswith("<?xml")
        assert (figure.file(".pdf").read_bytes()[:5], figure.file(".png").read_bytes()[1:4]) == (b"%PDF-", b"PNG")
        assert figure.alt


def test_nothing_is_drawn_of_nothing(tmp_path: Path) -> None:
    nothing = Results((), (), pd.DataFrame())
    assert draw_all(nothing, [quality.table2(nothing), quality.pretraining(nothing)], tmp_path) == []
    assert not list(tmp_path.iterdir())


def test_answers_over_compression_are_the_samples(drawn: dict[str, Figure], measured: Results) -> None:
    frame = pd.read_csv(drawn["answers-by-set"].file(".csv")).set_index(["set", "method", "requested"])
    samples = measured.samples.query("task == 'pcc_squad'").groupby("run")
    (run,) = [run.id for run in measured.runs if run.rate == 16]
    f1, account = samples["f1"].mean()[run], samples[["source_tokens", "slots", "boundary"]].sum().loc[run]
    row = frame.loc[("SQuAD", "PCC-Lite", 16.0)]
    assert row["value"] == pytest.approx(100 * f1)
    assert row["rate"] == pytest.approx(account["source_tokens"] / (account["slots"] + account["boundary"]))
    assert "PCC-Lite" in drawn["answers"].alt


def test_positions_are_means_over_the_tables_rows(drawn: dict[str, Figure], measured: Results) -> None:
    frame = pd.read_csv(drawn["answers-positions"].file(".csv")).set_index(["method", "label"], drop=False)
    (run,) = [run.id for run in measured.runs if run.rate == 64]
    tasks = [f"pcc_{name}" for name in made_results.SETS]
    rows = measured.samples[(measured.samples["run"] == run) & measured.samples["task"].isin(tasks)]
    assert frame.loc[("PCC-Lite", "64x"), "cost"] == pytest.approx(rows["prompt_positions"].mean())


def test_seconds_of_the_rows_themselves_are_not_drawn(drawn: dict[str, Figure]) -> None:
    assert not [key for key in drawn if "seconds" in key]  # cells run under any load; `pcc-bench cost` has the clock


def test_one_point_is_no_figure(tmp_path: Path) -> None:
    folder = made_results.make(tmp_path / "in", 8, ("full", "none", "lite-4"))
    results = reading.load([folder])
    keys = {figure.key for figure in draw_all(results, [quality.table2(results)], tmp_path / "out")}
    assert not keys & {"answers", "answers-by-set", "reconstruction"}


def test_needles_are_counted_by_depth_and_length(drawn: dict[str, Figure], measured: Results) -> None:
    frame = pd.read_csv(drawn["needle"].file(".csv"))
    (run,) = [run for run in measured.runs if run.rate == 4 and run.method == "pcc"]
    samples = run.tasks["pcc_needle"].samples
    assert samples is not None
    lines = [json.loads(line) for line in samples.read_text("utf-8").splitlines()]
    found = [line["contains"] for line in lines if line["doc"]["depth"] == 0.5 and line["doc"]["length"] == 512]
    cell = frame.query("method == 'PCC-Lite 4x' and depth == 0.5 and length == 512")
    assert (cell["value"].item(), cell["n"].item()) == (pytest.approx(np.mean(found)), len(found))


def test_contexts_are_paired_by_their_text(drawn: dict[str, Figure]) -> None:
    frame = pd.read_csv(drawn["reconstruction-and-answers"].file(".csv"))
    assert set(frame["method"]) == {"PCC-Lite 4x", "PCC-Lite 16x", "PCC-Lite 64x", "ICAE 4x"}
    assert len(frame) == 4 * 12  # 24 questions on 12 contexts, each reconstructed once


def test_the_full_context_is_no_compression(drawn: dict[str, Figure]) -> None:
    assert set(pd.read_csv(drawn["ratios"].file(".csv"))["run"]) == {
        "PCC-Lite 4x",
        "PCC-Lite 16x",
        "PCC-Lite 64x",
        "ICAE 4x",
    }


def test_memory_of_the_device_goes_before_that_of_the_process() -> None:
    point = {"method": "pcc", "rate": 4, "context_tokens": 512, "batch": 8, "mode": "cold", "predicted": False}
    lines = [point | {"peak_device_bytes": bytes, "peak_host_bytes": 9e9} for bytes in (2e9, 3e9)]
    lines.append(point | {"mode": "warm", "peak_device_bytes": 8e9, "peak_host_bytes": 9e9})
    frame = frames.memory(Results((), (), pd.DataFrame(lines)))
    assert frame.to_dict("records") == [
        {"series": "PCC 4x", "tokens": 512, "batch": 8, "gigabytes": 3.0, "source": "measured", "where": "device"}
    ]
