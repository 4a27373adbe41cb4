"""pcc_bench: context compression for LLMs, and the benchmark around it."""

from pathlib import Path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pcc_bench.api import ContextCompressor, ContextMemory

__version__ = "0.1.0"
__all__ = ["ContextCompressor", "ContextMemory", "__version__"]

# Installed, the sub-packages lie in this folder. In a source checkout they lie beside it, and this folder shadows the
# installed one for whatever runs with the checkout as its working directory (`python -m lm_eval`): let them be found.
if not (_here := Path(__file__).parent).joinpath("model").is_dir():
    __path__.append(str(_here.parent))


def __getattr__(name: str) -> object:
    """The Python API, imported when it is asked for: it needs torch, which `import pcc_bench` does not."""
    if name not in ("ContextCompressor", "ContextMemory"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from pcc_bench import api

    return getattr(api, name)
