"""What the lab's models can do: answering on its four question sets, and reconstructing what was compressed."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import sacrebleu
import scipy.stats
import torch

from pcc_bench import stats, tasks
from pcc_bench.core.decoder import Decoder
from pcc_bench.core.documents import Strict
from pcc_bench.core.generation import generate
from pcc_bench.core.shipped import PRETRAINED
from pcc_bench.host import startup
from pcc_bench.lab import ClassifierRecipe, DecoderRecipe, RivalRecipe, part
from pcc_bench.model import checkpoint, init
from pcc_bench.model.config import PccConfig
from pcc_bench.model.pcc import PCC
from pcc_bench.model.training.objectives import Task, behind, memory_plans, token_nll
from pcc_bench.tasks.lab import rows

QUESTION_SETS = ("pcc_squad", "pcc_hotpotqa", "pcc_adversarialqa", "pcc_nq")
ROWS, DOCUMENTS = 200, 60  # of each question set; of text for reconstruction
TRACKED = 400  # rows of one-hop questions, four a context
SEED = 20  # no row of training has it
REFERENCE = "lab-llama"  # reads the words that a classifier keeps
KEPT = 4  # source tokens per kept token
RECONSTRUCTION, TRACKING = "reconstruction", "tracking"


class Measured(Strict):
    model: str  # part, or a floor or ceiling (`full-context`, `no-context`) of its decoder
    task: str  # a question set, `reconstruction`, or `tracking` of answers by reconstruction
    metric: str  # `f1`, `exact_match` or `bleu`, in percent; `spearman`
    value: float
    low: float  # lower end of its 95 % interval, clustered by context
    high: float
    n: int  # rows; contexts for `tracking`
    ratio: float | None = None  # achieved compression, boundary vectors counted; None where nothing is left


def measure(folder: Path, name: str, rows_each: int = ROWS, documents: int = DOCUMENTS) -> list[Measured]:
    """All figures of a part: of a decoder with the whole context and with none, of any other as its method reads it.

    Reconstruction is measured before fine-tuning, here where that checkpoint is there.
    """
    recipe = part(name)
    arguments: dict[str, Any] = {"pretrained": str(folder / name)}
    if isinstance(recipe, DecoderRecipe):
        whole = answering(f"{name}, full-context", "full-context", arguments, rows_each)
        return [*whole, *answering(f"{name}, no-context", "no-context", arguments, rows_each)]
    method: str = recipe.method if isinstance(recipe, RivalRecipe) else "pcc"
    if isinstance(recipe, ClassifierRecipe):
        method, arguments = "llmlingua2", arguments | {"decoder": str(folder / REFERENCE), "rate": KEPT}
    figures = answering(name, method, arguments, rows_each)
    pretrained = folder / name / PRETRAINED
    if pretrained.is_dir():
        figures.append(reconstruction(name, pretrained, documents))
    return figures


def answering(model: str, method: str, arguments: dict[str, Any], rows_each: int) -> list[Measured]:
    outcome = evaluated(method, arguments, QUESTION_SETS, rows_each)
    figures = []
    for task, samples in outcome["samples"].items():
        ratio = outcome["results"][task].get("compression,none")
        contexts = [sample["doc"]["context"] for sample in samples]
        for metric in ("f1", "exact_match"):
            scores = 100 * np.array([float(sample[metric]) for sample in samples])
            mean = stats.estimate(stats.clustered(scores, contexts))
            low, high = mean.interval()
            values = (mean.difference, max(0.0, low), min(100.0, high))
            achieved = ratio if isinstance(ratio, int | float) and ratio == ratio else None
            figures.append(_rounded((model, task, metric), values, len(samples), achieved))
    return figures


def evaluated(method: str, arguments: dict[str, Any], names: Sequence[str], rows_each: int) -> dict[str, Any]:
    """lm-eval's result on rows that no training has seen."""
    startup.install()
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    metadata = {"data": "lab", "lab_rows": rows_each, "lab_seed": SEED}
    manager = TaskManager(include_path=tasks.__path__[0], include_defaults=False, metadata=metadata)
    model = {"model": method, "model_args": {**arguments, "dtype": "float32"}, "batch_size": 32}
    outcome = simple_evaluate(**model, tasks=list(names), task_manager=manager, bootstrap_iters=0)
    assert outcome is not None
    return dict(outcome)


def _rounded(
    names: tuple[str, str, str], values: tuple[Any, Any, Any], n: int, ratio: float | None = None, digits: int = 2
) -> Measured:
    """A figure of a model on a task by a metric (`names`); `values`: itself and the ends of its interval."""
    model, task, metric = names
    value, low, high = (round(float(value), digits) for value in values)
    achieved = None if ratio is None else round(float(ratio), 2)
    return Measured(model=model, task=task, metric=metric, value=value, low=low, high=high, n=n, ratio=achieved)


def opened(folder: Path) -> tuple[PCC, Decoder]:
    decoder = init.open_decoder(str((folder / str(PccConfig.read(folder).decoder.name)).resolve()))
    return checkpoint.load(str(folder), decoder), decoder


def reconstruction(name: str, folder: Path, documents: int) -> Measured:
    """BLEU of greedy reconstructions of each text's first whole segment; the interval is a bootstrap over segments."""
    pcc, decoder = opened(folder)
    length = pcc.config.segment_length
    texts = [row["text"] for row in rows("text", "test", documents, seed=SEED)]
    encoded = pcc.encoder.tokenizer(texts, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    places = zip(texts, encoded["offset_mapping"], strict=True)
    segments = [text[: tokens[length - 1][1]].strip() for text, tokens in places if len(tokens) >= length]
    spans = [segment for segment in segments if segment]
    with torch.inference_mode():
        contexts = pcc.encode(pcc.encoder.tokenize(spans))
        plans = memory_plans(pcc, decoder, contexts, Task.RECONSTRUCTION)
        out = generate(decoder, [plan.vectors(decoder).float() for plan in plans], max(decoder.count_tokens(spans)) + 4)
    said = [str(decoder.tokenizer.decode(ids, skip_special_tokens=True)).strip() for ids in out.ids]
    generator = np.random.default_rng(SEED)
    samples = [generator.integers(len(said), size=len(said)) for _ in range(200)]
    pairs = [([said[i] for i in sample], [[spans[i] for i in sample]]) for sample in samples]
    drawn = sorted(sacrebleu.corpus_bleu(*pair).score for pair in pairs)
    slots = sum(len(memory) for context in contexts for memory in context.slots)
    values = (sacrebleu.corpus_bleu(said, [spans]).score, drawn[5], drawn[-6])
    return _rounded((name, RECONSTRUCTION, "bleu"), values, len(spans), sum(decoder.count_tokens(spans)) / slots)


def tracking(folder: Path, name: str, count: int = TRACKED) -> Measured | None:
    """Spearman's correlation, over contexts, of F1 on their questions with how well their segments are reconstructed.

    Reconstruction is the mean log-likelihood of a segment's tokens given its memory, by the checkpoint that was not yet
    fine-tuned; the interval is a bootstrap over contexts. None where all contexts are answered alike.
    """
    outcome = evaluated("pcc", {"pretrained": str(folder / name)}, ["pcc_squad"], count)
    scores: dict[str, list[float]] = {}
    for sample in outcome["samples"]["pcc_squad"]:
        scores.setdefault(sample["doc"]["context"], []).append(float(sample["f1"]))
    answered = np.array([np.mean(f1) for f1 in scores.values()])
    said = np.array(list(_log_likelihoods(folder / name / PRETRAINED, list(scores))))
    if np.ptp(answered) == 0:
        return None
    generator = np.random.default_rng(SEED)
    samples = [generator.integers(len(said), size=len(said)) for _ in range(1000)]
    drawn = [  # NaN where a sample of contexts happens to be answered alike
        scipy.stats.spearmanr(answered[i], said[i]).statistic if np.ptp(answered[i]) else np.nan for i in samples
    ]
    values = (scipy.stats.spearmanr(answered, said).statistic, *np.nanquantile(drawn, [0.025, 0.975]))
    return _rounded((name, TRACKING, "spearman"), values, len(said), digits=3)


def _log_likelihoods(folder: Path, contexts: Sequence[str]) -> Iterator[float]:
    """Of each context's segments given their own memories, nats a token."""
    pcc, decoder = opened(folder)
    length = pcc.config.segment_length
    for ids in pcc.encoder.tokenize(contexts):
        segments = [ids[start : start + length] for start in range(0, len(ids), length)]
        texts = [str(pcc.encoder.tokenizer.decode(segment)) for segment in segments]
        targets = [decoder.tokenizer.encode(text, add_special_tokens=False) for text in texts]
        with torch.inference_mode():
            plans = memory_plans(pcc, decoder, pcc.encode(segments), Task.RECONSTRUCTION)
            nll = token_nll(decoder, behind(decoder, plans, targets)).sum()
        yield -float(nll) / sum(map(len, targets))
