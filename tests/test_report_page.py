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
from pcc_bench.reports import page
from pcc_bench.reports.browser import embed
from pcc_bench.reports.figures import Figure, rates, training
from pcc_bench.reports.figures.files import save
from pcc_bench.reports.table import Cell, Column, Published, Row, Table
from pcc_bench.reports.tables import pretraining, rag
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
    return [rag.table2(measured), pretraining.pretraining(measured)]


@pytest.fixture(scope="module")
def figures(tmp_path_factory: pytest.TempPathFactory) -> list[Figure]:
    out = tmp_path_factory.mktemp("figures")
    lines = pd.DataFrame(
        [("a <b>", 0, "loss", 2.0), ("a <b>", 9, "loss", 1.0)], columns=["run", "step", "measure", "value"]
    )
    points = pd.DataFrame([("PCC", 4.0, 60.0, 50.0, 70.0)], columns=["method", "rate", "value", "low", "high"])
    return [
        save(training.curves(lines), lines, "training", "Training", 'a <b>: "2.00" at step 0', out),
        save(rates.against_rate(points, "F1"), points, "answers", "Answers", "PCC: 60.0 at 4x", out),
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
    assert [image["aria-label"] for image in images] == [f"{figure.title}. {figure.alt}" for figure in figures]
    assert all(image["role"] == "img" for image in images)
    assert text.count('download="training.csv"') == 1


def test_every_measured_cell_is_on_the_page(text: str, tables: list[Table]) -> None:
    for table in tables:
        part = text[text.index(f'id="table-{table.key}"') :]
        for row, cells in table.lines():
            line = part[part.index(f'<th scope="row">{row.label}</th>') :].partition("</tr>")[0]
            shown = re.findall(r"<td[^>]*>(?:<b>)?([^<]+)", line)
            expected = [page.cell_view(c, column, table).text for c, column in zip(cells, table.columns, strict=True)]
            assert shown == expected


def test_published_values_do_not_look_measured(tmp_path: Path) -> None:
    paper = Published(value=63.62, printed="63.62", certainty="B", source="a summary")
    columns = (Column(key="a", name="EM", unit="%"), Column(key="b", name="F1", unit="%"))
    row = Row(key="r", label="PCC-Large 4x", method="pcc-large", runs=("pcc",))
    table = Table(
        key="t", title="T", columns=columns, rows=(row,), cells=((Cell(value=50.0, paper=paper), Cell(paper=paper)),)
    )
    text = page.write(Results((), (), pd.DataFrame()), [table], [], tmp_path).read_text("utf-8")
    measured, told = re.findall(r"<td[^>]*>[^<]+", text)
    assert measured == '<td data-sort="50.0">50.0'
    assert told == '<td class="told" data-sort="63.62">63.62'


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
    assert path.read_text("utf-8").count("&lt;img") >= 10


def test_rows_that_are_left_out_are_counted(text: str, measured: Results) -> None:
    assert f"40 of {ROWS} rows of pcc_squad" in text
    few = embed(measured, rows=3)
    assert f"3 of {ROWS} rows of pcc_nq" in few.told
    assert [len(task["rows"]) for task in few.data["tasks"]] == [3] * len(few.tasks)


def test_long_contexts_take_the_place_of_rows(measured: Results) -> None:
    small = embed(measured, characters=6000)
    assert sum(map(len, small.data["contexts"])) <= 6000
    assert all(task.shown < 40 for task in small.tasks)
    assert [task.shown for task in small.tasks] == [len(task["rows"]) for task in small.data["tasks"]]


def test_a_sample_has_every_methods_answer_with_its_scores(measured: Results) -> None:
    told = embed(measured, rows=2)
    (squad,) = [task for task in told.data["tasks"] if task["name"] == "pcc_squad"]
    row = squad["rows"][1]
    assert told.data["contexts"][row["context"]] == made_results.context(0)
    assert [told.data["runs"][answer["run"]] for answer in row["answers"]] == [
        *("full context", "no context", "ICAE 4x", "PCC-Lite 4x")
    ]
    (answer,) = [answer for answer in row["answers"] if told.data["runs"][answer["run"]] == "PCC-Lite 4x"]
    sample = measured.frame(next(run for run in measured.runs if run.method == "pcc"), "pcc_squad").iloc[1]
    assert answer["scores"]["f1"] == sample["f1"]
    assert answer["memory"].startswith(f"{sample['source_tokens']:.0f} tokens to ")


def test_rows_of_other_data_are_kept_apart(measured: Results) -> None:
    first, *others = measured.runs
    task = first.tasks["pcc_squad"]
    moved = replace(task, population=task.population.model_copy(update={"fingerprint": "beef"}))
    changed = replace(measured, runs=(replace(first, tasks={"pcc_squad": moved}), *others))
    names = [task.name for task in embed(changed, rows=1).tasks]
    assert {"pcc_squad (rows beef)", "pcc_squad (rows f00d)"} <= set(names)


def test_published_numbers_alone_make_a_page(tmp_path: Path) -> None:
    nothing = Results((), (), pd.DataFrame())
    written = page.write(nothing, [rag.table2(nothing)], [], tmp_path / "new" / "folder").read_text("utf-8")
    assert "63.62" in written and "published numbers only" in written
    assert 'id="samples"' not in written and 'id="methods"' not in written


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
SIZES = {"phone": (390, 844), "desktop": (1280, 900)}


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
    cells = shown.locator(f"#{table} tbody tr").evaluate_all(
        f"rows => rows.map(row => row.cells[{number}].dataset.sort)"
    )
    return [float(cell) for cell in cells if cell is not None]


def test_the_page_fits_and_is_legible(opened: Any) -> None:
    width = opened.viewport_size["width"]
    assert opened.evaluate("document.documentElement.scrollWidth") <= width  # wide tables scroll by themselves
    assert opened.evaluate("window.hacked") is None
    for selector in ("body", "p.soft", "nav a", "td small", ".card dt", "figcaption", "#rows button"):
        assert contrast(opened, selector) >= 4.5, selector
    ink, paper = (_colour(opened, variable) for variable in ("--figure-ink", "--paper"))
    assert _ratio(ink, paper) >= 7  # text in figures


def test_tables_sort_and_filter(opened: Any) -> None:
    head = opened.locator("#table-table2 th[aria-sort]").nth(2)
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "descending"
    assert column(opened, "table-table2", 2) == sorted(column(opened, "table-table2", 2), reverse=True)
    head.locator("button").focus()
    opened.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "ascending"
    assert column(opened, "table-table2", 2) == sorted(column(opened, "table-table2", 2))
    assert opened.locator("#table-table2 th[aria-sort=none]").count() > 1
    last = opened.locator("#table-table2 tbody tr").last
    assert last.locator("td").nth(1).inner_text() == page.DASH  # unknown stays last
    opened.locator("[data-filter=table-table2]").fill("pcc-lite 4X")
    visible = opened.locator("#table-table2 tbody tr:visible th")
    assert visible.all_inner_texts() == ["PCC-Lite 4x"]
    assert opened.locator("[data-count=table-table2]").inner_text().startswith("1 of ")
    assert not opened.locator("#table-table2 small.detail:visible").count()
    opened.locator("[data-details=table-table2]").check()
    assert opened.locator("#table-table2 small.detail:visible").count()


def test_samples_are_picked_searched_and_compared(opened: Any) -> None:
    opened.locator("#task").select_option("pcc_hotpotqa")
    assert opened.locator("#rows button").count() == 40
    assert "pcc_hotpotqa, row 0" in opened.locator("#sample h3").inner_text()
    assert made_results.HOSTILE[:40] in opened.locator("#sample mark").inner_text()
    assert opened.locator("#sample mark em").all_inner_texts() == ["town 0"]  # the reference
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
