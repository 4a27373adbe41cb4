"""The token classifier `llmlingua2-squad`, for LLMLingua-2 on real text: made from SQuAD's training questions.

The published classifiers learned from GPT-4's summaries. Here the questions to a paragraph say what people find worth
keeping in it: a word stays that an answer holds, or that a question uses (whatever its case, stop words left out). So
the labels are ours, and the classifier is not the published one. Word pieces are made from the paragraphs themselves
and from Wikipedia's (`text/wiki_*.txt`). Every 20th article is held out, for the figures on the card.

    PCC_DATA=FOLDER python benchmarks/real_classifier.py --out llmlingua2-squad
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import os
import re
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS
from transformers import AutoModelForTokenClassification, AutoTokenizer

from pcc_bench.baselines.token_classifier.classifier import Classifier
from pcc_bench.core.documents import read_text, write_text
from pcc_bench.lab import ClassifierRecipe
from pcc_bench.lab.rivals import Marked, fit_classifier
from pcc_bench.model.training.corpus import read_documents
from pcc_bench.model.training.recipe import Data

TESTS = ("squad", "hotpotqa", "nq", "adversarialqa")
HELD_OUT = 20  # of so many articles one
KEPT = 0.25  # share of the words that stay in the figures, as at a rate of 4
WORD = re.compile(r"\w+")


def main() -> None:
    """Read, train, measure, write the card."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("PCC_DATA"), help="default: $PCC_DATA")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=1100)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO)
    trained_on = arguments.data / "squad" / "train.jsonl"
    wiki = sorted((arguments.data / "text").glob("wiki_*.txt"))
    tests = tuple(str(arguments.data / name / "validation.jsonl") for name in TESTS)
    rows = read_documents(Data(kind="qa", path=str(trained_on), exclude=tests), str(trained_on))
    titles = sorted({row["title"] for row in rows})
    last = set(titles[::HELD_OUT])
    trained = marked(row for row in rows if row["title"] not in last)
    held_out = marked(row for row in rows if row["title"] in last)
    recipe = ClassifierRecipe(
        layers=arguments.layers, heads=4, vocabulary=8000, steps=arguments.steps, seed=arguments.seed
    )
    corpus = [row["text"] for row in trained] + [read_text(path) for path in wiki]
    data = datasets.Dataset.from_list([{**row, "length": len(row["text"])} for row in trained])
    start = time.process_time()
    with tempfile.TemporaryDirectory() as work:
        fit_classifier(arguments.out, recipe, data, corpus, Path(work), train_sampling_strategy="group_by_length")
    minutes = (time.process_time() - start) / 60
    figures = measured(arguments.out, held_out)
    every = len(read_text(trained_on).splitlines())
    counts = (
        f"{len(trained):,} paragraphs of {len(titles) - len(last)} articles; {len(held_out):,} of {len(last)} others "
    )
    counts += (
        f"are held out, and {every - len(rows):,} of {every:,} questions left out, whose passage stands in a test set"
    )
    hashes = {str(path.relative_to(arguments.data)): digest(path) for path in (trained_on, *wiki)}
    write_text(arguments.out / "README.md", card(recipe, counts, minutes, figures, hashes))
    print(figures)


def marked(rows: Iterable[Mapping[str, Any]]) -> list[Marked]:
    """Each paragraph with the words that its questions and answers find worth keeping."""
    asked: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        asked.setdefault(row["context"], []).append(row)
    return [{"text": context, "words": worth(context, questions)} for context, questions in asked.items()]


def worth(context: str, questions: Sequence[Mapping[str, Any]]) -> list[tuple[int, int, float]]:
    """Start, end and 1 of the spans of a paragraph that stay."""
    words = {word.casefold() for row in questions for word in WORD.findall(row["question"])} - ENGLISH_STOP_WORDS
    spans = [match.span() for match in WORD.finditer(context) if match.group().casefold() in words]
    for row in questions:
        answers = row["answers"]
        spans += [
            (start, start + len(text)) for text, start in zip(answers["text"], answers["answer_start"], strict=True)
        ]
    return [(*span, 1.0) for span in spans]


def measured(folder: Path, rows: Sequence[Marked]) -> dict[str, float]:
    """Precision and recall of words on held-out paragraphs, where a quarter of the words of each stays."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForTokenClassification.from_pretrained(folder, dtype=torch.float32)
    classifier = Classifier(model, tokenizer, (1,), 512, 0, 16)
    encoded = classifier.tokens([row["text"] for row in rows])
    probabilities = classifier.probabilities(encoded["input_ids"])
    right = chosen = labelled = every = 0
    for row, spans, values in zip(rows, encoded["offset_mapping"], probabilities, strict=True):
        marks = {place for first, last, _ in row["words"] for place in range(first, last)}
        staying = {first: value for (first, _), value in zip(spans, values, strict=True)}
        words = [range(*match.span()) for match in WORD.finditer(row["text"])]
        scores = [np.mean([staying[place] for place in word if place in staying] or [0.0]) for word in words]
        labels = np.array([word.start in marks for word in words])
        best = np.argsort(-np.array(scores), kind="stable")[: round(KEPT * len(scores))]
        right, chosen = right + int(labels[best].sum()), chosen + len(best)
        labelled, every = labelled + int(labels.sum()), every + len(labels)
    return {"precision": right / chosen, "recall": right / labelled, "share": labelled / every}


def digest(path: Path) -> str:
    """First digits of a file's SHA-256."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def card(
    recipe: ClassifierRecipe, counts: str, minutes: float, figures: Mapping[str, float], hashes: Mapping[str, str]
) -> str:
    """The model card."""
    files = "\n".join(f"| `{name}` | `{value}` |" for name, value in hashes.items())
    return f"""---
library_name: pcc-bench
tags: [context-compression, llmlingua-2]
---

# A token classifier of LLMLingua-2's kind for English text

A BERT of {recipe.layers} layers, width {recipe.width}, {recipe.vocabulary:,} cased word pieces. **It is not a published
classifier of LLMLingua-2**, and its labels are ours: a word of a paragraph stays that an answer holds, or that a
question to the paragraph uses (whatever its case, stop words left out). SQuAD is CC BY-SA 4.0.

Trained on SQuAD: {counts}
(SQuAD, HotpotQA, Natural Questions, AdversarialQA). {minutes:.0f} minutes of CPU time, torch {torch.__version__}.
Recipe: `{recipe.model_dump_json()}`.

Where a quarter of the words of each held-out paragraph stays: precision {100 * figures["precision"]:.1f} %,
recall {100 * figures["recall"]:.1f} %. The labels mark {100 * figures["share"]:.1f} % of the words, which is the
precision of a choice at random; its recall is {100 * KEPT:.0f} %.

| file | SHA-256, first 16 digits |
|---|---|
{files}

```
PCC_DATA=FOLDER python benchmarks/real_classifier.py --out llmlingua2-squad
pcc-bench eval --model llmlingua2 --model-args pretrained=llmlingua2-squad,decoder=smollm2-135m,rate=4 \\
  --tasks pcc_squad --output results
```
"""


if __name__ == "__main__":
    main()
