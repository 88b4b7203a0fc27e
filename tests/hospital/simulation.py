"""Simulations of the annex: guarantees that are violated, and alarms without a change.

Guarantees are made on patients whose images resemble each other, simulated or real (CheXNet's
scores with the labels of RSNA and NIH). Streams of a small hospital have twenty visits a day, 30 %
of them by patients seen in the four weeks before, prevalence 18 %, sensitivity 0.79, specificity
0.86, every fifth image audited; the first 28 days are the reference, a change comes on day 60.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import expit, logit, ndtr, ndtri

from cxr_compare.hospital.answers.answer_log import AGE_BANDS
from cxr_compare.hospital.guarantee.guaranteed_threshold import (
    FalseBoxes,
    GuaranteeImages,
    Localisation,
)
from cxr_compare.hospital.guarantee.guarantees import MAX_FALSE_POSITIVES, read_guarantee
from cxr_compare.hospital.monitor.monitoring import monitor_log
from tools.simulation.claims import Found, Question
from tools.simulation.draw import ALIKE, NOISE, Floats, Noise, Sample, draw, skill_of

Measure = Callable[[np.random.Generator], Found]

_DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
_CONFIDENCE = 0.9
_SKILL = skill_of(0.9)
_POINT = 0.95
"""Share of positive images whose point lies on a lesion, whatever the score."""
_PATIENTS = {"one": 500, "rsna": 330, "nih": 280}
"""Number of patients by their numbers of images, such that about 150 have a positive image."""
_LIKENESS = {0.0: Noise(0, 0, 0, 0.5, 0.25, 0.25), 0.4: NOISE, 0.8: ALIKE}
"""Shares of the noise, by the correlation of a patient's images."""


def _guarantee_images(sample: Sample, places: Localisation | None = None) -> GuaranteeImages:
    return GuaranteeImages(sample.y_true, sample.scores[0], sample.patients.astype(str), places)


def _chosen(images: GuaranteeImages, text: str) -> float:
    """Return the threshold of a guarantee, NaN if none is found."""
    threshold, _ = images.choose(read_guarantee(text))
    return np.nan if threshold is None else threshold


def _violated(kind: str, is_violated: bool, threshold: float) -> Found:
    """Count a violation among all sets, as a set without a threshold violates nothing."""
    there = not np.isnan(threshold)
    return {kind: float(there and is_violated), "power guarantee": float(there)}


def _share(rng: np.random.Generator, *, clusters: str, alike: float, figure: str, floor: float,
           n_patients: int | None = None) -> Found:  # fmt: skip
    """Make a guarantee of a share on simulated patients."""
    size = n_patients or _PATIENTS[clusters]
    sample = draw(rng, size, [[_SKILL]], clusters=clusters, noise=_LIKENESS[alike])
    n_images = len(sample.y_true)
    places = Localisation(np.ones(n_images, dtype=bool), rng.random(n_images) < _POINT)
    is_point = figure == "localised_sensitivity"
    images = _guarantee_images(sample, places if is_point else None)
    threshold = _chosen(images, f"{figure}>={floor}@{_CONFIDENCE}")
    cut = logit(threshold)
    true = {
        "sensitivity": ndtr(_SKILL - cut),
        "specificity": ndtr(cut),
        "localised_sensitivity": _POINT * ndtr(_SKILL - cut),
    }[figure]
    return _violated(f"violated @ {figure}", bool(true < floor), threshold)


def _two_figures(rng: np.random.Generator, *, clusters: str, text: str) -> Found:
    """Make a guarantee of a PPV, or of sensitivity and specificity at once."""
    sample = draw(rng, 2 * _PATIENTS[clusters], [[_SKILL]], clusters=clusters)
    threshold = _chosen(_guarantee_images(sample), f"{text}@{_CONFIDENCE}")
    cut = logit(threshold)
    sensitivity, specificity = ndtr(_SKILL - cut), ndtr(cut)
    if text.startswith("ppv"):
        hits, alarms = 0.1 * sensitivity, 0.9 * (1 - specificity)
        return _violated("violated @ ppv", bool(hits < 0.3 * (hits + alarms)), threshold)
    return _violated(
        "violated @ two figures", bool(sensitivity < 0.80 or specificity < 0.70), threshold
    )


def _with_false_boxes(
    rng: np.random.Generator, clusters: str, n_patients: int
) -> tuple[Sample, Localisation]:
    """Draw false boxes, whose number varies by patient and whose scores vary by image."""
    sample = draw(rng, n_patients, [[_SKILL]], clusters=clusters)
    usual = rng.gamma(1 / 0.15, 0.15, sample.n_patients)[sample.patients]
    image = np.repeat(np.arange(len(usual)), rng.poisson(1.2 * usual))
    scores = expit(logit(sample.scores[0, image]) * 0.3 + rng.standard_normal(len(image)) - 0.5)
    return sample, Localisation(np.ones(len(usual), dtype=bool), None, FalseBoxes(image, scores))


@cache
def _true_false_boxes(clusters: str) -> tuple[Floats, Floats]:
    """Return thresholds, and the true mean number of false boxes of an image at each."""
    sample, places = _with_false_boxes(np.random.default_rng(0), clusters, 400_000)
    assert places.false_boxes is not None
    image, shown_up_to = places.false_boxes
    cuts = np.linspace(0.2, 0.9, 141)
    counts = (np.bincount(image[shown_up_to >= cut], minlength=len(sample.y_true)) for cut in cuts)
    return cuts, np.array([np.minimum(each, MAX_FALSE_POSITIVES).mean() for each in counts])


def _false_boxes(rng: np.random.Generator, *, clusters: str) -> Found:
    """Make a guarantee of the mean number of false boxes."""
    sample, places = _with_false_boxes(rng, clusters, _PATIENTS[clusters])
    images = _guarantee_images(sample, places)
    threshold = _chosen(images, f"false_positives_per_image<=0.5@{_CONFIDENCE}")
    true = float(np.interp(threshold, *_true_false_boxes(clusters)))
    return _violated("violated @ false boxes", true > 0.5, threshold)


@cache
def _real(labels: str, finding: str) -> Sample:
    """Read CheXNet's scores of a finding, with RSNA's labels of 3,553 images or NIH's of 14,834."""
    rows = pd.read_csv(_DATA / "chexnet_scores" / "preds.csv")
    if labels == "RSNA":
        truth = pd.read_csv(_DATA / "chexnet_scores" / "truth_rsna.csv")
        rows = truth.merge(rows, on="Image Index")
        positive = rows["Target"] == 1
    else:
        rows = _with_nih_labels(rows)
        positive = rows["labels"].map(lambda labels: finding in labels)
    owner = np.unique(rows["Image Index"].str[:8], return_inverse=True)[1]
    return Sample(positive.to_numpy(), rows[[f"prob_{finding}"]].to_numpy().T, owner)


def _with_nih_labels(rows: pd.DataFrame) -> pd.DataFrame:
    """Add to scores the list of NIH's findings of each image."""
    truth = pd.read_csv(_DATA / "reference_csv" / "Data_Entry_2017_v2020.csv.gz")
    rows = truth.merge(rows, on="Image Index", validate="one_to_one")
    return rows.assign(labels=rows["Finding Labels"].str.split("|"))


@cache
def _images_of_patients(labels: str, finding: str) -> list[npt.NDArray[np.int64]]:
    """Return the rows of each real patient's images."""
    owner = _real(labels, finding).patients
    order = np.argsort(owner, kind="stable")
    return np.split(order, np.cumsum(np.bincount(owner))[:-1])


def _real_patients(rng: np.random.Generator, *, labels: str, finding: str, figure: str,
                   floor: float, n_patients: int, confidence: float) -> Found:  # fmt: skip
    """Make a guarantee on real patients drawn with replacement, and check it on all images."""
    whole = _real(labels, finding)
    images = _images_of_patients(labels, finding)
    drawn = [images[patient] for patient in rng.integers(len(images), size=n_patients)]
    rows = np.concatenate(drawn)
    owner = np.repeat(np.arange(n_patients), [len(each) for each in drawn])
    sample = Sample(whole.y_true[rows], whole.scores[:, rows], owner)
    threshold = _chosen(_guarantee_images(sample), f"{figure}>={floor}@{confidence}")
    good = (whole.scores[0] >= threshold) == whole.y_true
    counted = whole.y_true == (figure == "sensitivity")
    kind = "violated, real" + (", 0.95" if confidence == 0.95 else "") + f" @ {figure}"
    return _violated(kind, bool(good[counted].mean() < floor), threshold)


@cache
def _real_false_marks() -> Floats:
    """Return marks on real images that show nothing: scores of findings that NIH's labels deny.

    Each finding is a mark on each image. Its score is the rank of CheXNet's score within the
    finding, or 0 where the label confirms it, shape ``(images, 14)``.
    """
    rows = _with_nih_labels(pd.read_csv(_DATA / "chexnet_scores" / "preds.csv"))
    marks = rows.filter(like="prob_").rank(pct=True)
    for column in marks:
        finding = column.removeprefix("prob_")
        marks.loc[rows["labels"].map(lambda labels, it=finding: it in labels), column] = 0.0
    return marks.to_numpy()


def _real_false_boxes(rng: np.random.Generator, *, all_images: bool, n_patients: int) -> Found:
    """Guarantee the mean number of false marks on real patients, and check it on all of them."""
    marks = _real_false_marks()
    patients = _images_of_patients("NIH", "Effusion")
    drawn = [patients[patient] for patient in rng.integers(len(patients), size=n_patients)]
    if not all_images:
        drawn = [rng.choice(images, 1) for images in drawn]
    taken = marks[np.concatenate(drawn)]
    owner = np.repeat(np.arange(n_patients), [len(images) for images in drawn])
    image, finding = np.nonzero(taken)
    boxed = np.ones(len(taken), dtype=bool)
    places = Localisation(boxed, None, FalseBoxes(image, taken[image, finding]))
    images = GuaranteeImages(~boxed, taken.max(axis=1), owner.astype(str), places)
    threshold = _chosen(images, f"false_positives_per_image<=0.5@{_CONFIDENCE}")
    counts = np.minimum((marks >= threshold).sum(axis=1), MAX_FALSE_POSITIVES)
    of_patient = [counts[images] for images in patients]
    if not all_images:
        of_patient = [each.mean(keepdims=True) for each in of_patient]
    true = np.concatenate(of_patient).mean()
    return _violated("violated, real @ false boxes", bool(true > 0.5), threshold)


def _guarantee_designs() -> dict[str, Callable[[], Measure]]:
    rows: dict[str, Measure] = {}
    for clusters in _PATIENTS:
        for alike in _LIKENESS:
            name = f"guarantee, sensitivity >= 0.90, {clusters}, alike by {alike}"
            rows[name] = partial(_share, clusters=clusters, alike=alike, figure="sensitivity",
                                 floor=0.9)  # fmt: skip
        for figure in ("specificity", "localised_sensitivity"):
            rows[f"guarantee, {figure} >= 0.80, {clusters}"] = partial(
                _share, clusters=clusters, alike=0.4, figure=figure, floor=0.8
            )
        for title, text in (
            ("PPV >= 0.3", "ppv>=0.3,prevalence=0.1"),
            ("sensitivity >= 0.80 and specificity >= 0.70", "sensitivity>=0.80&specificity>=0.70"),
        ):
            rows[f"guarantee, {title}, {clusters}"] = partial(
                _two_figures, clusters=clusters, text=text
            )
        rows[f"guarantee, false boxes, {clusters}"] = partial(_false_boxes, clusters=clusters)
    for clusters in ("one", "rsna"):
        for n in (60, 100, 150, 200, 300):
            rows[f"guarantee, few patients, {clusters}, {n}"] = partial(
                _share, clusters=clusters, alike=0.4, figure="sensitivity", floor=0.9,
                n_patients=n,
            )  # fmt: skip
    for labels, finding in (
        ("RSNA", "Consolidation"), ("RSNA", "Pneumonia"), ("RSNA", "Infiltration"),
        ("NIH", "Effusion"),
    ):  # fmt: skip
        for figure, floor, confidence in (
            ("specificity", 0.80, 0.9), ("specificity", 0.90, 0.95), ("sensitivity", 0.80, 0.9),
        ):  # fmt: skip
            for n in (100, 200, 400):
                name = f"guarantee, real {labels} {finding}, {figure} >= {floor:.2f} @ {confidence}"
                rows[f"{name}, {n} patients".replace(" @ ", " at ")] = partial(
                    _real_patients, labels=labels, finding=finding, figure=figure, floor=floor,
                    n_patients=n, confidence=confidence,
                )  # fmt: skip
    for all_images, title in ((False, "one image"), (True, "all images")):
        for n in (100, 200, 400):
            name = f"guarantee, real NIH false marks <= 0.5 at 0.9, {title}, {n} patients"
            rows[name] = partial(_real_false_boxes, all_images=all_images, n_patients=n)
    return {name: partial(_same, of) for name, of in rows.items()}


def _same(measure: Measure) -> Measure:
    """Return a measure as it is: it has no true values to compute first."""
    return measure


_RETURNING = 0.3  # share of visits
_MEMORY = 28  # days in which the former visit of a patient who returns lies
_WARM_UP = 60  # days before the log, so that its first patients return, too
_AUDITED = 0.2
_PREVALENCE = 0.18
_CUT = float(ndtri(0.86))  # threshold on the scale of the negatives' noise
_USUAL_SKILL = float(ndtri(0.79)) + _CUT
_SKILL_LOST = float(ndtri(0.46)) + _CUT
_SPREAD = float(np.sqrt(1 + _PREVALENCE * (1 - _PREVALENCE) * _USUAL_SKILL**2))  # of all scores
_DAILY = 20  # visits
_FIRST = 28
_CHANGE = 60
_THRESHOLD = 0.065  # of CheXNet's consolidation
_SHIFTS = {"scores + 0.3 SD": 0.3, "scores - 0.3 SD": -0.3}
CHANGES = (
    "sensitivity 0.79 to 0.46",
    "prevalence halved",
    "prevalence doubled",
    *_SHIFTS,
    "a camera replaced, scores + 0.4 SD there",
)


def hospital(
    rng: np.random.Generator,
    change: str = "",
    *,
    days: int = 160,
    alike: float = 0.5,
    sicker: float = 1.0,
) -> pd.DataFrame:
    """Draw a log of answers.

    Args:
        rng: Random generator.
        change: One of `CHANGES`; empty if nothing changes.
        days: Number of days.
        alike: Correlation of the scores of a patient's images within a class.
        sicker: Factor by which a positive patient is more likely to return than a negative one.

    Returns:
        The log, with one row for each image, as `monitor_log` takes it.
    """
    day = np.repeat(np.arange(-_WARM_UP, days), rng.poisson(_DAILY, _WARM_UP + days))
    n = len(day)
    latent = ndtr(rng.normal(size=n))  # of the visit's patient, if it is the first visit
    patient = _patients(rng, day, latent, sicker)
    first_day = np.full(n, days)
    np.minimum.at(first_day, patient, day)

    def noise(shared: float) -> Floats:
        return (
            np.sqrt(1 - shared) * rng.normal(size=n) + np.sqrt(shared) * rng.normal(size=n)[patient]
        )

    is_late = day >= _CHANGE
    factor = {"prevalence halved": 0.5, "prevalence doubled": 2.0}.get(change, 1.0)
    prevalence = np.where(first_day[patient] >= _CHANGE, factor, 1.0) * _PREVALENCE
    labels_alike = 0.8 if alike else 0.0
    common = np.sqrt(labels_alike) * ndtri(latent[patient])
    label = ndtr(common + np.sqrt(1 - labels_alike) * rng.normal(size=n)) < prevalence
    skill = np.where(is_late & (change == CHANGES[0]), _SKILL_LOST, _USUAL_SKILL)
    height = noise(alike) + skill * label
    if change in _SHIFTS:
        height = height + _SHIFTS[change] * _SPREAD * is_late
    maker = np.array(["agfa", "ge", "siemens"], dtype=object)[rng.choice(3, n, p=[0.4, 0.35, 0.25])]
    if change == CHANGES[-1]:
        is_new = is_late & (maker == "agfa")
        maker[is_new] = "philips"
        height = height + 0.4 * _SPREAD * is_new
    has_failed = rng.random(n) < 0.01

    def of_patient(names: list[str], shares: list[float]) -> npt.NDArray[np.object_]:
        return np.array(names, dtype=object)[rng.choice(len(names), n, p=shares)][patient]

    log = pd.DataFrame(
        {
            "time": pd.Timestamp("2026-01-01", tz="UTC") + pd.to_timedelta(day, "D"),
            "patient": patient,
            "image": np.arange(n),
            "status": np.where(has_failed, "refused", "ok"),
            "score": np.where(has_failed, np.nan, expit(height - 2)),
            "decision": np.where(has_failed, np.nan, height >= _CUT),
            "guard_distance": np.where(has_failed, np.nan, noise(alike)),
            "seconds": np.exp(0.3 * noise(0.0)),
            "label": np.where(rng.random(n) < _AUDITED, label, np.nan),
            "view": np.where(noise(0.3) < ndtri(0.4), "AP", "PA"),
            "sex": of_patient(["M", "F"], [0.5, 0.5]),
            "age_band": of_patient([*AGE_BANDS][3:], [0.3, 0.4, 0.2, 0.1]),
            "maker": maker,
        }
    )
    return log[day >= 0].reset_index(drop=True)


def _patients(
    rng: np.random.Generator, day: npt.NDArray[np.int64], latent: Floats, sicker: float
) -> npt.NDArray[np.int64]:
    """Return the patient of each visit, as the number of the patient's first visit."""
    n = len(day)
    patient = np.arange(n)
    begin = np.searchsorted(day, day - _MEMORY)
    returns = (rng.random(n) < _RETURNING) & (np.arange(n) > 0)
    for visit in np.flatnonzero(returns):
        former = patient[rng.integers(begin[visit], visit, 8)]
        weight = np.where(latent[former] < _PREVALENCE, sicker, 1.0)
        patient[visit] = former[np.searchsorted(np.cumsum(weight) / weight.sum(), rng.random())]
    return patient


def _validation(rng: np.random.Generator) -> pd.DataFrame:
    """Draw 370 labelled validation images, one for each patient."""
    label = rng.random(370) < _PREVALENCE
    height = rng.normal(size=370) + _USUAL_SKILL * label
    return pd.DataFrame(
        {
            "patient": np.arange(370),
            "score": expit(height - 2),
            "decision": (height >= _CUT).astype(float),
            "label": label.astype(float),
        }
    )


def _first_alarm(log: pd.DataFrame, validation: pd.DataFrame | None = None) -> float:
    """Return the day of the monitor's first alarm, from the first day of the log, or infinity."""
    begin = log["time"].min().normalize()
    days = [
        float((pd.Timestamp(row.change.on, tz="UTC") - begin).days)
        for row in monitor_log(log, validation, first=_FIRST).alarms
        if row.change is not None
    ]
    return min(days, default=np.inf)


def _quiet(rng: np.random.Generator, *, make: Callable[..., pd.DataFrame]) -> Found:
    """Count alarms in a log in which nothing changes."""
    return {"false alarm": float(np.isfinite(_first_alarm(make(rng))))}


def _found_change(rng: np.random.Generator, *, change: str, with_validation: bool) -> Found:
    """Count whether a change is found, and in 30 days."""
    log = hospital(rng, change)
    day = _first_alarm(log, _validation(rng) if with_validation else None)
    return {
        "false alarm": float(day < _CHANGE),
        "power monitor": float(_CHANGE <= day < np.inf),
        "power monitor in 30 days": float(_CHANGE <= day < _CHANGE + 30),
    }


def frequent_patients(rng: np.random.Generator) -> pd.DataFrame:
    """Draw a log of 60 patients who come back every few days, and are sicker at week-ends."""
    day = np.repeat(np.arange(200), rng.poisson(_DAILY, 200))
    patient = rng.integers(60, size=len(day))
    severity = rng.normal(size=60)[patient] + rng.normal(size=len(day))
    height = severity + 0.5 * np.isin(day % 7, (5, 6))
    label = np.where(rng.random(len(day)) < _AUDITED, height > 1.3, np.nan)
    return _as_log(day, patient, height, label)


def _as_log(
    day: npt.NDArray[np.int64], patient: npt.NDArray[np.int64], height: Floats, label: Floats
) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "time": pd.Timestamp("2026-01-01", tz="UTC") + pd.to_timedelta(day, "D"),
            "patient": patient,
            "image": np.arange(len(day)),
            "status": "ok",
            "score": expit(height - 2),
            "decision": (height >= _CUT).astype(float),
            "label": label,
        }
    )


def real_patients(rng: np.random.Generator, *, returning: bool) -> pd.DataFrame:
    """Draw a log of real patients with CheXNet's scores.

    Args:
        rng: Random generator.
        returning: False for all patients in random order, 25 a day, each with all images on one
            day. True for patients drawn with replacement, 10 new ones a day, whose images are a
            week apart on average; the log begins long after the first of them came.
    """
    whole = _real("RSNA", "Consolidation")
    images = pd.Series(np.arange(len(whole.patients))).groupby(whole.patients).indices
    drawn = rng.permutation(whole.n_patients)
    per_day, before, days = 25, 0, np.inf
    if returning:
        per_day, before, days = 10, 300, 166
        drawn = rng.integers(whole.n_patients, size=per_day * (before + 166))
    rows = np.concatenate([images[patient] for patient in drawn])
    sizes = [len(images[patient]) for patient in drawn]
    patient = np.repeat(np.arange(len(drawn)), sizes)
    day = patient // per_day - before
    if returning:
        gaps = pd.Series(rng.geometric(1 / 7, len(rows)))
        gaps[np.cumsum(sizes) - sizes] = 0  # the first image of each patient
        day = day + gaps.groupby(patient).cumsum().to_numpy()
    height = logit(whole.scores[0, rows]) - logit(_THRESHOLD) + _CUT
    label = np.where(rng.random(len(rows)) < _AUDITED, whole.y_true[rows], np.nan)
    kept = (day >= 0) & (day < days)
    log = _as_log(day[kept], patient[kept], height[kept], label[kept])
    return log.sort_values("time", kind="stable", ignore_index=True)


def _monitor_designs() -> dict[str, Callable[[], Measure]]:
    streams: dict[str, Callable[..., pd.DataFrame]] = {
        f"images alike by {alike:g}": partial(hospital, days=180, alike=alike)
        for alike in (0.0, 0.5, 0.8)
    }
    streams |= {
        "positive patients return three times as often": partial(hospital, days=180, sicker=3.0),
        "60 patients who come back every few days": frequent_patients,
        "real patients": partial(real_patients, returning=False),
        "real patients who return": partial(real_patients, returning=True),
    }
    rows: dict[str, Measure] = {
        f"monitor, no change, {name}": partial(_quiet, make=make) for name, make in streams.items()
    }
    for change in CHANGES:
        rows[f"monitor, {change}"] = partial(_found_change, change=change, with_validation=False)
    name = f"monitor, {CHANGES[0]}, with validation"
    rows[name] = partial(_found_change, change=CHANGES[0], with_validation=True)
    return {name: partial(_same, of) for name, of in rows.items()}


DESIGNS = _guarantee_designs() | _monitor_designs()
QUESTIONS = {
    "violated": Question("a guarantee with confidence 0.90 is violated", "at most 10"),
    "violated, real": Question("the same on real scores", "at most 10"),
    "violated, real, 0.95": Question(
        "a guarantee with confidence 0.95 is violated on real scores", "at most 5"
    ),
    "power guarantee": Question("a guarantee finds a threshold"),
    "false alarm": Question(
        "the monitor raises an alarm although nothing has changed", "at most 5"
    ),
    "power monitor": Question("the monitor finds a change in 100 days"),
    "power monitor in 30 days": Question("the monitor finds a change in 30 days"),
}
