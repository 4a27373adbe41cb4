"""Statistics: textbook cases, agreement with scipy, and the laws they must obey."""

from __future__ import annotations

import importlib.util
import math
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from pcc_bench import stats
from pcc_bench.core.errors import UsageError

# Student (1908): hours of sleep gained with the second drug instead of the first, ten patients.
SLEEP = [1.2, 2.4, 1.3, 1.3, 0.0, 1.0, 1.8, 0.8, 4.6, 1.4]
# Darwin's maize, crossed less self-fertilised, in eighths of an inch; Fisher, The Design of Experiments, section 21.
MAIZE = [49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48]


def alone(differences: list[float]) -> stats.Clusters:
    """Every row its own context."""
    return stats.clustered(np.array(differences), list(range(len(differences))))


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


# ---------------------------------------------------------------- textbook cases


def test_students_sleep_data() -> None:
    found = stats.estimate(alone(SLEEP))
    assert found.difference == pytest.approx(1.58)
    assert 2 * found.p_above() == pytest.approx(0.002833, abs=1e-6)  # published: t = 4.0621, p = 0.002833
    assert found.interval() == pytest.approx((0.7001142, 2.4598858), abs=1e-6)


def test_fishers_randomisation_test_of_darwins_maize() -> None:
    p = stats.paired_permutation(alone(MAIZE), rng(), resamples=2**15, alternative="greater")
    assert p * 2**15 == pytest.approx(863)  # Fisher counted 863 of 32,768 sign patterns
    assert stats.paired_permutation(alone(MAIZE), rng(), resamples=2**15) * 2**15 == pytest.approx(1726)


def test_exact_mcnemar_is_the_sign_test_of_the_discordant_rows() -> None:
    before, after = [1] * 9 + [0] * 1 + [1, 0] * 20, [0] * 9 + [1] * 1 + [1, 0] * 20
    assert stats.mcnemar(before, after) == pytest.approx(2 * (math.comb(10, 0) + math.comb(10, 1)) / 2**10)
    assert stats.mcnemar(before, after, "less") == pytest.approx(11 / 1024)
    assert stats.mcnemar([1, 0], [1, 0]) == 1.0


def test_holm_on_a_worked_example() -> None:
    assert stats.holm([0.01, 0.04, 0.03, 0.005]).tolist() == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert stats.holm([0.9, 0.6]).tolist() == [1.0, 1.0]


def test_the_detectable_drop_is_the_one_found_with_the_stated_power() -> None:
    found = stats.estimate(alone([float(np.sign(i % 7 - 3)) for i in range(5000)]))
    drop = found.detectable(0.05, 0.9)
    reached = scipy.stats.t.cdf(scipy.stats.t.ppf(0.05, found.freedom) + drop / found.error, found.freedom)
    assert reached == pytest.approx(0.9, abs=1e-4)


# ---------------------------------------------------------------- agreement with other implementations


def test_rows_alone_on_their_contexts_give_the_paired_t_test() -> None:
    before, after = rng().normal(size=(2, 50))
    ours, theirs = stats.estimate(alone(list(after - before))), scipy.stats.ttest_rel(after, before)
    assert 2 * min(ours.p_below(), ours.p_above()) == pytest.approx(theirs.pvalue)
    assert ours.interval() == pytest.approx(tuple(theirs.confidence_interval()))


def test_clustered_error_is_the_sandwich_of_a_regression_on_a_constant() -> None:
    """CR1 by its definition: bread * meat * bread, with the correction for the number of clusters."""
    draws, labels = rng().normal(size=60), rng().integers(0, 12, 60)
    design = np.ones((60, 1))
    residuals = draws - draws.mean()
    meat = sum(
        design[labels == c].T @ residuals[labels == c][:, None] @ residuals[labels == c][None] @ design[labels == c]
        for c in range(12)
    )
    bread = np.linalg.inv(design.T @ design)
    sandwich = 12 / 11 * (59 / 59) * bread @ meat @ bread
    assert stats.estimate(stats.clustered(draws, labels.tolist())).error == pytest.approx(math.sqrt(sandwich[0, 0]))


def test_statsmodels_says_the_same() -> None:
    """Numbers of statsmodels 0.15.0: OLS on a constant with cov_type="cluster" and t quantiles; mcnemar(exact=True)."""
    values = [1, 0, -1, 0, 1, 1, 0, 0, -1, 1, 0, 0.5]
    found = stats.estimate(stats.clustered(np.array(values), [0, 0, 0, 1, 1, 2, 2, 2, 2, 3, 4, 4]))
    assert found.error == pytest.approx(0.13369182852901712)
    assert found.interval() == pytest.approx((-0.16285469, 0.57952136))
    assert 2 * found.p_above() == pytest.approx(0.19416123)
    before, after = [1] * 59 + [1] * 6 + [0] * 16 + [0] * 80, [1] * 59 + [0] * 6 + [1] * 16 + [0] * 80
    assert stats.mcnemar(before, after) == pytest.approx(0.052478790283203125)


def test_the_exact_permutation_test_is_scipys() -> None:
    values = rng().normal(0.3, 1, 10)
    for alternative in ("less", "greater", "two-sided"):
        theirs = scipy.stats.permutation_test(
            (values, np.zeros(10)),
            lambda x, y, axis: np.mean(x - y, axis=axis),
            permutation_type="samples",
            vectorized=True,
            n_resamples=np.inf,
            alternative=alternative,  # type: ignore[arg-type]
        )
        ours = stats.paired_permutation(alone(list(values)), rng(), alternative=alternative)
        assert ours == pytest.approx(theirs.pvalue)


def test_drawn_permutations_are_near_the_exact_ones() -> None:
    exact = stats.paired_permutation(alone(MAIZE), rng(), 2**15)
    assert stats.paired_permutation(alone(MAIZE), rng(), 2**15 - 1) == pytest.approx(exact, abs=0.005)


def test_the_clustered_bootstrap_is_scipys() -> None:
    values, labels = rng().normal(0.1, 1, 300), rng().integers(0, 60, 300)
    data = stats.clustered(values, labels.tolist())
    theirs = scipy.stats.bootstrap(
        (data.sums, data.sizes),
        lambda s, n, axis: s.sum(axis) / n.sum(axis),
        paired=True,
        vectorized=True,
        method="percentile",
        n_resamples=20_000,
        rng=rng(),
    ).confidence_interval
    ours = stats.paired_bootstrap(data, rng(), 20_000)
    assert ours == pytest.approx(tuple(theirs), abs=0.005)


# ---------------------------------------------------------------- laws

ROWS = st.lists(st.tuples(st.sampled_from([-1.0, -0.4, 0.0, 0.5, 1.0]), st.integers(0, 5)), min_size=3, max_size=25)
ROWS = ROWS.filter(lambda rows: len({label for _, label in rows}) > 1)

LAW = settings(max_examples=60, deadline=None)  # a busy machine is no failure


def data_of(rows: list[tuple[float, int]]) -> stats.Clusters:
    return stats.clustered(np.array([value for value, _ in rows]), [label for _, label in rows])


@LAW
@given(ROWS, st.randoms())
def test_the_order_of_rows_does_not_matter(rows: list[tuple[float, int]], random: object) -> None:
    shuffled = list(rows)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    one, other = data_of(rows), data_of(shuffled)
    assert stats.estimate(one, 1.0).interval() == pytest.approx(stats.estimate(other, 1.0).interval())
    assert stats.paired_permutation(one, rng()) == pytest.approx(stats.paired_permutation(other, rng()))


@LAW
@given(ROWS)
def test_swapping_candidate_and_baseline_mirrors_everything(rows: list[tuple[float, int]]) -> None:
    data, mirrored = data_of(rows), data_of([(-value, label) for value, label in rows])
    one, other = stats.estimate(data, 1.0), stats.estimate(mirrored, 1.0)
    assert one.interval() == pytest.approx(tuple(-end for end in reversed(other.interval())))
    assert one.p_below(-0.1) == pytest.approx(other.p_above(0.1))
    less, greater = (
        stats.paired_permutation(data, rng(), alternative="less"),
        stats.paired_permutation(mirrored, rng(), alternative="greater"),
    )
    assert less == pytest.approx(greater)
    low, high = stats.paired_bootstrap(data, rng(), 200)
    assert stats.paired_bootstrap(mirrored, rng(), 200) == pytest.approx((-high, -low), abs=1e-6)


@LAW
@given(ROWS, st.integers(2, 4))
def test_asking_the_same_questions_again_gives_no_precision(rows: list[tuple[float, int]], times: int) -> None:
    one, other = stats.estimate(data_of(rows)), stats.estimate(data_of(rows * times))
    assert (one.difference, one.error) == pytest.approx((other.difference, other.error))


@LAW
@given(ROWS, st.integers(2, 4))
def test_as_many_more_contexts_shrink_the_error_by_the_root(rows: list[tuple[float, int]], times: int) -> None:
    copies = [(value, label + 10 * copy) for copy in range(times) for value, label in rows]
    one, other = stats.estimate(data_of(rows)), stats.estimate(data_of(copies))
    contexts = one.freedom + 1
    assert one.difference == pytest.approx(other.difference)
    exact = math.sqrt((contexts - 1) / (times * contexts - 1))  # the root of `times`, up to the degree of freedom
    assert other.error == pytest.approx(one.error * exact, abs=1e-12)


@LAW
@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.randoms())
def test_holm_adjusts_upwards_keeps_the_order_and_ignores_the_arrangement(p: list[float], random: object) -> None:
    adjusted = stats.holm(p)
    assert (adjusted >= p).all()
    assert (np.diff(adjusted[np.argsort(p, kind="stable")]) >= 0).all()
    order = list(range(len(p)))
    random.shuffle(order)  # type: ignore[attr-defined]
    assert stats.holm([p[i] for i in order]).tolist() == pytest.approx(adjusted[order].tolist())


def test_many_experiments_at_once_equal_each_by_itself() -> None:
    values, labels = rng().integers(-1, 2, (5, 40)).astype(float), (np.arange(40) // 3).tolist()
    each = [stats.clustered(row, labels) for row in values]
    together = stats.Clusters(np.stack([one.sums for one in each]), each[0].sizes)
    assert stats.estimate(together, 1.0).error == pytest.approx([stats.estimate(one, 1.0).error for one in each])
    low, _ = stats.paired_bootstrap(together, rng(), 100)
    assert low == pytest.approx([stats.paired_bootstrap(one, rng(), 100)[0] for one in each], abs=1e-6)
    p = stats.holm(stats.paired_permutation(together, rng(), 2**14))
    assert p == pytest.approx(stats.holm([float(stats.paired_permutation(one, rng(), 2**14)) for one in each]))


@settings(max_examples=20, deadline=None)
@given(ROWS)
def test_the_global_generator_is_left_alone(rows: list[tuple[float, int]]) -> None:
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    stats.paired_bootstrap(data_of(rows), rng(), 10)
    stats.paired_permutation(data_of(rows), rng(), 10)
    assert (np.random.get_state()[1] == before).all()  # noqa: NPY002


def test_the_same_seed_gives_the_same_interval() -> None:
    data = alone(SLEEP)
    assert stats.paired_bootstrap(data, rng(), 500) == stats.paired_bootstrap(data, rng(), 500)


def test_a_few_rows_that_agree_prove_little() -> None:
    low, high = stats.estimate(alone([0.0] * 24), scale=1.0).interval()
    assert low == pytest.approx(-high)
    assert high == pytest.approx(scipy.stats.t.ppf(0.975, 23) * math.sqrt(24 / 23) / 26)
    assert stats.estimate(alone([0.0] * 2000), scale=1.0).interval()[1] < 0.001


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: stats.clustered(np.array([0.0, np.nan]), [1, 2]), "1 of 2 differences are not finite"),
        (lambda: stats.clustered(np.array([0.0]), [1, 2]), "do not pair"),
        (lambda: stats.estimate(stats.clustered(np.array([0.0, 1.0]), [1, 1])), "on one context"),
        (lambda: stats.mcnemar([0.5], [1.0]), "each 0 or 1"),
    ],
)
def test_bad_input_is_one_sentence(call: object, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        call()  # type: ignore[operator]


# ---------------------------------------------------------------- the simulation, small


@pytest.fixture(scope="module")
def simulation() -> ModuleType:
    path = Path(__file__).parent.parent / "benchmarks" / "gate_simulation.py"
    spec = importlib.util.spec_from_file_location("gate_simulation", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_the_gate_keeps_its_promises_in_a_few_hundred_simulated_pairs(simulation: ModuleType) -> None:
    design, pairs = simulation.Design.of_the_paper(), 400
    assert design.rows == 13_333
    weights = stats.resampling_weights(design.contexts[-1] + 1, 500, rng())
    same, worse = (simulation.run(design, simulation.Scenario(drop), pairs, 0, weights) for drop in (0.0, 0.01))
    slack = 3 * math.sqrt(0.05 * 0.95 / pairs)
    for name in ("em_alone", "gate", "staged", "permutation"):
        assert same.mean(name) <= 0.05 + slack, name
    for name in ("em_alone", "gate", "staged"):
        assert worse.mean(name) >= 0.95 - slack, name
    for tally in (same, worse):
        for name in ("em_covered", "f1_covered", "em_bootstrap_covered"):
            assert abs(tally.mean(name) - 0.95) <= slack, name
