"""What the `config.json` of a COCOM or PISCO checkpoint says."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, PositiveInt

from pcc_bench import shipped
from pcc_bench.documents import checked, read_json
from pcc_bench.errors import UsageError
from pcc_bench.model.files import resolve


class CocomConfig(BaseModel):
    """What we read of a published `config.json` (class COCOMConfig of the original code).

    Attributes:
        decoder_model_name: The base decoder.
        compr_model_name: The BERT of COCOM-light; None where the decoder compresses.
        compr_rate: Tokens per memory token.
        compr_linear_type: COCOM-light: groups of positions are concatenated before the linear layer, or averaged after.
        lora: The decoder has adapters.
        lora_r: Their rank.
        sep: `<SEP>` stands behind each document's memory.
        doc_max_length: Tokens of a document.
        different_mem_tokens: PISCO: each memory token has an embedding of its own.
        training_form: `both_separately` (PISCO): one adapter compresses, another one answers.
        lead: Text between the last memory and the question. Published files leave it to the code.
        closing: Text behind the question; the same.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    decoder_model_name: str
    compr_model_name: str | None = None
    compr_rate: PositiveInt
    compr_linear_type: Literal["concat", "mean"] | None = "concat"
    lora: bool = False
    lora_r: PositiveInt = 16
    sep: bool = False
    doc_max_length: PositiveInt = 128
    different_mem_tokens: bool = False
    training_form: str = "both"
    lead: str = "[INST]"
    closing: str = "\n[/INST]\n"

    @classmethod
    def read(cls, folder: Path) -> CocomConfig:
        """Read a checkpoint's `config.json`.

        Raises:
            UsageError: There is none, or it is not COCOM's.
        """
        path = folder / "config.json"
        if not path.is_file():
            raise UsageError(f"{folder} has no config.json: a COCOM or PISCO checkpoint has one beside its weights")
        return checked(cls, read_json(path), f"{path} is no COCOM or PISCO configuration")

    @property
    def memory_tokens(self) -> int:
        """Memory tokens of a full document."""
        return -(-self.doc_max_length // self.compr_rate)

    @property
    def special_tokens(self) -> list[str]:
        """What the original adds to the decoder's vocabulary, in its order: memory tokens first."""
        memory = [f"<MEM{i}>" for i in range(self.memory_tokens)] if self.different_mem_tokens else ["<MEM>"]
        return [*memory, "<AE>", "<ENC>", "<SEP>"]


def base_path(pretrained: str, decoder: str | None) -> str:
    """The decoder the caller names, or the one the checkpoint records."""
    if decoder:
        return decoder
    folder = resolve(pretrained)
    return shipped.beside(CocomConfig.read(folder).decoder_model_name, folder)


def check_rate(rate: int | None, config: CocomConfig, pretrained: str) -> None:
    """See that the rate asked for is the one the checkpoint was trained for.

    Raises:
        UsageError: It is another one.
    """
    if rate not in (None, config.compr_rate):
        raise UsageError(
            f"{pretrained} was trained for rate={config.compr_rate}, not for rate={rate}: leave rate out, or take the "
            "checkpoint of that rate (naver/cocom-v1-4, -16 and -128-mistral-7b are published)"
        )
