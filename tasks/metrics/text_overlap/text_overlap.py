"""BLEU and ROUGE-L in any script, for `evaluate.load`."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean
from typing import Any

import datasets
import evaluate

from .scores import WORDS, corpus_bleu, score_overlap
from .scripts import NAMED


class TextOverlap(evaluate.Metric):  # type: ignore[misc]
    """Corpus BLEU (0 to 100), and means of the scores of each text; see `scores.score_overlap`."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=f"BLEU and ROUGE-L of texts against one reference each; {NAMED}. Words: {WORDS}",
            citation="Papineni et al., BLEU, ACL 2002; Lin, ROUGE, 2004; Post, sacreBLEU, WMT 2018",
            inputs_description="predictions, references: texts; blanks around them do not count.",
            features=datasets.Features(
                {"predictions": datasets.Value("string"), "references": datasets.Value("string")}
            ),
        )

    def _compute(self, predictions: Sequence[str], references: Sequence[str]) -> dict[str, Any]:
        pairs = [(r.strip(), p.strip()) for p, r in zip(predictions, references, strict=True)]
        rows = [score_overlap(answer, reference) for reference, answer in pairs]
        return {"bleu": corpus_bleu(pairs), **{name: mean(row[name] for row in rows) for name in rows[0]}}
