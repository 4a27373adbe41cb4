"""`pcc-bench validate`: finds trouble before a GPU does, from configurations, tokenizers and the headers of weights."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lm_eval.tasks import TaskManager
from safetensors import safe_open
from transformers.models.auto.modeling_auto import AutoModelForCausalLM

from pcc_bench import tasks
from pcc_bench.core import checkpoint_files, registry, shipped
from pcc_bench.core.compressor import Compressor
from pcc_bench.core.context import as_prompt
from pcc_bench.core.decoder import FINGERPRINT_ROWS, Decoder
from pcc_bench.core.documents import checked
from pcc_bench.core.errors import UsageError
from pcc_bench.core.texttable import TextTable
from pcc_bench.host import arguments, startup
from pcc_bench.host.settings import check_settings, task_names
from pcc_bench.model.inspection import weight_files


class Check(NamedTuple):
    what: str  # was looked at
    holds: bool
    says: str  # what was found, or how to fix it


@dataclass
class Validation:
    checks: list[Check] = field(default_factory=list)
    examples: dict[str, TextTable] = field(default_factory=dict)  # task -> its first row as the decoder would read it

    def look(self, what: str, check: Callable[[], tuple[Any, str]]) -> Any:
        """Run a check and note what it says; returns what it found, None where it fails."""
        try:
            found, says = check()
        except UsageError as error:
            self.checks.append(Check(what, False, str(error)))
            return None
        self.checks.append(Check(what, True, says))
        return found

    @property
    def holds(self) -> bool:
        return all(check.holds for check in self.checks)


def validate(model: str, model_args: str, task_list: str, metadata: str | None = None) -> Validation:
    """Look at everything that an evaluation would need; arguments as in `pcc-bench eval`, "" for no tasks."""
    report = Validation()
    values = report.look("model args", lambda: (arguments.parse_arguments(model_args), model_args or "none"))
    kind = report.look("method", lambda: (registry.get(model), registry.get(model).summary))
    if kind is not None and values is not None and (default := arguments.default_checkpoint(kind, values)):
        values["pretrained"] = default
    decoder: Decoder | None = None
    if kind is not None and values is not None:
        options = report.look("options", lambda: _options(kind, values))
        decoder = report.look("decoder", lambda: _decoder(kind, values))
        if decoder is not None and (files := weight_files(decoder.name)):
            report.look("decoder's weights", lambda: _weights(files))
        if decoder is not None and options is not None:
            kind.inspect(str(values["pretrained"]), decoder, options, report.look)
    names = [name.strip() for name in task_list.split(",") if name.strip()]
    ours = set(names) <= set(task_names())

    def settings(text: str) -> tuple[dict[str, Any], str]:
        chosen = arguments.parse_arguments(text, "metadata")
        if ours:
            check_settings(chosen)
        return chosen, text

    given = (report.look("metadata", lambda: settings(metadata)) if metadata else None) or {}
    startup.install()
    # lm-eval's own tasks are thousands of files: they are read only when one of them is asked for.
    given = {**(values or {}), **given}
    manager = TaskManager(include_path=tasks.__path__[0], include_defaults=not ours, metadata=given)
    for name in names:
        if loaded := report.look(f"task {name}", lambda name=name: _task(manager, name)):  # type: ignore[misc]
            report.examples |= {task: _example(loaded[task], decoder) for task in loaded}
    return report


def _options(kind: type[Compressor], values: dict[str, Any]) -> tuple[dict[str, Any], str]:
    runner = arguments.RunnerOptions.model_fields
    checked(arguments.RunnerOptions, {name: value for name, value in values.items() if name in runner}, "model args")
    others = {name: value for name, value in arguments.joined(values, None).items() if name not in (*runner, "device")}
    options, rest = arguments.split_options(kind, others)
    says = ", ".join(f"{name}={value}" for name, value in options.items()) or "all by default"
    return options, says + (f"; for the decoder: {', '.join(rest)}" if rest else "")


def _decoder(kind: type[Compressor], values: Mapping[str, Any]) -> tuple[Decoder, str]:
    """The decoder with its tokenizer, but without its weights: they are on the `meta` device."""
    pretrained = values.get("pretrained")
    arguments.check_choices(kind, pretrained, values.get("control"))
    name = kind.decoder_path(str(pretrained), values.get("decoder"))
    path = shipped.located(name, values.get("gguf_file"))
    config = checkpoint_files.from_folder(path)
    tokenizer = checkpoint_files.load_tokenizer(path)
    checkpoint_files.check_complete(path)
    model = checkpoint_files.without_weights(config, f"'{name}'", AutoModelForCausalLM)
    decoder = Decoder(model, tokenizer, name)
    width, window = decoder.hidden_size, getattr(config, "max_position_embeddings", "?")
    # the rows its fingerprint is made of, where they lie in safetensors here
    names = {key for key, value in model.named_parameters() if value is decoder.embedding.weight}
    for file in weight_files(path):
        for key in checkpoint_files.safetensors_shapes(file):
            if any(key == full or full.endswith("." + key) for full in names):
                with safe_open(file, framework="pt") as opened:
                    rows = opened.get_slice(key)[:FINGERPRINT_ROWS]
                decoder.embedding.weight = torch.nn.Parameter(rows, requires_grad=False)
    return decoder, f"{name}: {config.model_type}, width {width}, window {window}, {len(tokenizer)} tokens"


def _weights(files: list[Path]) -> tuple[int, str]:
    """Norms, biases and the embedding are read; the run looks at all of them as it loads them."""
    read = sum(
        checkpoint_files.check_safetensors(file, lambda key, shape: len(shape) == 1 or "embed" in key) for file in files
    )
    return read, f"{read} tensors finite (embedding, norms, biases; an evaluation looks at all it loads)"


def _task(manager: TaskManager, name: str) -> tuple[dict[str, Any], str]:
    if not manager.match_tasks([name]):
        hint = registry.suggest(name, task_names())
        raise UsageError(f"unknown task '{name}'{hint} (lm-eval's own: 'lm_eval ls tasks')")
    loaded = manager.load([name])["tasks"]
    accounts = []  # how many rows there are, and how many of those read they are
    for task in loaded.values():
        if population := (task.config.metadata or {}).get("population", {}):
            dropped = ", ".join(f"{count} {reason}" for reason, count in population["dropped"].items())
            rows = f"{population['kept']} of {population['rows_read']} rows of {population['place']}"
            accounts.append(f"{task.config.task}: {rows}" + (f" (left out: {dropped})" if dropped else ""))
        else:
            accounts.append(f"{task.config.task}: {len(list(task.eval_docs))} rows")
    return loaded, "; ".join(accounts)


def _example(task: Any, decoder: Decoder | None) -> TextTable:
    """The parts of its first row: their kind, decoder tokens, how they begin and end."""
    asked = task.fewshot_context(next(iter(task.eval_docs)), num_fewshot=task.config.num_fewshot or 0)
    prompt = as_prompt(asked[0] if isinstance(asked, list) else asked)  # a list where a row is asked several times
    counts = decoder.count_tokens([part.text for part in prompt.parts]) if decoder else [""] * len(prompt.parts)
    rows = []
    for part, count in zip(prompt.parts, counts, strict=True):
        excerpt = part.text if len(part.text) <= 60 else f"{part.text[:30]} ... {part.text[-30:]}"
        rows.append((part.kind.value, str(count), repr(excerpt)))
    return TextTable(("part", "tokens", "text"), tuple(rows))
