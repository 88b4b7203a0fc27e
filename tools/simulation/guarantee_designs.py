"""Guarantees made on patients whose images resemble each other: how often they are violated.

Besides `cxr guarantee`, these ways are simulated: the same with images treated as patients,
as MAPIE does; one image of each patient; and a Bonferroni correction over 100 thresholds. Splits of
real patients are simulated, too. A sample with two rows of scores belongs to a system that points:
its point lies on a lesion if the second score is at least 0.5.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from mapie.risk_control import BinaryClassificationController
from scipy.special import expit, logit, ndtr, ndtri

from cxr_compare.hospital.guarantee.guaranteed_threshold import (
    FalseBoxes,
    GuaranteeImages,
    Localisation,
    share_p_values,
)
from cxr_compare.hospital.guarantee.guarantees import MAX_FALSE_POSITIVES, read_guarantee
from cxr_compare.studies.plan.binormal import bivariate_normal_below
from tools.simulation.makers import Floats, Noise, Sample, draw, skill_of
from tools.simulation.overlap_designs import guaranteed_false_boxes

Found = dict[str, float]
Named = tuple[str, Callable[[np.random.Generator], Found], float]
"""Name of a case, its measure, and the share of all data sets that is drawn for it."""

CONFIDENCE = 0.9
SKILL = skill_of(0.9)
POINT = float(ndtri(0.95))
POINT_ALIKE = np.array([0.5])
"""The point lies on a lesion in 95 % of positive images, more often if the score is high."""
LIKENESS = {
    0.0: Noise(0, 0, 0, 0.5, 0.25, 0.25),
    0.4: Noise(),
    0.8: Noise(0.4, 0.2, 0.2, 0.1, 0.05, 0.05),
}
"""Shares of the noise, by the correlation of a patient's images."""
PATIENTS = {"one": 500, "rsna": 330, "nih": 280}
"""Number of patients by their numbers of images, such that about 150 have a positive image."""
_GRID = np.linspace(0, 0.99, 100)
_MARKS = 1.2
_BACKGROUND = 0.15
"""Mean number of boxes without a lesion on a usual image, and their variation between patients."""
_DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
_REAL = (
    ("RSNA", "Consolidation"),
    ("NIH", "Consolidation"),
    ("NIH", "Effusion"),
    ("NIH", "Atelectasis"),
    ("NIH", "Infiltration"),
)
"""Source of the labels, and finding."""


def _images(sample: Sample, names: npt.NDArray[np.int64] | None = None) -> GuaranteeImages:
    owner = sample.patients if names is None else names
    boxed = np.ones(len(sample.y_true), bool)
    places = Localisation(boxed, sample.scores[1] >= 0.5) if len(sample.scores) > 1 else None
    return GuaranteeImages(sample.y_true, sample.scores[0], owner.astype(str), places)


def _chosen(images: GuaranteeImages, text: str) -> float:
    threshold, _ = images.choose(read_guarantee(text))
    return np.nan if threshold is None else threshold


def _one_image(sample: Sample, rng: np.random.Generator, counts: npt.NDArray[np.bool_]) -> Sample:
    """Return a sample with one random image of each patient among the counted ones.

    All other images stay.
    """
    place = rng.permutation(np.flatnonzero(counts))
    first = place[np.unique(sample.patients[place], return_index=True)[1]]
    kept = np.sort(np.concatenate([first, np.flatnonzero(~counts)]))
    return Sample(sample.y_true[kept], sample.scores[:, kept], sample.patients[kept])


def _bonferroni(sample: Sample, counts: npt.NDArray[np.bool_], floor: float, rising: bool) -> float:
    """Return the best of 100 thresholds that pass at a hundredth of the error, by patient."""
    good = (sample.scores[0, counts] >= _GRID[:, None]) == rising
    owner = np.unique(sample.patients[counts], return_inverse=True)[1]
    sums = np.array([np.bincount(owner, row) for row in good])
    error = (1 - CONFIDENCE) / len(_GRID)
    passed = _GRID[share_p_values(sums, np.bincount(owner), floor, error) <= error]
    return float(passed[-1 if rising else 0]) if len(passed) else np.nan


def _mapie(sample: Sample, figure: str, floor: float, steps: int = 100) -> float:
    """Return MAPIE's threshold by a fixed sequence, which treats images as independent."""
    recall = figure != "specificity"
    grid = np.linspace(0, 0.99, steps)
    controller = BinaryClassificationController(
        lambda scores: np.column_stack([1 - scores[:, 0], scores[:, 0]]),
        risk="recall" if recall else "fpr",
        target_level=floor if recall else 1 - floor,
        confidence_level=CONFIDENCE,
        list_predict_params=grid if recall else grid[::-1],
        fwer_method="fixed_sequence",
    )
    controller.calibrate(sample.scores[0][:, None], sample.y_true.astype(int))
    valid = np.asarray(controller.valid_predict_params)
    return float(valid.max() if recall else valid.min()) if len(valid) else np.nan


def _rates(threshold: float) -> dict[str, float]:
    cut = logit(threshold)
    return {
        "sensitivity": float(ndtr(SKILL - cut)),
        "specificity": float(ndtr(cut)),
        "localised_sensitivity": float(bivariate_normal_below(SKILL - cut, POINT, POINT_ALIKE)[0]),
    }


def _shares(rng: np.random.Generator, of: tuple[str, float, str, float]) -> Found:
    """Make a guarantee of a share once, in each of the ways."""
    clusters, alike, figure, floor = of
    skills = [[SKILL], [POINT]] if figure == "localised_sensitivity" else [[SKILL]]
    sample = draw(rng, PATIENTS[clusters], skills, clusters=clusters, noise=LIKENESS[alike])
    # Other ways know no points. For them, an image without its point on a lesion is not called.
    reached = np.where(sample.scores[1:] < 0.5, -1.0, sample.scores[:1]) if skills[1:] else None
    plain = sample if reached is None else Sample(sample.y_true, reached, sample.patients)
    rising = figure != "specificity"
    counts = sample.y_true == rising
    text = f"{figure}>={floor}@{CONFIDENCE}"
    thresholds = {
        "patients": _chosen(_images(sample), text),
        "images": _chosen(_images(sample, np.arange(len(sample.y_true))), text),
        "one image": _chosen(_images(_one_image(sample, rng, counts)), text),
        "Bonferroni": _bonferroni(plain, counts, floor, rising),
        "MAPIE": _mapie(plain, figure, floor),
    }
    found: Found = {}
    for way, threshold in thresholds.items():
        true = _rates(threshold) if threshold == threshold else {}
        found[f"{way}|broken"] = float(true.get(figure, 1.0) < floor)
        found[f"{way}|given"] = float(bool(true))
        found[f"{way}|price"] = true.get("specificity" if rising else "sensitivity", np.nan)
    return found


def _predictive(rng: np.random.Generator, clusters: str) -> Found:
    """Make a guarantee of a PPV, and one of sensitivity and specificity at once."""
    sample = draw(rng, 2 * PATIENTS[clusters], [[SKILL]], clusters=clusters)
    ppv = _rates(_chosen(_images(sample), f"ppv>=0.3,prevalence=0.1@{CONFIDENCE}"))
    called = 0.1 * ppv["sensitivity"], 0.9 * (1 - ppv["specificity"])
    both = _rates(_chosen(_images(sample), f"sensitivity>=0.80&specificity>=0.70@{CONFIDENCE}"))
    return {
        "ppv|broken": float(called[0] / sum(called) < 0.3),
        "ppv|given": float(ppv["sensitivity"] == ppv["sensitivity"]),
        "ppv|price": ppv["sensitivity"],
        "both|broken": float(both["sensitivity"] < 0.80 or both["specificity"] < 0.70),
        "both|given": float(both["sensitivity"] == both["sensitivity"]),
    }


def _marks(rng: np.random.Generator, clusters: str, n_patients: int) -> tuple[Sample, Localisation]:
    """Draw false boxes, whose number varies by patient and whose scores vary by image."""
    sample = draw(rng, n_patients, [[SKILL]], clusters=clusters)
    usual = rng.gamma(1 / _BACKGROUND, _BACKGROUND, sample.n_patients)[sample.patients]
    image = np.repeat(np.arange(len(usual)), rng.poisson(_MARKS * usual))
    scores = expit(logit(sample.scores[0, image]) * 0.3 + rng.standard_normal(len(image)) - 0.5)
    return sample, Localisation(np.ones(len(usual), dtype=bool), None, FalseBoxes(image, scores))


@cache
def _true_marks(clusters: str) -> tuple[Floats, Floats]:
    """Compute the true mean number of false boxes of an image, at most 5 counted, at thresholds."""
    sample, places = _marks(np.random.default_rng(0), clusters, 100_000)
    assert places.false_boxes is not None
    image, shown_up_to = places.false_boxes
    cuts = np.linspace(0.2, 0.9, 141)
    means = []
    for cut in cuts:
        counts = np.bincount(image[shown_up_to >= cut], minlength=len(sample.y_true))
        means.append(np.minimum(counts, MAX_FALSE_POSITIVES).mean())
    return cuts, np.array(means)


def _mark_count(rng: np.random.Generator, clusters: str) -> Found:
    """Make a guarantee of the mean number of false boxes."""
    sample, places = _marks(rng, clusters, PATIENTS[clusters])
    images = GuaranteeImages(sample.y_true, sample.scores[0], sample.patients.astype(str), places)
    threshold = _chosen(images, f"false_positives_per_image<=0.5@{CONFIDENCE}")
    true = float(np.interp(threshold, *_true_marks(clusters)))
    return {
        "marks|broken": float(true > 0.5),
        "marks|given": float(true == true),
        "marks|mean": true,
    }


@cache
def _real(labels: str, finding: str) -> Sample:
    """Read CheXNet's scores of a finding, with RSNA's labels of 3,553 images or NIH's of 14,834."""
    rows = pd.read_csv(_DATA / "chexnet_scores" / "preds.csv")
    if labels == "RSNA":
        truth = pd.read_csv(_DATA / "chexnet_scores" / "truth_rsna.csv")
        rows = truth.merge(rows, on="Image Index")
        positive = rows["Target"] == 1
    else:
        truth = pd.read_csv(_DATA / "reference_csv" / "Data_Entry_2017_v2020.csv.gz")
        rows = truth.merge(rows, on="Image Index", validate="one_to_one")
        positive = rows["Finding Labels"].str.split("|").map(lambda found: finding in found)
    owner = np.unique(rows["Image Index"].str[:8], return_inverse=True)[1]
    return Sample(positive.to_numpy(), rows[[f"prob_{finding}"]].to_numpy().T, owner)


def _resplit(rng: np.random.Generator, of: tuple[str, str, str, float]) -> Found:
    """Make a guarantee on one half of real patients, and check it on the other half and on all."""
    labels, finding, figure, floor = of
    whole = _real(labels, finding)
    text = f"{figure}>={floor}@{CONFIDENCE}"
    half = rng.permutation(whole.n_patients) < whole.n_patients // 2
    inside = half[whole.patients]
    rising = figure == "sensitivity"
    sample = Sample(whole.y_true[inside], whole.scores[:, inside], whole.patients[inside])
    names = {"patients": sample.patients, "images": np.arange(len(sample.y_true))}
    thresholds = {way: _chosen(_images(sample, owner), text) for way, owner in names.items()}
    thresholds["MAPIE"] = _mapie(sample, figure, floor, 1000)  # the scores are low
    found: Found = {}
    for way, threshold in thresholds.items():
        called = whole.scores[0] >= threshold
        good = called == rising
        counted = whole.y_true == rising
        there = float(threshold == threshold)
        found |= {
            f"{way}|given": there,
            f"{way}|other half": there * float(good[counted & ~inside].mean() < floor),
            f"{way}|broken": there * float(good[counted].mean() < floor),
            f"{way}|price": float((called != rising)[~counted].mean()) if there else np.nan,
        }
    return found


def _few_simulated(rng: np.random.Generator, of: tuple[str, int]) -> Found:
    """Make a guarantee of a sensitivity for which there may be too few patients."""
    clusters, n_patients = of
    sample = draw(rng, n_patients, [[SKILL]], clusters=clusters)
    threshold = _chosen(_images(sample), f"sensitivity>=0.9@{CONFIDENCE}")
    if threshold != threshold:
        return {"patients|given": 0.0, "patients|broken of all": 0.0}
    broken = float(_rates(threshold)["sensitivity"] < 0.9)
    return {
        "patients|given": 1.0,
        "patients|broken of all": broken,
        "patients|broken": broken,
    }


def _few_real(rng: np.random.Generator, of: tuple[str, str, float, int]) -> Found:
    """Make a guarantee on few real patients with unequal images, and check it on all images."""
    score, figure, floor, n_patients = of
    whole = _real("RSNA", score)
    drawn = rng.choice(whole.n_patients, n_patients, replace=False)
    inside = np.isin(whole.patients, drawn)
    sample = Sample(whole.y_true[inside], whole.scores[:, inside], whole.patients[inside])
    text = f"{figure}>={floor}@{CONFIDENCE}"
    names = {"patients": sample.patients, "images": np.arange(len(sample.y_true))}
    found: Found = {}
    for way, owner in names.items():
        threshold = _chosen(_images(sample, owner), text)
        found[f"{way}|given"] = float(threshold == threshold)
        if threshold != threshold:
            continue
        good = (whole.scores[0] >= threshold) == whole.y_true
        counted = whole.y_true == (figure == "sensitivity")
        found[f"{way}|broken"] = float(good[counted].mean() < floor)
        found[f"{way}|own below"] = float(good[counted & inside].mean() < floor)
        found[f"{way}|price"] = float(good[~counted].mean())
    return found


def risk_control() -> Iterator[Named]:
    """Yield the cases of guarantees, by numbers of images and their correlation."""
    for clusters in PATIENTS:
        for alike in LIKENESS:
            of = (clusters, alike, "sensitivity", 0.90)
            yield f"sensitivity, {clusters}, {alike}", partial(_shares, of=of), 1.0
    for clusters in PATIENTS:
        of = (clusters, 0.4, "specificity", 0.80)
        yield f"specificity, {clusters}, 0.4", partial(_shares, of=of), 1.0
    for clusters in PATIENTS:
        for alike in (0.4, 0.8):
            of = (clusters, alike, "localised_sensitivity", 0.80)
            yield f"localised, {clusters}, {alike}", partial(_shares, of=of), 1.0
    for clusters in PATIENTS:
        yield f"two figures, {clusters}, 0.4", partial(_predictive, clusters=clusters), 0.25
        yield f"false boxes, {clusters}, 0.4", partial(_mark_count, clusters=clusters), 0.25
    for clusters, n_patients in (("one", 100), ("one", 300), ("rsna", 100)):
        name = f"false boxes, {clusters}, overlap chosen on {n_patients} patients"
        measure = partial(guaranteed_false_boxes, n_patients=n_patients, clusters=clusters)
        yield name, measure, 0.25
    for labels, finding in _REAL:
        for figure, floor in (("sensitivity", 0.80), ("sensitivity", 0.90), ("specificity", 0.80)):
            name = f"real patients, {labels} {finding}, {figure} >= {floor:.2f}"
            yield name, partial(_resplit, of=(labels, finding, figure, floor)), 0.05
    yield from _few_patients()


def _few_patients() -> Iterator[Named]:
    """Yield the cases of validation sets that are as small as those of most hospitals."""
    for score in ("Consolidation", "Pneumonia", "Infiltration"):
        for figure, floor in (("specificity", 0.80), ("sensitivity", 0.80)):
            for n_patients in (100, 150, 200, 300):
                name = f"few real patients, {score}, {figure} >= {floor:.2f}, {n_patients}"
                measure = partial(_few_real, of=(score, figure, floor, n_patients))
                yield name, measure, 0.1
    for clusters in ("one", "rsna"):
        for n_patients in (60, 100, 150, 200, 300):
            name = f"few patients, {clusters}, {n_patients}"
            yield name, partial(_few_simulated, of=(clusters, n_patients)), 0.5
