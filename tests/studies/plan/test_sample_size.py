"""Sample sizes: published programs, another way to the same number, and simulated studies."""

import numpy as np
import pandas as pd
import pytest
from scipy.special import ndtri
from scipy.stats import f as f_distribution
from scipy.stats import multivariate_normal, ncf, norm
from scipy.stats import t as t_distribution

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.evaluation.statistics.clustered_auroc import (
    auroc_difference,
    auroc_over_seeds,
    auroc_parts,
)
from cxr_compare.evaluation.statistics.obuchowski_rockette import Components
from cxr_compare.evaluation.statistics.patient_images import IMAGE_NUMBERS, IMAGES_PER_PATIENT
from cxr_compare.studies.plan.binormal import (
    binormal_auroc_covariance,
    obuchowski_positives,
)
from cxr_compare.studies.plan.sample_size import (
    AssumedPlan,
    CrossedPlan,
    PilotPlan,
    fewest_patients,
    power_of_t,
)
from tests.studies.simulation import plan_measure, reader_plan_measure

# Van Dyke 1993, as published programs print its components (five readers, 114 cases).
VAN_DYKE = Components(
    0.001535, 20040252e-11, 34661371e-11, 34407483e-11, 23902837e-11, 80228827e-11
)


def drawn(rng, patients, positives, aurocs, correlation=0.0, images=1, within=0.0):
    """Labels, two systems' scores and patients of a study that is as assumed."""

    def normals(n):
        first, rest = rng.normal(size=(2, n))
        return np.stack([first, correlation * first + np.sqrt(1 - correlation**2) * rest])

    owner = np.repeat(np.arange(patients), images)  # one number, or one of each patient
    truth = owner < positives
    of_patient, of_image = normals(patients)[:, owner], normals(len(owner))
    scores = np.sqrt(within) * of_patient + np.sqrt(1 - within) * of_image
    return truth, scores + np.sqrt(2) * ndtri(np.array(aurocs))[:, None] * truth, owner


@pytest.mark.parametrize(
    ("aurocs", "correlation", "ratio", "power", "positives"),
    [
        ((0.85, 0.80), 0.5, 1, 0.8, 409.10632),
        ((0.90, 0.85), 0.5, 2, 0.8, 271.83791),
        ((0.80, 0.70), 0.3, 1, 0.9, 199.31747),
        ((0.75, 0.70), 0.6, 4, 0.8, 315.4854),
    ],
)
def test_published_tables_are_those_of_proc(aurocs, correlation, ratio, power, positives):
    # pROC 1.18.0, power.roc.test with binormal parameters, in R 4.2.2.
    found = obuchowski_positives(
        aurocs, correlation=correlation, negatives_per_positive=ratio, power=power
    )
    assert found == pytest.approx(positives, rel=1e-6)


@pytest.mark.parametrize(
    ("readers", "cases", "power", "freedom"),
    [(6, 251, 0.892281989, 16.127037593), (4, 114, 0.529257061, 9.319698390),
     (10, 60, 0.543534925, 98.195989713)],
)  # fmt: skip
def test_power_of_readers_is_that_of_rjafroc(readers, cases, power, freedom):
    # RJafroc's SsPowerGivenJK, Obuchowski and Rockette's components, readers and cases random.
    study = CrossedPlan(VAN_DYKE, 114, 45 / 114, readers, published=True).study(cases)
    assert study.power(0.05) == pytest.approx(power, abs=1e-8)
    assert study.freedom == pytest.approx(freedom, rel=1e-8)


@pytest.mark.parametrize("readers", [3, 4])
def test_power_of_few_readers_is_that_of_the_claim_not_of_the_published_test(readers):
    gap, cases, rng = 0.08, 138, np.random.default_rng(5)
    study = CrossedPlan(VAN_DYKE, 114, 45 / 114, readers).study(cases)
    parts, share = VAN_DYKE, 114 / cases
    both = share * (parts.cov2 - parts.cov3)
    own = parts.interaction + share * (parts.error - parts.cov1) - both
    squares = own * rng.chisquare(readers - 1, 100_000) / (readers - 1)
    # A claim needs the cautious interval: t for the mean square, and normal over cases.
    between = t_distribution.ppf(0.975, readers - 1) ** 2 * 2 / readers * squares
    reach = np.sqrt(between + norm.ppf(0.975) ** 2 * 2 * both)
    found = rng.normal(gap, study.error, len(squares))
    assert study.power(gap) == pytest.approx(float((np.abs(found) > reach).mean()), abs=0.006)
    published = CrossedPlan(VAN_DYKE, 114, 45 / 114, readers, published=True).study(cases)
    assert study.power(gap) < published.power(gap)


@pytest.mark.parametrize(("readers", "cases"), [(5, 213), (6, 170), (8, 134), (10, 119)])
def test_cases_for_readers_are_those_of_rjafroc(readers, cases):
    plan = CrossedPlan(VAN_DYKE, 114, 45 / 114, readers)
    assert fewest_patients(plan, lambda study: study.power(0.05) >= 0.8).patients == cases


# Weighted AFROC of the first two treatments of RJafroc's dataset04 (Zanca 2009, 4 readers, 200
# cases), by pseudovalues: C, RC, TC, error, TR.
ZANCA = 0.06117804981, 0.01355883396, 0.01016518621, 0.09672559908, -0.00044392794
ZANCA_EFFECT = 1.2617239 * 0.05  # what 0.05 of AUROC is in weighted AFROC there


def test_a_planned_study_of_marks_is_that_of_rjafroc():
    # D. P. Chakraborty, RJafrocQuickStart, chapter "FROC sample size estimation" (commit 18e5b5f8).
    case, reader_case, treatment_case, error, interaction = ZANCA
    parts = Components(
        0.00185422886, interaction, cov1=case + reader_case, cov2=case + treatment_case,
        cov3=case, error=case + reader_case + treatment_case + error,
    )  # fmt: skip
    powers = {0.2: 0.075439644, 0.6: 0.28797922, 1: 0.6420946, 1.2: 0.79495349, 2: 0.9959336}
    study = CrossedPlan(parts, 1, 0.5, readers=5).study(100)
    for times, power in powers.items():
        assert study.power(times * ZANCA_EFFECT) == pytest.approx(power, abs=1e-6)
    planned = fewest_patients(
        CrossedPlan(parts, 1, 0.5, readers=6), lambda study: study.power(ZANCA_EFFECT) >= 0.8
    )
    assert planned.patients == 121
    assert planned.power(ZANCA_EFFECT) == pytest.approx(0.80022333, abs=1e-6)


def test_variance_of_one_auroc_is_that_of_hanley_and_mcneil_with_binormal_moments():
    auroc, positives, negatives = 0.85, 30, 50
    height = ndtri(auroc)
    both = multivariate_normal.cdf([height, height], cov=[[1, 0.5], [0.5, 1]])
    expected = auroc * (1 - auroc) + (positives + negatives - 2) * (both - auroc**2)
    found = binormal_auroc_covariance([auroc], positives, negatives)
    assert found[0, 0] == pytest.approx(expected / positives / negatives, rel=1e-6)


@pytest.mark.parametrize("numbers", [[2] * 40, [1] * 10 + [4] * 5 + [1, 4] * 10 + [4] * 5])
def test_covariance_is_what_simulated_studies_vary_by(numbers):
    rng = np.random.default_rng(3)
    assumed = {"correlation": 0.6, "within": 0.5}
    figures = np.empty((3000, 2))
    for row in figures:
        truth, scores, owner = drawn(rng, 40, 15, (0.85, 0.75), images=numbers, **assumed)
        row[:] = [auroc_parts(truth, each, owner, 40).value for each in scores]
    images = np.mean(numbers), np.mean(np.square(numbers))
    expected = binormal_auroc_covariance((0.85, 0.75), 15, 25, images=images, **assumed)
    assert np.cov(figures.T) == pytest.approx(expected, rel=0.08)


NUMBERS_OF_IMAGES = {
    "rsna": IMAGES_PER_PATIENT["rsna"],
    "nih": {
        1: 17503, 2: 4113, 3: 2100, 4: 1330, 5: 938, 6: 787, 7: 608, 8: 494, 9: 387, 10:
        320, 11: 281, 12: 235, 13: 165, 14: 181, 15: 121, 16: 120, 17: 91, 18: 77, 19: 77,
        20: 74, 21: 68, 22: 39, 23: 50, 24: 51, 25: 45, 26: 35, 27: 38, 28: 27, 29: 25, 30:
        28, 31: 17, 32: 22, 33: 20, 34: 23, 35: 24, 36: 8, 37: 11, 38: 16, 39: 11, 40: 12,
        41: 14, 42: 11, 43: 6, 44: 8, 45: 6, 46: 10, 47: 5, 48: 7, 49: 9, 50: 6, 51: 11, 52:
        7, 53: 5, 54: 7, 55: 10, 56: 7, 57: 2, 58: 4, 59: 3, 60: 3, 61: 8, 62: 7, 63: 3, 64:
        3, 65: 3, 66: 6, 67: 3, 68: 4, 69: 6, 70: 2, 71: 2, 73: 2, 74: 1, 75: 1, 76: 2, 77:
        2, 79: 1, 80: 2, 81: 3, 83: 1, 84: 2, 86: 3, 87: 1, 88: 1, 89: 1, 90: 2, 91: 1, 99:
        1, 102: 1, 108: 3, 109: 1, 111: 1, 114: 1, 116: 2, 117: 1, 119: 1, 130: 1, 137: 1,
        143: 1, 157: 1, 158: 1, 173: 1, 184: 1,
    },
}  # fmt: skip
"""Number of patients by number of images; NIH as counted in ``Data_Entry_2017_v2020.csv``."""


@pytest.mark.parametrize("name", NUMBERS_OF_IMAGES)
def test_named_sets_have_the_numbers_of_images_that_were_counted(name):
    images, patients = (
        np.array(list(each)) for each in (NUMBERS_OF_IMAGES[name], NUMBERS_OF_IMAGES[name].values())
    )
    mean, square = (np.average(images.astype(float) ** n, weights=patients) for n in (1, 2))
    added = images * (1 + (images - 1) / 2)
    spread = np.average(added**2, weights=patients) / np.average(added, weights=patients) ** 2
    assert IMAGE_NUMBERS[name][:2] == pytest.approx((mean, square), rel=1e-5)
    assert IMAGE_NUMBERS[name][2] == pytest.approx(spread / 2, rel=0.06)


@pytest.mark.parametrize(
    ("measure", "off"),
    [
        (plan_measure((0.85, 0.80), 0.5), 0.03),
        (plan_measure((0.80, 0.70), 0.2, images=3, within=0.5), 0.03),
        (plan_measure((0.85, 0.80), 0.3, images="rsna"), 0.03),
        (plan_measure((0.85, 0.75), 0.3, seeds=3, deviation=0.02), 0.03),
        (plan_measure((0.90, 0.84), 0.3, seeds=2, deviation=0.005, alike=0.8), 0.08),
        (reader_plan_measure((0.85, 0.78), 0.5, 5, 0.03), 0.08),
    ],
    ids=["one image", "three images", "images as in RSNA", "three trainings", "two trainings alike",
         "readers without a pilot"],
)  # fmt: skip
def test_a_planned_study_has_the_power_and_the_half_width_that_were_planned(measure, off):
    rng = np.random.default_rng(11)
    found = pd.DataFrame([measure(rng) for _ in range(300)]).mean()
    assert found["shown"] == pytest.approx(0.8, abs=3.5 * np.sqrt(0.16 / 300))
    assert found["found"] == pytest.approx(found["planned"], rel=off)


def test_readers_without_a_pilot_need_what_the_published_formula_says():
    # Obuchowski 2000: J d^2 / (2 lambda) = Var(TR) + (1 - r1) Var(error), F with 1 and J - 1.
    readers, gap, deviation = 6, 0.07, 0.03
    plan = CrossedPlan.assumed((0.85, 0.78), 0.5, readers, deviation)
    study = fewest_patients(plan, lambda study: study.power(gap) >= 0.8)
    error = plan.components.error * plan.pilot_cases / study.patients
    per_reader = 0.2 * deviation**2 + (1 - 0.47) * error
    limit = f_distribution.isf(0.05, 1, readers - 1)
    power = ncf.sf(limit, 1, readers - 1, readers * gap**2 / 2 / per_reader)
    assert power == pytest.approx(study.power(gap), abs=1e-6)


@pytest.mark.parametrize(
    "trials", [400, pytest.param(5000, marks=pytest.mark.long)], ids=["short", "whole"]
)
@pytest.mark.parametrize(
    ("auroc", "prevalence", "half_width", "off"),
    [(0.85, 0.3, 0.03, 0.02), (0.85, 0.3, 0.1, 0.06), (0.95, 0.1, 0.06, 0.15)],
    ids=["as planned", "22 positives", "18 positives, far from 0.5"],
)
def test_the_interval_of_one_auroc_has_the_half_width_that_was_planned(
    auroc, prevalence, half_width, off, trials
):
    plan = AssumedPlan((auroc,), prevalence)
    study = fewest_patients(plan, lambda study: study.half_width() <= half_width)
    rng, widths = np.random.default_rng(11), []
    for _ in range(trials):
        truth, (scores, _), owner = drawn(rng, study.patients, study.positives, (auroc,))
        found = auroc_parts(truth, scores, owner, study.patients).estimate()
        low, high = found.ci_low, found.ci_high
        widths.append((high - low) / 2)
    assert np.mean(widths) == pytest.approx(half_width, rel=off)


def test_equal_systems_are_shown_to_differ_as_often_as_the_test_errs():
    study = AssumedPlan((0.8, 0.8), 0.3, 0.5).study(500)
    assert study.power(0.0) == pytest.approx(0.05, abs=1e-6)
    assert power_of_t(0.0, 3.0, level=0.9) == pytest.approx(0.1)


def test_with_many_degrees_of_freedom_power_is_that_of_the_normal_distribution():
    expected = norm.cdf(2.5 - norm.ppf(0.975)) + norm.cdf(-2.5 - norm.ppf(0.975))
    assert power_of_t(2.5, np.inf) == pytest.approx(expected)
    assert power_of_t(2.5, 9e5) == pytest.approx(expected, abs=1e-5)


def seeds_of(rng, n_patients, aurocs_of_seeds, positives):
    """Parts of two systems: each training has its own true AUROC, all on the same images."""
    truth = np.arange(n_patients) < positives
    common = rng.normal(size=n_patients)
    found = []
    for seeds in aurocs_of_seeds:
        each = []
        for auroc in seeds:
            scores = 0.7 * common + 0.7 * rng.normal(size=n_patients)
            scores += np.sqrt(2) * ndtri(auroc) * truth
            each.append(auroc_parts(truth, scores, np.arange(n_patients), n_patients))
        found.append(each)
    return found


def test_a_study_as_large_as_its_pilot_has_the_error_of_the_pilot():
    rng = np.random.default_rng(5)
    truth, scores, owner = drawn(rng, 120, 40, (0.85, 0.75), 0.5, images=2, within=0.5)
    pilot = auroc_difference(truth, *scores, owner)
    parts = [[auroc_parts(truth, each, owner, 120)] for each in scores]
    plan = PilotPlan(parts)
    assert (plan.patients, plan.positives, plan.images) == (120, 40, 2)
    assert plan.study(120).error == pytest.approx(pilot.error)
    assert plan.study(120).freedom == pytest.approx(pilot.freedom)
    assert plan.study(480).error == pytest.approx(pilot.error / 2)
    assert plan.study(480).positives == 160


def test_seeds_of_a_pilot_count_as_they_do_in_a_comparison():
    rng = np.random.default_rng(6)
    systems = seeds_of(rng, 200, [(0.80, 0.86, 0.83), (0.74, 0.70, 0.78)], 80)
    pilot = auroc_over_seeds(*systems)
    assert PilotPlan(systems).study(200).error == pytest.approx(pilot.error, rel=1e-6)
    more = PilotPlan(systems, seeds=[12, 12])
    floor = PilotPlan(systems).study(10**7).error
    assert more.study(10**7).error == pytest.approx(floor / 2, rel=1e-2)
    assert fewest_patients(PilotPlan(systems), lambda study: study.error < floor / 2) is None


def test_the_variance_of_a_small_pilot_is_less_sure():
    rng = np.random.default_rng(7)
    ranges = []
    for n in (40, 400):
        truth, scores, owner = drawn(rng, n, n // 2, (0.85, 0.75), 0.5)
        plan = PilotPlan([[auroc_parts(truth, each, owner, n)] for each in scores])
        low, high = plan.variance_range()
        assert low < 1 < high
        assert plan.scaled(high).study(n).error == pytest.approx(plan.study(n).error * high**0.5)
        ranges.append(high / low)
    assert ranges[1] < ranges[0] / 2


def test_a_study_has_two_patients_of_either_class_however_large_the_difference():
    rng = np.random.default_rng(8)
    truth, scores, owner = drawn(rng, 200, 20, (0.99, 0.51))
    pilot = PilotPlan([[auroc_parts(truth, each, owner, 200)] for each in scores])
    study = fewest_patients(pilot, lambda study: study.power(0.48) >= 0.1)
    assert (study.patients, study.positives) == (20, 2)
    readers = CrossedPlan(VAN_DYKE, 114, 0.96, 50)
    study = fewest_patients(readers, lambda study: study.half_width() <= 0.9)
    assert (study.patients, study.positives) == (50, 48)


def test_the_interval_of_one_system_is_as_wide_as_on_the_logit_and_of_two_as_their_difference():
    rng = np.random.default_rng(9)
    truth, scores, owner = drawn(rng, 90, 30, (0.9, 0.8), 0.5)
    parts = [auroc_parts(truth, each, owner, 90) for each in scores]
    for systems in (parts[:1], parts):
        found = auroc_over_seeds(*([each] for each in systems))
        low, high = found.ci_low, found.ci_high
        study = PilotPlan([[each] for each in systems]).study(90)
        assert study.half_width() == pytest.approx((high - low) / 2)


def test_a_pilot_that_cannot_say_how_figures_vary_is_refused():
    truth = np.array([1, 0, 0, 0])
    one = auroc_parts(truth, np.array([0.9, 0.1, 0.2, 0.3]), np.arange(4), 4)
    with pytest.raises(InputError, match="two patients of either class"):
        PilotPlan([[one]])
    systems = seeds_of(np.random.default_rng(0), 50, [(0.8,), (0.7,)], 20)
    with pytest.raises(InputError, match="NAME=RUN,RUN"):
        PilotPlan(systems, seeds=[3, 3])


@pytest.mark.parametrize(("effect", "freedom"), [(9.0, 282.0), (9.0, 1000.0), (12.0, 20.0)])
def test_power_of_a_large_effect_is_almost_one_instead_of_undefined(effect, freedom):
    assert power_of_t(effect, freedom) == pytest.approx(1.0, abs=1e-9)
