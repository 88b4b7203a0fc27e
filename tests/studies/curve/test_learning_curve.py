"""Learning curves: known lines are found again, simulated studies are covered, words stay true."""

import math

import numpy as np
import pytest
from scipy.stats import linregress

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.evaluation.statistics.obuchowski_rockette import estimate_over_seeds
from cxr_compare.studies.curve.learning_curve import crossing, fit_learning_curves
from tests.studies.simulation import trained_arms

AMOUNTS = np.array([100.0, 200.0, 400.0, 800.0])
CONSTANT = 0.1
FALLING = (0.2, 0.13, 0.08, 0.05)


def line_through(amount, lacks, b):
    return math.log(lacks) + b * math.log(amount), b


TRUTHS = {
    "equal": [line_through(100, 0.3, 0.25)] * 2,
    "parallel": [line_through(100, 0.3, 0.25), line_through(100, 0.21, 0.25)],
    "cross inside": [line_through(283, 0.2, 0.45), line_through(283, 0.2, 0.1)],
    "cross at the largest": [line_through(800, 0.15, 0.5), line_through(800, 0.15, 0.1)],
    "cross outside": [line_through(3200, 0.12, 0.4), line_through(3200, 0.12, 0.15)],
}


def lacking(line, amounts):
    return np.exp(line[0] - line[1] * np.log(amounts))


def study(rng, lines, patients, seeds, spread, nested=0.0):
    """AUROCs, their covariance over patients and its freedom, of trainings as in `cxr curve`.

    `spread` is the standard deviation of ln(1 - AUROC) between trainings at each size, `nested`
    its correlation between sizes of one seed.
    """
    shape = (len(lines), len(AMOUNTS), seeds)
    of_seed, own = rng.normal(size=(len(lines), 1, seeds)), rng.normal(size=shape)
    deviations = np.sqrt(nested) * of_seed + np.sqrt(1 - nested) * own
    sigma = np.broadcast_to(spread, len(AMOUNTS))[:, None]
    curves = np.stack([lacking(line, AMOUNTS) for line in lines])[:, :, None]
    return trained_arms(rng, curves * np.exp(sigma * deviations - sigma**2 / 2), patients)


def simulated(truth, patients, seeds, spread, trials, nested=0.0, seed=11):
    """Shares of studies: band at sizes and twice the largest, interval of the crossing, claims."""
    rng = np.random.default_rng(seed)
    lines = TRUTHS[truth]
    at = np.append(AMOUNTS, 2 * AMOUNTS[-1])
    expected = 1 - np.stack([lacking(line, at) for line in lines])
    (height, slope) = np.subtract(*np.array(lines))
    true_crossing = math.exp(height / slope) if slope else None
    bands, covered, shown, lack = [], [], [], []
    for _ in range(trials):
        figures, covariance, freedom = study(rng, lines, patients, seeds, spread, nested)
        curves = fit_learning_curves([AMOUNTS] * 2, figures, covariance, freedom)
        for curve, figure in zip(curves, expected, strict=True):
            band = curve.at(at)
            bands.append((band.low <= figure) & (figure <= band.high))
            lack.append(curve.lack_of_fit < 0.05)
        found = crossing(*curves)
        if true_crossing is not None:
            covered.append(found.interval[0] <= true_crossing <= found.interval[1])
        shown.append(found.shown)
    return {
        "band": np.mean(bands, axis=0),
        "crossing": float(np.mean(covered)) if covered else None,
        "shown": float(np.mean(shown)),
        "lack of fit": float(np.mean(lack)),
    }


def exact(*lines, amounts=AMOUNTS, spread=(-0.01, 0.0, 0.01)):
    """Figures on lines, the seeds of each size a little apart; arm by arm (S, R)."""
    return [1 - lacking(line, amounts)[:, None] * (1 + np.array(spread)) for line in lines]


def fitted(*lines, amounts=None, variance=1e-6, spread=(-0.01, 0.0, 0.01)):
    sizes = amounts or [AMOUNTS] * len(lines)
    figures = [
        exact(line, amounts=of, spread=spread)[0] for line, of in zip(lines, sizes, strict=True)
    ]
    count = sum(each.size for each in figures)
    return fit_learning_curves(sizes, figures, np.eye(count) * variance, 99)


STEEP, FLAT = TRUTHS["cross inside"]


def test_a_line_is_that_of_least_squares_on_the_means_whatever_the_other_model_and_the_order():
    rng = np.random.default_rng(1)
    figures = rng.uniform(0.7, 0.9, (4, 3))
    expected = linregress(np.log(AMOUNTS), np.log(1 - figures.mean(axis=1)))
    order = [2, 0, 3, 1]
    alone, _ = fit_learning_curves(
        [AMOUNTS[order], AMOUNTS], [figures[order], rng.uniform(0.5, 0.6, (4, 2))],
        np.eye(20) * 1e-4, 99,
    )  # fmt: skip
    assert alone.line == pytest.approx((expected.intercept, -expected.slope))
    assert alone.amounts.tolist() == AMOUNTS.tolist()


@pytest.mark.parametrize("seeds", [1, 40])
def test_through_two_sizes_the_band_at_a_size_is_the_interval_of_its_mean(seeds):
    rng = np.random.default_rng(2)
    part = rng.normal(0, 0.01, (2 * seeds, 4 * seeds))
    covariance = (part @ part.T) / 4 + 2e-4
    figures = 0.8 + rng.normal(0, 0.03, (2, seeds)) * (seeds > 1)
    (curve,) = fit_learning_curves([[100, 400]], [figures], covariance, 500, draws=16_384)
    assert curve.lack_of_fit is None
    assert curve.seeds == ("fixed" if seeds == 1 else "random")
    band = curve.at([100, 400])
    for i, rows in enumerate((slice(seeds), slice(seeds, None))):
        mean = estimate_over_seeds([figures[i]], covariance[rows, rows], 500)
        assert band.values[i] == pytest.approx(mean.estimate)
        reach = 1.965 * mean.error / (1 - mean.estimate)  # on the logarithm
        low, high = 1 - (1 - mean.estimate) * np.exp([reach, -reach])
        assert (band.low[i], band.high[i]) == pytest.approx((low, high), abs=0.05 * (high - low))


def test_patients_that_move_two_models_alike_do_not_blur_where_they_cross():
    lines, amounts = np.array(exact(STEEP, FLAT, spread=[0.0])), [AMOUNTS] * 2
    moves = (1 - lines).ravel() * 0.3  # what moves all curves by one factor
    first, second = fit_learning_curves(amounts, lines, np.outer(moves, moves), 99)
    found = crossing(first, second)
    assert found.effort == pytest.approx(283)
    assert found.interval == pytest.approx((283, 283))
    band = first.at(400)
    assert band.high[0] - band.low[0] > 0.1


@pytest.mark.parametrize("seconds", [(1, 1), (30, 5), (12.5, 40)])
def test_curves_are_equal_where_they_cross_and_the_higher_beyond_is_named(seconds):
    first, second = fitted(STEEP, FLAT)
    found = crossing(first, second, seconds)
    costs = list(zip((first, second), seconds, strict=True))
    figures = [curve.at(found.effort / k).values[0] for curve, k in costs]
    assert figures[0] == pytest.approx(figures[1])
    beyond = [curve.at(2 * found.effort / k).values[0] for curve, k in costs]
    assert found.ahead == ("first" if beyond[0] > beyond[1] else "second")
    swapped = crossing(second, first, seconds[::-1])
    assert (swapped.effort, *swapped.interval) == pytest.approx((found.effort, *found.interval))
    assert (found.ahead, swapped.ahead) == ("first", "second")
    minutes = crossing(first, second, (seconds[0] / 60, seconds[1] / 60))
    assert minutes.effort == pytest.approx(found.effort / 60)
    assert minutes.shown == found.shown


def test_the_interval_holds_the_efforts_at_which_neither_model_is_shown_ahead():
    figures, covariance, freedom = study(np.random.default_rng(3), [STEEP, FLAT], 700, 3, 0.05)
    first, second = fit_learning_curves([AMOUNTS] * 2, figures, covariance, freedom)
    found = crossing(first, second, (3, 2))
    efforts = np.geomspace(100, 10_000, 2001)
    lacks = [
        curve.draws[:, :1] - curve.draws[:, 1:] * np.log(efforts / k)
        for curve, k in ((first, 3), (second, 2))
    ]
    share = (lacks[0] < lacks[1]).mean(axis=0)
    neither = efforts[(share > 0.025) & (share < 0.975)]
    assert found.interval == pytest.approx((neither[0], neither[-1]), rel=3e-3)


def bent(lines):
    """A line with one size far off it, of every arm."""
    return [figures - np.array([0, 0.1, 0, 0])[:, None] for figures in exact(*lines)]


@pytest.mark.parametrize(
    ("curves", "seconds", "reason"),
    [
        (lambda: fitted(STEEP, FLAT), (1, 1), ""),
        (lambda: fitted(STEEP, FLAT, spread=[0.0]), (1, 1), "one training at each size"),
        (
            lambda: fit_learning_curves([AMOUNTS] * 2, bent([STEEP, FLAT]), np.eye(24) * 1e-6, 99),
            (1, 1),
            "points do not lie on a power law",
        ),
        (lambda: fitted(STEEP, FLAT), (1000, 1), "no number of images or epochs in common"),
        (lambda: fitted(*TRUTHS["equal"]), (1, 1), "not shown to differ in slope"),
        (lambda: fitted(*TRUTHS["parallel"]), (1, 1), "not shown to differ in slope"),
        (lambda: fitted(*TRUTHS["cross outside"]), (1, 1), "reaches beyond the measured numbers"),
        (lambda: fitted(STEEP, FLAT, variance=6e-3), (1, 1), "reaches beyond|differ in slope"),
    ],
)
def test_a_crossing_is_shown_only_where_nothing_speaks_against_it(curves, seconds, reason):
    found = crossing(*curves(), seconds)
    assert found.shown == (not reason)
    if reason:
        with pytest.raises(InputError, match=reason):
            raise InputError(found.reason)


def test_a_crossing_outside_the_sizes_is_not_shown():
    found = crossing(*fitted(*TRUTHS["cross outside"]))
    assert found.measured == (100, 800)
    assert found.effort == pytest.approx(3200)
    assert found.reason == "the interval reaches beyond the measured numbers of images or epochs"
    # A detector's 30 s an image: 3,000 to 24,000 s against 500 to 4,000 s.
    assert crossing(*fitted(STEEP, FLAT), (30, 5)).measured == (3000, 4000)


def test_identical_models_are_parallel():
    figures = exact(FLAT)
    found = crossing(*fit_learning_curves([AMOUNTS] * 2, figures * 2, np.zeros((24, 24)), 99))
    assert (found.effort, found.ahead, found.interval) == (None, None, (0.0, math.inf))
    assert not found.shown


def test_sizes_without_a_logarithm_are_left_out_and_named():
    figures = exact(STEEP, FLAT)
    figures[0][3] = 1.0
    figures[1][0, 2] = np.nan
    covariance = np.eye(24) * 1e-6
    covariance[14] = covariance[:, 14] = np.nan
    first, second = fit_learning_curves([AMOUNTS] * 2, figures, covariance, 99)
    assert first.left_out == ("800 images: a figure of 1 has no logarithm",)
    assert second.left_out == ("100 images: no figure of seed 2",)
    assert (first.line, second.line) == (pytest.approx(STEEP), pytest.approx(FLAT))
    assert (first.amounts[-1], second.amounts[0]) == (400, 200)


def test_a_model_without_a_figure_has_no_curve_and_leaves_the_other_alone():
    figures = exact(STEEP, FLAT)
    alone = fit_learning_curves([AMOUNTS], figures[1:], np.eye(12) * 1e-6, 99)[0]
    figures[0][:] = np.nan
    none, same = fit_learning_curves([AMOUNTS] * 2, figures, np.eye(24) * 1e-6, 99)
    assert none.line is None
    assert none.reason == "0 of 4 sizes have a figure below 1; a curve needs two"
    assert same.line == alone.line
    assert same.draws.tolist() == alone.draws.tolist()
    found = crossing(none, same)
    assert found.reason == f"no curve of the first model: {none.reason}"
    assert (found.effort, found.interval, found.shown) == (None, None, False)
    with pytest.raises(InputError, match=r"\b0 of 4\b"):
        none.at(100)


def test_a_band_stays_between_nothing_and_everything():
    band = fitted(STEEP, variance=1e-3)[0].at([1e-9, 1e12])
    assert (band.low.min(), band.values[0], band.high[1]) == pytest.approx((0, 0, 1), abs=1e-3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: fit_learning_curves([[1, 2]], [[[0.5], [0.6]]], np.eye(2) * np.nan, 9),
            "must be finite",
        ),
        (lambda: fitted(STEEP)[0].at([0]), "above 0 images"),
        (lambda: crossing(*fitted(STEEP, FLAT), (0, 1)), "seconds per image"),
        (
            lambda: crossing(
                fitted(STEEP)[0],
                fit_learning_curves([AMOUNTS], exact(FLAT), np.eye(12), 99, draws=16)[0],
            ),
            "one fit of both models",
        ),
    ],
)
def test_input_that_cannot_be_fitted_is_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()


MANY = [
    pytest.param(truth, patients, spread, 1000, marks=pytest.mark.long)
    for truth in TRUTHS
    for patients in (150, 700)
    for spread in (CONSTANT, FALLING)
]


@pytest.mark.parametrize(
    ("truth", "patients", "spread", "trials"),
    [
        ("equal", 150, CONSTANT, 40),
        ("parallel", 150, CONSTANT, 40),
        ("cross at the largest", 150, CONSTANT, 40),
        ("cross inside", 700, CONSTANT, 40),
        *MANY,
    ],
)
def test_simulated_studies_are_covered_and_claim_no_crossing_that_is_not(
    truth, patients, spread, trials
):
    found = simulated(truth, patients, 3, spread, trials)
    noise = 3.5 * np.sqrt(0.05 * 0.95 / trials)
    assert (found["band"] > 0.935 - noise).all()
    assert found["lack of fit"] <= 0.06 + noise
    if found["crossing"] is not None:
        assert found["crossing"] > 0.935 - noise
    if truth != "cross inside":
        assert found["shown"] <= 0.025 + noise
    elif patients == 700 and spread == CONSTANT:
        assert found["shown"] > 0.6


@pytest.mark.long
@pytest.mark.parametrize(
    ("seeds", "nested", "patients"), [(2, 0.0, 150), (3, 0.5, 150), (3, 0.8, 150), (3, 0.8, 700)]
)
@pytest.mark.parametrize("truth", TRUTHS)
def test_few_seeds_and_shares_that_vary_together_claim_no_crossing_that_is_not(
    truth, seeds, nested, patients
):
    """Trainings of a seed vary together over its nested shares; with -s it prints the bands."""
    found = simulated(truth, patients, seeds, CONSTANT, 1000, nested)
    print(f"{truth}, {patients} patients, {CONSTANT}, {seeds} seeds, nested {nested}: {found}")
    noise = 3.5 * np.sqrt(0.05 * 0.95 / 1000)
    if truth != "cross inside":
        assert found["shown"] <= 0.025 + noise
    if found["crossing"] is not None:
        assert found["crossing"] > (0.935 if patients == 150 else 0.87) - noise
