"""The words that ask a question of a context, which stands first, where training puts it; a setting (`prompt`)."""

from typing import Literal, NamedTuple

from pcc_bench.core.errors import UsageError

OFFICIAL: Literal["official"] = "official"


class QuestionPrompt(NamedTuple):
    text: str  # what follows the context, with `{question}` where the question stands
    delimiter: str  # stands between that and an answer that is given: in examples, in training
    until: tuple[str, ...]  # what ends an answer besides the end of sequence; nothing: what the task says
    answer_start: str = ""  # how the assistant's turn begins, under a chat template
    needs_chat_template: bool = False  # the words are a user's turn

    @property
    def ending(self) -> dict[str, list[str]]:  # of an answer, in lm-eval's generation settings
        return {"until": list(self.until)} if self.until else {}

    def asking(self, question: str) -> str:  # behind the context or its memory
        return self.text.replace("{question}", question)


PROMPTS = {
    # The paper's code (evaluate_qa.py), which does not cut at a line break either.
    OFFICIAL: QuestionPrompt("Question: {question}\n\nAnswer: ", delimiter="", until=()),
    "short": QuestionPrompt("Question: {question}\nShort answer (a few words):", delimiter=" ", until=("\n",)),
    "chat": QuestionPrompt("Question: {question}\nAnswer with a few words.", " ", ("\n",), "The answer is", True),
}


def question_prompt(name: str = OFFICIAL) -> QuestionPrompt:
    if not isinstance(name, str) or name not in PROMPTS:  # a setting of a user's, of any type
        raise UsageError(f"prompt={name!r}: prompt is one of {', '.join(PROMPTS)}")
    return PROMPTS[name]
