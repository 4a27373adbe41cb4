"""LLMLingua-2 (Pan et al., ACL 2024 Findings, arXiv:2403.12968), through the authors' package `llmlingua`.

A token classifier says of each word how probable it is that a good summary keeps it; of every chunk of 512 tokens the
most probable words stay. The decoder reads what is left as text.
"""

import re
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import PositiveInt

from pcc_bench.baselines.hard import Rate
from pcc_bench.baselines.token_classifier.classifier import ClassifierCompressor, words_of
from pcc_bench.core.checkpoint_files import resolve
from pcc_bench.core.compressor import Memory
from pcc_bench.core.decoder import Decoder, weights_digest
from pcc_bench.core.errors import UsageError

if TYPE_CHECKING:
    from pcc_bench.baselines.llmlingua2.package import LocalPromptCompressor

Counting = Literal["decoder", "cl100k"]


class LlmLingua2(ClassifierCompressor):
    """The words stay that a classifier finds worth keeping; `words` are the package's arguments about them."""

    name = "llmlingua2"
    label = "LLMLingua-2"
    summary = "the words that a token classifier finds worth keeping (ACL 2024)"

    def __init__(
        self,
        decoder: Decoder,
        package: "LocalPromptCompressor",
        rate: float | None,
        target_tokens: int | None,
        counting: Counting,
        words: Mapping[str, Any],
    ) -> None:
        digest = weights_digest(package.model.named_parameters(), package.model_name, first=64)
        super().__init__(decoder, package.tokenizer, digest, rate, target_tokens)
        self.package, self.counting, self.words = package, counting, words
        forced, most = words["force_tokens"], package.max_force_token
        if len(forced) > most:
            raise UsageError(f"{self.name}: {len(forced)} force_tokens, the package takes {most}")
        odd = [word for word in forced if len(package.tokenizer.tokenize(word)) != 1]
        if odd and not package.has_forced_rows:
            raise UsageError(
                f"{self.name}: force_tokens {odd} are no tokens of the classifier, and its vocabulary lacks the {most} "
                "rows for such words: force others, or use a published checkpoint"
            )
        special = {*package.tokenizer.get_added_vocab(), *package.tokenizer.all_special_tokens}
        self._special = look_alikes(special)
        self._forged = look_alikes(special - {package.tokenizer.unk_token})  # which stands for unknown words itself

    @classmethod
    def load(
        cls,
        pretrained: str,
        decoder: Decoder,
        *,
        rate: Rate | None = None,  # source tokens per kept token, 2 where there is no target; asked for as 1 / rate
        target_tokens: PositiveInt | None = None,  # to leave of each context, whatever its length; in place of a rate
        force_tokens: Sequence[str] | str = (),  # words that are never dropped; see `words_of`
        drop_consecutive: bool = False,  # drop repeats of forced words with no kept word between them
        force_digits: bool = False,  # never drop words with digits in them
        word_score: Literal["mean", "first"] = "mean",  # probability of a word, by those of its tokens
        # Whose tokens weigh the words and measure `target_tokens`: the decoder's, or those of GPT-3.5 as in the
        # authors' runs. tiktoken has its file in `TIKTOKEN_CACHE_DIR` or downloads it.
        counting: Counting = "decoder",
        chunk_batch: int = 50,  # chunks of 512 tokens a forward; changes no result
    ) -> Self:
        """Open a classifier, folder or hub id: XLM-RoBERTa or BERT with a token classification head of two labels."""
        from pcc_bench.baselines.llmlingua2.package import LocalPromptCompressor, counter_of  # imports llmlingua: slow

        counter = counter_of(counting, decoder.tokenizer)
        package = LocalPromptCompressor(resolve(pretrained), counter, str(decoder.device), chunk_batch)
        words = {"force_tokens": words_of(force_tokens), "drop_consecutive": drop_consecutive}
        words |= {"force_reserve_digit": force_digits, "token_to_word": word_score}
        return cls(decoder, package, rate, target_tokens, counting, words)

    def options(self) -> dict[str, Any]:
        return {"rate": self.rate, "target_tokens": self.target_tokens, "counting": self.counting, **self.words}

    def compress(self, contexts: Sequence[str]) -> list[Memory]:
        """Contexts' chunks share batches; with `target_tokens`, another rate for each length, context by context."""
        start = time.perf_counter()
        plain = [self.plain(context) for context in contexts]
        ids = self.package.tokenizer(plain, add_special_tokens=False)["input_ids"] if plain else []
        # Of a text without a token that the classifier knows nothing can be kept (the package breaks down).
        legible = [i for i, row in enumerate(ids) if any(token != self.package.tokenizer.unk_token_id for token in row)]
        groups = [[i] for i in legible] if self.target_tokens else [legible] if legible else []
        amount = {"target_token": self.target_tokens} if self.target_tokens else {"rate": 1 / (self.rate or 1)}
        texts = [""] * len(contexts)
        for group in groups:
            try:
                result = self.package.compress_prompt_llmlingua2([plain[i] for i in group], **amount, **self.words)
            except IndexError:
                raise UsageError(
                    f"{self.name}: 512 tokens of a context in a row are unknown to the classifier, which the llmlingua "
                    "package can't read: use the XLM-RoBERTa model, or leave the row out"
                ) from None
            for i, text in zip(group, result["compressed_prompt_list"], strict=True):
                texts[i] = text
        return self.account(contexts, texts, time.perf_counter() - start, list(map(len, ids)))

    def plain(self, text: str) -> str:
        """A text in which nothing is a special token of the classifier: a blank stands in each look-alike."""
        # To the package a `</s>` in the data would end the text, a `[NEW0]` would be the first forced word. As it
        # tokenizes twice, the second time what is left, normalisation (full-width characters) may make one as well.
        text = self._special.sub(r"\1 ", text)
        tokenizer = self.package.tokenizer
        again = tokenizer.convert_tokens_to_string(tokenizer.tokenize(text))
        return self._forged.sub(r"\1 ", again) if self._forged.search(again) else text


def look_alikes(tokens: Iterable[str]) -> re.Pattern[str]:
    """Matches the first character of every special token in a text, of overlapping ones too."""
    words = sorted({token for token in tokens if len(token) > 1}, key=len, reverse=True)
    return re.compile(f"(?=(?:{'|'.join(map(re.escape, words))}))(.)", re.DOTALL)
