"""Every figure of one system, on the images themselves and on resamples of the patients."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from itertools import chain

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxr_compare.evaluation.box_figures import BoxFigures
from cxr_compare.evaluation.boxes.called_boxes import CalledBoxes
from cxr_compare.evaluation.boxes.matching import BoxPairs, pair_boxes
from cxr_compare.evaluation.boxes.pointing import points_in_boxes
from cxr_compare.evaluation.choices import Choices
from cxr_compare.evaluation.image_blind import Places
from cxr_compare.evaluation.metrics import rates
from cxr_compare.evaluation.output import Output
from cxr_compare.evaluation.statistics.arrays import Flags, Floats, Integers, undefined_is_nan
from cxr_compare.evaluation.statistics.bootstrap import Resamples
from cxr_compare.evaluation.statistics.ranking import RankedScores
from cxr_compare.evaluation.truth import Truth

Key = tuple[str, str]
"""Policy (empty without a threshold) and metric of a figure."""
_STREAM = 1
"""Random stream of the validation patients, independent of that of the test patients."""


class SystemFigures:
    """All figures of one system on test images, for many weightings of the patients at once.

    With `places` they are those of the system's image-blind baseline: its boxes and its point lie
    at these constant positions, and figures of whole images are left out.
    """

    def __init__(
        self,
        truth: Truth,
        output: Output,
        choices: Choices,
        *,
        places: Places | None = None,
        decides_by_boxes: bool = False,
    ) -> None:
        self.truth, self.output, self.choices = truth, output, choices
        self.scores = output.scores.to_numpy(np.float64)
        self.places = places
        self.decides_by_boxes = decides_by_boxes and output.is_best_box
        self._ranked = RankedScores(truth.positive, self.scores, truth.patients)
        self.boxed = truth.positive & truth.is_boxed
        self._point = 0 if places is None else places.best
        self._lesions_at = None if places is None else places.lesions_at(truth)
        self.localised = self._localised(self._point) if self.boxed.any() else None
        self.loss = None  # squared error of the calibrated probability of each image
        if choices.calibration is not None and places is None:
            self.loss = (choices.calibration.probability(self.scores) - truth.positive) ** 2
        self._of_rule: dict[int, Callable[[Integers], dict[str, Floats]]] = {}

    def _localised(self, candidate: int) -> Flags | None:
        """Return True for images whose point, a candidate of a baseline, lies on a lesion."""
        if self._lesions_at is not None:
            return self._lesions_at(candidate)
        points = self.output.points
        return None if points is None else points_in_boxes(points, self.truth.boxes)

    @cached_property
    def boxes(self) -> pd.DataFrame | None:
        """Boxes that are evaluated; None for a system without boxes."""
        return self._boxes_of(self.choices.rule)

    def _boxes_of(self, rule: int) -> pd.DataFrame | None:
        """Return the boxes of a rule that cuts maps; all rules have the boxes of a detector."""
        boxes = self.choices.boxes(self.output, rule)
        return boxes if boxes is None or self.places is None else self.places.move(boxes)

    @cached_property
    def pairs(self) -> BoxPairs | None:
        """Pairs of these boxes and of true boxes, on images whose lesions all have boxes."""
        return self._pairs(self.boxes)

    @cached_property
    def called_boxes(self) -> CalledBoxes | None:
        """Figures of called boxes; None unless boxes are a decision of this comparison."""
        if not self.decides_by_boxes or self.pairs is None or not self.boxed.any():
            return None
        patients = self.truth.patients[self.truth.is_boxed]
        return CalledBoxes(self.pairs, patients, self.truth.n_patients)

    def _pairs(self, boxes: pd.DataFrame | None) -> BoxPairs | None:
        if boxes is None or not self.truth.is_boxed.any():
            return None
        return pair_boxes(boxes, self.truth.boxes, self.truth.ids[self.truth.is_boxed])

    def __call__(self, weights: Integers, again: Mapping[str, Floats]) -> dict[Key, Floats]:
        """Return each figure under R weightings, ``(R, P)``, with what each of them chose again.

        `again` has, for each weighting, the threshold of each policy, the position of the ``rule``
        that cuts maps, and of a baseline the ``point``; what it lacks is as `choices` has it.
        """
        values: dict[Key, Floats] = {}
        if self.places is None:
            ranked = self._ranked.sums(weights)
            if self.output.ranks:
                values |= {("", name): figure for name, figure in ranked.figures().items()}
        if self.loss is not None:
            everything = np.ones(len(self.loss))
            values["", "brier"] = _ratio(self.loss, everything, self.truth.patients, weights)
        values |= self._of_points(weights, again)
        for policy, threshold in self.choices.thresholds.items():
            if self.places is None:
                counts = ranked.counts(again.get(policy, np.full(len(weights), threshold)))
                figures = {**rates(counts), **counts}
                values |= {(policy, name): figure for name, figure in figures.items()}
            if self.called_boxes is not None:
                cuts = again.get(policy, np.full(len(weights), threshold))
                of_boxes = self.called_boxes.figures(weights, cuts)
                values |= {(policy, name): figure for name, figure in of_boxes.items()}
        if self.pairs is not None and self.output.ranks:
            chosen = again.get("rule", np.full(len(weights), self.choices.rule)).astype(np.int64)
            values |= self._of_boxes(weights, chosen)
        return values

    def _of_points(self, weights: Integers, again: Mapping[str, Floats]) -> dict[Key, Floats]:
        """Return the figures of points, of a baseline each weighting with the point it learned."""
        values: dict[Key, Floats] = {}
        if self.localised is None:
            return values
        chosen = again.get("point", np.full(len(weights), self._point)).astype(np.int64)
        for candidate in np.unique(chosen).tolist():
            localised = self.localised if self._lesions_at is None else self._lesions_at(candidate)
            rows = chosen == candidate
            drawn = weights[rows]
            hits = self.boxed & localised
            share = _ratio(hits, self.boxed, self.truth.patients, drawn)
            figures = {("", "pointing_accuracy"): share}
            for policy, threshold in self.choices.thresholds.items():
                cuts = again.get(policy, np.full(len(weights), threshold))[rows]
                figures[policy, "localised_sensitivity"] = self._called_hits(drawn, cuts, hits)
            for key, figure in figures.items():
                values.setdefault(key, np.full(len(weights), np.nan))[rows] = figure
        return values

    def _of_boxes(self, weights: Integers, chosen: Integers) -> dict[Key, Floats]:
        """Return the figures of boxes, each weighting with the rule that it chose."""
        values: dict[Key, Floats] = {}
        for rule in np.unique(chosen).tolist():
            if rule not in self._of_rule:
                pairs = self.pairs
                if rule != self.choices.rule:
                    pairs = self._pairs(self._boxes_of(rule))
                if pairs is None:
                    continue
                patients = self.truth.patients[self.truth.is_boxed]
                self._of_rule[rule] = BoxFigures(pairs).with_patients(
                    patients, self.truth.n_patients
                )
            rows = chosen == rule
            for name, figure in self._of_rule[rule](weights[rows]).items():
                values.setdefault(("", name), np.full(len(weights), np.nan))[rows] = figure
        return values

    def _called_hits(self, weights: Integers, cuts: Floats, hits: Flags) -> Floats:
        """Return the share of lesion images that are called with the point on a lesion."""
        patients = self.truth.patients
        order = np.argsort(-self.scores[hits], kind="stable")
        ranked = -self.scores[hits][order]
        sums = np.cumsum(weights[:, patients[hits][order]].astype(np.int64), axis=1)
        sums = np.pad(sums, ((0, 0), (1, 0)))
        position = np.searchsorted(ranked, -np.nan_to_num(cuts, nan=np.inf), side="right")
        per_patient = np.bincount(patients[self.boxed], minlength=weights.shape[1])
        with undefined_is_nan():
            share = sums[np.arange(len(sums)), position] / (weights @ per_patient.astype(float))
        return np.where(np.isnan(cuts), np.nan, share)


def _ratio(
    counted: npt.ArrayLike, whole: npt.ArrayLike, patients: Integers, weights: Integers
) -> Floats:
    """Return a sum over images divided by another one, for each weighting of the patients."""
    sums = np.array(
        [np.bincount(patients, numbers, weights.shape[1]) for numbers in (counted, whole)]
    )
    top, bottom = sums @ weights.T.astype(np.float64)
    with undefined_is_nan():
        return np.asarray(top / bottom)


def choose_again(
    choices: Mapping[str, Choices], n_replicates: int, seed: int
) -> dict[str, dict[str, Floats]]:
    """Make the choices of every system again on the same resamples of validation patients.

    The first value of each choice is that of the validation images themselves.
    """
    choices_made = {name: choice for name, choice in choices.items() if choice.truth is not None}
    again: dict[str, dict[str, Floats]] = {name: {} for name in choices}
    if not choices_made:
        return again
    owners = [choice.truth.owners for choice in choices_made.values() if choice.truth is not None]
    names = np.unique(np.concatenate(owners))
    chunks = Resamples(len(names), n_replicates, seed, _STREAM).chunks()
    parts = [
        {name: choice.again(weights, names) for name, choice in choices_made.items()}
        for weights in chunks
    ]
    for name, choice in choices_made.items():
        first = {**choice.thresholds, "rule": float(choice.rule)}
        again[name] = {
            what: np.concatenate([[first[what]], *(part[name][what] for part in parts)])
            for what in parts[0][name]
        }
    return again


def replicates(
    systems: Mapping[str, SystemFigures],
    again: Mapping[str, Mapping[str, Floats]],
    resamples: Resamples,
    advance: Callable[[int], None] | None = None,
) -> dict[str, pd.DataFrame]:
    """Return a frame for each system with a column ``(policy, metric)`` for each figure.

    Row 0 has the figures of the images themselves; each further row those of a resample. `advance`
    is called with the number of resamples that are done.
    """
    parts: dict[str, list[pd.DataFrame]] = {name: [] for name in systems}
    done = 0
    once = np.ones((1, resamples.n_clusters), dtype=np.int16)
    for weights in chain([once], resamples.chunks()):
        rows = slice(done, done + len(weights))
        for name, figures in systems.items():
            of_rows = {what: values[rows] for what, values in again.get(name, {}).items()}
            parts[name].append(pd.DataFrame(figures(weights, of_rows)))
        if advance is not None and done:
            advance(len(weights))
        done += len(weights)
    return {name: pd.concat(frames, ignore_index=True) for name, frames in parts.items()}
