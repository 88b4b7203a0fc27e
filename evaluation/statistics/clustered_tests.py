"""AUROC and paired decisions, with the variance of images that come in patients.

An image of a patient says less than an image of somebody else, because the two resemble each
other. The variance is therefore summed by patient (Obuchowski 1997). With every image its own
patient it is that of DeLong (1988), which is given only beside it.

A sum over few patients, or over patients of very different numbers of images, is too small and
itself uncertain. So each patient's contribution is divided by 1 minus its share of the images of
the class (with equal shares that is Obuchowski's factor), and intervals and tests are Student's t
with Satterthwaite's degrees of freedom, the smaller of two: those of the effective patients of
either class, and those that the contributions themselves show.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt
import scipy  # whose parts load when they are first used

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.notebook import html_table
from cxr_compare.evaluation.statistics.bootstrap import (
    LEVEL,
    NO_WIDTH,
    Interval,
    cluster_index,
    per_cluster,
)
from cxr_compare.evaluation.statistics.figure_text import number, p_equation, p_words, span_words
from cxr_compare.evaluation.statistics.obuchowski_rockette import ClusteredEstimate, analyse_nested
from cxr_compare.evaluation.statistics.ranking import Floats, Integers, check_truth_and_scores

OBUCHOWSKI = "Obuchowski 1997, clustered by patient"
_DELONG = "DeLong 1988, images taken as independent"
_MCNEMAR = "Obuchowski 1998, clustered by patient"
_FEW_PATIENTS = "no interval: fewer than two patients with images of each class"


def effective_patients(images: npt.ArrayLike) -> float:
    """How many patients with one image each would say as much: ``(sum n)^2 / sum n^2``.

    Source:
        Kish 1965, the effective sample size of unequal weights.
    """
    n = np.asarray(images, dtype=np.float64)
    return float(n.sum() ** 2 / (n**2).sum()) if n.any() else 0.0


def _without_leverage(added: Floats, images: Floats) -> Floats:
    """What patients add to a mean over images, as the variance of that mean needs it.

    A patient with a large share of the images pulls the mean towards itself, so its deviation
    from the mean is too small by 1 minus that share. The sum of squares is the jackknife's
    variance of the mean.

    Source:
        Mancl and DeRouen 2001; MacKinnon and White 1985 (HC3).
    """
    count = np.count_nonzero(images)
    return np.asarray(added / (1 - images / images.sum()) * np.sqrt((count - 1) / count))


def _freedom_of(contributions: Floats) -> float:
    """Satterthwaite's degrees of freedom of a sum of squares, from its terms.

    ``2 V^2 / Var(V)`` with ``V = sum q^2`` and, on the safe side, ``Var(V) = sum q^4``.

    Source:
        Satterthwaite 1946.
    """
    squares = contributions**2
    return float(2 * squares.sum() ** 2 / (squares**2).sum())


def exact_share(hits: Floats, images: Floats) -> tuple[float, float]:
    """The exact 95 % interval of a share, from each patient's images and those that count.

    Clopper and Pearson's (1934); where patients have several images theirs of as many independent
    images as the variance by patient says, never more than there are (Korn and Graubard 1998). As
    each of their ends has one trial more on the other side, so has that variance one patient of
    usual size more, without which few patients who have all that is wrong give too narrow an end.
    Patients with many images decide it, and where these happen to be right it is too small: so
    they are no more than by the likeness of all patients' images, either.

    Shapes: `hits`, `images` ``(patients,)``, some images in all.
    """
    hits, images = hits[images > 0], images[images > 0]
    total, share = images.sum(), float(hits.sum() / images.sum())
    if total == len(images):
        single = Interval.of_share(share, total)
        return single.low, single.high
    independent = total / _design_effect(hits, images)

    def exact(right: float) -> Interval:
        of_patients = np.append(images, (images**2).sum() / total)
        counted = np.append(hits, right * of_patients[-1])
        mean = counted.sum() / of_patients.sum()
        added = _without_leverage((counted - mean * of_patients) / of_patients.sum(), of_patients)
        freedom = [total - 1, effective_patients(of_patients) - 1]
        narrow, wide = scipy.special.stdtrit(freedom, (1 + LEVEL) / 2)
        of_one_image = mean * (1 - mean) * (narrow / wide) ** 2
        variance = (added**2).sum()
        trials = float(total if total * variance <= of_one_image else of_one_image / variance)
        return Interval.of_share(share, min(trials, independent))

    return exact(0.0).low, exact(1.0).high


def _design_effect(hits: Floats, images: Floats) -> float:
    """How many images say as much as one, where all patients' images are equally alike.

    Source:
        Ridout, Demetrio and Firth 1999, Biometrics 55:137 (analysis of variance).
    """
    total, share, others = images.sum(), hits.sum() / images.sum(), max(len(images) - 1, 1)
    unequal = (images**2).sum() / total
    between = (images * (hits / images - share) ** 2).sum() / others
    within = (hits * (1 - hits / images)).sum() / (total - len(images))
    both = between + ((total - unequal) / others - 1) * within
    alike = np.clip((between - within) / both, 0, 1) if both > 0 else 0.0
    return float(1 + (unequal - 1) * alike)


@dataclass(frozen=True)
class AurocParts:
    """An AUROC, or a difference of two on the same images, and what each patient adds to it."""

    value: float  # the AUROC or the difference
    # per patient, the sum over its positive images of (share of the negatives that the image
    # outscores - value) / positives, shape `(patients,)`
    of_positive: Floats
    of_negative: Floats  # likewise over its negative images
    images: Floats  # positive and negative images of each patient, shape `(patients, 2)`
    trials: int = 0  # pairs of a positive and a negative patient, no patient in two pairs
    bounded: bool = True  # whether it is an AUROC, not a difference

    @property
    def effective_patients(self) -> float:
        """Of the rarer class, the fewer."""
        return min(effective_patients(of_class) for of_class in self.images.T)

    @cached_property
    def contributions(self) -> Floats | None:
        """What each patient adds, corrected for its share of the images, shape ``(patients,)``.

        The sum of squares is the variance, the sum of products with those of another system on
        the same images the covariance; `None` with fewer than two patients of either class.
        """
        if np.count_nonzero(self.images, axis=0).min() < 2:
            return None
        positive, negative = self.images.T
        of_positive = _without_leverage(self.of_positive, positive)
        return of_positive + _without_leverage(self.of_negative, negative)

    @property
    def variance(self) -> float | None:
        """By patient; `None` with fewer than two patients of either class."""
        return None if self.contributions is None else float((self.contributions**2).sum())

    @property
    def freedom(self) -> float:
        """Degrees of freedom of the variance: of both classes' patients, or of what they add."""
        effective = np.array([effective_patients(of_class) for of_class in self.images.T])
        of_classes = (1 / effective).sum() ** 2 / (1 / (effective**2 * (effective - 1))).sum()
        contributions = self.contributions
        if contributions is None or not contributions.any():
            return float(of_classes)
        return min(float(of_classes), _freedom_of(contributions))

    @classmethod
    def mean(cls, seeds: Sequence[AurocParts]) -> AurocParts:
        """The mean over training seeds of one system, all on the same images."""
        return cls(
            float(np.mean([each.value for each in seeds])),
            np.mean([each.of_positive for each in seeds], axis=0),
            np.mean([each.of_negative for each in seeds], axis=0),
            seeds[0].images,
            seeds[0].trials,
        )

    def __sub__(self, other: AurocParts) -> AurocParts:
        """The difference of two systems on the same images; their covariance is in it."""
        return AurocParts(
            self.value - other.value,
            self.of_positive - other.of_positive,
            self.of_negative - other.of_negative,
            self.images,
            bounded=False,
        )

    def estimate(self) -> ClusteredEstimate:
        """The figure with its standard error over patients."""
        variance = self.variance
        if variance is None:
            return ClusteredEstimate(self.value, None, note=_FEW_PATIENTS)
        none = ClusteredEstimate(
            self.value,
            None,
            bounded=self.bounded,
            effective_patients=self.effective_patients,
            trials=min(self.trials, self.effective_patients),
        )
        # Rounding leaves some 1e-17 where a system is held against itself.
        if variance < 1e-24:
            return none if none.exact else replace(none, note=NO_WIDTH)
        return replace(none, error=float(np.sqrt(variance)), freedom=self.freedom)


def over_seeds(
    figures: Sequence[Sequence[float]],
    covariance: Floats,
    freedom: float,
    *,
    bounded: bool = False,
    span: float = 1.0,
) -> ClusteredEstimate:
    """A figure as the mean over training seeds, or the difference of two such means.

    Seeds are readers nested in systems: a seed of one has nothing to do with one of another. They
    are random where a system has several; one alone is that trained model.

    Source:
        Obuchowski and Rockette 1995; Hillis 2007; see `obuchowski_rockette.analyse_nested`.
    """
    found = analyse_nested(
        figures,
        covariance,
        readers=["random" if len(each) > 1 else "fixed" for each in figures],
        freedom=freedom,
        least=True,
    )
    one = found.systems[0] if len(figures) == 1 else found.differences[0, 1]
    note = NO_WIDTH if one.error is None else ""
    return replace(one, bounded=bounded, note=note, span=span)


def auroc_over_seeds(*systems: Sequence[AurocParts]) -> ClusteredEstimate:
    """The AUROC of a system, or the difference of two, each of one training seed or several."""
    means = [AurocParts.mean(seeds) for seeds in systems]
    mean = means[0] if len(means) == 1 else means[0] - means[1]
    alone = mean.estimate()
    each = [part.contributions for seeds in systems for part in seeds]
    known = [contributions for contributions in each if contributions is not None]
    values = [[part.value for part in seeds] for seeds in systems]
    if len(known) < len(each) or max(map(len, systems)) == 1 or alone.exact:
        return alone
    added = np.column_stack(known)
    found = over_seeds(values, added.T @ added, mean.freedom, bounded=mean.bounded)
    return replace(found, effective_patients=alone.effective_patients)


def auroc_parts(
    y_true: npt.ArrayLike,
    y_score: npt.ArrayLike,
    clusters: Integers,
    n_clusters: int,
    *,
    folds: Integers | None = None,
) -> AurocParts | None:
    """An AUROC and what each patient adds to it, of labels and scores that are valid.

    Returns `None` where a class is absent, of each fold where there are folds.

    `clusters` holds each image's patient as an index from 0. With `folds` each fold was scored by a
    model of its own: only images of one fold are compared.

    Source:
        Obuchowski 1997, "Nonparametric analysis of clustered ROC curve data"; the components are
        those of DeLong, DeLong and Clarke-Pearson 1988.
    """
    truth, scores = np.asarray(y_true, dtype=bool), np.asarray(y_score, dtype=np.float64)
    owner = np.asarray(clusters)
    # Half a point for a tie; sums of halves are exact.
    points, rivals = np.zeros(len(truth)), np.zeros(len(truth))
    each = [slice(None)] if folds is None else [folds == fold for fold in np.unique(folds)]
    for rows in each:
        points[rows], rivals[rows] = _points(truth[rows], scores[rows])
    pairs = rivals[truth].sum()
    if not pairs:
        return None
    value = float(points[truth].sum() / pairs)
    added = (points - value * rivals) / pairs
    of_positive, of_negative = (
        np.asarray(np.bincount(owner[of], weights=added[of], minlength=n_clusters), np.float64)
        for of in (truth, ~truth)
    )
    images = np.stack([np.bincount(owner[of], minlength=n_clusters) for of in (truth, ~truth)], 1)
    trials = sum(_pairs_of_patients(truth[rows], owner[rows]) for rows in each)
    return AurocParts(value, of_positive, of_negative, images.astype(np.float64), trials)


def _pairs_of_patients(truth: npt.NDArray[np.bool_], owner: Integers) -> int:
    """The most pairs of a positive and a negative patient, no patient in two pairs."""
    found = (np.bincount(owner[of]) for of in (truth, ~truth, slice(None)))
    positive, negative, all_ = (np.count_nonzero(images) for images in found)
    return int(min(positive, negative, all_ // 2))


def _points(truth: npt.NDArray[np.bool_], scores: Floats) -> tuple[Floats, Floats]:
    """Images of the other class that each image is ranked rightly against, and all of them."""
    points, rivals = np.zeros(len(truth)), np.zeros(len(truth))
    for of, sign in ((truth, 1.0), (~truth, -1.0)):
        others = np.sort(sign * scores[~of])
        own = sign * scores[of]
        below = np.searchsorted(others, own, side="left")
        points[of] = (below + np.searchsorted(others, own, side="right")) / 2
        rivals[of] = len(others)
    return points, rivals


def auroc_difference(
    y_true: npt.ArrayLike,
    first: npt.ArrayLike,
    second: npt.ArrayLike,
    patients: npt.ArrayLike | None = None,
) -> ClusteredEstimate | None:
    """The paired difference of two AUROCs on the same images.

    Args:
        y_true: Labels, 0 or 1, shape ``(N,)``.
        first: Scores of one system, shape ``(N,)``.
        second: Scores of the other, shape ``(N,)``.
        patients: A name per image, shape ``(N,)``; left out: images are taken as independent,
            which is DeLong's test, with the normal distribution.

    Returns:
        The difference, with interval, p-value and smallest detectable difference; `None` where a
        class is absent.

    Raises:
        InputError: Labels or scores are not one valid value per image.

    Source:
        Obuchowski 1997; DeLong, DeLong and Clarke-Pearson 1988.

    Example:
        >>> truth, scores = [0, 0, 0, 1, 1, 1], np.array([1, 2, 4, 3, 5, 6.0])
        >>> from cxr_compare import metrics
        >>> gap = metrics.auroc_difference(truth, scores, -scores)
        >>> gap
        0.778 (95 % CI 0.162 to 1.000), p = 0.013; DeLong 1988, images taken as independent
    """
    checked = [check_truth_and_scores(y_true, scores) for scores in (first, second)]
    names = np.arange(len(checked[0][0])) if patients is None else patients
    owner, count = cluster_index(names)
    parts = [auroc_parts(*valid, owner, count) for valid in checked]
    if parts[0] is None or parts[1] is None:
        return None
    gap = (parts[0] - parts[1]).estimate()
    if patients is None:
        return replace(gap, freedom=np.inf, note=_by_image(gap.note), method=_DELONG)
    return replace(gap, method=OBUCHOWSKI)


def _by_image(note: str) -> str:
    """Return a note on images that each count as a patient of their own."""
    return note.replace(_FEW_PATIENTS, "no interval: fewer than two images of each class")


@dataclass(frozen=True)
class McNemar:
    """Two systems' decisions on the same images."""

    # share right of the first minus that of the second, with the clustered standard error
    difference: ClusteredEstimate
    p_value: float | None  # of equal shares, by patient; `None` where no patient tells them apart
    p_exact: float | None  # likewise, images taken as independent; `None` with several seeds
    first_only: float  # images that only the first gets right, a mean over seeds
    second_only: float  # images that only the second gets right
    n_images: int

    def __repr__(self) -> str:
        return "; ".join([f"{self._difference}, {p_equation(self.p_value)}", *self._rest])

    def _repr_html_(self) -> str:
        rows = {"Difference of shares right": self._difference, "p": p_words(self.p_value)}
        if self.p_exact is not None:
            rows["p, images independent (exact)"] = p_words(self.p_exact)
        rows["Right with the first alone"] = f"{self.first_only:g} images"
        rows["Right with the second alone"] = f"{self.second_only:g} images"
        rows["Images"] = f"{self.n_images:,}"
        return html_table({**rows, "Method": _MCNEMAR})

    @property
    def _difference(self) -> str:
        ends = self.difference.interval
        span = f"95 % CI {span_words(*ends)}" if ends else self.difference.note or "no interval"
        return f"{number(self.difference.value)} ({span})"

    @property
    def _rest(self) -> list[str]:
        alone = f"{self.first_only:g} to {self.second_only:g} of {self.n_images:,} images"
        exact = [] if self.p_exact is None else [f"images independent: {p_equation(self.p_exact)}"]
        return [_MCNEMAR, *exact, f"right with one alone: {alone}"]


def mcnemar_test(
    first_right: npt.ArrayLike, second_right: npt.ArrayLike, patients: npt.ArrayLike
) -> McNemar:
    """Clustered McNemar test of Obuchowski (1998), with the exact one beside it.

    Of all images it is a test of accuracy, of the positive ones of sensitivity, of the negative
    ones of specificity.

    Args:
        first_right: Whether the first system gets each image right, shape ``(N,)``.
        second_right: The same of the second.
        patients: A name per image, shape ``(N,)``.

    Raises:
        InputError: The three disagree about the number of images, or there is none.

    Source:
        Obuchowski 1998, "On the comparison of correlated proportions for clustered data", in the
        form of Yang, Sun and Hardin 2010; McNemar 1947.

    Example:
        >>> from cxr_compare import metrics
        >>> test = metrics.mcnemar_test([1, 1, 1, 0], [1, 0, 0, 0], ["a", "b", "c", "d"])
        >>> test.difference.value, test.first_only, test.p_exact
        (0.5, 2.0, 0.5)
    """
    owner, count = cluster_index(patients)
    right = [np.asarray(each, dtype=np.float64) for each in (first_right, second_right)]
    if not len(owner) or any(each.shape != owner.shape for each in right):
        raise InputError(
            f"a paired test needs one decision a system and image, got {right[0].shape} and "
            f"{right[1].shape} for {len(owner)} images"
        )
    return clustered_mcnemar(right[0], right[1], owner, count)


def clustered_mcnemar(
    first_right: Floats, second_right: Floats, clusters: Integers, n_clusters: int
) -> McNemar:
    """As `mcnemar_test`, of patients that are numbered already.

    With ``d`` a patient's images right for the first only, less those right for the second only,
    ``N`` images and ``K`` patients, the variance under equal shares is ``K / (K - 1) x sum of
    d^2 / N^2`` (the pooled share cancels). Around the observed difference ``D`` it is the sum of
    ``((d - n D) / N)^2`` for a patient of ``n`` images, each corrected for its share of the
    images (`_without_leverage`); with equal shares that is ``K / (K - 1)`` times the plain sum.
    The interval is Student's t with the patients' degrees of freedom.

    Right is 1, shape ``(N,)``, or of each of several seeds, ``(seeds, N)``: then difference and
    test are those of Obuchowski and Rockette.
    """
    seeds = [np.atleast_2d(first_right), np.atleast_2d(second_right)]
    several = max(map(len, seeds)) > 1
    gap = np.asarray(seeds[0].mean(axis=0) - seeds[1].mean(axis=0), dtype=np.float64)
    table = per_cluster(np.column_stack([gap, np.ones(len(gap))]), clusters, n_clusters)
    table = table[table[:, 1] > 0]
    difference = float(gap.mean())
    first_only, second_only = float(gap[gap > 0].sum()), abs(float(gap[gap < 0].sum()))
    p_exact = _exact_mcnemar(int(first_only), int(second_only)) if not several else None
    if len(table) < 2:
        alone = ClusteredEstimate(difference, None, note="one patient gives no interval")
        return McNemar(alone, None, p_exact, first_only, second_only, len(gap))
    scale = len(table) / (len(table) - 1) / len(gap) ** 2
    added = (table[:, 0] - difference * table[:, 1]) / len(gap)
    added = _without_leverage(added, table[:, 1])
    effective = effective_patients(table[:, 1])
    freedom = min(effective - 1, _freedom_of(added)) if added.any() else effective - 1
    if several:
        estimate = _of_seeds(seeds, clusters, n_clusters, freedom)
        return McNemar(estimate, estimate.p_value, None, first_only, second_only, len(gap))
    under_equal = scale * float((table[:, 0] ** 2).sum())
    total = float((added**2).sum())
    estimate = (
        ClusteredEstimate(difference, float(np.sqrt(total)), freedom, effective_patients=effective)
        if total > 0
        else ClusteredEstimate(difference, None, note=NO_WIDTH, effective_patients=effective)
    )
    p_value = None
    if under_equal > 0:
        p_value = float(2 * scipy.special.ndtr(-abs(difference) / np.sqrt(under_equal)))
    return McNemar(estimate, p_value, p_exact, first_only, second_only, len(gap))


def _of_seeds(
    systems: Sequence[Floats], clusters: Integers, n_clusters: int, freedom: float
) -> ClusteredEstimate:
    """The difference of two shares right, each the mean over seeds, shape ``(seeds, N)``."""
    right = np.concatenate(list(systems))
    images = per_cluster(np.ones((right.shape[1], 1)), clusters, n_clusters)[:, 0]
    around = per_cluster((right - right.mean(axis=1, keepdims=True)).T, clusters, n_clusters)
    held = images > 0
    columns = np.column_stack(
        [_without_leverage(of / right.shape[1], images[held]) for of in around[held].T]
    )
    values = [seeds.mean(axis=1).tolist() for seeds in systems]
    return over_seeds(values, columns.T @ columns, freedom)


def _exact_mcnemar(first_only: int, second_only: int) -> float:
    """Exact two-sided p-value of McNemar's test, images taken as independent."""
    n = first_only + second_only
    return min(1.0, 2 * float(scipy.special.bdtr(min(first_only, second_only), n, 0.5)))
