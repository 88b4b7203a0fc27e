"""The designs: each draws systems, a truth as `cxr_compare.compare` takes it, and what is known.

In most designs all systems are equally good, so that every claim of a difference is false.
"""

from __future__ import annotations

import contextlib
import io
import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import expit, logit, ndtr, ndtri
from scipy.stats import rankdata
from sklearn.linear_model import LogisticRegression

import cxr_compare
from cxr_compare.evaluation.report.folds import summarise_folds
from cxr_compare.evaluation.statistics.clustered_auroc import auroc_parts, margin_interval
from cxr_compare.evaluation.verdict.margin import decide
from tools.simulation import claims
from tools.simulation.draw import EDGES, LUNGS, SIDE, Floats, Law, Sample, draw, draw_boxes
from tools.simulation.quick import findings_of, verdict_of

FEWEST = 100  # resamples
_TRUTH = 2026  # seed of the images that true values are computed from


@dataclass(frozen=True)
class Known:
    """What is known to be true of drawn systems.

    Attributes:
        auroc: AUROC of each system, which says which one is better, if any.
        law: Law of the images, from which the true figures of the first system follow.
        image_blind: Systems whose boxes do not depend on the image.
        joint_adds: True if systems see different things, so that joining them adds something.
        of_view: AUROC of the view alone.
        misread: How the scores of a role were changed, ``scale`` or ``turned``; empty if not.
        precisions: Average precision of the first system, by finding.
    """

    auroc: Mapping[str, float]
    law: Law = field(default_factory=Law)
    image_blind: frozenset[str] = frozenset()
    joint_adds: bool = False
    of_view: float = 0.5
    misread: str = ""
    precisions: Mapping[str, float] = field(default_factory=dict)

    def better(self, first: str, second: str) -> str | None:
        """Return the better of two systems, None if they are equal."""
        if self.auroc[first] == self.auroc[second]:
            return None
        return max(first, second, key=self.auroc.__getitem__)

    def population(self) -> tuple[Floats, Floats, float]:
        """Return rising scores of positive and negative images, and the share of positive ones."""
        return _population(self.law)

    def mean_auroc(self) -> float:
        """Return the mean AUROC of the first system over test sets like the drawn one."""
        return _mean_auroc(self.law)

    def average_precision(self) -> float:
        """Return the average precision of the first system in all patients."""
        return precision_over_ranks(*self.population())

    def brier(self, scores: pd.Series, probabilities: pd.Series) -> float:
        """Return the Brier score of the first system, whose scores have these probabilities."""
        # Platt's scaling is a line in log-odds, so any two scores give it.
        ends = [scores.argmin(), scores.argmax()]
        slope, start = np.polyfit(logit(scores.iloc[ends]), logit(probabilities.iloc[ends]), 1)
        positive, negative, share = self.population()
        of_positive, of_negative = (
            expit(slope * logit(values) + start) for values in (positive, negative)
        )
        error = share * np.mean((1 - of_positive) ** 2) + (1 - share) * np.mean(of_negative**2)
        return float(error)

    def rates(self, threshold: float, share: float | None = None) -> dict[str, float]:
        """Return the figures of the first system at a threshold, for a share of positive images.

        None takes the share that test sets like the drawn one have.
        """
        positive, negative, of_all = self.population()
        share = of_all if share is None else share
        recall = 1 - float(np.searchsorted(positive, threshold)) / len(positive)
        specificity = float(np.searchsorted(negative, threshold)) / len(negative)
        tp, fn = share * recall, share * (1 - recall)
        tn, fp = (1 - share) * specificity, (1 - share) * (1 - specificity)
        called = tp + fp
        spread = np.sqrt(called * (1 - called) * share * (1 - share))
        return {
            "recall": recall,
            "specificity": specificity,
            "precision": tp / called if called else np.nan,
            "npv": tn / (tn + fn) if called < 1 else np.nan,
            "f1": 2 * tp / (2 * tp + fp + fn),
            "accuracy": tp + tn,
            "balanced_accuracy": (recall + specificity) / 2,
            "mcc": float((tp * tn - fp * fn) / spread) if spread else np.nan,
        }

    def box_figures(self) -> dict[str, float]:
        """Return the figures of the first detector's boxes on many images."""
        return _box_figures(self.law)[0]

    def localised(self, threshold: float) -> float:
        """Return the share of positive images that the first detector calls and points at."""
        scores = _box_figures(self.law)[1]
        return float(np.mean(scores >= threshold))


def auroc(positive: npt.NDArray[np.bool_], values: Floats) -> float:
    """Return the share of pairs in which the positive image has the higher score."""
    n_positive = int(positive.sum())
    above = rankdata(values)[positive].sum() - n_positive * (n_positive + 1) / 2
    return float(above / (n_positive * (len(positive) - n_positive)))


def precision_over_ranks(positive: Floats, negative: Floats, share: float) -> float:
    """Return the average precision of rising scores of both classes, for a share of positives.

    Equal scores are one step.
    """
    recall = 1 - np.searchsorted(positive, positive) / len(positive)
    above = 1 - np.searchsorted(negative, positive) / len(negative)
    return float(np.mean(share * recall / (share * recall + (1 - share) * above)))


@cache
def _mean_auroc(law: Law) -> float:
    rng = np.random.default_rng(_TRUTH)
    samples = (draw(rng, law, law.patients) for _ in range(2000))
    return float(np.mean([auroc(each.positive, each.scores[0]) for each in samples]))


@cache
def _population(law: Law) -> tuple[Floats, Floats, float]:
    """Return rising scores of positive and negative images, and the share of positive images."""
    rng = np.random.default_rng(_TRUTH)
    many = draw(rng, law, 100_000)
    # Small sets are drawn until both classes have two patients, which changes their share.
    sets = [draw(rng, law, law.patients).positive for _ in range(1500)]
    share = sum(each.sum() for each in sets) / sum(map(len, sets))
    scores = many.scores[0]
    return np.sort(scores[many.positive]), np.sort(scores[~many.positive]), float(share)


@cache
def _box_figures(law: Law) -> tuple[dict[str, float], Floats]:
    """Return figures, and scores of positive images, which are 0 if the point is on no lesion."""
    rng = np.random.default_rng(_TRUTH)
    seen, of_positive = [], []
    for _ in range(8):
        result = verdict_of(detectors(rng, replace(law, patients=800)), FEWEST)
        figures = result.figures.set_index(["first", "second", "metric", "policy"])
        seen.append([figures.loc["A", "", name, ""]["estimate"] for name in claims.BOXES])
        rows = result.decisions
        rows = rows[(rows["system"] == "A") & (rows["label"] == 1)]
        of_positive.append(rows["score"].where(rows["localised"].astype(bool), 0.0))
    means = dict(zip(claims.BOXES, np.mean(seen, axis=0).tolist(), strict=True))
    return means, np.concatenate(of_positive)


@dataclass
class Drawn:
    """Systems and truth of one data set, further arguments of `compare`, and what is known."""

    systems: dict[str, Any]
    truth: pd.DataFrame
    known: Known
    options: dict[str, Any] = field(default_factory=dict)


def scores(rng: np.random.Generator, law: Law, **options: Any) -> Drawn:
    """Draw scores of systems on validation and test images."""
    samples = {role: draw(rng, law, n_patients) for role, n_patients in _roles(law).items()}
    truth = _truth(samples)
    of_all = np.concatenate([each.scores for each in samples.values()], axis=1)
    names = string.ascii_uppercase[: len(law.auroc)]
    systems = {
        name: pd.Series(values, truth["image_id"])
        for name, values in zip(names, of_all, strict=True)
    }
    known = Known(dict(zip(names, law.auroc, strict=True)), law, joint_adds=len(names) == 2)
    return Drawn(systems, truth, known, options)


def detectors(rng: np.random.Generator, law: Law) -> Drawn:
    """Draw the boxes of two equal detectors on validation and test images."""
    images = {role: draw_boxes(rng, law, n_patients) for role, n_patients in _roles(law).items()}
    truth = _truth({role: each.sample for role, each in images.items()})
    lesions = _named({role: each.lesions for role, each in images.items()})
    systems = {
        name: _named({role: each.boxes[number] for role, each in images.items()})
        for number, name in enumerate("AB")
    }
    known = Known(dict.fromkeys("AB", 0.94), law)
    return Drawn(systems, truth.assign(width=SIDE, height=SIDE), known, {"boxes": lesions})


def shared_patients(rng: np.random.Generator, law: Law) -> Drawn:
    """Draw patients with validation and test images, which `compare` allows if it is told to."""
    sample = draw(rng, law, law.patients)
    n_images = len(sample.positive)
    truth = pd.DataFrame({"image_id": [f"i{number}" for number in range(n_images)]})
    truth["label"] = sample.positive.astype(int)
    truth["patient_id"] = [f"p{number}" for number in sample.patients]
    truth["role"] = rng.choice(["val", "test"], n_images)
    systems = {
        name: pd.Series(values, truth["image_id"])
        for name, values in zip("AB", sample.scores, strict=True)
    }
    known = Known(dict(zip("AB", law.auroc, strict=True)), law)
    return Drawn(systems, truth, known, {"allow_shared_patients": True})


def partly_boxed(rng: np.random.Generator, law: Law, share: float) -> Drawn:
    """Leave out the true boxes of a share of the positive images of two equal detectors."""
    drawn = detectors(rng, law)
    lesions = drawn.options["boxes"]
    images = lesions["image_id"].drop_duplicates()
    unboxed = images[rng.random(len(images)) < share]
    drawn.options["boxes"] = lesions[~lesions["image_id"].isin(unboxed)].reset_index(drop=True)
    return drawn


def beside_scores(rng: np.random.Generator, law: Law) -> Drawn:
    """Add a classifier that guesses to two equal detectors."""
    drawn = detectors(rng, law)
    ids = drawn.truth["image_id"]
    drawn.systems["C"] = pd.Series(expit(rng.standard_normal(len(ids))), ids)
    drawn.known = replace(drawn.known, auroc={**drawn.known.auroc, "C": 0.5})
    return drawn


def _roles(law: Law) -> dict[str, int]:
    sizes = {"val": law.validation, "test": law.patients}
    return {role: size for role, size in sizes.items() if size}


def _truth(samples: Mapping[str, Sample]) -> pd.DataFrame:
    tables = {}
    for role, sample in samples.items():
        table = pd.DataFrame({"image": np.arange(len(sample.positive))})
        patients = [f"{role}-p{number}" for number in sample.patients]
        tables[role] = table.assign(label=sample.positive.astype(int), patient_id=patients)
        if len(samples) > 1:
            tables[role]["role"] = role
    return _named(tables)


def _named(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Join the tables of roles, which know an image by its number."""
    joined = [
        table.drop(columns="image").assign(image_id=[f"{role}-{image}" for image in table["image"]])
        for role, table in tables.items()
    ]
    return pd.concat(joined, ignore_index=True)


def with_facts(rng: np.random.Generator, law: Law, of_view: float) -> Drawn:
    """Draw sex, age and view beside the scores; the view alone predicts the label."""
    drawn = scores(rng, law)
    truth = drawn.truth
    codes, patients = pd.factorize(truth["patient_id"])
    truth["sex"] = rng.choice(["F", "M"], len(patients))[codes]
    truth["age"] = rng.integers(20, 90, len(patients))[codes]
    is_right = rng.random(len(truth)) < of_view
    truth["view"] = np.where(is_right == (truth["label"] == 1), "AP", "PA")
    drawn.known = Known(drawn.known.auroc, law, of_view=of_view)
    return drawn


def nothing_added(rng: np.random.Generator, law: Law) -> Drawn:
    """Let the second system see noise."""
    drawn = scores(rng, law, both=True)
    first = drawn.systems["A"]
    drawn.systems["B"] = pd.Series(expit(rng.standard_normal(len(first))), first.index)
    drawn.known = Known({"A": law.auroc[0], "B": 0.5}, law)
    return drawn


_NO_BOX = 0.01  # image score of a constant box where the detector has no box


def constant_places(rng: np.random.Generator, law: Law) -> Drawn:
    """Let the second system give a box on each lung with the image scores of the first."""
    drawn = detectors(rng, law)
    best = drawn.systems["A"].groupby("image_id")["score"].max()
    best = best.reindex(drawn.truth["image_id"]).fillna(_NO_BOX)
    corners = np.hstack([LUNGS - law.lesion_side / 2, LUNGS + law.lesion_side / 2])
    table = pd.DataFrame(np.tile(corners, (len(best), 1)), columns=EDGES)
    table["image_id"] = np.repeat(best.index.to_numpy(), len(corners))
    drawn.systems["B"] = table.assign(score=np.outer(best, (1.0, 0.9)).ravel())
    drawn.known = replace(drawn.known, image_blind=frozenset("B"))
    return drawn


_FINDINGS = 14
_GAP = 1.2  # between the mean scores of positive and of negative images, in standard deviations
_TOGETHER = 0.4  # correlation by which a patient is ill in several findings


def several_findings(
    rng: np.random.Generator, patients: int, *, least: float, findings: int = _FINDINGS
) -> Drawn:
    """Draw two systems whose AUROC is the same for each of several findings.

    `least` is the share of positive patients of the rarest finding; that of the most frequent one
    is 0.4. Of the variance of a score 0.3 is the patient's, in all findings, and 0.3 the image's,
    for both systems.
    """
    ids = [f"i{number}" for number in range(patients)]
    owners = [f"p{number}" for number in range(patients)]
    truth = pd.DataFrame({"image_id": ids, "patient_id": owners})
    systems = {name: pd.DataFrame({"image_id": ids}) for name in "AB"}
    ill = rng.standard_normal(patients)
    of_patient = {name: rng.standard_normal(patients) for name in "AB"}
    grid = ndtri((np.arange(10_000) + 0.5) / 10_000)
    precisions = {}
    for number, share in enumerate(np.geomspace(least, 0.4, findings)):
        own = rng.standard_normal(patients)
        latent = np.sqrt(_TOGETHER) * ill + np.sqrt(1 - _TOGETHER) * own
        label = latent > ndtri(1 - share)
        of_image = rng.standard_normal(patients)
        truth[finding := f"finding{number:02d}"] = label.astype(int)
        precisions[finding] = precision_over_ranks(grid + _GAP, grid, share)
        for name, table in systems.items():
            noise = np.sqrt(0.3) * (of_patient[name] + of_image)
            noise += np.sqrt(0.4) * rng.standard_normal(patients)
            table[finding] = expit(_GAP * label + noise)
    known = Known(dict.fromkeys("AB", float(ndtr(_GAP / np.sqrt(2)))), precisions=precisions)
    return Drawn(systems, truth, known, {"target": "all"})


_FOLDS = 5
_SIGNAL, _BASE = 2.2, -1.3  # spread and mean of the true log-odds


def _ill(rng: np.random.Generator, patients: int, features: int) -> tuple[Floats, Any]:
    """Draw features of patients, all of equal weight, and who is ill: about 30 %."""
    table = rng.standard_normal((patients, features))
    odds = _BASE + _SIGNAL / np.sqrt(features) * table.sum(axis=1)
    return table, rng.random(patients) < expit(odds)


def _learned(table: Floats, ill: Any, half: int) -> Callable[[Floats], Floats]:
    """Fit a ridge regression that sees one half of the features."""
    model = LogisticRegression(solver="newton-cholesky").fit(table[:, half::2], ill)
    return lambda other: np.asarray(expit(model.decision_function(other[:, half::2])))


@cache
def _learned_auroc(patients: int, features: int) -> float:
    """Return the AUROC of the way of training, the mean over training sets."""
    rng = np.random.default_rng(_TRUTH)
    seen = []
    for _ in range(400):
        scored = _learned(*_ill(rng, patients * (_FOLDS - 1) // _FOLDS, features), 0)
        test, ill = _ill(rng, 20_000, features)
        seen.append(auroc(ill, scored(test)))
    return float(np.mean(seen))


def folds(rng: np.random.Generator, patients: int, *, features: int) -> Drawn:
    """Draw two equal ways of training, each of which sees one half of the features, in folds."""
    table, ill = _ill(rng, patients, features)
    order = rng.permutation(patients)
    order = order[np.argsort(ill[order], kind="stable")]  # dealt out class by class
    fold = np.empty(patients, dtype=int)
    fold[order] = np.arange(patients) % _FOLDS
    values = np.empty((2, patients))
    for test in (fold == number for number in range(_FOLDS)):
        for half in range(2):
            values[half, test] = _learned(table[~test], ill[~test], half)(table[test])
    names = [f"i{number}" for number in range(patients)]
    truth = pd.DataFrame({"image_id": names, "patient_id": names, "label": ill.astype(int)})
    systems = {name: pd.Series(values[half], names) for half, name in enumerate("AB")}
    known = Known(dict.fromkeys("AB", _learned_auroc(patients, features)))
    return Drawn(systems, truth.assign(fold=fold), known)


def report_of(drawn: Drawn, replicates: int) -> Any:
    """Return the result of the public comparison, which says on stderr what it does."""
    with contextlib.redirect_stderr(io.StringIO()):
        return cxr_compare.compare(
            drawn.systems, truth=drawn.truth, replicates=replicates, **drawn.options
        )


def margin_decisions(drawn: Drawn, replicates: int) -> dict[str, str]:
    """Return what a report decides by the margin, with the functions that it calls."""
    truth = drawn.truth
    patients, names = pd.factorize(truth["patient_id"])
    parts = {
        name: auroc_parts(truth["label"] == 1, values, patients, len(names))
        for name, values in drawn.systems.items()
    }
    reference = parts.pop("A")
    found = {}
    for name, part in parts.items():
        known = reference is not None and part is not None
        ends = margin_interval(reference, part) if known else None
        margin = drawn.options["margin"]
        found[name] = "cannot tell" if ends is None else decide(*ends, margin)
    return found


@cache
def _mean_gap(law: Law) -> float:
    """Return how much higher the mean AUROC of the first system is than that of the others."""
    rng = np.random.default_rng(_TRUTH)
    gaps = []
    for _ in range(10_000):
        each = draw(rng, law, law.patients)
        first, *others = (auroc(each.positive, values) for values in each.scores)
        gaps.append(first - np.mean(others))
    return float(np.mean(gaps))


def worse_by_the_margin(rng: np.random.Generator, law: Law) -> Drawn:
    """Draw systems of which all but the first are worse, or better, by exactly the margin."""
    return scores(rng, law, margin=abs(_mean_gap(law)))


def joined_folds(
    drawn: Drawn, replicates: int, report: Callable[[Drawn, int], Any] = verdict_of
) -> pd.DataFrame:
    """Return the table that `cxr_compare.folds` makes of the reports of all folds."""
    figures = []
    for fold, truth in drawn.truth.groupby("fold"):
        systems = {name: each[truth["image_id"]] for name, each in drawn.systems.items()}
        of_fold = Drawn(systems, truth.drop(columns="fold"), drawn.known)
        figures.append(report(of_fold, replicates).figures.assign(fold=fold))
    return summarise_folds(pd.concat(figures, ignore_index=True))


Count = Callable[[Any, Known], dict[str, bool]]


class Design(NamedTuple):
    """How data sets are drawn and which claims about them are counted.

    `replicates` are fewer than the 2,000 of the program where this is enough for a corrected p to
    be below 0.05, and the fewest for claims that rest on no resamples. `report` makes the result in
    which claims are counted.
    """

    draw: Callable[[np.random.Generator], Drawn]
    counts: Sequence[Count]
    replicates: int = 400
    report: Callable[[Drawn, int], Any] = verdict_of
    lacks: Callable[[], str] = lambda: ""


_EQUAL = (claims.differences, claims.rank_intervals)
_AT_THRESHOLDS = (claims.differences, claims.rate_differences, claims.rate_intervals)
POLICIES = ["max_f1", "sensitivity>=0.95", "specificity>=0.90"]


def _closed(law: Law, *policy: str) -> Design:
    """Return a design of figures that rest on no resamples."""
    draw_scores = partial(scores, law=law, **({"policy": list(policy)} if policy else {}))
    counts = (claims.ranking, claims.rate_intervals)
    return Design(draw_scores, counts, FEWEST)


DESIGNS: dict[str, Design] = {
    # One system that guesses.
    "chance-clusters": Design(
        partial(scores, law=Law((0.5,), 40, images="1-60", labels_alike=0.75)),
        (claims.chance,),
        FEWEST,
    ),
    # Equal systems: many images of some patients, and few patients; one of four that is better.
    "equal": Design(partial(scores, law=Law(patients=60, images="rsna")), _EQUAL),
    "equal-25": Design(partial(scores, law=Law(patients=25, positive=0.25)), _EQUAL),
    "better": Design(
        partial(scores, law=Law((0.90, 0.82, 0.82, 0.82))), (claims.differences, claims.power)
    ),
    # Five equal systems; few validation patients; patients with validation and test images.
    "equal-five": Design(
        partial(scores, law=Law((0.85,) * 5, patients=150)), (claims.differences,), 2000
    ),
    "validation-12": Design(partial(scores, law=Law(patients=100, validation=12)), _AT_THRESHOLDS),
    "shared-patients": Design(
        partial(shared_patients, law=Law(patients=200, images="1-3")),
        (claims.differences, claims.rate_differences),
    ),
    # Thresholds that validation images choose; patients with very different numbers of images.
    "thresholds": Design(
        partial(
            scores,
            law=Law(patients=200, validation=150, images="rsna"),
            policy=POLICIES,
        ),
        (*_AT_THRESHOLDS, claims.brier_intervals),
    ),
    "thresholds-unequal": Design(
        partial(
            scores,
            law=Law((0.85, 0.85), 200, 200, "1-60", 0.08, labels_alike=1.0),
            policy=POLICIES,
        ),
        (*_AT_THRESHOLDS, claims.brier_intervals),
    ),
    # Shapes in which few images, or few patients, decide: figures that rest on no resamples.
    "rare": _closed(Law(patients=1000, positive=0.006)),
    "rare-t5": _closed(Law(patients=1000, positive=0.01, heavy_tails=True)),
    "rare-clusters": _closed(Law(patients=400, images="rsna", positive=0.02)),
    "near-1": _closed(Law((0.985, 0.985), 60, positive=0.12)),
    "common": _closed(Law(patients=300, validation=200, positive=0.7), *POLICIES),
    "one-20": _closed(Law((0.85, 0.85), 60, 60, "one-20", labels_alike=0.8), *POLICIES),
    "zeros": Design(
        partial(
            scores,
            law=Law(patients=200, validation=150, least_evidence=0.3),
            policy=["max_f1", "specificity>=0.90"],  # hardly any reach a sensitivity of 0.95
        ),
        (*_EQUAL, claims.rate_intervals),
    ),
    "alike": _closed(Law((0.85, 0.85), 200, 150, "rsna", 0.2, labels_alike=0.8), *POLICIES),
    "alike-unequal": _closed(
        Law((0.85, 0.85), 500, 500, "1-60", 0.03, labels_alike=1.0), *POLICIES
    ),
    # Groups of images.
    "facts": Design(
        partial(with_facts, law=Law((0.85,), 200, 150, "1-3"), of_view=0.7),
        (claims.group_intervals,),
        FEWEST,
    ),
    # Boxes of two equal detectors, and boxes that say nothing about the image.
    "boxes": Design(
        partial(detectors, law=Law(patients=60, validation=40, images="rsna")),
        (claims.differences, claims.box_differences, claims.box_intervals),
    ),
    "boxes-part": Design(
        partial(partly_boxed, law=Law(patients=100, validation=60, images="rsna"), share=0.4),
        (claims.differences, claims.box_differences, claims.box_intervals),
        report=report_of,
    ),
    "boxes-beside": Design(
        partial(beside_scores, law=Law(patients=100, validation=40)), (claims.differences,)
    ),
    "places-1000": Design(
        partial(
            constant_places, law=Law(patients=1000, validation=300, in_lungs=True, lesion_side=90.0)
        ),
        (claims.localises,),
    ),
    # Joint systems.
    "joint-noise": Design(
        partial(nothing_added, law=Law(patients=300, validation=60)),
        (claims.joint,),
        FEWEST,
        report=report_of,
    ),
    "joint": Design(
        partial(scores, law=Law(patients=600, validation=200), both=True),
        (claims.joint,),
        FEWEST,
        report=report_of,
    ),
    # Systems that are worse than the first by exactly the margin, or equal to it; ranks.
    **{
        f"margin-{name}": Design(
            partial(worse_by_the_margin, law=law), counts, report=margin_decisions
        )
        for name, law, counts in (
            ("rsna", Law((0.85, 0.80), 150, images="rsna"), (claims.margin,)),
            ("five", Law((0.90, 0.85, 0.85, 0.85, 0.85), 120, images="1-3"), (claims.margin,)),
            ("few", Law((0.80, 0.70), 40, positive=0.4), (claims.margin, claims.worse)),
            ("high", Law((0.95, 0.92), 300, images="1-3"), (claims.margin,)),
            ("rare", Law((0.90, 0.80), 300, positive=0.08), (claims.margin,)),
            (
                "unequal",
                Law((0.90, 0.82), 300, images="1-60", positive=0.1, labels_alike=1.0),
                (claims.margin, claims.worse),
            ),
        )
    },
    "margin-equal": Design(
        partial(scores, law=Law((0.85, 0.85), 300), margin=0.07),
        (claims.margin,),
        report=margin_decisions,
    ),
    "ranks": Design(
        partial(scores, law=Law((0.92, 0.87, 0.87, 0.80, 0.70), 150, images="1-3")),
        (claims.ranks,),
        FEWEST,
        report=report_of,
    ),
    # Several findings, and folds.
    "findings": Design(
        partial(several_findings, patients=100, least=0.08),
        (claims.findings,),
        2000,
        report=findings_of,
    ),
    "folds": Design(
        partial(folds, patients=200, features=20), (claims.folds,), FEWEST, report=joined_folds
    ),
}
