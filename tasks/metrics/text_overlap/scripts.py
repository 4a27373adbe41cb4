"""Words in any script, for scores that compare words: BLEU, ROUGE, errors by word.

Chinese, Japanese, Thai, Lao, Khmer, Burmese and Tibetan put no blanks between words: there each character is a word, as
for sacrebleu's `zh` and `char`. Other text is left as it is. EM and F1 keep to SQuAD's official rule in any script.
"""

from __future__ import annotations

import re
import unicodedata

# Character class of the scripts without blanks (with their marks), in regular expressions.
SPACELESS = (
    "\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u312f\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff"
    "\uf900-\ufaff\uff66-\uff9f\U00020000-\U000323af"
)
NAMED = "each character of a script without blanks (Chinese, Japanese, Thai, Lao, Khmer, Burmese, Tibetan) is a word"

_CHARACTER = re.compile(f"([{SPACELESS}])")


def spaced(text: str) -> str:
    """The text with blanks around each character of the scripts without blanks."""
    return _CHARACTER.sub(r" \1 ", text)


def letters_and_digits(text: str) -> list[str]:
    """Words of letters, digits and marks of any script; of ASCII text, those of `[A-Za-z0-9]+`."""
    plain = (char if char.isalnum() or unicodedata.category(char).startswith("M") else " " for char in spaced(text))
    return "".join(plain).split()
