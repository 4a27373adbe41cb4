"""What metrics are called in print, which are shares shown as percentages, and how a p-value is printed."""

from __future__ import annotations

PERCENT = {
    "f1": "F1",
    "exact_match": "EM",
    "contains": "contains",
    "acc_calibrated": "acc (calibrated)",
    "acc_token": "acc (token)",
    "acc": "acc",
    "acc_norm": "acc (norm)",
    "ranking_acc": "ranking",
    "rougeL": "ROUGE-L",
    "bleu_official": "BLEU (paper's)",
    "bleu_sentence": "BLEU (sentence)",
    "exact": "exact",
    "token_accuracy": "token acc",
    "recall": "recall",
    "error_number": "number errors",
    "error_date": "date errors",
    "error_name": "name errors",
    "error_rare": "rare-word errors",
    "error_boundary": "boundary errors",
    "error_word": "word errors",
}
PLAIN = {"perplexity": "PPL", "byte_perplexity": "PPL/byte", "bleu": "BLEU", "mrr": "MRR"}
NAMES = PERCENT | PLAIN


def p_value(p: float) -> str:
    """A p-value in print."""
    return "<0.001" if p < 0.001 else f"{p:.3f}"
