"""pcc_bench: context compression for LLMs, and the benchmark around it."""

from pathlib import Path

__version__ = "0.1.0"

# Installed, the sub-packages lie in this folder. In a source checkout they lie beside it, and this folder shadows the
# installed one for whatever runs with the checkout as its working directory (`python -m lm_eval`): let them be found.
if not (_here := Path(__file__).parent).joinpath("model").is_dir():
    __path__.append(str(_here.parent))
