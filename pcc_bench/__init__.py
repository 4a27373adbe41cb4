"""pcc_bench: context compression for LLMs, and the benchmark around it."""

import sys
from importlib.machinery import PathFinder
from pathlib import Path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec

    from pcc_bench.host.api import ContextCompressor
    from pcc_bench.host.compressing import ContextMemory

__version__ = "0.1.0"
__all__ = ["ContextCompressor", "ContextMemory", "__version__"]

PACKAGE = Path(__file__).parent
FOLDERS = ("baselines", "model", "reports", "tasks")  # top-level folders of the repository, packages below this one
HOME = PACKAGE if (PACKAGE / "model").is_dir() else PACKAGE.parent  # where they lie: in here once installed


class Checkout:
    """Finds `FOLDERS` beside a checkout's package that shadows the installed one, as `python -m lm_eval` in it does."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> "ModuleSpec | None":
        package, _, folder = name.rpartition(".")
        return PathFinder.find_spec(name, [str(HOME)]) if package == __name__ and folder in FOLDERS else None


if HOME != PACKAGE:
    sys.meta_path.insert(0, Checkout)  # before the finder of an editable installation of another checkout


def __getattr__(name: str) -> object:
    """The Python API, imported when it is asked for: it needs torch, which `import pcc_bench` does not."""
    if name not in ("ContextCompressor", "ContextMemory"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from pcc_bench.host import api  # registers transformers' pipeline

    return getattr(api, name)
