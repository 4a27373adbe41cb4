"""Results as gate, baseline, report and costs read them; rows of data; what a user writes on the command line."""

from __future__ import annotations

import shutil
from contextlib import redirect_stdout, suppress
from io import StringIO
from pathlib import Path

from kinds import LAB, Kind, SilentPassError
from lm_eval.tasks import TaskManager
from mutations import change_json, change_lines, change_packed, change_words

import pcc_bench.tasks
from pcc_bench import cli
from pcc_bench.core.documents import COMPRESSED
from pcc_bench.core.errors import UsageError
from pcc_bench.core.processors import typed
from pcc_bench.cost.sweeps import PREDICTED
from pcc_bench.gate.compare import compare
from pcc_bench.gate.policy import Policy
from pcc_bench.host.arguments import parse_arguments
from pcc_bench.host.settings import check_settings
from pcc_bench.host.validate import validate
from pcc_bench.reports import report
from pcc_bench.results import collection
from pcc_bench.results.frozen import SUFFIX, freeze
from pcc_bench.results.frozen import load as load_results
from pcc_bench.tasks.rows import real_folder

OPTIONS = {
    "model_args": "pretrained={root}/pcc,rate=4,dtype=float32,max_length=512,memory_gb=1,reuse_prefix=True",
    "metadata": "data=lab,lab_rows=20,protocol=strict,population=all,prompt=short",
    "gen_kwargs": "max_gen_toks=4,do_sample=True,temperature=0.5,top_p=0.9,repetition_penalty=1.2,until=x",
}


def kinds_of_results(root: Path) -> list[Kind]:
    """A file of results, its samples, a frozen baseline, records of cost."""
    folder, baseline, reported = root / "results", root / f"baseline{SUFFIX}", root / "report"
    shutil.copytree(next((LAB / "results" / "lab-table2").glob("PCC-4x*/*/results_*.json")).parent, folder)
    for shared in (LAB / "results" / "lab-table2").glob("questions_*"):
        shutil.copy(shared, folder)
    baseline.write_bytes(freeze(load_results(folder)))
    (file,), questions, samples = (
        folder.glob("results_*.json"),
        min(folder.glob("questions_*")),
        min(folder.glob("samples_*")),
    )
    whole = len(_lines(samples))

    def read() -> None:
        candidate = load_results(folder)
        compare(candidate, load_results(baseline), Policy())
        if whole < len(lines := _lines(samples)) > len(set(lines)):
            raise SilentPassError("a row twice")

    costs = root / "costs"
    predict = ("cost", "--predict", "--random-weights", "tiny", "--context", "64", "--device-peak", "1")
    with redirect_stdout(StringIO()), suppress(SystemExit):
        cli.main([*predict, "--bandwidth", "1", "-o", str(costs)])
    return [
        Kind("results", file, change_json, read),
        Kind("results: report", file, change_json, lambda: report.write([folder], reported), share=0.1),
        Kind("samples", samples, change_lines, read),
        Kind("questions", questions, change_lines, read),
        Kind("samples: report", samples, change_lines, lambda: report.write([folder], reported), share=0.1),
        Kind("baseline", baseline, change_packed, read),
        Kind("costs", costs / PREDICTED, change_lines, lambda: report.tables(collection.load([costs]))),
    ]


def _lines(path: Path) -> list[str]:
    with COMPRESSED.get(path.suffix, open)(path, "rt", encoding="utf-8") as file:
        return list(file)


def kinds_of_settings(root: Path) -> list[Kind]:
    """Rows of data and option strings."""
    rows, texts = root / "data/squad/validation.jsonl", root / "words"
    rows.parent.mkdir(parents=True)
    texts.mkdir()
    rows.write_bytes((real_folder() / "squad/validation.jsonl").read_bytes())
    for name, text in OPTIONS.items():
        (texts / name).write_text(text.format(root=root), "utf-8")

    def words(name: str) -> str:
        return (texts / name).read_text("utf-8", errors="surrogatepass")

    def load(metadata: object) -> None:
        tasks = pcc_bench.tasks.__path__[0]
        TaskManager(include_path=tasks, include_defaults=False, metadata=metadata).load(["pcc_squad"])

    def read_metadata() -> None:
        settings = parse_arguments(words("metadata"), "metadata")
        check_settings(settings)
        load(settings)

    def read_arguments() -> None:
        checks = validate("pcc", words("model_args"), "")
        if not checks.holds:
            raise UsageError(next(check.says for check in checks.checks if not check.holds))

    readers = {
        "model_args": read_arguments,
        "metadata": read_metadata,
        "gen_kwargs": lambda: typed(parse_arguments(words("gen_kwargs")), "gen_kwargs"),
    }
    data = {"data": str(root / "data"), "population": "all"}
    return [
        Kind("data rows", rows, change_lines, lambda: load(data)),
        *(Kind(f"option string: {name}", texts / name, change_words, read) for name, read in readers.items()),
    ]
