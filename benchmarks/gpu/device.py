"""Part 1: versions, the device, and its two ceilings: a plain bfloat16 matrix product and a copy."""

from __future__ import annotations

import importlib.metadata

from rows import Row, Setting, median_seconds, part

PART = "device"
MATMUL, COPY = "matrix product, bfloat16", "copy, read and written"
PACKAGES = "torch transformers peft accelerate tokenizers safetensors lm-eval datasets pydantic numpy scipy sacrebleu"


def run(setting: Setting) -> None:
    """Versions first, so that a package that is missing is named even where torch is."""
    for name in PACKAGES.split():
        try:
            setting.add(Row(PART, name, note=importlib.metadata.version(name)))
        except importlib.metadata.PackageNotFoundError:
            setting.add(Row(PART, name, note="not installed: carry its wheel (PCC_WHEELS)", met=False))
    import torch

    from pcc_bench.cost import measure

    device = measure.find_device(None)
    setting.add(Row(PART, "hardware", note=f"{measure.hardware(device)} ({device.type})"))
    if device.type == "cuda":
        memory = torch.cuda.get_device_properties(device).total_memory
        setting.add(Row(PART, "memory", memory / 2**30, "GiB"))
    side = 256 if setting.small else 8192 if device.type == "cuda" else 2048
    left, right = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    seconds = median_seconds(lambda: left @ right, device, 10)
    setting.add(Row(PART, MATMUL, 2 * side**3 / seconds / 1e12, "TFLOP/s", note=f"{side:,} x {side:,}, random"))
    source = torch.empty(
        2**32 if device.type == "cuda" and not setting.small else 2**24, dtype=torch.uint8, device=device
    )
    target = torch.empty_like(source)
    seconds = median_seconds(lambda: target.copy_(source), device, 10)
    setting.add(Row(PART, COPY, 2 * source.numel() / seconds / 1e9, "GB/s", note=f"{source.numel() >> 20:,} MiB"))


if __name__ == "__main__":
    part(run)
