"""The start-up hook: lm-eval finds us, the user's own names win, and nothing in it can break lm-eval.

The mechanics run in bare interpreters (`python -S`) on a stand-in for lm-eval of a few lines, which takes milliseconds;
one test runs the real lm-eval in the environment as it is installed.
"""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest

from pcc_bench.core.registry import METHODS

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "pcc_bench" / "host" / "startup.py"

STAND_IN = {
    "lm_eval/__init__.py": "",
    "lm_eval/api/__init__.py": "",
    "lm_eval/api/registry.py": """
class Registry(dict):
    def register(self, name, target):
        if name in self and self[name] != target:
            raise ValueError(name)
        self[name] = target

model_registry = Registry()
""",
    "lm_eval/models/__init__.py": """
from lm_eval.api.registry import model_registry
model_registry.register("hf", target="lm_eval.models.huggingface:HFLM")
""",
    "lm_eval/tasks/__init__.py": "from lm_eval.tasks.manager import TaskManager",
    "lm_eval/tasks/manager.py": """
class TaskManager:
    def __init__(self, verbosity=None, include_path=None, include_defaults=True, metadata=None):
        self.include_path = include_path
        given = include_path if isinstance(include_path, (list, tuple)) else [include_path] if include_path else []
        self.seen = ["defaults"] * include_defaults + [str(path) for path in given]
""",
    "pcc_bench/__init__.py": "",
    "pcc_bench/core/__init__.py": "",
    "pcc_bench/host/__init__.py": "",
    "pcc_bench/core/registry.py": "def names():\n    return ['pcc', 'full-context']\n",
    "pcc_bench/tasks/__init__.py": "raise AssertionError('looking for the folder must not run the package')",
}


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A site-packages folder with the stand-ins and the start-up files."""
    for name, content in STAND_IN.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    sys.path.insert(0, str(ROOT / "build_backend"))
    try:
        import backend
    finally:
        sys.path.pop(0)
    (tmp_path / f"{backend.MODULE}.py").write_bytes(SOURCE.read_bytes())
    (tmp_path / "pcc_bench_startup.pth").write_text(backend.PTH)
    return tmp_path


def run(site: Path, code: str, **environment: str) -> tuple[Any, str]:
    """What `code` leaves in `result`, after an interpreter's start with this site-packages folder; and its stderr."""
    start = f"import json, site, sys\nbefore = set(sys.modules)\nsite.addsitedir({str(site)!r})\n"
    done = subprocess.run(
        [sys.executable, "-S", "-c", f"{start}{code}\nprint(json.dumps(result))"],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        cwd=site,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stderr


MODELS = "import lm_eval.models\nresult = lm_eval.api.registry.model_registry"
TASKS = "from lm_eval.tasks import TaskManager\n"
HF = {"hf": "lm_eval.models.huggingface:HFLM"}
OURS = {"pcc": "pcc_bench.host.models:pcc", "full-context": "pcc_bench.host.models:full_context"}


def test_an_interpreter_that_never_imports_lm_eval_gets_one_small_module(site: Path) -> None:
    assert run(site, "result = sorted(set(sys.modules) - before)") == (["_pcc_bench_startup"], "")


def test_models_are_registered_when_lm_eval_imports_its_own(site: Path) -> None:
    assert run(site, MODELS) == ({**HF, **OURS}, "")


def test_tasks_stand_between_the_defaults_and_the_users(site: Path) -> None:
    folder = str(site / "pcc_bench" / "tasks")
    calls = {
        "TaskManager()": (["defaults", folder], None),
        "TaskManager(include_path='mine')": (["defaults", folder, "mine"], "mine"),
        "TaskManager(None, ['a', 'b'])": (["defaults", folder, "a", "b"], ["a", "b"]),
        "TaskManager(None, 'mine', False)": (["mine"], "mine"),
        "TaskManager(include_defaults=False)": ([], None),
        f"TaskManager(include_path=['a', {folder!r}])": (["defaults", "a", folder], ["a", folder]),
    }
    results, _ = run(site, f"{TASKS}result = [(m.seen, m.include_path) for m in ({', '.join(calls)})]")
    assert [tuple(result) for result in results] == list(calls.values())


def test_a_wrong_call_is_left_to_lm_eval(site: Path) -> None:
    code = f"{TASKS}try:\n    TaskManager(nonsense=1)\nexcept TypeError as error:\n    result = str(error)"
    assert "unexpected keyword argument 'nonsense'" in run(site, code)[0]
    assert run(site, f"{TASKS}result = TaskManager(include_path=1).seen") == (["defaults", "1"], "")


@pytest.mark.parametrize("value", ["1", "yes"])
def test_switched_off(site: Path, value: str) -> None:
    code = f"{MODELS}, [type(f).__name__ for f in sys.meta_path if 'LmEval' in repr(f)]"
    assert run(site, code, PCC_BENCH_NO_HOOK=value) == ([HF, []], "")


def test_install_works_although_switched_off_and_after_the_fact(site: Path) -> None:
    code = """
import lm_eval.models, lm_eval.tasks
import _pcc_bench_startup
_pcc_bench_startup.install()
result = lm_eval.api.registry.model_registry, lm_eval.tasks.TaskManager().seen
"""
    expected = [{**HF, **OURS}, ["defaults", str(site / "pcc_bench" / "tasks")]]
    assert run(site, code, PCC_BENCH_NO_HOOK="1") == (expected, "")


def test_install_again_changes_nothing_not_even_from_another_copy(site: Path) -> None:
    (site / "pcc_bench" / "host" / "startup.py").write_bytes(SOURCE.read_bytes())
    code = f"""
from pcc_bench.host import startup
startup.install()
{MODELS}
{TASKS}
startup.install()
startup.install()
finders = [f for f in sys.meta_path if type(f).__name__ == "LmEvalFinder"]
result = len(finders), result, TaskManager().seen
"""
    assert run(site, code)[0] == [1, {**HF, **OURS}, ["defaults", str(site / "pcc_bench" / "tasks")]]


def test_a_users_model_of_the_same_name_wins_registered_before_or_after(site: Path) -> None:
    register = "from lm_eval.api.registry import model_registry\nmodel_registry.register('pcc', target='mine:Model')\n"
    expected = {**HF, **OURS, "pcc": "mine:Model"}
    assert run(site, register + MODELS) == (expected, "")
    assert run(site, MODELS + "\n" + register) == (expected, "")


@pytest.mark.parametrize(
    "broken",
    [
        {"pcc_bench/core/registry.py": "raise RuntimeError('broken')"},
        {"pcc_bench/core/registry.py": "def names():\n    return 1\n"},
        {"pcc_bench/__init__.py": "raise ImportError('broken')"},
        {"lm_eval/api/registry.py": "class model_registry:\n    def register(*a, **k): pass\n    __len__ = None"},
    ],
)
def test_what_is_broken_is_told_and_lm_eval_goes_on(site: Path, broken: dict[str, str]) -> None:
    for name, content in broken.items():
        (site / name).write_text(content)
    result, told = run(site, "import lm_eval.models, lm_eval.tasks\nresult = 'lm-eval is there'")
    assert result == "lm-eval is there"
    assert "pcc-bench is not available in lm-eval" in told
    assert "Traceback" not in told


def test_a_task_manager_of_another_shape_stays_as_it_is(site: Path) -> None:
    (site / "lm_eval/tasks/manager.py").write_text("class TaskManager:\n    def __init__(self, folders=()): pass\n")
    result, told = run(site, f"{TASKS}TaskManager(folders=['a'])\nresult = 'fine'")
    assert result == "fine"
    assert "pcc-bench is not available in lm-eval" in told


@pytest.mark.parametrize("content", [None, "raise RuntimeError", "syntax error("])
def test_a_missing_or_broken_start_up_module_is_silent(site: Path, content: str | None) -> None:
    module = site / "_pcc_bench_startup.py"
    module.write_text(content) if content else module.unlink()
    assert run(site, MODELS) == (HF, "")


def test_a_failure_of_lm_evals_own_is_its_own(site: Path) -> None:
    (site / "lm_eval/models/__init__.py").write_text("raise RuntimeError('of lm-eval')")
    code = "try:\n    import lm_eval.models\nexcept RuntimeError as error:\n    result = str(error)"
    assert run(site, code) == ("of lm-eval", "")


def test_hooks_of_other_packages_are_asked_and_may_ask_us(site: Path) -> None:
    code = f"""
class Other:
    def find_spec(self, name, path=None, target=None):
        for finder in sys.meta_path:
            if finder is not self and (spec := finder.find_spec(name, path, target)):
                return spec
sys.meta_path.insert(0, Other())
{MODELS}
sys.meta_path.append(sys.meta_path.pop(0))
{TASKS}
result = list(result), len(TaskManager().seen)
"""
    assert run(site, code) == ([["hf", *OURS], 2], "")


def test_real_lm_eval(tmp_path: Path) -> None:
    """The environment as it is: names known, tasks found, the user's task and model win."""
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "squad.yaml").write_text("task: pcc_squad\ndataset_path: mine\n")
    code = f"""
import json, pathlib, sys
from lm_eval.tasks import TaskManager, manager
import lm_eval.models
from lm_eval.api.registry import model_registry
light = not {{"torch", "pcc_bench.host.models", "pcc_bench.tasks"}} & set(sys.modules)
manager.__file__ = {str(tmp_path / "none" / "manager.py")!r}  # lm-eval's own thousands of tasks take seconds to read
ours, theirs = TaskManager(), TaskManager(include_path={str(mine)!r})
paths = [str(m.task_index["pcc_squad"].yaml_path) for m in (ours, theirs)]
known = [name for name in {list(METHODS)!r} if name in model_registry]
model_registry.register("pcc")(dict)
print(json.dumps([light, paths, theirs.include_path, ours.all_tasks, known, model_registry.get("pcc") is dict]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    light, (ours, theirs), include_path, tasks, known, mine_won = json.loads(done.stdout)
    assert light
    assert Path(ours).name == "squad.yaml"
    assert Path(theirs) == mine / "squad.yaml"
    assert include_path == str(mine)
    assert {"pcc_rag", "pcc_squad", "pcc_hotpotqa", "pcc_hotpotqa_gold", "pcc_adversarialqa", "pcc_nq"} <= set(tasks)
    assert known == list(METHODS)
    assert mine_won


def test_the_installed_copy_is_the_current_one() -> None:
    site_packages = sysconfig.get_path("purelib")  # not sys.path: a build leaves metadata in the checkout
    (installed,) = importlib.metadata.distributions(name="pcc-bench", path=[site_packages])
    assert {"_pcc_bench_startup.py", "pcc_bench_startup.pth"} <= {str(file) for file in installed.files or []}
    copy = Path(site_packages, "_pcc_bench_startup.py")
    assert copy.read_bytes() == SOURCE.read_bytes(), "pcc_bench/host/startup.py was changed: pip install again"
