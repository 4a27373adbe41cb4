"""Writing checkpoints that hold adapters only, for the base model that they name: ICAE, AutoCompressor, COCOM.

What is written loads with `lm_eval --model NAME --model_args pretrained=FOLDER`. Adapters are given by the name of
their layer in the causal LM (`model.layers.0.self_attn.q_proj`), as pairs A [rank, in] and B [out, rank].
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from safetensors.torch import save_file

from pcc_bench.baselines.autocompressor import files as autocompressor
from pcc_bench.baselines.cocom import files as cocom
from pcc_bench.baselines.icae import files as icae
from pcc_bench.baselines.icae.files import IcaeConfig
from pcc_bench.baselines.lora import Lora, rank_of
from pcc_bench.core.checkpoint_files import WEIGHTS


def export_icae(
    folder: Path, lora: Lora, memory_tokens: torch.Tensor, config: IcaeConfig, dtype: torch.dtype = torch.float16
) -> None:
    """Write an ICAE.

    Args:
        folder: Where to.
        lora: Of `q_proj` and `v_proj` of every layer.
        memory_tokens: [memory tokens + 3, width]: the memory tokens, then AE, LM and FT.
        config: Names the base model (a folder relative to this one will do), and how it was trained.
        dtype: Of the file.
    """
    state = {icae.TABLE: memory_tokens} | _named(lora, icae.PREFIX + "{}.lora_{}.default.weight")
    _write(folder, WEIGHTS, state, dtype, config.model_dump(exclude_none=True))


def export_autocompressor(
    folder: Path,
    lora: Lora,
    summary: torch.Tensor,
    base: str,
    *,
    alpha: float,
    segment_length: int,
    accumulate: bool = True,
    dtype: torch.dtype = torch.float16,
) -> None:
    """Write an AutoCompressor as peft's `save_pretrained` does.

    Args:
        folder: Where to.
        lora: Of the layers that were adapted (`q_proj`, `k_proj`, `v_proj` and `o_proj` of every layer originally).
        summary: [summary tokens, width].
        base: The base model: a hub id, or a folder, absolute or relative to this one.
        alpha: The adapter is scaled by alpha / rank.
        segment_length: Tokens a segment.
        accumulate: False for RMT.
        dtype: Of the file.
    """
    state = _named(lora, autocompressor.WRAPPED + "{}.lora_{}.weight")
    recorded = {"accumulate_summary": accumulate, "segment_length": segment_length, "summary_length": len(summary)}
    _write(
        folder,
        autocompressor.ADAPTERS[0],
        state | {autocompressor.WRAPPED + autocompressor.TABLE: summary},
        dtype,
        recorded,
    )
    LoraConfig(
        base_model_name_or_path=base,
        task_type="CAUSAL_LM",
        inference_mode=True,
        r=rank_of(lora),
        lora_alpha=alpha,  # type: ignore[arg-type]
        target_modules=sorted({layer.rpartition(".")[2] for layer in lora}),
        modules_to_save=["embed_summary"],
    ).save_pretrained(str(folder))


def export_cocom(
    folder: Path,
    lora: Lora,
    rows: Mapping[str, torch.Tensor],
    base: str,
    *,
    rate: int,
    document_length: int,
    separator: bool = True,
    lead: str | None = None,
    closing: str | None = None,
    dtype: torch.dtype = torch.float16,
) -> None:
    """Write a COCOM whose decoder compresses. Its adapter is scaled by 2, as in the original.

    Args:
        folder: Where to.
        lora: Of every linear layer but the vocabulary head.
        rows: `embed_tokens` and, where the head is not tied, `lm_head`: [4, width], the rows of `<MEM>`, `<AE>`,
            `<ENC>` and `<SEP>`.
        base: The base model: a hub id, or a folder, absolute or relative to this one.
        rate: Tokens for each memory token.
        document_length: Tokens of a document.
        separator: `<SEP>` stands behind each document's memory.
        lead: Text between the last memory and the question; None: the original's.
        closing: Text behind the question; the same.
        dtype: Of the file.
    """
    state = _named(lora, cocom.WRAPPED + "{}.lora_{}.default.weight")
    special = {cocom.SPECIAL[f"{name}.weight"]: value for name, value in rows.items()}
    config = {"model_type": "COCOM", "decoder_model_name": base, "lora": True, "lora_r": rank_of(lora)}
    config |= {"sep": separator, "compr_model_name": None, "compr_rate": rate, "doc_max_length": document_length}
    config |= {"training_form": "both"}
    config |= {key: text for key, text in (("lead", lead), ("closing", closing)) if text is not None}
    _write(folder, WEIGHTS, state | special, dtype, config)


def _named(lora: Lora, form: str) -> dict[str, torch.Tensor]:
    return {
        form.format(layer, side): value for layer, pair in lora.items() for side, value in zip("AB", pair, strict=True)
    }


def _write(
    folder: Path, file: str, state: Mapping[str, torch.Tensor], dtype: torch.dtype, config: Mapping[str, Any]
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {key: value.detach().to("cpu", dtype).contiguous() for key, value in state.items()}
    save_file(tensors, folder / file, metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
