"""The report's page: what it says is escaped and complete, and it works in a real browser."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import made_results
import pandas as pd
import pytest

from pcc_bench.core.errors import UsageError
from pcc_bench.reports import page, words
from pcc_bench.reports.figures import Figure, save, style, tradeoffs, training
from pcc_bench.reports.page import embed
from pcc_bench.reports.page_tables import table_view
from pcc_bench.reports.table import Cell, Column, Published, Row, Table
from pcc_bench.reports.tables import losses, quality
from pcc_bench.results import collection as reading
from pcc_bench.results.collection import Results

ROWS = 44  # of each set; four more than the page shows


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return reading.load(
        [made_results.make(tmp_path_factory.mktemp("results"), ROWS, ("full", "none", "lite-4", "icae-4"))]
    )


@pytest.fixture(scope="module")
def tables(measured: Results) -> list[Table]:
    builders = (quality.table2, quality.comparisons, losses.kinds, quality.pretraining)
    return [build(measured) for build in builders]


@pytest.fixture(scope="module")
def figures(tmp_path_factory: pytest.TempPathFactory) -> list[Figure]:
    out = tmp_path_factory.mktemp("figures")
    lines = pd.DataFrame(
        [("a <b>", 0, "loss", 2.0), ("a <b>", 9, "loss", 1.0)], columns=["run", "step", "measure", "value"]
    )
    points = [("PCC-Lite", 4.0, 60.0, 50.0, 70.0), ("PCC-Lite", 16.0, 30.0, 20.0, 40.0),
              ("ICAE", 4.0, 20.0, 15.0, 25.0), ("full context", None, 70.0, 65.0, 75.0),
              ("no context", None, 5.0, 2.0, 8.0)]  # fmt: skip
    frame = pd.DataFrame(points, columns=["method", "rate", "value", "low", "high"])
    return [
        save(training.curves, lines, "training", "Training", 'a <b>: "2.00" at step 0', out),
        save(lambda data: tradeoffs.against_rate(data, "F1"), frame, "answers", "Answers", "PCC: 60.0 at 4x", out),
    ]


@pytest.fixture(scope="module")
def written(
    measured: Results, tables: list[Table], figures: list[Figure], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    return page.write(measured, tables, figures, tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def text(written: Path) -> str:
    return written.read_text("utf-8")


class Elements(HTMLParser):
    """All start tags with their attributes, and the text of the embedded samples."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.data = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.found and self.found[-1][1].get("id") == "data":
            self.data += data

    def attributes(self, key: str) -> dict[str, str | None]:
        return next(attributes for _, attributes in self.found if attributes.get("id") == key)

    def all(self, name: str) -> list[str]:
        return [value for _, attributes in self.found if (value := attributes.get(name)) is not None]


def test_nothing_is_loaded_from_anywhere(text: str) -> None:
    elements = Elements(text)
    assert not {tag for tag, _ in elements.found} & {"link", "img", "iframe", "object", "base"}
    assert not elements.all("src")
    places = [value for name in ("href", "xlink:href") for value in elements.all(name)]
    assert {value[:1] if value.startswith("#") else value[:14] for value in places} == {"#", "data:text/csv;"}
    assert not re.search(r"url\((?!#)|@import", text)
    assert "default-src 'none'" in text


def test_ids_are_unique_and_every_reference_finds_its_element(text: str) -> None:
    elements = Elements(text)
    ids = elements.all("id")
    assert len(ids) == len(set(ids))
    pointers = [*elements.all("aria-labelledby"), *elements.all("data-filter"), *elements.all("data-details")]
    pointers += [value[1:] for value in (*elements.all("href"), *elements.all("xlink:href")) if value.startswith("#")]
    pointers += re.findall(r"url\(#([^)]+)\)", text)
    assert set(pointers) <= set(ids)


def test_every_figure_has_words_and_its_data(text: str, figures: list[Figure]) -> None:
    images = [attributes for tag, attributes in Elements(text).found if tag == "svg"]
    expected = sorted(2 * [f"{figure.title}. {figure.alt}" for figure in figures])  # for a window, and for a phone
    assert sorted(str(image["aria-label"]) for image in images) == expected
    assert all(image["role"] == "img" for image in images)
    assert text.count('download="training.csv"') == 1


def printed(text: str, key: str) -> dict[str, list[str]]:
    """Row's label -> texts of its cells, of a table on the page."""
    part = text[text.index(f'id="table-{key}"') :].partition("</table>")[0]
    rows = re.findall(r'<th scope="row">(?:<i class="dot"></i>)?([^<]+)</th>(.*?)</tr>', part, re.DOTALL)
    return {label: re.findall(r"<td[^>]*><(?:b|span)>([^<]+)", cells) for label, cells in rows}


def test_every_measured_cell_is_on_the_page(text: str, tables: list[Table]) -> None:
    for table in tables:
        lines = printed(text, table.key)
        for row, cells in table.lines():
            ours = [(c, k) for c, k in zip(cells, table.columns, strict=True) if c.value is not None]
            shown = list(lines.get(row.label, ()))
            for cell, column in ours:
                shown.remove(f"{cell.value:.{column.digits}f}")  # ValueError: it is not there, or not so often
            assert bool(ours) or row.label not in lines or not row.runs


def test_the_main_columns_come_first_and_rows_stand_by_rate(tmp_path: Path) -> None:
    folder = made_results.make(tmp_path, ROWS, ("full", "none", "lite-4", "lite-16"))
    view = table_view(quality.table2(reading.load([folder])))
    heads = [(heading.over, heading.name) for heading in view["headings"]]
    assert heads[:5] == [
        *(("average", "EM (%)"), ("average", "F1 (%)"), ("average", "contains (%)")),  # one of them shows at a time
        *(("compression", "achieved"), ("average F1", "normalised")),
    ]
    assert {over for over, _ in heads[5:]} == {"SQuAD", "HotpotQA", "AdversarialQA", "NQ"}
    assert [name for name, _ in view["metrics"]] == ["f1", "exact_match", "contains"]  # the first is shown
    assert [name for name, _ in view["groups"]] == ["Ceiling", "4x requested", "16x requested", "Floor"]


def test_published_values_stand_beside_comparable_runs_only() -> None:
    paper = Published(value=63.62, printed="63.62", certainty="B", source="a summary")
    columns = (Column(key="a", name="EM", unit="%"), Column(key="b", name="F1", unit="%"))
    row = Row(key="r", label="PCC-Large 4x", method="pcc-large", runs=("pcc",))
    table = Table(
        key="t", title="T", columns=columns, rows=(row,), cells=((Cell(value=50.0, paper=paper), Cell(paper=paper)),)
    )
    apart = table_view(table)
    assert (apart["offered"], len(apart["headings"])) == (False, 1)
    assert "63.62" not in repr(apart["groups"])
    beside = table_view(table.model_copy(update={"comparable": True}))
    assert (beside["offered"], beside["opened"], len(beside["headings"])) == (True, False, 2)
    (measured, told) = beside["groups"][0][1][0].cells
    assert (measured.text, measured.published, measured.bar) == ("50.0", False, (50.0,))
    assert measured.beside == "paper 63.62 (B), ours -13.6"
    assert (told.text, told.published, told.bar) == ("63.62", True, ())


def test_published_values_are_hidden_until_they_are_asked_for(tmp_path: Path) -> None:
    paper = Published(value=63.62, printed="63.62", certainty="B", source="a summary")
    table = Table(
        key="t",
        title="T",
        columns=(Column(key="a", name="EM", unit="%"),),
        rows=(Row(key="r", label="PCC-Large 4x", method="pcc-large", runs=("pcc",)),),
        cells=((Cell(value=50.0, paper=paper),),),
        comparable=True,
    )
    text = page.write(Results((), (), pd.DataFrame()), [table], [], tmp_path).read_text("utf-8")
    assert 'data-published="table-t"' in text
    assert '<small class="told theirs">paper 63.62 (B), ours -13.6</small>' in text
    assert "table:not(.with-published) .theirs { display: none; }" in text
    assert "with-published" not in Elements(text).attributes("table-t")["class"]


def test_nothing_is_bold_where_nothing_is_told_apart(measured: Results) -> None:
    table = quality.table2(measured)
    for j, column in enumerate(table.columns):
        cells = [line[j] for row, line in table.lines() if row.role == "method"]
        marked = [cell for cell in cells if cell.best or cell.tied]
        assert not marked or len(marked) < len(cells), column.key


def test_the_overview_is_three_sentences_of_the_numbers(measured: Results) -> None:
    table = quality.table2(measured)
    cell, best = table.cell("PCC-Lite 4x", "average.f1"), table.cell("ICAE 4x", "average.f1")
    first, second, *_ = words.sentences([table])
    assert first.startswith(
        f"PCC-Lite 4x reaches {cell.value:.1f} average F1 at {cell.ratio:.2f}x achieved compression"
    )
    assert f"{cell.normalised:.0f} % of the way from no context" in first
    assert f"At 4x the best other method is ICAE 4x with {best.value:.1f}" in second


def test_texts_of_data_stay_texts(text: str, measured: Results) -> None:
    assert "<script>window.hacked" not in text
    assert text.count("</script>") == 2  # of the samples, and of our own
    data = json.loads(Elements(text).data)
    assert any(context.startswith(made_results.HOSTILE) for context in data["contexts"])


def test_names_are_escaped_wherever_they_stand(measured: Results, tmp_path: Path) -> None:
    name = "<img src=x onerror=alert(1)>"
    column = Column(key="squad.f1", group=name, name=name, unit="%", source=name)
    paper = Published(value=1.0, printed=name, certainty="B", source=name)
    row = Row(key="r", label=name, method=name)
    table = Table(key="t", title=name, columns=(column,), rows=(row,), cells=((Cell(paper=paper),),), notes=(name,))
    runs = tuple(replace(run, checkpoint=name, decoder=name, place=name) for run in measured.runs)
    path = page.write(replace(measured, runs=runs, notes=(name,)), [table], [], tmp_path)
    assert "img" not in {tag for tag, _ in Elements(path.read_text("utf-8")).found}
    assert path.read_text("utf-8").count("&lt;img") >= 6


def test_rows_that_are_left_out_are_counted(text: str, measured: Results) -> None:
    assert f"40 of {ROWS} rows of pcc_squad" in text
    few, words = embed(measured, rows=3)
    assert f"3 of {ROWS} rows of pcc_nq" in words
    assert [len(task["rows"]) for task in few["tasks"]] == [3] * len(few["tasks"])


def test_long_contexts_take_the_place_of_rows(measured: Results) -> None:
    small, words = embed(measured, characters=6000)
    assert sum(map(len, small["contexts"])) <= 6000
    assert all(len(task["rows"]) < 40 for task in small["tasks"])
    for task in small["tasks"]:
        assert re.search(rf"\b{len(task['rows'])} of \d+ rows of {task['name']}\b", words)


def test_a_sample_has_every_methods_answer_with_its_scores(measured: Results) -> None:
    told, _ = embed(measured, rows=2)
    (squad,) = [task for task in told["tasks"] if task["name"] == "pcc_squad"]
    row = squad["rows"][1]
    assert told["contexts"][row["context"]] == made_results.context(0)
    assert [told["runs"][answer["run"]] for answer in row["answers"]] == [
        *("full context", "no context", "ICAE 4x", "PCC-Lite 4x")
    ]
    (answer,) = [answer for answer in row["answers"] if told["runs"][answer["run"]] == "PCC-Lite 4x"]
    sample = measured.frame(next(run for run in measured.runs if run.method == "pcc"), "pcc_squad").iloc[1]
    assert answer["scores"]["f1"] == sample["f1"]
    assert answer["memory"].startswith(f"{sample['source_tokens']:.0f} tokens to ")


def test_rows_of_other_data_are_kept_apart(measured: Results) -> None:
    first, *others = measured.runs
    task = first.tasks["pcc_squad"]
    moved = replace(task, population=task.population.model_copy(update={"fingerprint": "beef"}))
    changed = replace(measured, runs=(replace(first, tasks={"pcc_squad": moved}), *others))
    names = [task["name"] for task in embed(changed, rows=1)[0]["tasks"]]
    assert {"pcc_squad (rows beef)", "pcc_squad (rows f00d)"} <= set(names)


def test_published_numbers_alone_make_a_page(tmp_path: Path) -> None:
    nothing = Results((), (), pd.DataFrame())
    written = page.write(nothing, [quality.table2(nothing)], [], tmp_path / "new" / "folder").read_text("utf-8")
    assert "63.62" in written and "published numbers only" in written
    assert "with-published" in str(Elements(written).attributes("table-table2")["class"])  # they are all there is
    assert 'id="samples"' not in written and 'id="runs"' not in written


def test_a_folder_that_can_not_be_written_is_one_sentence(measured: Results, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", "utf-8")
    with pytest.raises(UsageError, match="can't be written"):
        page.write(replace(measured, runs=()), [], [], tmp_path / "file")


def test_the_same_results_make_the_same_page(measured: Results, tables: list[Table], tmp_path: Path, text: str) -> None:
    assert (
        page.write(measured, tables, [], tmp_path / "a").read_bytes()
        == page.write(measured, tables, [], tmp_path / "b").read_bytes()
    )


# ---------------------------------------------------------------- in a browser

FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync")
QUIET = ("--disable-background-networking", "--disable-component-update")
SIZES = {"phone": (420, 900), "desktop": (1400, 1000)}
SLOW = 120_000  # milliseconds: machines of continuous integration have other work


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """A headless Chromium that is already on the machine, with a new profile."""
    driver = pytest.importorskip("playwright.sync_api", reason="the page is not tried: playwright is not installed")
    names = ("chromium", "chromium-browser", "google-chrome")
    program = next(filter(None, map(shutil.which, names)), None)
    if program is None:
        pytest.skip("the page is not tried: there is no Chromium on this machine")
    with driver.sync_playwright() as play, tempfile.TemporaryDirectory() as profile:
        browser = play.chromium.launch_persistent_context(profile, executable_path=program, args=[*FLAGS, *QUIET])
        yield browser
        browser.close()


@pytest.fixture(params=[(size, scheme) for size in SIZES for scheme in ("light", "dark")], ids="-".join)
def opened(request: pytest.FixtureRequest, chromium: Any, written: Path) -> Iterator[Any]:
    """The page at one size and colour scheme; anything on the console, and any request, fails the test."""
    size, scheme = request.param
    shown = chromium.new_page()
    shown.set_default_timeout(SLOW)
    said: list[str] = []
    shown.on("console", lambda message: said.append(message.text))
    shown.on("pageerror", lambda error: said.append(str(error)))
    shown.on("request", lambda asked: None if asked.url.startswith("file:") else said.append(asked.url))
    shown.set_viewport_size(dict(zip(("width", "height"), SIZES[size], strict=True)))
    shown.emulate_media(color_scheme=scheme)
    shown.goto(written.as_uri())
    yield shown
    shown.close()
    assert said == []


def column(shown: Any, table: str, number: int) -> list[float]:
    cells = shown.locator(f"#{table} tbody tr:not(.group)").evaluate_all(
        f"rows => rows.map(row => row.cells[{number}].dataset.sort)"
    )
    return [float(cell) for cell in cells if cell is not None]


# Boxes of all texts that are shown in figures; matplotlib draws each as a group named text_N of shapes.
BOXES = """() => [...document.querySelectorAll("svg")].filter((svg) => svg.checkVisibility()).map((svg) => {
  const edge = svg.getBoundingClientRect();
  return [[edge.x, edge.y, edge.right, edge.bottom], [...svg.querySelectorAll("g[id*=text_]")].map((group) => {
    const box = group.getBoundingClientRect();
    return [box.x, box.y, box.right, box.bottom];
  }).filter((box) => box[2] > box[0])];
})"""
# Elements whose text is wider than the element, where it is not one that scrolls.
CUT = """() => [...document.querySelectorAll("h1,h2,h3,h4,p,li,th,td,label,button,summary,figcaption,small,dt,dd,a")]
  .filter((one) => one.checkVisibility() && !one.closest(".skip"))
  .filter((one) => one.scrollWidth > one.clientWidth + 1 && getComputedStyle(one).display !== "inline")
  .map((one) => `${one.tagName} ${one.textContent.slice(0, 60)}`)"""


def test_the_page_fits(opened: Any) -> None:
    width = opened.viewport_size["width"]
    assert opened.evaluate("document.documentElement.scrollWidth") <= width  # wide tables scroll by themselves
    assert opened.evaluate("window.hacked") is None
    assert opened.evaluate(CUT) == []
    for card in opened.locator("main .card").all():  # as wide as the page: nothing stands beside an empty hole
        assert card.bounding_box()["width"] >= 0.9 * min(width, 1280) - 48


def test_no_label_of_a_figure_is_cut_or_covers_another(opened: Any) -> None:
    figures = opened.evaluate(BOXES)
    assert len(figures) == 2
    for edge, boxes in figures:
        assert len(boxes) > 5
        for box in boxes:
            assert edge[0] - 1 <= box[0] and box[2] <= edge[2] + 1 and edge[1] - 1 <= box[1] and box[3] <= edge[3] + 1
        for i, (left, top, right, bottom) in enumerate(boxes):
            for other in boxes[i + 1 :]:
                apart = right <= other[0] + 1 or other[2] <= left + 1 or bottom <= other[1] + 1 or other[3] <= top + 1
                assert apart, (boxes[i], other)


def test_the_page_is_legible(opened: Any) -> None:
    for selector in ("body", "p.soft", "nav a", ".card h3", "thead th .over", "td", "summary", "#rows button", "mark"):
        assert contrast(opened, selector) >= 4.5, selector
    paper = _colour(opened, "--card")
    assert _ratio(_colour(opened, "--figure-ink"), paper) >= 7  # text in figures
    for light in style.THEMES:
        assert _ratio(_colour(opened, f"--series-{light[1:]}"), paper) >= 4.5, light  # names on lines


def test_the_first_column_stays_when_a_table_scrolls(opened: Any) -> None:
    region = opened.locator(".scroll:has(#table-table2)")
    before = opened.locator("#table-table2 tbody tr:not(.group) th").first.bounding_box()["x"]
    opened.locator("[data-details=table-table2]").check()
    region.evaluate("region => { region.style.width = '300px'; region.scrollLeft = 200; }")
    assert region.evaluate("region => region.scrollLeft") > 100
    assert opened.locator("#table-table2 tbody tr:not(.group) th").first.bounding_box()["x"] == pytest.approx(
        before, abs=2
    )


def test_tables_sort_and_filter(opened: Any) -> None:
    labels = opened.locator("#table-table2 tbody tr:not(.group) th").all_inner_texts()
    number = opened.locator("#table-table2 th[aria-sort]:visible").nth(1).evaluate("head => head.cellIndex")
    head = opened.locator("#table-table2 th[aria-sort]").nth(number)
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "descending"
    assert column(opened, "table-table2", number) == sorted(column(opened, "table-table2", number), reverse=True)
    head.locator("button").focus()
    opened.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "ascending"
    assert column(opened, "table-table2", number) == sorted(column(opened, "table-table2", number))
    opened.keyboard.press("Enter")  # the third time rows stand as they did
    assert head.get_attribute("aria-sort") == "none"
    assert opened.locator("#table-table2 tbody tr:not(.group) th").all_inner_texts() == labels
    opened.locator("[data-filter=table-table2]").fill("pcc-lite 4X")
    visible = opened.locator("#table-table2 tbody tr:visible th")
    assert visible.all_inner_texts() == ["PCC-Lite 4x"]
    assert opened.locator("[data-count=table-table2]").inner_text().startswith("1 of ")
    assert not opened.locator("#table-table2 small.detail:visible").count()
    opened.locator("[data-details=table-table2]").check()
    assert opened.locator("#table-table2 small.detail:visible").count()


def test_one_score_is_shown_at_a_time(opened: Any) -> None:
    heads = opened.locator("#table-table2 thead th:visible")
    assert "F1 (%)" in heads.nth(1).inner_text()
    assert not any("EM" in text for text in heads.all_inner_texts())
    opened.locator(".switch label", has_text="EM").click()
    assert "EM (%)" in heads.nth(1).inner_text()
    assert not any("F1 (%)" in text for text in heads.all_inner_texts())


def test_samples_are_picked_searched_and_compared(opened: Any) -> None:
    opened.locator("#task").select_option("pcc_hotpotqa")
    assert opened.locator("#which").input_value() == "answers"  # it opens on rows whose answers differ
    assert 0 < opened.locator("#rows button").count() < 40
    opened.locator("#which").select_option("all")
    assert opened.locator("#rows button").count() == 40
    assert "pcc_hotpotqa, row 0" in opened.locator("#sample h3").inner_text()
    assert made_results.HOSTILE[:40] in opened.locator("#sample .context").inner_text()
    assert opened.locator("#sample mark").all_inner_texts() == ["town 0"]  # the reference
    assert opened.locator("#answers tbody tr").count() == 4
    opened.locator("#search").fill("person 12 ")
    assert opened.locator("#rows button").count() == 2
    assert opened.locator("#matching").inner_text() == "2 of 40 rows on this page"
    opened.locator("#search").fill("nothing has this")
    assert opened.locator("#sample").inner_text() == "No row fits."
    opened.locator("#search").fill("")
    opened.locator("#which").select_option("scores")
    assert 0 < opened.locator("#rows button").count() <= 40
    scores = opened.locator("#answers tbody tr td:nth-child(3)").all_inner_texts()
    assert len(set(scores)) > 1


def test_samples_are_walked_with_the_keyboard(opened: Any) -> None:
    opened.locator("#which").select_option("all")
    opened.locator("#next").focus()
    opened.keyboard.press("Enter")
    assert "row 1" in opened.locator("#sample h3").inner_text()
    opened.locator("#rows button").nth(1).focus()
    opened.keyboard.press("ArrowDown")
    assert "row 2" in opened.locator("#sample h3").inner_text()
    assert opened.locator("#rows button[aria-current=true]").inner_text().startswith("2:")
    assert opened.evaluate("document.activeElement.getAttribute('aria-current')") == "true"
    assert opened.locator("#next").is_enabled() and opened.locator("#previous").is_enabled()


def test_the_first_tab_skips_to_the_content_and_everything_has_a_name(opened: Any) -> None:
    opened.keyboard.press("Tab")
    assert opened.evaluate("document.activeElement.textContent") == "Skip to the content"
    nameless = """[...document.querySelectorAll("input, select, button")].filter(
        (one) => !(one.labels?.length || one.textContent.trim() || one.ariaLabel)).length"""
    assert opened.evaluate(nameless) == 0


def test_print_leaves_the_controls_out(opened: Any) -> None:
    opened.emulate_media(media="print")
    assert not opened.locator("nav").is_visible()
    assert not opened.locator("#rows").is_visible()
    assert opened.locator("#table-table2").is_visible()
    assert _colour(opened, "--paper") == (255, 255, 255)  # whatever the screen's scheme


def contrast(shown: Any, selector: str) -> float:
    """WCAG's contrast of the first such element's text with what is behind it."""
    found = """(element) => {
      let behind = element;
      while (getComputedStyle(behind).backgroundColor === "rgba(0, 0, 0, 0)") behind = behind.parentElement;
      return [getComputedStyle(element).color, getComputedStyle(behind).backgroundColor];
    }"""
    ink, paper = shown.locator(selector).first.evaluate(found)
    return _ratio(_numbers(ink), _numbers(paper))


def _numbers(colour: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", colour)[:3]))


def _colour(shown: Any, variable: str) -> tuple[int, ...]:
    value = shown.evaluate(f"getComputedStyle(document.documentElement).getPropertyValue('{variable}').trim()")
    return tuple(int(value[i : i + 2], 16) for i in (1, 3, 5))


def _ratio(one: tuple[int, ...], other: tuple[int, ...]) -> float:
    light, dark = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _luminance(colour: tuple[int, ...]) -> float:
    parts = [part / 255 / 12.92 if part <= 10 else ((part / 255 + 0.055) / 1.055) ** 2.4 for part in colour]
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]
