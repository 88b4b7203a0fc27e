"""Readers and systems: published figures, other formulas for the same thing, cases by hand."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import (
    f_oneway,
    t,
    ttest_1samp,
    ttest_ind,
    ttest_rel,
)

from cxr_compare import InputError
from tests.adapters.studies import (
    RankedScores,
    ReaderEstimate,
    analyse_crossed,
    analyse_nested,
    jackknife_covariance,
)

RNG = np.random.default_rng(7)
# Van Dyke 1993: AUCs of five readers with cine MRI (0) and spin-echo MRI (1), trapezoidal.
FIGURES = np.array(
    [
        [0.91964573, 0.85877617, 0.90386473, 0.97310789, 0.82979066],
        [0.94782609, 0.90531401, 0.92173913, 0.99935588, 0.92995169],
    ]
)


def covariance_of(system, reader, error, cov1, cov2, cov3):
    same_system, same_reader = system[:, None] == system, reader[:, None] == reader
    across = np.where(same_reader, cov1, cov3)
    return np.where(same_system, np.where(same_reader, error, cov2), across)


def some_covariance(n):
    part = RNG.normal(0, 0.02, (n, n + 3))
    return part @ part.T / 5 + 2e-4


@pytest.fixture(scope="module")
def van_dyke(shared_data):
    folder = shared_data / "reader_study_vandyke"
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    ratings = pd.read_csv(folder / "ratings.csv")
    truth = pd.read_csv(folder / "truth.csv").set_index("case")["label"]
    wide = ratings.pivot(index="case", columns=["modality", "reader"], values="rating")
    n = len(wide)
    weights = np.vstack([np.ones((1, n), int), 1 - np.eye(n, dtype=int)])
    labels = truth.loc[wide.index].to_numpy()
    figures = [RankedScores(labels, wide[name]).auroc(weights) for name in sorted(wide.columns)]
    return np.column_stack(figures)[0].reshape(2, 5), jackknife_covariance(
        np.column_stack(figures)[1:]
    )


def digits(numbers, places):
    return [round(number, places) for number in numbers]


def test_published_analysis_with_random_readers(van_dyke):
    study = analyse_crossed(*van_dyke)
    assert digits([each.estimate for each in study.systems], 8) == [0.89703704, 0.94083736]
    gap = study.differences[0, 1]
    assert round(gap.estimate, 5) == -0.04380
    assert digits([study.overall.statistic, study.overall.freedom[1]], 2) == [4.46, 15.26]
    assert digits([study.overall.p_value, gap.p_value], 4) == [0.0517, 0.0517]
    assert round(gap.error, 5) == 0.02075
    assert digits(gap.interval_at(0.95), 5) == [-0.08796, 0.00036]
    first, second = study.systems
    assert digits(first.interval_at(0.95), 5) == [0.82522, 0.96885]
    assert digits(second.interval_at(0.95), 5) == [0.89414, 0.98754]
    assert digits([first.freedom, second.freedom], 2) == [12.74, 12.71]
    parts = study.components
    assert round(parts.reader, 6) == 0.001535
    assert round(parts.interaction, 7) == 0.0002004
    covariances = digits([parts.cov1, parts.cov2, parts.cov3, parts.error], 8)
    assert covariances == [0.00034661, 0.00034407, 0.00023903, 0.00080229]


def test_published_analysis_with_fixed_readers(van_dyke):
    study = analyse_crossed(*van_dyke, readers="fixed")
    assert round(study.overall.statistic, 5) == 5.47595
    assert study.overall.freedom == (1, np.inf)
    assert digits([study.overall.p_value, study.differences[0, 1].p_value], 4) == [0.0193, 0.0193]
    assert digits(study.differences[0, 1].interval_at(0.95), 5) == [-0.08049, -0.00711]


def test_published_analysis_from_its_own_covariances():
    covariance = covariance_of(
        *(index.ravel() for index in np.indices((2, 5))), 80229e-8, 34661e-8, 34407e-8, 23903e-8
    )
    gap = analyse_crossed(FIGURES, covariance).differences[0, 1]
    assert (round(gap.freedom, 2), round(gap.p_value, 4)) == (15.26, 0.0517)
    assert digits(gap.interval_at(0.95), 5) == [-0.08796, 0.00036]
    fixed = analyse_crossed(FIGURES, covariance, readers="fixed").differences[0, 1]
    # The covariances are rounded, which moves the last digit.
    assert fixed.interval_at(0.95) == pytest.approx((-0.08049, -0.00711), abs=1.1e-5)


def test_without_covariance_between_readers_it_is_the_t_test_of_scipy():
    first, second = RNG.normal(0.8, 0.05, 6), RNG.normal(0.85, 0.02, 6)
    nothing = np.zeros((12, 12))
    paired = analyse_crossed([first, second], nothing).differences[0, 1]
    assert paired.p_value == pytest.approx(ttest_rel(first, second).pvalue)
    welch = ttest_ind(first, second[:4], equal_var=False)
    nested = analyse_nested([first, second[:4]], np.zeros((10, 10))).differences[0, 1]
    assert nested.p_value == pytest.approx(welch.pvalue)
    assert nested.freedom == pytest.approx(welch.df)
    assert nested.interval_at(0.9) == pytest.approx(tuple(welch.confidence_interval(0.9)))
    alone = analyse_nested([first - 0.8], np.zeros((6, 6))).systems[0]
    assert alone.p_value == pytest.approx(ttest_1samp(first, 0.8).pvalue)


def test_overall_test_of_nested_readers_is_that_of_variance_analysis_without_cases():
    first = RNG.normal(0.8, 0.05, 5)
    groups = [first, first[::-1] + 0.03, np.roll(first, 2) + 0.01]  # the same spread in each
    test = analyse_nested(groups, np.zeros((15, 15))).overall
    expected = f_oneway(*groups)
    assert (test.statistic, test.p_value) == pytest.approx((expected.statistic, expected.pvalue))
    assert test.freedom == (2, pytest.approx(12))


def test_two_systems_give_the_same_p_value_overall_and_as_a_pair():
    covariance = some_covariance(7)
    figures = RNG.uniform(0.7, 0.9, 7)
    for readers in ("random", "fixed", ["random", "fixed"]):
        study = analyse_nested([figures[:4], figures[4:]], covariance, readers=readers)
        assert study.overall.p_value == pytest.approx(study.differences[0, 1].p_value)


def test_readers_against_a_program_are_their_differences_from_it():
    """Chakraborty 2017: one treatment, of which each figure is reader minus program."""
    covariance, figures = some_covariance(5), RNG.uniform(0.7, 0.9, 5)
    minus = np.column_stack([np.eye(4), -np.ones(4)])
    alone = analyse_nested([minus @ figures], minus @ covariance @ minus.T).systems[0]
    study = analyse_nested([figures[:4], figures[4:]], covariance, readers=["random", "fixed"])
    gap = study.differences[0, 1]
    assert (gap.estimate, gap.error, gap.freedom) == pytest.approx(
        (alone.estimate, alone.error, alone.freedom)
    )
    assert study.systems[1].error == pytest.approx(np.sqrt(covariance[4, 4]))
    assert study.systems[1].freedom == np.inf


def test_a_crossed_pair_is_its_differences_by_reader():
    covariance, figures = some_covariance(8), RNG.uniform(0.7, 0.9, (2, 4))
    minus = np.column_stack([np.eye(4), -np.eye(4)])
    alone = analyse_nested([minus @ figures.ravel()], minus @ covariance @ minus.T).systems[0]
    gap = analyse_crossed(figures, covariance).differences[0, 1]
    assert (gap.error, gap.freedom) == pytest.approx((alone.error, alone.freedom))


def test_readers_that_share_less_than_systems_do_never_shrink_the_variance():
    system, reader = (index.ravel() for index in np.indices((2, 3)))
    low, high = (covariance_of(system, reader, 4e-4, 2e-4, 1e-4, cov3) for cov3 in (1e-4, 3e-4))
    figures = RNG.uniform(0.7, 0.9, (2, 3))
    for analyse in (analyse_crossed, analyse_nested):
        bounded = analyse(figures, high).differences[0, 1]
        assert bounded.error == pytest.approx(analyse(figures, low).differences[0, 1].error)


def test_fixed_readers_have_the_variance_of_their_mean():
    covariance, figures = some_covariance(6), RNG.uniform(0.7, 0.9, 6)
    weights = np.array([1 / 4] * 4 + [-1 / 2] * 2)
    study = analyse_nested([figures[:4], figures[4:]], covariance, readers="fixed")
    assert study.differences[0, 1].error == pytest.approx(np.sqrt(weights @ covariance @ weights))


def test_jackknife_of_a_mean_is_its_variance_by_the_textbook():
    values = RNG.normal(size=(20, 2))
    left_out = (values.sum(axis=0) - values) / 19
    assert jackknife_covariance(left_out) == pytest.approx(np.cov(values.T) / 20)


def test_a_cautious_interval_takes_each_part_of_the_variance_by_its_own_t():
    figures, covariance = np.array([0.80, 0.86, 0.91]), 4e-4 * (0.4 + 0.6 * np.eye(3))
    (mean,) = analyse_nested([figures], covariance).systems
    parts = t.ppf(0.975, 2) ** 2 * figures.var(ddof=1) / 3, 1.959964**2 * 4e-4 * 0.4
    low, high = mean.cautious_interval_at(0.95)
    assert (low + high) / 2 == pytest.approx(mean.estimate)
    assert (high - low) / 2 == pytest.approx(np.sqrt(sum(parts)), rel=1e-6)
    assert high - low > np.diff(mean.interval_at(0.95))[0]


@pytest.mark.parametrize(("value", "level"), [(0.04, 0.9), (0.12, 0.99), (-0.12, 0.999)])
def test_a_cautious_p_value_is_where_the_cautious_interval_ends_at_zero(value, level):
    parts = ((2e-4, 2.0),)
    reach = ReaderEstimate(0.0, 0.02, squares=parts).cautious_interval_at(level)[1]
    at_zero = ReaderEstimate(np.sign(value) * reach, 0.02, squares=parts, span=np.inf)
    assert at_zero.cautious_p_value == pytest.approx(1 - level, rel=1e-6)
    estimate = ReaderEstimate(value, 0.02, squares=parts, span=np.inf)
    low, high = estimate.cautious_interval_at(0.95)
    assert (estimate.cautious_p_value < 0.05) == (low > 0 or high < 0)


def test_a_cautious_p_value_has_its_limits():
    parts = ((2e-4, 2.0),)
    assert ReaderEstimate(0.0, 0.02, squares=parts).cautious_p_value == 1.0
    assert ReaderEstimate(0.5, 1e-9, squares=((1e-18, 40.0),)).cautious_p_value == 1e-12
    assert ReaderEstimate(0.5, None).cautious_p_value is None


@pytest.mark.parametrize(("systems", "readers"), [(2, 3), (3, 2), (3, 4), (5, 4)])
def test_degrees_of_freedom_between_readers_of_a_crossed_study(systems, readers):
    n = systems * readers
    study = analyse_crossed(RNG.uniform(0.7, 0.9, (systems, readers)), some_covariance(n))
    assert {gap.freedom_between for gap in study.differences.values()} == {
        (systems - 1) * (readers - 1)
    }
    assert {mean.freedom_between for mean in study.systems} == {readers - 1}
    fixed = analyse_crossed(
        RNG.uniform(0.7, 0.9, (systems, readers)), some_covariance(n), readers="fixed"
    )
    assert fixed.differences[0, 1].freedom_between == 0


@pytest.mark.parametrize(
    ("sizes", "freedom"), [((2, 2), 2), ((2, 10), 2), ((3, 3), 4), ((4, 1), 3)]
)
def test_nested_readers_have_the_degrees_of_freedom_of_the_fewer(sizes, freedom):
    figures = [RNG.uniform(0.7, 0.9, size) for size in sizes]
    effects = ["random" if size > 1 else "fixed" for size in sizes]
    study = analyse_nested(figures, some_covariance(sum(sizes)), readers=effects)
    assert study.differences[0, 1].freedom_between == freedom


def test_five_modalities_give_the_published_overall_test():
    """RJafroc 3.6.1, dataset04, FOM wAFROC, Obuchowski-Rockette by jackknife, RRRC."""
    figures = np.array(
        [
            [0.77926667, 0.72489167, 0.703625, 0.80509167],
            [0.787, 0.7269, 0.72261667, 0.80378333],
            [0.72969167, 0.71575833, 0.67230833, 0.77265833],
            [0.81013333, 0.74311667, 0.69435833, 0.82940833],
            [0.7488, 0.682275, 0.655175, 0.77125],
        ]
    )
    parts = 92808365e-11, 42203598e-11, 33615564e-11, 30431124e-11
    system, reader = (index.ravel() for index in np.indices(figures.shape))
    study = analyse_crossed(figures, covariance_of(system, reader, *parts))
    assert round(study.overall.statistic, 4) == 7.8003
    assert study.overall.freedom == (4, pytest.approx(36.793343, rel=1e-5))
    assert round(study.overall.p_value, 6) == 0.000117
    gap = study.differences[3, 4]
    assert (round(gap.error, 6), round(gap.p_value, 7)) == (0.012186, 0.0000652)
    assert round(study.components.interaction, 8) == -0.00030460
    assert round(study.components.reader, 7) == 0.0022086


@pytest.mark.parametrize(
    ("program", "readers", "published"),
    [
        # wAFROC of datasetCadSimuFroc, then the AUROC of its highest ratings.
        (
            0.628125,
            [0.75854167, 0.74947917, 0.86703125, 0.80052083, 0.76869792, 0.786875, 0.84,
             0.76520833, 0.79135417],
            (0.0015276535, 0.0027698956, 0.0020995306, 3.4394083, 1429.8734, 0.00059975168),
        ),
        (
            0.81692708,
            [0.8415625, 0.84119792, 0.89973958, 0.838125, 0.85635417, 0.87869792, 0.85838542,
             0.79703125, 0.826875],
            (0.0008777927, 0.0013995491, 0.0009241680, 0.99286888, 877.88638, 0.32104743),
        ),
    ],
)  # fmt: skip
def test_a_difference_from_a_program_is_the_published_one(program, readers, published):
    """RJafroc 3.6.1, StCadVsRad, method 1T-RRRC; here the covariance is of its components."""
    _, error, cov2, statistic, freedom, p_value = published
    # With a program that does not vary, readers have the covariance of the differences.
    covariance = np.zeros((10, 10))
    covariance[:9, :9] = cov2 + (error - cov2) * np.eye(9)
    study = analyse_nested([readers, [program]], covariance, readers=["random", "fixed"])
    gap = study.differences[0, 1]
    assert gap.estimate / gap.error == pytest.approx(statistic, rel=1e-5)
    assert gap.freedom == pytest.approx(freedom, rel=1e-4)
    assert gap.p_value == pytest.approx(p_value, rel=1e-4)


def test_nothing_that_varies_gives_no_interval():
    study = analyse_crossed(np.full((2, 3), 0.8), np.zeros((6, 6)))
    assert study.differences[0, 1] == ReaderEstimate(0.0, None, span=np.inf)
    assert study.differences[0, 1].interval_at(0.95) is None
    assert study.differences[0, 1].p_value is None
    assert study.overall is None


@pytest.mark.parametrize(
    "call",
    [
        lambda: analyse_nested([[0.8], [0.9, 0.8]], np.eye(3)),  # one reader who is random
        lambda: analyse_nested([[0.8, 0.7]], np.eye(3)),
        lambda: analyse_nested([[0.8, np.nan]], np.eye(2)),
        lambda: analyse_crossed([[0.8], [0.9]], np.eye(2)),
        lambda: jackknife_covariance([[0.8]]),
    ],
)
def test_a_study_that_cannot_be_analysed_is_refused(call):
    with pytest.raises(InputError):
        call()
