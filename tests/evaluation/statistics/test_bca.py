"""BCa intervals against scipy's, Efron's formula by hand, and where they are undefined."""

from statistics import NormalDist

import numpy as np
import pytest
from scipy import stats

from evaluation.compare.compare import compare_systems
from evaluation.compare.protocol import Protocol
from evaluation.report.facts import meanings, methods
from evaluation.statistics.bca import (
    BEYOND,
    MOST_GROUPS,
    NO_SKEW,
    ONE_SIDED,
    UNMOVED,
    Jackknife,
    Resampled,
    bca_interval,
    cluster_jackknife,
    left_out_weights,
)
from evaluation.statistics.bootstrap import (
    BOOTSTRAP,
    BOOTSTRAP_BCA,
    NO_WIDTH,
    Resamples,
    cluster_bootstrap,
    percentile_interval,
)
from evaluation.statistics.calibration_error import CalibrationFigures
from evaluation.statistics.ranking import RankedScores

N = 40
SKEWED = np.random.default_rng(5).lognormal(0, 1, N)
RARE = (np.random.default_rng(6).random(N) < 0.15).astype(float)
CALLED = np.ones(N) - (np.random.default_rng(8).random(N) < 0.3)


def interval_of(statistic, resamples):
    drawn = cluster_bootstrap(statistic, resamples)
    left = cluster_jackknife(statistic, resamples)
    return {name: bca_interval(values, left[name]) for name, values in drawn.items()}


@pytest.mark.parametrize("values", [SKEWED, RARE], ids=["skewed", "a share, with many ties"])
def test_a_mean_has_the_interval_of_scipy_on_the_same_resamples(values):
    resamples = Resamples(N, 2000, seed=3, interval="bca")
    mine = interval_of(lambda w: {"mean": w @ values / w.sum(axis=1)}, resamples)["mean"]
    theirs = stats.bootstrap(
        (values,), np.mean, n_resamples=2000, method="BCa", rng=np.random.default_rng(3)
    ).confidence_interval
    assert (mine.low, mine.high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)
    assert (mine.kind, mine.note) == ("bca", None)
    drawn = cluster_bootstrap(lambda w: {"mean": w @ values / w.sum(axis=1)}, resamples)["mean"]
    assert (mine.low, mine.high) != (
        percentile_interval(drawn).low,
        percentile_interval(drawn).high,
    )


def test_a_ratio_of_sums_has_the_interval_of_scipy():
    resamples = Resamples(N, 999, seed=4, interval="bca")
    mine = interval_of(lambda w: {"share": (w @ SKEWED) / (w @ (CALLED + SKEWED))}, resamples)
    theirs = stats.bootstrap(
        (SKEWED, CALLED + SKEWED), lambda a, b, axis: a.sum(axis) / b.sum(axis), paired=True,
        vectorized=True, n_resamples=999, method="BCa", rng=np.random.default_rng(4),
    ).confidence_interval  # fmt: skip
    found = mine["share"]
    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


def test_efrons_formula_by_hand():
    replicates = np.arange(1.0, 100.0)  # 60 is in its place: 59 below it, 39 above, one tie
    left = np.array([61.0, 61.0, 60.0, 57.0])
    found = bca_interval(replicates, Jackknife(60.0, left))
    normal, moves = NormalDist(), 59.75 - left
    bias = normal.inv_cdf(59.5 / 99)
    skew = sum(moves**3) / (6 * sum(moves**2) ** 1.5)
    for end, quantile in ((found.low, 0.025), (found.high, 0.975)):
        z = bias + normal.inv_cdf(quantile)
        share = normal.cdf(bias + z / (1 - skew * z))
        assert end == pytest.approx(1 + 98 * share)


def test_copies_of_a_patients_images_change_no_interval():
    rng = np.random.default_rng(2)
    owner = np.arange(90) // 3
    y_true = rng.random(90) < 0.4
    score = rng.normal(1.0 * y_true, 1.0)
    resamples = Resamples(30, 400, interval="bca")
    once = interval_of(RankedScores(y_true, score, owner).figures, resamples)
    copies = RankedScores(*(np.tile(each, 4) for each in (y_true, score, owner)))
    fourfold = interval_of(copies.figures, resamples)
    for name, found in once.items():
        assert (found.low, found.high) == pytest.approx((fourfold[name].low, fourfold[name].high))


def test_a_difference_is_resampled_as_one_figure():
    def statistic(weights):
        n = weights.sum(axis=1)
        one, two = weights @ SKEWED / n, weights @ RARE / n
        return {"one": one, "two": two, "difference": one - two}

    resamples = Resamples(N, 500, interval="bca")
    drawn = cluster_bootstrap(statistic, resamples)
    left = cluster_jackknife(statistic, resamples)
    parts = [Resampled(drawn[name], left[name]) for name in ("one", "two")]
    found = (parts[0] - parts[1]).interval()
    assert found == bca_interval(drawn["difference"], left["difference"])
    assert Resampled.derived(np.subtract, parts).interval() == found
    assert (parts[0] - Resampled(drawn["two"])).interval().kind == "percentile"


@pytest.mark.parametrize(
    ("replicates", "left", "note"),
    [
        (np.arange(100.0), Jackknife(-1.0, np.array([0.0, 1.0])), ONE_SIDED),
        (np.arange(100.0), Jackknife(99.5, np.array([0.0, 1.0])), ONE_SIDED),
        (np.arange(100.0), Jackknife(50.0, np.array([np.nan, 1.0])), NO_SKEW),
        (np.arange(100.0), Jackknife(50.0, np.array([50.0, 50.0])), UNMOVED),
    ],
    ids=["all above", "all below", "undefined without a patient", "moved by no patient"],
)
def test_where_bca_is_undefined_the_percentile_interval_stands_and_says_so(replicates, left, note):
    found, plain = bca_interval(replicates, left), percentile_interval(replicates)
    assert (found.low, found.high, found.kind) == (plain.low, plain.high, "percentile")
    assert found.note == note
    assert Resamples(9).method(found).startswith(BOOTSTRAP)


def test_where_there_is_no_percentile_interval_there_is_none_by_bca():
    left = Jackknife(1.0, np.array([1.0, 2.0]))
    assert bca_interval(np.ones(50), left).note == NO_WIDTH
    lost = np.append(np.arange(50.0), np.full(50, np.nan))
    assert bca_interval(lost, left).note == "undefined in 50 of 100 resamples"
    few = np.append(np.arange(99.0), np.nan)
    found = bca_interval(few, Jackknife(45.0, np.array([44.0, 46.5])))
    assert (found.kind, found.note) == ("bca", "undefined in 1 of 100 resamples, left out")


def test_an_end_beyond_the_resamples_is_told():
    found = bca_interval(np.arange(100.0), Jackknife(96.0, np.array([95.0, 96.0, 97.0])))
    assert (found.high, found.note) == (pytest.approx(99, abs=0.2), BEYOND)


def test_each_patient_is_left_out_once_alone_or_with_its_group(monkeypatch):
    monkeypatch.setattr("evaluation.statistics.bootstrap._CHUNK_CELLS", 40_000)
    for n_patients in (7, 2 * MOST_GROUPS + 500):
        weights = np.concatenate(list(left_out_weights(Resamples(n_patients))))
        assert (weights[0] == 1).all()
        left_out = 1 - weights[1:]
        assert len(left_out) == min(n_patients, MOST_GROUPS)
        assert (left_out.sum(axis=0) == 1).all()
        assert np.ptp(left_out.sum(axis=1)) <= 1


def test_groups_of_patients_have_nearly_the_skew_of_patients(monkeypatch):
    values = np.random.default_rng(1).lognormal(0, 1.5, 3000)

    def acceleration():
        found = cluster_jackknife(lambda w: {"mean": w @ values / w.sum(axis=1)}, Resamples(3000))
        return found["mean"].acceleration()

    grouped = acceleration()
    monkeypatch.setattr("evaluation.statistics.bca.MOST_GROUPS", 3000)
    assert grouped == pytest.approx(acceleration(), abs=3 * 0.65 / MOST_GROUPS)
    assert acceleration() > 0.01  # so there is something to miss


def test_a_comparison_by_bca_says_so_wherever_its_intervals_stand(predict, judged_set):
    systems = {"A": predict("A", "boxes", seed=1), "B": predict("B", "scores", seed=2)}
    target = judged_set.target()
    plain = compare_systems(systems, judged_set, target, replicates=200)
    asked = Protocol(interval="bca")
    found = compare_systems(systems, judged_set, target, replicates=200, protocol=asked)
    f1 = found.metrics.query("metric == 'f1' and policy == 'max_f1' and subgroup == 'all'")
    assert list(f1["system"]) == ["A", "B", "A - B"]
    assert set(f1["ci_method"]) == {f"{BOOTSTRAP_BCA}, 200 resamples"}
    former = plain.metrics.loc[f1.index]
    assert (f1["estimate"] == former["estimate"]).all()
    assert (f1["ci_low"] != former["ci_low"]).all()
    for table in (found.where, found.tests.rename(columns={"method": "ci_method"})):
        assert table["ci_method"].str.startswith(BOOTSTRAP_BCA).any()
    fallen = found.metrics["note"].str.contains("percentile: BCa is undefined")
    bootstrapped = found.metrics["ci_method"].str.startswith(BOOTSTRAP)
    assert (found.metrics["ci_method"][fallen & bootstrapped] != "").all()
    assert fallen[bootstrapped].all()
    told = {"replicates": 200, "seed": 0, "interval": "bca", "left_out": "each of 50 patients"}
    assert found.provenance["bootstrap"] == told
    assert found.provenance["protocol"]["interval"] == "bca"
    assert any("leaves out each of 50 patients" in line for line in methods(found))
    assert not any("BCa" in line for line in methods(plain))
    assert any("BCa moves its ends" in meaning for _, meaning in meanings(found))


def test_seeds_are_a_sample_of_their_own(predict, judged_set):
    seeds = [
        predict(f"A{seed}", seed=seed, skill=skill) for seed, skill in ((1, 1), (2, 2), (3, 4))
    ]
    systems = {"A": seeds, "B": predict("B", seed=5)}
    found = compare_systems(
        systems, judged_set, judged_set.target(), replicates=300, protocol=Protocol(interval="bca")
    )
    rows = found.metrics.query("metric == 'average_precision' and subgroup == 'all'")
    method = dict(zip(rows["system"], rows["ci_method"], strict=True))
    both = f"{BOOTSTRAP_BCA}, 300 resamples of patients and training seeds"
    assert (method["A"], method["A - B"]) == (both, both)
    assert method["B"] == f"{BOOTSTRAP_BCA}, 300 resamples"


def test_the_spread_of_seeds_enters_the_skew():
    alone = Jackknife(1.0, np.array([1.0, 1.1, 0.9, 1.0]))
    assert alone.acceleration() == pytest.approx(0)
    # Two seeds a little below their mean and one far above it.
    skewed = Jackknife(1.0, alone.left_out, np.array([-0.1, -0.1, 0.2]))
    moves = np.array([0.0, -0.075, 0.075, 0.0, -0.1, -0.1, 0.2])
    expected = (moves**3).sum() / (6 * (moves**2).sum() ** 1.5)
    assert skewed.acceleration() == pytest.approx(expected)
    assert (alone - skewed).acceleration() < 0


@pytest.mark.parametrize("bca", [False, True])
def test_a_figure_that_resampling_itself_shifts_has_no_interval_and_says_why(bca):
    """Expected calibration error near 0: every resample adds noise to the gaps of its bins."""
    rng = np.random.default_rng(1)
    n = 4000
    p = rng.uniform(0.02, 0.98, n)
    # As well calibrated as can be: the labels of each tenth sum to what it expects.
    truth = np.zeros(n)
    order = np.argsort(p)
    truth[order[np.flatnonzero(np.diff(np.floor(np.r_[0.0, np.cumsum(p[order])])) > 0)]] = 1
    figures = CalibrationFigures(truth, p, np.arange(n))
    drawn = cluster_bootstrap(figures.figures, Resamples(n, 400))["ece"]
    estimate = float(figures.figures()["ece"][0])
    plain = percentile_interval(drawn)
    assert plain.low > estimate  # what the reader would have been shown
    left = Jackknife(estimate, estimate + rng.normal(0, 1e-4, 200)) if bca else None
    found = Resampled(drawn, left).interval(estimate)
    assert (found.low, found.high) == (None, None)
    assert f"{plain.low:.3f} to {plain.high:.3f}" in found.note
    assert "Brier score" in found.note
    kept = cluster_bootstrap(figures.figures, Resamples(n, 400))["brier"]
    assert Resampled(kept).interval(float(figures.figures()["brier"][0])).low is not None
