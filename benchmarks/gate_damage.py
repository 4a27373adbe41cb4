"""Where does the gate begin to catch a damaged checkpoint? Noise on the converter, raised in steps.

    python benchmarks/gate_damage.py --checkpoint CKPT --tasks pcc_rag --out .damage [--policy gate.yaml]

The checkpoint is evaluated as it is (the baseline), again (noise 0: must pass), and with Gaussian noise added to every
matrix and vector of its converter, as a multiple of that tensor's own standard deviation. Then, if it declares a higher
rate, with that rate; and another checkpoint in its place. Exit status 1 if the same checkpoint does not pass or the
worst noise does not fail.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from pcc_bench.core.texttable import TextTable
from pcc_bench.gate.compare import compare
from pcc_bench.gate.policy import Policy
from pcc_bench.gate.result import FAIL, Verdict
from pcc_bench.host.evaluate import Command, run
from pcc_bench.results.frozen import load
from pcc_bench.results.run import Run


def main(arguments: list[str] | None = None) -> int:
    """Evaluate, gate and print a table."""
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n", maxsplit=1)[0])
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--tasks", default="pcc_rag")
    parser.add_argument("--out", type=Path, default=Path(".damage"))
    parser.add_argument("--noise", type=float, nargs="+", default=[0.0, 0.1, 0.2, 0.4, 0.8, 1.6])
    parser.add_argument("--instead", type=Path, help="another checkpoint, put in the place of the first")
    parser.add_argument("--policy", type=Path)
    parser.add_argument("--metadata", help="settings of the tasks, as of pcc-bench eval")
    parser.add_argument("--limit", type=float)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    policy = Policy.read(given.policy)
    config = json.loads((given.checkpoint / "config.json").read_text("utf-8"))
    low, *higher = sorted(config["rates"])
    baseline = evaluated(given, given.checkpoint, low, "baseline")
    verdicts = {}
    for noise in given.noise:
        copy = damaged(given.checkpoint, given.out / f"checkpoint-{noise:g}", noise, given.seed)
        verdicts[f"noise {noise:g}"] = compare(evaluated(given, copy, low, f"noise-{noise:g}"), baseline, policy)
    for rate in higher[:1]:
        candidate = evaluated(given, given.checkpoint, rate, f"rate-{rate}")
        verdicts[f"{rate}x in the place of {low}x"] = compare(candidate, baseline, policy)
    if given.instead:
        other = min(json.loads((given.instead / "config.json").read_text("utf-8"))["rates"])
        candidate = evaluated(given, given.instead, other, "instead")
        verdicts[f"{given.instead.name} in its place"] = compare(candidate, baseline, policy)
    print(table(verdicts).markdown())
    marks = [verdict.verdict for verdict in verdicts.values()]
    return int((given.noise[0] == 0 and marks[0] == FAIL) or marks[len(given.noise) - 1] != FAIL)


def damaged(checkpoint: Path, copy: Path, noise: float, seed: int) -> Path:
    """A copy of the checkpoint with noise on its converter; the decoder's place is made absolute."""
    shutil.copytree(checkpoint, copy, dirs_exist_ok=True)
    config = json.loads((copy / "config.json").read_text("utf-8"))
    near = (checkpoint / str(config["decoder"].get("name"))).resolve()
    if near.is_dir():
        config["decoder"]["name"] = str(near)
        (copy / "config.json").write_text(json.dumps(config, indent=1), "utf-8")
    generator = torch.Generator().manual_seed(seed)
    weights = load_file(copy / "model.safetensors")
    for name, weight in weights.items():
        if name.startswith("converter."):
            spread = weight.float().std(unbiased=False)
            drawn = torch.randn(weight.shape, generator=generator) * spread * noise
            weights[name] = (weight.float() + drawn).to(weight.dtype)
    save_file(weights, copy / "model.safetensors", {"format": "pt"})
    return copy


def evaluated(given: argparse.Namespace, checkpoint: Path, rate: int, name: str) -> Run:
    """The run of a checkpoint; a folder that holds it already is read."""
    out = given.out / "results" / name
    if not any(out.rglob("results_*.json")):
        arguments = f"pretrained={checkpoint},rate={rate}"
        run(Command("pcc", arguments, given.tasks, out, given.limit, "8", None, given.metadata))
    return load(out)


def table(verdicts: dict[str, Verdict]) -> TextTable:
    """A line a checkpoint and metric that counts."""
    rows = []
    for name, verdict in verdicts.items():
        for line in verdict.comparisons:
            if line.verdict == "reported" or (line.difference is None and line.verdict != FAIL):
                continue
            numbers = ["", ""]
            if line.difference is not None and line.interval is not None:
                ends = (f"{100 * end:+.2f}" for end in line.interval)
                numbers = [f"{100 * line.difference:+.2f}", " to ".join(ends)]
            rows.append((name, line.task, line.metric, line.verdict, *numbers))
    return TextTable(("checkpoint", "task", "metric", "verdict", "difference", "95 % interval"), tuple(rows))


if __name__ == "__main__":
    sys.exit(main())
