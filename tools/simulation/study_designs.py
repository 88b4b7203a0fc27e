"""Studies with a known truth: cross-validation, planned studies, and learning curves."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations

import numpy as np
import pandas as pd
from scipy.optimize import brentq
from scipy.special import expit, logit, ndtri, stdtrit
from sklearn.linear_model import LogisticRegression

from cxr_compare.evaluation.report.folds import summarise_folds
from cxr_compare.evaluation.statistics.clustered_auroc import (
    AurocParts,
    auroc_over_seeds,
    auroc_parts,
)
from cxr_compare.evaluation.statistics.clustered_estimate import ClusteredEstimate
from cxr_compare.evaluation.statistics.holm import holm
from cxr_compare.evaluation.statistics.obuchowski_rockette import (
    FREEDOM_OF_A_CLAIM,
    analyse_crossed,
    analyse_nested,
)
from cxr_compare.studies.curve.learning_curve import fit_learning_curves
from cxr_compare.studies.plan.plan_basis import plans_assumed
from cxr_compare.studies.plan.sample_size import Plan, PlannedStudy, fewest_patients
from tools.simulation.makers import IMAGES_OF_A_PATIENT, Floats, draw
from tools.simulation.reader_designs import LEVELS, rated_auroc

Measured = Callable[[np.random.Generator], dict[str, float]]

_FOLDS = 5
_LEARNERS = 9
# spread of the true log-odds, and where they begin
_SIGNAL = 2.2
_BASE = -1.3
_TRUTH_TRAININGS = 400
_TRUTH_TEST = 20_000


def _auroc(truth: np.ndarray, scores: Floats) -> float:
    ranks = np.argsort(np.argsort(scores, kind="stable"), kind="stable") + 1
    n = int(truth.sum())
    return float((ranks[truth].sum() - n * (n + 1) / 2) / (n * (len(truth) - n)))


def _patients(rng: np.random.Generator, count: int, features: int) -> tuple[Floats, np.ndarray]:
    """Draw features of patients, all of equal weight, and who is ill: about 30 %."""
    table = rng.standard_normal((count, features))
    odds = _BASE + _SIGNAL / np.sqrt(features) * table.sum(axis=1)
    return table, rng.random(count) < expit(odds)


def _learned(
    rng: np.random.Generator, table: Floats, ill: np.ndarray, learner: int, noisy: bool
) -> Callable[[Floats], Floats]:
    """Fit a ridge regression that sees one half of the features, chosen by `learner`.

    All features have the same distribution, so that the learners are equally good; the first two
    share no feature. If `noisy` is True, each learner fits to a random seven tenths of the
    patients.
    """
    count = table.shape[1]
    shuffled = np.random.default_rng(learner // 2).permutation(count)
    seen = shuffled.reshape(2, -1)[learner % 2]
    rows = rng.permutation(len(ill))[: round(0.7 * len(ill))] if noisy else slice(None)
    model = LogisticRegression(solver="newton-cholesky").fit(table[rows][:, seen], ill[rows])
    return lambda other: np.asarray(model.decision_function(other[:, seen]))


def folds_measure(rng: np.random.Generator, patients: int, features: int, noisy: bool) -> Measured:
    """Return a simulation of nine equal learners over five folds, as `cxr folds` evaluates them.

    Args:
        rng: Random generator, for the true AUROC.
        patients: Number of patients.
        features: Number of features that each learner sees.
        noisy: True if each learner fits to a random seven tenths of the patients.

    Returns:
        A function of a random generator that returns wrong claims and coverage of one
        cross-validation.
    """
    features *= 2
    pairs = list(combinations(range(_LEARNERS), 2))
    seen = []
    for _ in range(_TRUTH_TRAININGS):
        table, ill = _patients(rng, patients * (_FOLDS - 1) // _FOLDS, features)
        test, ill_test = _patients(rng, _TRUTH_TEST, features)
        seen.append(_auroc(ill_test, _learned(rng, table, ill, 0, noisy)(test)))
    truth = float(np.mean(seen))

    def measure(rng: np.random.Generator) -> dict[str, float]:
        table, ill = _patients(rng, patients, features)
        order = rng.permutation(patients)
        order = order[np.argsort(ill[order], kind="stable")]  # dealt out class by class
        fold_of = np.empty(patients, dtype=int)
        fold_of[order] = np.arange(patients) % _FOLDS
        rows = []
        for fold in range(_FOLDS):
            test = fold_of == fold
            found = [
                _auroc(ill[test], _learned(rng, table[~test], ill[~test], at, noisy)(table[test]))
                for at in range(_LEARNERS)
            ]
            values = {"A": found[0], "B": found[1]}
            values |= {f"{a}-{b}": found[a] - found[b] for a, b in pairs}
            rows += [{"system": s, "fold": fold, "estimate": value} for s, value in values.items()]
        frame = pd.DataFrame(rows).assign(
            target="t", unit="image", subgroup="all", policy="", metric="auroc"
        )
        folds = summarise_folds(frame).set_index("system")
        plain = folds["sd"] / np.sqrt(_FOLDS) * stdtrit(_FOLDS - 1, 0.975)
        gap = folds.loc["0-1"]
        own = folds.loc[["A", "B"]]
        adjusted = holm([*folds.loc[[f"{a}-{b}" for a, b in pairs], "p"]])
        holds = (own["ci_low"] <= truth) & (truth <= own["ci_high"])
        return {
            "claimed": float(gap["ci_low"] > 0 or gap["ci_high"] < 0),
            "covers": float(holds.mean()),
            "any of 36": float(any(p < 0.05 for p in adjusted if p is not None)),
            "claimed|t": float(abs(gap["mean"]) > plain["0-1"]),
            "covers|t": float(((own["mean"] - truth).abs() <= plain[["A", "B"]]).mean()),
        }

    return measure


_NIH = {
    1: 17503,
    2: 4113,
    3: 2100,
    4: 1330,
    5: 938,
    6: 787,
    7: 608,
    8: 494,
    9: 387,
    10: 320,
    11: 281,
    12: 235,
    13: 165,
    14: 181,
    15: 121,
    16: 120,
    17: 91,
    18: 77,
    19: 77,
    20: 74,
    21: 68,
    22: 39,
    23: 50,
    24: 51,
    25: 45,
    26: 35,
    27: 38,
    28: 27,
    29: 25,
    30: 28,
    31: 17,
    32: 22,
    33: 20,
    34: 23,
    35: 24,
    36: 8,
    37: 11,
    38: 16,
    39: 11,
    40: 12,
    41: 14,
    42: 11,
    43: 6,
    44: 8,
    45: 6,
    46: 10,
    47: 5,
    48: 7,
    49: 9,
    50: 6,
    51: 11,
    52: 7,
    53: 5,
    54: 7,
    55: 10,
    56: 7,
    57: 2,
    58: 4,
    59: 3,
    60: 3,
    61: 8,
    62: 7,
    63: 3,
    64: 3,
    65: 3,
    66: 6,
    67: 3,
    68: 4,
    69: 6,
    70: 2,
    71: 2,
    73: 2,
    74: 1,
    75: 1,
    76: 2,
    77: 2,
    79: 1,
    80: 2,
    81: 3,
    83: 1,
    84: 2,
    86: 3,
    87: 1,
    88: 1,
    89: 1,
    90: 2,
    91: 1,
    99: 1,
    102: 1,
    108: 3,
    109: 1,
    111: 1,
    114: 1,
    116: 2,
    117: 1,
    119: 1,
    130: 1,
    137: 1,
    143: 1,
    157: 1,
    158: 1,
    173: 1,
    184: 1,
}
"""Number of patients by number of images: NIH ChestX-ray14, ``Data_Entry_2017_v2020.csv``."""
NUMBERS_OF_IMAGES = {"rsna": IMAGES_OF_A_PATIENT, "nih": _NIH}


def _normals(rng: np.random.Generator, owner: np.ndarray, variance: float, within: float) -> Floats:
    """Draw noise of images, of whose variance the share `within` belongs to the patient."""
    of_patient = np.sqrt(within) * rng.standard_normal(owner[-1] + 1)[owner]
    own = np.sqrt(1 - within) * rng.standard_normal(len(owner))
    return np.asarray(np.sqrt(variance) * (of_patient + own))


def plan_measure(
    aurocs: tuple[float, float],
    prevalence: float,
    *,
    images: int | str = 1,
    within: float = 0.4,
    seeds: int = 1,
    deviation: float = 0.0,
    alike: float = 1.0,
) -> Measured:
    """Return a simulation of studies of the size that is planned for a power of 0.80.

    The studies are drawn by other code than that of the plan.

    Args:
        aurocs: True AUROCs of both systems.
        prevalence: Share of positive patients.
        images: Number of images of a patient, or the name of a data set.
        within: Correlation of one system's scores on images of a patient.
        seeds: Number of trainings of each system.
        deviation: Standard deviation of the AUROC between trainings.
        alike: Correlation of two trainings' scores within a class.

    Returns:
        A function of a random generator that returns 1 if the difference is shown, else 0, and the
        planned and found half-width.
    """
    assumed = {
        **({} if images == 1 else {"within": within}),
        **({} if seeds == 1 else {"seed_deviation": deviation, "seed_correlation": alike}),
    }
    gap = aurocs[0] - aurocs[1]
    between = 0.5
    plan = plans_assumed(
        aurocs, prevalence, correlation=between, images=[images], seeds=[seeds], **assumed
    ).first
    study = _of_power(plan, gap)

    def measure(rng: np.random.Generator) -> dict[str, float]:
        sizes = np.full(study.patients, images)
        if isinstance(images, str):
            table = NUMBERS_OF_IMAGES[images]
            shares = np.array(list(table.values())) / sum(table.values())
            sizes = rng.choice(list(table), study.patients, p=shares)
        owner = np.repeat(np.arange(study.patients), sizes)
        truth = owner < study.positives
        common = _normals(rng, owner, between, within)
        systems = []
        for auroc in aurocs:
            of_system = common + _normals(rng, owner, alike - between, within)
            trained = []
            for _ in range(seeds):
                true = auroc + (deviation * rng.standard_normal() if seeds > 1 else 0.0)
                own = of_system + _normals(rng, owner, 1 - alike, within)
                scores = own + np.sqrt(2) * ndtri(true) * truth
                trained.append(auroc_parts(truth, scores, owner, study.patients))
            systems.append(trained)
        return _shown(auroc_over_seeds(*systems), study)

    return measure


def reader_plan_measure(
    aurocs: tuple[float, float], prevalence: float, readers: int, deviation: float
) -> Measured:
    """Return a simulation of reader studies of the size that is planned without a pilot.

    Args:
        aurocs: True AUROCs of both modalities.
        prevalence: Share of positive cases.
        readers: Number of readers.
        deviation: Standard deviation of the AUROC between readers.

    Returns:
        A function of a random generator that returns 1 if the difference is shown, else 0, and the
        planned and found half-width.
    """
    plan = plans_assumed(aurocs, prevalence, readers=[readers], reader_deviation=deviation).first
    study = _of_power(plan, aurocs[0] - aurocs[1])
    # Ratings that correlate so give AUROCs whose errors correlate by 0.30 and 0.47.
    all_alike = 0.32
    same_reader = 0.495

    def measure(rng: np.random.Generator) -> dict[str, float]:
        cases = np.arange(study.patients)
        truth = cases < study.positives
        common = np.sqrt(all_alike) * rng.standard_normal(study.patients)
        parts = np.empty((2, readers), dtype=object)
        for reader in range(readers):
            shared = np.sqrt(same_reader - all_alike) * rng.standard_normal(study.patients)
            apart = np.sqrt(0.8) * rng.standard_normal()
            for modality, auroc in enumerate(aurocs):
                skill = auroc + deviation * (apart + np.sqrt(0.2) * rng.standard_normal())
                own = np.sqrt(1 - same_reader) * rng.standard_normal(study.patients)
                ratings = common + shared + own + np.sqrt(2) * ndtri(skill) * truth
                parts[modality, reader] = auroc_parts(truth, ratings, cases, study.patients)
        added = np.column_stack([each.contributions for each in parts.ravel()])
        figures = np.array([[each.value for each in row] for row in parts])
        return _shown(analyse_crossed(figures, added.T @ added).differences[0, 1], study)

    return measure


def _of_power(plan: Plan, gap: float) -> PlannedStudy:
    study = fewest_patients(plan, lambda study: study.power(gap) >= 0.8)
    assert study is not None
    return study


def _shown(found: ClusteredEstimate, study: PlannedStudy) -> dict[str, float]:
    low, high = found.ci_low, found.ci_high
    return {
        "patients": float(study.patients),
        "shown": float(found.p_value is not None and found.p_value < 0.05),
        "planned": study.half_width(),
        "found": (high - low) / 2,
    }


_SIZES = np.array([100.0, 200.0, 400.0, 800.0])


def trained_arms(
    rng: np.random.Generator, lacks: Floats, patients: int
) -> tuple[Floats, Floats, float]:
    """Simulate the AUROCs of trainings of several models, on patients that all share.

    Scores are binormal. The effect of a patient has parts that are shared by all trainings, by
    those of one model, by those of one size, and a part of each single training.

    Args:
        rng: Random generator.
        lacks: 1 minus the true AUROC of each training, shape ``(models, sizes, seeds)``.
        patients: Number of test patients.

    Returns:
        AUROCs in the same shape, their covariance over patients, and its degrees of freedom.
    """
    truth = np.arange(patients) < 0.3 * patients
    scores = (np.sqrt(2) * ndtri(1 - np.minimum(lacks, 0.6)))[..., None] * truth
    for variance, levels in ((0.5, 0), (0.15, 1), (0.1, 2), (0.25, 3)):
        common = lacks.shape[:levels] + (1,) * (3 - levels)
        scores = scores + np.sqrt(variance) * rng.standard_normal((*common, patients))
    owner = np.arange(patients)
    parts = [auroc_parts(truth, each, owner, patients) for each in scores.reshape(-1, patients)]
    added = np.column_stack([each.contributions for each in parts])
    figures = np.array([each.value for each in parts]).reshape(lacks.shape)
    return figures, added.T @ added, AurocParts.mean(parts).freedom


def curve_measure(patients: int, *, plateau: bool) -> Measured:
    """Return a simulation of two models with the same learning curve, at four sizes.

    Args:
        patients: Number of test patients.
        plateau: True for a curve that ends in a plateau, False for a power law.

    Returns:
        A function of a random generator that returns how often the bands contain the true curve.
    """
    lacks = 0.12 + 0.18 * (_SIZES / 100) ** -0.9 if plateau else 0.3 * (_SIZES / 100) ** -0.25
    shape = (2, len(_SIZES), 3)

    def measure(rng: np.random.Generator) -> dict[str, float]:
        apart = np.exp(0.1 * rng.standard_normal(shape) - 0.1**2 / 2)
        figures, covariance, freedom = trained_arms(rng, lacks[:, None] * apart, patients)
        curves = fit_learning_curves([_SIZES] * 2, figures, covariance, freedom)
        bands = [curve.at(_SIZES) for curve in curves]
        holds = [(band.low <= 1 - lacks) & (1 - lacks <= band.high) for band in bands]
        beyond = [curve.at([2 * _SIZES[-1]]) for curve in curves]
        last = 1 - (0.12 + 0.18 * 16**-0.9 if plateau else 0.3 * 16**-0.25)
        return {
            **{
                f"covers|{at:g}": float(np.mean(held))
                for at, held in zip(_SIZES, np.transpose(holds), strict=True)
            },
            "covers|1600": float(np.mean([b.low[0] <= last <= b.high[0] for b in beyond])),
            "lack of fit": float(np.mean([(c.lack_of_fit or 1.0) < 0.05 for c in curves])),
        }

    return measure


_BETWEEN = 0.29
"""Standard deviation between readers of the shift of positive cases."""


def few_readers_measure(rng: np.random.Generator, readers: int, cases: int) -> Measured:
    """Return a simulation of a few readers of one modality and an equally good system.

    Args:
        rng: Random generator, for the true figures.
        readers: Number of readers.
        cases: Number of cases.

    Returns:
        A function of a random generator that returns wrong claims, coverage and widths of
        intervals.
    """
    skill = np.sqrt(2) * ndtri(0.85)
    shifts = skill + _BETWEEN * rng.standard_normal(4000)
    truth = float(rated_auroc(shifts).mean())
    of_system = float(brentq(lambda shift: rated_auroc(np.array([shift]))[0] - truth, 0.5, 3.0))

    def measure(rng: np.random.Generator) -> dict[str, float]:
        own = [[skill + _BETWEEN * rng.standard_normal()] for _ in range(readers)]
        sample = draw(rng, cases, [*own, [of_system]], prevalence=0.45)
        ratings = (logit(sample.scores)[:, None, :] > LEVELS[None, :, None]).sum(axis=1)
        parts = [auroc_parts(sample.y_true, each, sample.patients, cases) for each in ratings]
        added = np.column_stack([each.contributions for each in parts])
        figures = np.array([each.value for each in parts])
        found = analyse_nested(
            [figures[:-1], figures[-1:]], added.T @ added, readers=["random", "fixed"]
        )
        mean = found.systems[0]
        gap = found.differences[0, 1]
        told = {}
        published = (mean.ci_low, mean.ci_high), (gap.ci_low, gap.ci_high)
        cautious = mean.cautious_interval_at(0.95), gap.cautious_interval_at(0.95)
        claimed = cautious if readers - 1 < FREEDOM_OF_A_CLAIM else published
        for name, ends in (("|published", published), ("", claimed)):
            (low, high), (from_, to) = ends
            told[f"covers{name}"] = float(low <= truth <= high)
            told[f"claimed{name}"] = float(from_ > 0 or to < 0)
            told[f"width{name}"] = (high - low) / 2
        return told

    return measure


Maker = Callable[[np.random.Generator], Measured]
FOLDS: dict[str, Maker] = {
    "645 patients, 30 features": lambda rng: folds_measure(rng, 645, 30, noisy=False),
    "the same, noisy training": lambda rng: folds_measure(rng, 645, 30, noisy=True),
    "200 patients, 30 features": lambda rng: folds_measure(rng, 200, 30, noisy=False),
    "200 patients, 10 features": lambda rng: folds_measure(rng, 200, 10, noisy=False),
    "2,000 patients, 30 features": lambda rng: folds_measure(rng, 2000, 30, noisy=False),
}
PLANS: dict[str, Maker] = {
    "0.85, 0.80; images as in RSNA": lambda _: plan_measure((0.85, 0.80), 0.5, images="rsna"),
    "0.85, 0.80; images as in NIH": lambda _: plan_measure((0.85, 0.80), 0.3, images="nih"),
    "0.85, 0.80; 3 images each": lambda _: plan_measure((0.85, 0.80), 0.5, images=3),
    "0.90, 0.84; 2 seeds, alike by 0.8, deviation 0.005": lambda _: plan_measure(
        (0.90, 0.84), 0.3, seeds=2, deviation=0.005, alike=0.8
    ),
    "0.90, 0.82; 2 seeds, alike by 0.8, deviation 0.01": lambda _: plan_measure(
        (0.90, 0.82), 0.3, seeds=2, deviation=0.01, alike=0.8
    ),
    "0.90, 0.84; 2 seeds, alike by 1, deviation 0.01": lambda _: plan_measure(
        (0.90, 0.84), 0.3, seeds=2, deviation=0.01
    ),
    "0.90, 0.84; 3 seeds, alike by 0.8, deviation 0.015": lambda _: plan_measure(
        (0.90, 0.84), 0.3, seeds=3, deviation=0.015, alike=0.8
    ),
    "0.85, 0.80; 2 seeds, alike by 0.6, no deviation": lambda _: plan_measure(
        (0.85, 0.80), 0.3, seeds=2, alike=0.6
    ),
    "readers without a pilot: 0.85, 0.78; 5, deviation 0.03": lambda _: reader_plan_measure(
        (0.85, 0.78), 0.5, 5, 0.03
    ),
    "readers without a pilot: 0.80, 0.75; 10, deviation 0.05": lambda _: reader_plan_measure(
        (0.80, 0.75), 0.3, 10, 0.05
    ),
}
FEW_READERS: dict[str, Maker] = {
    f"{readers} readers and a system, {cases} cases": (
        lambda rng, at=(readers, cases): few_readers_measure(rng, *at)
    )
    for readers, cases in ((2, 100), (3, 100), (3, 300), (4, 100), (5, 100))
}
CURVES: dict[str, Maker] = {
    f"{'level at 0.88' if plateau else 'power law'}, {patients} patients, 3 seeds": (
        lambda _, at=(patients, plateau): curve_measure(at[0], plateau=at[1])
    )
    for plateau in (False, True)
    for patients in (150, 700)
}
