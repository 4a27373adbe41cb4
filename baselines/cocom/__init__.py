"""COCOM and COCOM-light (Rau et al., WSDM 2025, arXiv:2407.09252; naver/cocom-v1-*).

A context is read in documents of 128 tokens. Each becomes a few vectors for a decoder that was trained to answer from
them: in COCOM the decoder compresses with the adapter it answers with, in COCOM-light a BERT does. `<SEP>` ends each
document's vectors.
"""

from collections.abc import Mapping
from functools import cached_property
from typing import Any, Self

from pydantic import PositiveInt

from pcc_bench.baselines import weights
from pcc_bench.baselines.cocom import encoders, files
from pcc_bench.baselines.cocom.encoders import BertEncoder, CocomEncoder, DocumentEncoder
from pcc_bench.baselines.cocom.files import CocomConfig
from pcc_bench.baselines.soft import SoftCompressor
from pcc_bench.core import shipped
from pcc_bench.core.checkpoint_files import resolve, under
from pcc_bench.core.compressor import Frame, Layout
from pcc_bench.core.decoder import Decoder
from pcc_bench.core.errors import UsageError


class CocomCompressor(SoftCompressor):
    """A decoder trained with its compressor; `words`: before everything, between memory and question, and behind it."""

    name = "cocom"
    default = "cocom-lab-4x"
    label = "COCOM"
    summary = "memory tokens of a decoder, or of BERT (light), trained with the decoder that reads them (WSDM 2025)"
    encoder: DocumentEncoder

    def __init__(self, encoder: DocumentEncoder, words: tuple[str, str, str], digest: str) -> None:
        super().__init__(encoder, digest, encoder.sizes.rate)
        self.words = words
        opening, _, closing = words
        self._opening = self.decoder.tokenizer.encode(opening, add_special_tokens=False) if opening else []
        ends = [self.decoder.tokenizer.encode(text, add_special_tokens=False) for text in ("a", "a" + closing, closing)]
        before, whole, alone = ends  # some tokenizers put a blank before whatever comes first
        self._closing = list(whole[len(before) :] if whole[: len(before)] == before else alone)

    @classmethod
    def decoder_path(cls, pretrained: str, decoder: str | None) -> str:
        if decoder:
            return decoder
        folder = resolve(pretrained)
        return shipped.beside(CocomConfig.read(folder).decoder_model_name, folder)

    @classmethod
    def recorded_rate(cls, pretrained: str, options: Mapping[str, Any]) -> float:
        return float(CocomConfig.read(resolve(pretrained)).compr_rate)

    @classmethod
    def load(
        cls,
        pretrained: str,
        decoder: Decoder,
        *,
        rate: int | None = None,  # refuse a checkpoint of another rate
        encoder: str | None = None,  # COCOM-light's BERT, folder or hub id, where it is not the one recorded
        file: str | None = None,  # the weights' name, where a folder holds several
        # Vectors of a document shorter than `document_length`: by its length (as the original answers), or as many as a
        # full one's (as it pretrains).
        slots: encoders.Slots = "proportional",
        # A context longer than a document is read in several, or its first one only (as in the original; what is left
        # out is counted).
        overlong: encoders.Overlong = "split",
        document_length: PositiveInt | None = None,  # tokens; 128 as in training, in COCOM-light with [CLS] and [SEP]
        lead: str | None = None,  # text between the last memory and the question; the checkpoint's, or the original's
        closing: str | None = None,  # text behind the question; the same
    ) -> Self:
        """Load a published checkpoint, with its base model or without; its weights replace the decoder's."""
        folder = resolve(pretrained)
        config = CocomConfig.read(folder)
        if config.training_form == "both_separately":
            raise UsageError(f"{pretrained} has two adapters: it is a PISCO checkpoint, pass --model pisco")
        config.check_rate(rate, pretrained)
        words = ("", config.lead if lead is None else lead, config.closing if closing is None else closing)
        length = config.doc_max_length if document_length is None else document_length
        sizes = encoders.Documents(config.compr_rate, length, slots, overlong)
        path = weights.find(str(folder), file)
        state = weights.read(path)
        light = {key: state.pop(key) for key in list(state) if config.compr_model_name and key.startswith("compr.")}
        ids, added = files.load_merged(decoder, state, config, path)
        special = decoder.embed(ids)
        own: DocumentEncoder
        if config.compr_model_name:
            separator = special[encoders.SEPARATOR :] if config.sep else special[:0]
            try:
                bert = resolve(encoder or config.compr_model_name, "BERT encoder", beside=path.parent)
            except UsageError as error:
                hint = "" if encoder else "; the checkpoint holds only its weights: pass encoder=<folder of that BERT>"
                raise UsageError(f"{error}{hint}") from None
            grouping = config.compr_linear_type or "concat"
            own = BertEncoder(bert, under("compr.", light), decoder, grouping, path, sizes, separator)
        else:
            own = CocomEncoder(decoder, decoder.model.base_model, special, sizes, config.sep)
        digest = weights.digest(light | added, decoder)
        decoder.adapt(digest)
        return cls(own, words, digest)

    @cached_property
    def layout(self) -> Layout:
        """BOS where the decoder has one, then the original's prompt around memories and question."""
        frame = Frame(self._opening, self._closing, self.words[1])
        return Layout(starts_with_bos=bool(self.decoder.bos), frame=frame)

    def options(self) -> dict[str, Any]:
        sizes = self.encoder.sizes
        cut = {"rate": sizes.rate, "slots": sizes.slots, "document_length": sizes.length, "overlong": sizes.overlong}
        return {**cut, **dict(zip(("opening", "lead", "closing"), self.words, strict=True))}
