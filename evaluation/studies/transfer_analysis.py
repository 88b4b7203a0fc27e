"""Evaluation of systems on data sets that they were not trained on.

Each system is evaluated on the test images of each data set whose patients the system has never
seen. Its decisions use the threshold from its home data set (the one that it was trained on), and
thresholds that are chosen on a few positive patients of the other data set. A drop is the AUROC at
home minus the AUROC elsewhere. The interval of a drop follows from the intervals of both AUROCs,
since the patients are different.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxr_compare.data_prep.store.predictions import Predictions
from cxr_compare.evaluation.compare.holm import holm
from cxr_compare.evaluation.decisions.decision import Decision
from cxr_compare.evaluation.decisions.thresholds import choose_threshold
from cxr_compare.evaluation.metrics.image_metrics import rates
from cxr_compare.evaluation.statistics.arrays import Floats, Integers, is_positive
from cxr_compare.evaluation.statistics.bootstrap import Resamples, cluster_bootstrap, per_cluster
from cxr_compare.evaluation.statistics.clustered_auroc import auroc_parts
from cxr_compare.evaluation.statistics.clustered_estimate import ClusteredEstimate
from cxr_compare.evaluation.statistics.intervals import Interval, percentile_interval
from cxr_compare.evaluation.studies.study_sentences import study_sentence
from cxr_compare.evaluation.studies.transfer_pairs import Pair
from cxr_compare.evaluation.studies.unseen_scores import UnseenScores, score_unseen
from cxr_compare.evaluation.systems.labelled_split import LabelledSplit
from cxr_compare.evaluation.systems.shortcuts import measure_shortcuts

_RATES = ("recall", "specificity", "precision", "f1", "accuracy")
"""Metrics at a threshold."""
_OF_LUNGS = ("picture", "siblings")
"""Kinds of shortcuts that disease itself changes, or that use the labels of other images."""


@dataclass(frozen=True)
class TransferOptions:
    """Options for evaluating models (systems) on data sets that they were not trained on.

    Attributes:
        policy: Name of the rule by which all thresholds are chosen, such as ``max_f1`` (largest
            F1).
        positives: Numbers of positive patients of the other data set (local patients) with whom a
            new threshold is chosen, such as ``[5, 20]``.
        replicates: Number of bootstrap resamples of the test patients.
        draws: Number of random selections of local patients for each number of positive patients.
        seed: Random seed of the resamples and selections.

    Example:
        >>> TransferOptions("max_f1", positives=[5, 20]).draws
        200
    """

    policy: str
    positives: Sequence[int]
    replicates: int = 2000
    draws: int = 200
    seed: int = 0


@dataclass(frozen=True)
class _Refit:
    """Figures at thresholds chosen on local patients.

    Local patients are labelled one by one, in a random order, until a number of them are positive.
    The range over several random orders shows how much the figures depend on which patients these
    are; the test images stay the same. If the number is close to that of all local positive
    patients, the draws resemble each other, and the range is too narrow.

    Attributes:
        positives: Number of local positive patients; None for all validation images.
        images: Mean number of validation images that had to be labelled.
        figures: Figure of each of `_RATES` on the test images. It is the mean over the draws with
            the range of 90 % of them. If `positives` is None there is only one choice, and it is
            the figure with its 95 % interval over patients.
        n_draws: Number of draws that gave a threshold.
    """

    positives: int | None
    images: float
    figures: dict[str, Interval]
    n_draws: int


@dataclass(frozen=True)
class TransferCell:
    """Results of one system (model) on one data set, its own or one of another hospital.

    A system's own data set, its home, is the one that it was trained on.

    Attributes:
        system: Name of the system.
        data_set: Name of the data set.
        home: True if the system was trained on this data set.
        n_images: Number of test images.
        n_patients: Number of test patients.
        n_positive: Number of positive test images.
        n_seen: Number of images left out because the system was trained or selected on them or on
            other images of their patients.
        n_not_run: Number of images left out because the system has no prediction for them.
        auroc: AUROC on the test images with its interval; None if it is undefined.
        frozen: Metrics at the threshold that was chosen on the system's own data set, by short
            name; empty if there is no such threshold.
        refits: Metrics at thresholds that were chosen anew on some patients of this data set (local
            patients); empty if there are none.
        drop: AUROC on the system's own data set minus AUROC on this data set, with its interval;
            None on the own data set, or if one of the two is unknown.
        p_value: p-value of the hypothesis of equal AUROCs on both data sets, corrected by Holm's
            method over all such differences of the evaluation; None without a difference.
        mean_probability: Mean predicted probability of disease, with the calibration from the
            system's own data set; None without calibration.
        note: Reason why results are absent; empty if all are there.

    Example:
        >>> TransferCell("CheXNet", "RSNA", home=False, p_value=0.01).drop_shown
        True
    """

    system: str
    data_set: str
    home: bool
    n_images: int = 0
    n_patients: int = 0
    n_positive: int = 0
    n_seen: int = 0
    n_not_run: int = 0
    auroc: ClusteredEstimate | None = None
    frozen: dict[str, Interval] = field(default_factory=dict)
    refits: tuple[_Refit, ...] = ()
    drop: Interval | None = None
    p_value: float | None = None
    mean_probability: float | None = None
    note: str = ""

    @property
    def drop_shown(self) -> bool:
        """True if the AUROC is statistically shown to differ from that on the training data set.

        The p-value is corrected for the number of such differences in the evaluation.
        """
        return self.p_value is not None and self.p_value < 0.05


def evaluate_cell(
    cell: TransferCell,
    test: UnseenScores,
    val: UnseenScores,
    decision: Decision | None,
    options: TransferOptions,
) -> TransferCell:
    """Compute the results of one system (model) on one data set.

    The difference to the AUROC on the system's own data set, the one that it was trained on, is
    added later by `add_drops`.

    Args:
        cell: Results that hold the names of system and data set only; the other fields are filled
            in.
        test: Scores of the test images, without images that the system was trained or selected on.
        val: Scores of the validation images, on which new thresholds are chosen (without images
            that the system was trained on).
        decision: Threshold and calibration that were chosen on the system's own data set; None if
            there are none.
        options: Rule for thresholds, numbers of positive patients of this data set with whom new
            thresholds are chosen, and numbers of resamples.

    Returns:
        The cell with its results; if the test images are all positive or all negative, with a note
        instead.
    """
    cell = replace(
        cell,
        n_images=len(test.image_ids),
        n_patients=test.clusters[1],
        n_positive=int(test.y_true.sum()),
        n_seen=test.n_seen,
        n_not_run=test.n_not_run,
    )
    if not test.has_both_classes:
        absent = "negative" if test.y_true.any() else "positive"
        return replace(cell, note=_sentence("one_class", absent, cell.system))
    parts = auroc_parts(test.y_true, test.scores, *test.clusters)
    threshold = None if decision is None else decision.thresholds[options.policy].threshold
    probability = None if decision is None else decision.probability(test.scores)
    refits = [_refit(test, val, positives, options) for positives in options.positives]
    refits.append(_refit_on_all(test, val, options))
    return replace(
        cell,
        auroc=None if parts is None else parts.estimate(),
        frozen={} if threshold is None else _rates_with_intervals(test, threshold, options),
        refits=tuple(refit for refit in refits if refit is not None),
        mean_probability=None if probability is None else float(probability.mean()),
        note=_sentence("no_threshold") if threshold is None else "",
    )


def _counts(scored: UnseenScores, threshold: float) -> npt.NDArray[np.bool_]:
    """Count each image as true positive, false positive, true negative or false negative."""
    called = is_positive(scored.scores, threshold)
    truth = scored.y_true
    return np.column_stack([called & truth, called & ~truth, ~called & ~truth, ~called & truth])


def _rates_with_intervals(
    test: UnseenScores, threshold: float, options: TransferOptions
) -> dict[str, Interval]:
    owner, n_patients = test.clusters
    counts = per_cluster(_counts(test, threshold), owner, n_patients)
    whole = rates(*counts.sum(axis=0))

    def statistic(weights: Integers) -> dict[str, Floats]:
        drawn = rates(*(weights @ counts).T)
        return {name: drawn[name] for name in _RATES}

    drawn = cluster_bootstrap(statistic, Resamples(n_patients, options.replicates, options.seed))
    return {name: percentile_interval(drawn[name], estimate=float(whole[name])) for name in _RATES}


def _refit_on_all(test: UnseenScores, val: UnseenScores, options: TransferOptions) -> _Refit | None:
    """Evaluate the threshold of all local validation images; None if there is no such threshold."""
    if not val.has_both_classes:
        return None
    threshold = choose_threshold(val.y_true, val.scores, options.policy).threshold
    if threshold is None:
        return None
    figures = _rates_with_intervals(test, threshold, options)
    return _Refit(None, float(len(val.image_ids)), figures, 1)


def _refit(
    test: UnseenScores, val: UnseenScores, positives: int, options: TransferOptions
) -> _Refit | None:
    """Evaluate thresholds chosen on local patients; None if too few of them are positive."""
    owner, n = val.clusters
    positive = np.zeros(n, dtype=bool)
    positive[owner[val.y_true]] = True
    if positive.sum() < positives or not val.has_both_classes:
        return None
    rng = np.random.default_rng(options.seed)
    figures: list[list[float]] = []
    images = []
    for _ in range(options.draws):
        order = rng.permutation(n)
        last = np.flatnonzero(positive[order])[positives - 1]
        chosen = np.ones(n, dtype=bool)
        chosen[order[last + 1 :]] = False
        rows = chosen[owner]
        choice = choose_threshold(val.y_true[rows], val.scores[rows], options.policy)
        images.append(int(rows.sum()))
        if choice.threshold is not None:
            values = rates(*_counts(test, choice.threshold).sum(axis=0))
            figures.append([float(values[name]) for name in _RATES])
    if not figures:
        return None
    spread = {}
    for name, column in zip(_RATES, np.array(figures).T, strict=True):
        defined = column[~np.isnan(column)]  # without a positive call precision is 0 / 0
        ends = np.quantile(defined, [0.05, 0.95]).tolist() if len(defined) else [np.nan] * 2
        spread[name] = Interval(float(defined.mean()) if len(defined) else np.nan, *ends)
    return _Refit(positives, float(np.mean(images)), spread, len(figures))


def add_drops(cells: Sequence[TransferCell]) -> list[TransferCell]:
    """Add how much lower the AUROC is on another data set than on a system's own data set.

    A system is a model; its own data set, its home, is the one that it was trained on. The
    difference, called the drop, is the AUROC at home minus the AUROC on another data set. Its
    p-value is corrected for the number of drops.

    Args:
        cells: Results of each system on each data set.

    Returns:
        The cells in the same order. A cell on the own data set, or without an AUROC, has no drop.

    Source:
        Two independent AUROCs, each with its own interval by patient (Obuchowski 1997; exact if
        there are few patients): MOVER, Zou and Donner 2008. Correction: Holm 1979.

    Example:
        >>> aurocs = [ClusteredEstimate(value, 0.01, bounded=True) for value in (0.9, 0.8)]
        >>> home = TransferCell("A", "NIH", True, auroc=aurocs[0])
        >>> away = TransferCell("A", "RSNA", False, auroc=aurocs[1])
        >>> round(add_drops([home, away])[1].drop.estimate, 3)
        0.1
    """
    at_home = {cell.system: cell.auroc for cell in cells if cell.home and cell.auroc is not None}
    drops = [
        None
        if cell.home or cell.auroc is None or cell.system not in at_home
        else at_home[cell.system].as_interval.minus(cell.auroc.as_interval)
        for cell in cells
    ]
    adjusted = holm([None if drop is None else drop.p_value for drop in drops])
    return [
        replace(cell, drop=drop, p_value=p_value)
        for cell, drop, p_value in zip(cells, drops, adjusted, strict=True)
    ]


def _strongest_shortcut(test_set: LabelledSplit, image_ids: pd.Index) -> dict[str, Any] | None:
    """Return the best prediction without the lungs: from metadata or image borders alone.

    Its AUROC is somewhat too high, because it is the best of several on the same images.
    """
    decode = test_set.dataset.optional_table("decode")
    images = test_set.images[test_set.images["image_id"].isin(image_ids)]
    labels = pd.DataFrame({test_set.target.name: test_set.labels.reindex(image_ids)})
    rows = measure_shortcuts(images, decode, labels)
    return next((row for row in rows if row["kind"] not in _OF_LUNGS), None)


@dataclass(frozen=True)
class EvaluatedSet:
    """A data set on which systems (models) are evaluated, and how well shortcuts predict there.

    A shortcut is information outside the lungs that predicts the disease, such as the view or text
    at the border of the image.

    Attributes:
        name: Name of the data set.
        finding: Name of the disease finding as it is printed, such as "lung opacity".
        shortcut: Result of the best prediction from metadata or image borders alone, with the keys
            ``fact`` (such as ``view``), ``auroc``, ``ci_low`` and ``ci_high`` among others; None if
            there is no such prediction.

    Example:
        >>> EvaluatedSet("NIH", "lung opacity", None).name
        'NIH'
    """

    name: str
    finding: str
    shortcut: Mapping[str, Any] | None


@dataclass(frozen=True)
class Transfer:
    """Results of every system (model) on every data set, with notes.

    Attributes:
        sets: Data sets in their order.
        cells: Results of each system on each data set that has labels for the system's disease
            finding.
        policy: Name of the rule by which thresholds were chosen, such as ``max_f1`` (largest F1).
        notes: Sentences on what was left out, and why.

    Example:
        >>> sets = [EvaluatedSet("RSNA", "lung opacity", None)]
        >>> transfer = Transfer(sets, [TransferCell("A", "RSNA", False)], "max_f1", [])
        >>> transfer.systems, transfer.cell("A", "NIH") is None
        (['A'], True)
    """

    sets: Sequence[EvaluatedSet]
    cells: Sequence[TransferCell]
    policy: str
    notes: Sequence[str]

    @property
    def systems(self) -> list[str]:
        """Names of the systems (models), in the order of the results."""
        return list(dict.fromkeys(cell.system for cell in self.cells))

    def cell(self, system: str, data_set: str) -> TransferCell | None:
        """Return the results of a system (model) on a data set.

        Args:
            system: Name of the system.
            data_set: Name of the data set.

        Returns:
            Results of the system on the data set; None if the system was not evaluated there,
            because the data set has no labels for its finding.
        """
        for cell in self.cells:
            if cell.system == system and cell.data_set == data_set:
                return cell
        return None


def _sentence(macro: str, *values: Any) -> str:
    return study_sentence("transfer", macro, *values)


def evaluate_transfer(
    evaluated: Sequence[tuple[Pair, Predictions]],
    options: TransferOptions,
    *,
    notes: Sequence[str] = (),
    advance: Callable[[], object] = lambda: None,
) -> Transfer:
    """Evaluate systems (models) on data sets, and log that the test images were used.

    Args:
        evaluated: Pairs of a system and a data set, each with the predictions of the system on this
            data set.
        options: Rule for thresholds, numbers of positive patients of a data set with whom new
            thresholds are chosen, and numbers of resamples.
        notes: Sentences from earlier steps, which the result keeps.
        advance: Function that is called once, without arguments, for each pair, for a progress bar.

    Returns:
        One cell with results for each pair, and notes on images that were left out.

    Raises:
        InputError: The predictions of a pair are of another data set, or lack images.
    """
    cells = []
    left_out = []
    widest: dict[str, tuple[LabelledSplit, pd.Index]] = {}
    for pair, predictions in evaluated:
        test, val = (score_unseen(predictions, pair, role) for role in ("test", "val"))
        if pair.data_set not in widest or len(widest[pair.data_set][1]) < len(test.image_ids):
            widest[pair.data_set] = pair.test_set, test.image_ids
        blank = TransferCell(pair.system, pair.data_set, pair.home)
        cells.append(evaluate_cell(blank, test, val, pair.decision, options))
        left_out += [_sentence("copies", pair.data_set, line) for line in test.copies]
        advance()
    sets = [
        EvaluatedSet(name, test_set.target.display_name, _strongest_shortcut(test_set, image_ids))
        for name, (test_set, image_ids) in widest.items()
    ]
    for cell in cells:
        if cell.n_seen:
            left_out.append(_sentence("seen", cell.system, cell.data_set, cell.n_seen))
        if cell.n_not_run:
            left_out.append(_sentence("not_run", cell.system, cell.data_set, cell.n_not_run))
    return Transfer(sets, add_drops(cells), options.policy, [*notes, *left_out])
