"""Paired statistics of two runs on the same rows, clustered by context.

Questions on one context share its memory, so their scores are not independent: every function here treats the context,
not the row, as what was drawn. Differences are candidate minus baseline. Most functions accept any number of leading
dimensions, so that thousands of simulated experiments are one call.
"""

import math
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import scipy.stats

from pcc_bench.core.errors import UsageError

Array = npt.NDArray[np.floating]
Alternative = Literal["less", "greater", "two-sided"]

PSEUDO_ROWS = 2  # Agresti and Min (2005): half a row in each cell of the 2 x 2 table
CHUNK = 500  # resamples at a time: 500 x 10,000 contexts are 20 MB


@dataclass(frozen=True)
class Clusters:
    """Sums of differences by context."""

    sums: Array  # `[..., contexts]`, the sum of the differences of a context's rows
    sizes: Array  # `[contexts]`, its number of rows

    @property
    def rows(self) -> float:
        return float(self.sizes.sum())

    @property
    def mean(self) -> Array:
        """`[...]`, the mean difference over rows."""
        total: Array = self.sums.sum(axis=-1, dtype=np.float64) / self.rows
        return total


def clustered(differences: Array, labels: Sequence[Hashable]) -> Clusters:
    """Sum differences `[rows]` by context, for which labels are equal. UsageError: not one number and label a row."""
    values = np.asarray(differences, dtype=np.float64)
    if values.ndim != 1 or len(values) != len(labels) or not len(values):
        raise UsageError(f"{values.shape} differences and {len(labels)} contexts do not pair: give one each per row")
    if not np.isfinite(values).all():
        raise UsageError(f"{int((~np.isfinite(values)).sum())} of {len(values)} differences are not finite numbers")
    number: dict[Hashable, int] = {}
    index = np.array([number.setdefault(label, len(number)) for label in labels])
    return Clusters(np.bincount(index, values).astype(np.float64), np.bincount(index).astype(np.float64))


@dataclass(frozen=True)
class Estimate:
    """A mean paired difference and how well it is known."""

    difference: Array  # `[...]`, the mean over rows
    centre: Array  # `[...]`, the same, drawn a little to 0 by the pseudo rows
    error: Array  # `[...]`, standard error of `centre`
    freedom: int  # degrees of freedom: contexts less one

    def interval(self, level: float = 0.95) -> tuple[Array, Array]:
        """Both ends of the two-sided confidence interval, `[...]` each."""
        half = scipy.stats.t.ppf((1 + level) / 2, self.freedom) * self.error
        return self.centre - half, self.centre + half

    def p_below(self, threshold: float = 0.0) -> Array:
        """P-value of "the difference is `threshold` or more", small where it is convincingly below; `[...]`."""
        return self._tail(self.centre - threshold)

    def p_above(self, threshold: float = 0.0) -> Array:
        """P-value of "the difference is `threshold` or less", small where it is convincingly above; `[...]`."""
        return self._tail(threshold - self.centre)

    def _tail(self, shift: Array) -> Array:
        with np.errstate(divide="ignore", invalid="ignore"):
            statistic = np.where(self.error > 0, shift / self.error, np.sign(shift) * np.inf)
        return np.where(np.isnan(statistic), 0.5, scipy.stats.t.cdf(statistic, self.freedom))

    def detectable(self, alpha: float = 0.05, power: float = 0.95) -> Array:
        """The smallest drop that a one-sided test at `alpha` finds with probability `power`; `[...]`."""
        return np.asarray(self.error * np.sum(scipy.stats.t.ppf([1 - alpha, power], self.freedom)))


def estimate(data: Clusters, scale: float = 0.0) -> Estimate:
    """The mean paired difference with its cluster-robust standard error. Raises UsageError: there is only one context.

    The mean is a ratio of sums over contexts; its error is the linearised one (Cochran, Sampling Techniques, 6.3), with
    t quantiles. Where every context has one row it is the paired t-test.
    A few rows that all agree do not prove that no row differs. As in Agresti and Min (Statistics in Medicine 24, 2005),
    two pseudo rows are added, whose differences of `scale` (range of one row's score; 0 adds none) point in no
    direction on balance; for hundreds of rows they change nothing.
    """
    count = len(data.sizes)
    if count < 2:
        raise UsageError("all rows are on one context, which says nothing about others: score rows on at least two")
    rows, mean = data.rows + (PSEUDO_ROWS if scale else 0), data.mean
    residuals = data.sums - mean[..., None] * data.sizes
    squares = np.einsum("...i,...i->...", residuals, residuals, dtype=np.float64) + scale**2
    error = np.sqrt(squares * count / (count - 1)) / rows
    return Estimate(mean, mean * data.rows / rows, error, count - 1)


def resampling_weights(count: int, resamples: int, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """How often each context is drawn: `[resamples, contexts]`, each row with sum `contexts`."""
    draws = rng.integers(0, count, (resamples, count), dtype=np.int64)
    draws += np.arange(resamples)[:, None] * count
    weights = np.bincount(draws.ravel(), minlength=resamples * count).reshape(resamples, count)
    return weights.astype(np.float32)


def resampled_means(data: Clusters, weights: npt.NDArray[np.float32]) -> Array:
    """`[..., resamples]`, the mean difference of each resample."""
    return np.asarray((data.sums.astype(np.float32) @ weights.T) / (weights @ data.sizes.astype(np.float32)))


def paired_bootstrap(
    data: Clusters, rng: np.random.Generator, resamples: int = 2000, level: float = 0.95
) -> tuple[Array, Array]:
    """Both ends, `[...]` each, of the percentile interval of the mean; contexts are drawn with all their rows."""
    count = len(data.sizes)
    parts = [resampled_means(data, resampling_weights(count, size, rng)) for size in _chunks(resamples)]
    low, high = np.quantile(np.concatenate(parts, axis=-1), [(1 - level) / 2, (1 + level) / 2], axis=-1)
    return low, high


def paired_permutation(
    data: Clusters, rng: np.random.Generator, resamples: int = 10_000, alternative: Alternative = "two-sided"
) -> Array:
    """P-values `[...]` of "the two runs are exchangeable": the sign of each context's difference is drawn.

    All sign patterns are gone through where there are no more of them than `resamples`, and the p-value is exact; else
    it counts the observed pattern among those drawn. The alternative `less` is a worse candidate.
    """
    flat = data.sums.reshape(-1, data.sums.shape[-1]).astype(np.float64)
    sums = flat[:, (flat != 0).any(axis=0)]
    observed = sums.sum(axis=-1)
    slack = 1e-9 * (1 + np.abs(sums).sum(axis=-1))  # equal sums, added in another order
    extreme, total = np.zeros(len(sums)), 0
    count = sums.shape[-1]
    exact = 2 ** min(count, 63) <= resamples

    def patterns() -> Iterator[Array]:  # of signs: `[patterns, contexts]` at a time
        if exact:
            yield (np.arange(2**count)[:, None] >> np.arange(count) & 1).astype(np.float64) * 2 - 1
            return
        for size in _chunks(resamples):
            bits = rng.integers(0, 256, (size, math.ceil(count / 8)), dtype=np.uint8)
            yield np.unpackbits(bits, axis=1, count=count).astype(np.float64) * 2 - 1

    for signs in patterns():
        flipped = sums @ signs.T
        reached = {
            "less": flipped <= (observed + slack)[:, None],
            "greater": flipped >= (observed - slack)[:, None],
            "two-sided": np.abs(flipped) >= (np.abs(observed) - slack)[:, None],
        }[alternative]
        extreme += reached.sum(axis=-1)
        total += len(signs)
    p = extreme / total if exact else (extreme + 1) / (total + 1)
    return np.asarray(p.reshape(data.sums.shape[:-1]))


def mcnemar(
    baseline: Sequence[float] | Array, candidate: Sequence[float] | Array, alternative: Alternative = "two-sided"
) -> float:
    """Exact McNemar test of two runs' right (1) and wrong (0) answers, `[rows]` each, one row a context (no clusters).

    The alternative `less` is a worse candidate. Raises UsageError: a score is neither 0 nor 1, or the lengths differ.
    """
    before, after = np.asarray(baseline, dtype=np.float64), np.asarray(candidate, dtype=np.float64)
    if before.shape != after.shape or not np.isin([before, after], (0, 1)).all():
        raise UsageError("McNemar's test takes as many scores of both runs, each 0 or 1: use the permutation test")
    gained, lost = int((after > before).sum()), int((after < before).sum())
    if not gained + lost:
        return 1.0
    return float(scipy.stats.binomtest(gained, gained + lost, 0.5, alternative=alternative).pvalue)


def holm(p: Sequence[float] | Array) -> Array:
    """P-values `[..., tests]` adjusted for being several (Holm 1979), however the tests depend on each other."""
    values = np.asarray(p, dtype=np.float64)
    order = np.argsort(values, axis=-1, kind="stable")
    steps = np.arange(values.shape[-1], 0, -1)
    ordered = np.maximum.accumulate(np.take_along_axis(values, order, axis=-1) * steps, axis=-1)
    adjusted = np.empty_like(values)
    np.put_along_axis(adjusted, order, np.minimum(ordered, 1.0), axis=-1)
    return adjusted


def _chunks(total: int) -> Iterator[int]:
    yield from (min(CHUNK, total - start) for start in range(0, total, CHUNK))
