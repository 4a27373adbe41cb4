"""What the gate asks for: a YAML file, every key checked."""

from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from pcc_bench.core.documents import Strict, checked, read_yaml
from pcc_bench.core.errors import UsageError

NOISE = 1e-9  # of sums in floating point

Share = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Rule(Strict):
    """What one metric may lose; exactly one of `absolute`, `relative` and `non_inferiority`."""

    absolute: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None  # fails when a greater drop is proven
    relative: Annotated[float, Field(ge=0, lt=1)] | None = None  # the same as a fraction of the baseline's score
    non_inferiority: Positive | None = None  # passes only when such a drop is ruled out, fails when a greater is proven
    # with `absolute` and `relative`: passes only when a drop of this much more than they allow is ruled out, in the
    # unit of the rule; else the run was too small to say and the verdict is inconclusive
    resolution: Positive = 0.01
    scale: Positive = 1.0  # range of one row's score
    higher_is_better: bool | None = None  # by default what the task says

    @model_validator(mode="after")
    def _one_rule(self) -> Self:
        given = [name for name in ("absolute", "relative", "non_inferiority") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"give one of absolute, relative and non_inferiority, not {' and '.join(given) or 'none'}")
        if self.non_inferiority is not None and "resolution" in self.model_fields_set:
            raise ValueError("non_inferiority is its own resolution: leave that out")
        limit, drop = self.scale if self.relative is None else 1.0, self.drops[1]
        if drop >= limit:
            raise ValueError(f"a drop of {drop:g} can't be told in a score with a range of {limit:g}")
        return self

    @property
    def drops(self) -> tuple[float, float]:
        """The drop that fails where a greater one is proven, and the one to rule out; shares with `relative`."""
        if self.non_inferiority is not None:
            return self.non_inferiority, self.non_inferiority
        allowed = self.absolute or self.relative or 0.0
        return allowed, allowed + self.resolution

    def __str__(self) -> str:
        if self.non_inferiority is not None:
            return f"not worse by {self.non_inferiority:g}"
        loses = f"{self.relative:.3g} of the baseline" if self.absolute is None else f"{self.absolute:g}"
        return f"drop of at most {loses}" if (self.absolute or self.relative) else "no drop"


class Stage(Strict):
    rows: Annotated[int, Field(gt=1)] | None = None  # how many rows of each comparison; None for all
    share: Share  # of the two error rates (false alarms, missed regressions) that may be spent at this look


class RatioRule(Strict):
    """The achieved compression: as the baseline's, up to `tolerance` (a fraction) either way, and `at_least`."""

    tolerance: Annotated[float, Field(ge=0, lt=1)] = 0.02
    at_least: Positive | None = None

    def check(self, before: float, after: float) -> tuple[bool, str]:
        change = after / before - 1
        near = abs(change) <= self.tolerance + NOISE
        enough = self.at_least is None or after >= self.at_least - NOISE
        reason = f"{after:.2f}x achieved, {before:.2f}x in the baseline ({change:+.1%})"
        reason += "" if near else f", more than {self.tolerance:.1%} off"
        return near and enough, reason + ("" if enough else f", below {self.at_least:g}x")

    def __str__(self) -> str:
        least = "" if self.at_least is None else f", at least {self.at_least:g}x"
        return f"the baseline's up to {self.tolerance:.1%}{least}"


class SpeedRule(Strict):
    """Tokens per second: at least this fraction of the reference run's."""

    at_least: Positive = 0.8

    def __str__(self) -> str:
        return f"at least {self.at_least:g} of the reference"


class MemoryRule(Strict):
    """Positions in the decoder's window, which its KV cache grows with: at most this multiple of the baseline's."""

    at_most: Positive = 1.02

    def check(self, before: float, after: float) -> tuple[bool, str]:
        holds = after <= before * self.at_most + NOISE
        reason = f"{after:.1f} positions a prompt, {before:.1f} in the baseline"
        return holds, reason + ("" if holds else f", more than {self.at_most:g} of them")

    def __str__(self) -> str:
        return f"at most {self.at_most:g} of the baseline's positions"


class RecordRule(Strict):
    """Records of `pcc-bench cost`, as multiples of the baseline's."""

    counts_at_most: Positive = 1.02  # FLOPs, bytes of the decoder's cache and bytes of the memories, at every point
    seconds_at_most: Positive | None = None  # compressing, prefill, decoding, each over all points; None: only reported


class Costs(Strict):
    """Rules on what an answer costs; None: no rule."""

    ratio: RatioRule | None = RatioRule()
    speed: SpeedRule | None = None
    memory: MemoryRule | None = MemoryRule()
    records: RecordRule | None = RecordRule()


class Policy(Strict):
    """What the gate asks for. The defaults are a policy."""

    # chance of a red build where nothing changed, over all metrics and looks; of a pass for one worse by `resolution`
    alpha: Annotated[float, Field(gt=0, lt=0.5)] = 0.05
    power: Annotated[float, Field(ge=0.5, lt=1)] = 0.95  # for the smallest detectable drop that is reported
    # Rules by metric; metrics without one are reported. A name holds for all filters of the metric.
    metrics: Annotated[Mapping[str, Rule], Field(min_length=1)] = {
        "exact_match": Rule(absolute=0),
        "f1": Rule(absolute=0),
    }
    pool: bool = True  # gate all tasks as one population, rows weighing the same, and report each; else gate each task
    tasks: Annotated[tuple[str, ...], Field(min_length=1)] = ("*",)  # patterns of gated tasks; others are ignored
    report_only: tuple[str, ...] = ("pcc_wsc*", "pcc_hpd*")  # patterns of tasks too small to be gated or pooled
    inconclusive: Literal["allow", "stop"] = "allow"  # exit status of an inconclusive comparison: `allow` 0, `stop` 3
    # looks at growing parts of the rows, in order; the last one has all rows
    stages: Annotated[Mapping[str, Stage], Field(min_length=1)] = {
        "smoke": Stage(rows=200, share=0.05),
        "medium": Stage(rows=1500, share=0.1),
        "full": Stage(share=0.85),
    }
    seed: Annotated[int, Field(ge=0)] = 0  # of the choice of rows for a stage, and of resampling
    costs: Costs = Costs()  # rules on ratio, speed, memory and records of cost

    @model_validator(mode="after")
    def _stages_grow(self) -> Self:
        spent = sum(stage.share for stage in self.stages.values())
        if abs(spent - 1) > 1e-9:
            raise ValueError(f"the stages' shares add up to {spent:g}, not to 1")
        *rows, last = [stage.rows for stage in self.stages.values()]
        sizes = [count for count in rows if count is not None]
        if last is not None or len(sizes) < len(rows):
            raise ValueError("the last stage, and only that one, has all rows: leave its 'rows' out")
        if sizes != sorted(set(sizes)):
            raise ValueError(f"each stage needs more rows than the one before, not {sizes}")
        return self

    def rule(self, metric: str) -> Rule | None:
        return self.metrics.get(metric, self.metrics.get(metric.partition(",")[0]))

    def gates(self, task: str) -> bool:
        return _matches(task, self.tasks) and not _matches(task, self.report_only)

    def reports(self, task: str) -> bool:
        return _matches(task, self.tasks) or _matches(task, self.report_only)

    def stage(self, name: str | None) -> tuple[Stage, bool]:
        """A stage and whether it is the last; without a name, one look at all. Raises UsageError: no such stage."""
        if name is None:
            return Stage(share=1.0), True
        if name not in self.stages:
            raise UsageError(f"the policy has no stage '{name}': it has {', '.join(self.stages)}")
        return self.stages[name], name == list(self.stages)[-1]

    @classmethod
    def read(cls, path: Path | None) -> Self:
        """The policy in a YAML file; the defaults without one. Raises UsageError: it can't be used, with the reason."""
        if path is None:
            return cls()
        state = read_yaml(path)
        return checked(cls, {} if state is None else state, f"the policy {path} can't be used")


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
