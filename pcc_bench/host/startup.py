"""Makes a plain `lm_eval --model pcc --tasks pcc_rag` find pcc-bench: lm-eval 0.4.13 reads no plug-in entry points.

A start-up file (`pcc_bench_startup.pth`) runs `start` of a copy of this module in every new interpreter of the
environment. That puts a finder in front of `sys.meta_path`, nothing else; when lm-eval's model registry, its task
manager or its command is imported, if ever, ours is added. Nothing of torch, lm-eval or pcc_bench is imported at
start-up, and no failure in here reaches lm-eval. `PCC_BENCH_NO_HOOK=1` switches it off; `pcc-bench` calls `install`.

PYTEST_DONT_REWRITE: pytest rewrites modules of its plug-ins' packages, and would warn that this one is imported.
"""

# No `from __future__ import annotations` and no `typing`: each is one more file to read in every interpreter.
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any

OFF_SWITCH = "PCC_BENCH_NO_HOOK"


def start() -> None:
    """Run by the start-up file: `install`, unless the user has switched the hook off."""
    if os.environ.get(OFF_SWITCH, "") in ("", "0"):
        install()


def install() -> None:
    """Make lm-eval know our models and tasks, whether it is imported already or will be later. May be called again."""
    # The start-up file runs a copy of this module, so a finder of ours is known by the name of its class.
    if not any(type(finder).__name__ == LmEvalFinder.__name__ for finder in sys.meta_path):
        sys.meta_path.insert(0, LmEvalFinder())
    for name in ADDITIONS:
        if name in sys.modules:
            _add(sys.modules[name])


class LmEvalFinder:
    """Lets the other finders find some modules of lm-eval, and adds ours to them once they have run."""

    def __init__(self) -> None:
        self._asking = False

    def find_spec(
        self, name: str, path: "Sequence[str] | None" = None, target: "ModuleType | None" = None
    ) -> "ModuleSpec | None":
        """What the other finders say of a module named in `ADDITIONS`; None, "not mine", for every other one."""
        if name not in ADDITIONS or self._asking:
            return None
        self._asking = True  # another package's hook may ask all finders in turn, us included
        others = (finder for finder in list(sys.meta_path) if finder is not self and hasattr(finder, "find_spec"))
        try:
            spec = next((spec for finder in others if (spec := finder.find_spec(name, path, target))), None)
        finally:
            self._asking = False
        loader: Any = spec and spec.loader
        try:  # to extend this one loader, for one call; it keeps its class, which importlib.resources looks at
            execute = loader.exec_module

            def execute_and_add(module: "ModuleType") -> None:
                del loader.exec_module
                execute(module)
                _add(module)

            loader.exec_module = execute_and_add
        except AttributeError:
            pass  # a loader that cannot be extended: lm-eval goes on without us
        return spec


def _add(module: "ModuleType") -> None:
    try:
        if module.__name__ in ADDITIONS:
            ADDITIONS[module.__name__](module)
    except Exception as error:  # whatever is wrong with us, lm-eval must go on as if we were not installed
        import logging

        logging.getLogger("pcc_bench").warning("pcc-bench is not available in lm-eval: %r", error)


class _LazyModel(str):
    """A lazy "module:class" that gives way to the user's own: lm-eval refuses a name that is taken by what differs."""

    def __ne__(self, other: object) -> bool:
        return False


def _add_models(module: "ModuleType") -> None:  # where lm-eval does not know the name yet
    from lm_eval.api.registry import model_registry

    from pcc_bench.core import registry

    for name in registry.names():
        if name not in model_registry:
            model_registry.register(name, target=_LazyModel("pcc_bench.host.models:" + name.replace("-", "_")))


def _add_tasks(module: "ModuleType") -> None:
    """Let every TaskManager of lm-eval look into our task folder, and mark lm-eval's own tasks as `compress` asks."""
    import functools
    import inspect
    from importlib.util import find_spec  # finds the package without running it
    from pathlib import Path

    manager = module.TaskManager
    original: Callable[..., None] = manager.__init__
    if hasattr(original, "pcc_bench_tasks"):
        return
    signature = inspect.signature(original)
    if not {"include_path", "include_defaults"} <= signature.parameters.keys():
        raise TypeError("TaskManager has no include_path in this release of lm-eval")
    spec = find_spec("pcc_bench.tasks")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("pcc_bench.tasks is not installed")
    folder = str(spec.submodule_search_locations[0])

    @functools.wraps(original)
    def initialise(self: "Any", *args: "Any", **kwargs: "Any") -> None:
        try:
            call = signature.bind(self, *args, **kwargs)
            call.apply_defaults()
            given = call.arguments["include_path"]  # its tasks win over ours: later ones do
            paths = list(given) if isinstance(given, (list, tuple)) else [given] if given else []
            known = any(Path(path).resolve() == Path(folder).resolve() for path in paths)
            if call.arguments["include_defaults"] and not known:
                call.arguments["include_path"] = [folder, *paths]
            # a text `compress` is for lm-eval's own tasks; ours have a table of that name in their YAML
            part, metadata = None, call.arguments.get("metadata")
            if isinstance(metadata, dict) and isinstance(metadata.get("compress"), str):
                part = str(metadata["compress"])
                call.arguments["metadata"] = {key: value for key, value in metadata.items() if key != "compress"}
        except Exception:  # most often a mistake in the call, which lm-eval should tell in its own words
            return original(self, *args, **kwargs)
        original(*call.args, **call.kwargs)
        self.include_path = given
        self.pcc_bench_compress = part
        return None

    initialise.pcc_bench_tasks = folder  # type: ignore[attr-defined]
    manager.__init__ = initialise
    load: Callable[..., Any] | None = getattr(manager, "load", None)
    if load is None:
        return

    @functools.wraps(load)
    def load_and_mark(self: "Any", *args: "Any", **kwargs: "Any") -> "Any":
        loaded = load(self, *args, **kwargs)
        if (part := getattr(self, "pcc_bench_compress", None)) is not None:
            from pcc_bench.tasks.foreign import mark_tasks

            mark_tasks(loaded["tasks"], part)
        return loaded

    manager.load = load_and_mark


def _add_verdict(module: "ModuleType") -> None:
    """Let lm-eval's command end with what our models, if any ran, say of its scores."""
    import functools

    harness = module.HarnessCLI
    original: Callable[..., None] = harness.execute
    if hasattr(original, "pcc_bench_verdict"):
        return

    @functools.wraps(original)
    def execute(self: "Any", *args: "Any", **kwargs: "Any") -> None:
        original(self, *args, **kwargs)
        if "pcc_bench.host.responses" in sys.modules:
            sys.modules["pcc_bench.host.responses"].finish()

    execute.pcc_bench_verdict = True  # type: ignore[attr-defined]
    harness.execute = execute


ADDITIONS: "dict[str, Callable[[ModuleType], None]]" = {
    "lm_eval.models": _add_models,
    "lm_eval.tasks.manager": _add_tasks,
    "lm_eval._cli.harness": _add_verdict,
}
