"""The frame of replicates: every figure of a trained model, on the images and on resamples.

A frame has a row for the images themselves (row 0) and one for each bootstrap resample of the test
patients, and a column for each figure. Each resample also draws validation patients, the same ones
for all systems, and on them it chooses the thresholds, the rule of boxes and their score cut again.
So the spread of a column includes the uncertainty of these choices, and the paired difference of
two systems is the difference of their columns. The calibration and the rule from boxes to an image
score are not chosen again.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from threading import Lock
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxr_compare.evaluation.box_choice import BOX_CUT, BOX_RULE, BoxChoice
from cxr_compare.evaluation.boxes.box_figures import RANKED, FigureOfWeights
from cxr_compare.evaluation.boxes.called_boxes import WeightedCalls
from cxr_compare.evaluation.boxes.matching import BoxPairs
from cxr_compare.evaluation.boxes.overlaps import OverlapRule
from cxr_compare.evaluation.boxes.rsna_score import WeightedRsnaScore
from cxr_compare.evaluation.boxes.vinbigdata_score import WeightedVinBigDataScore
from cxr_compare.evaluation.evaluated_model import PLACES, EvaluatedModel, Located, Models
from cxr_compare.evaluation.figures import image_blind_name
from cxr_compare.evaluation.metrics.calibration_figures import CalibrationFigures
from cxr_compare.evaluation.metrics.image_metrics import rates
from cxr_compare.evaluation.metrics.metric import ALL, VERSUS_NORMAL, MetricKey
from cxr_compare.evaluation.metrics.own_metric import own_figure
from cxr_compare.evaluation.metrics.registry import family
from cxr_compare.evaluation.statistics.arrays import Floats, Integers
from cxr_compare.evaluation.statistics.bootstrap import Resamples, cluster_bootstrap
from cxr_compare.evaluation.statistics.ranking import CalledShare, RankedScores
from cxr_compare.evaluation.thresholds import ValidationScores

_Name = TypeVar("_Name", bound=Hashable)
_STREAM = 1
"""Random stream of the validation patients, independent of that of the test patients."""
Frames = Mapping[str, Sequence[pd.DataFrame]]
"""Frame of each training seed, by display name of the system. The columns are `MetricKey`s."""
ChosenAgain = Mapping[tuple[str, int], Mapping[str, Floats]]
"""Values that every resample chooses, shape ``(R,)``, by system and seed and by name."""


class Evidence(NamedTuple):
    """Inputs of the figures of a comparison, while it is in memory.

    The frames are those of the models, and the resamples those that gave the frames.
    """

    models: Models
    frames: Frames
    resamples: Resamples


def is_resampled(key: MetricKey) -> bool:
    """Return True for figures whose interval comes from resamples.

    Counts have none, the AUROC has a closed one, and resampling alone raises the ECE.
    """
    return key.metric not in (*family("counts"), "auroc", "ece")


def replicates(
    models: Models,
    resamples: Resamples,
    again: ChosenAgain | None = None,
    *,
    boxed_only: bool = False,
    own_metrics: Sequence[str] = (),
    advance: Callable[[int], None] | None = None,
) -> dict[str, list[pd.DataFrame]]:
    """Compute every figure of all models on the images and on the same resamples of patients.

    `again` has the choices that every resample makes, as `choose_again` returns them; None makes
    them here. `own_metrics` are short names of metrics of the user's own. `advance` is called after
    each step with the number of resamples in it.

    Each system has one frame for each training seed, shape ``(1 + R, figures)``. Row 0 has the
    figures themselves. NaN where a figure is undefined, and in all other rows of the figures that
    are not resampled (`is_resampled`).

    Example:
        >>> from cxr_compare.evaluation.choices import Choices
        >>> from cxr_compare.evaluation.labelled_images import LabelledImages
        >>> from cxr_compare.evaluation.output import Output
        >>> n = np.arange(60)
        >>> images = LabelledImages.from_arrays(pd.Index(n).map("{:02d}".format), n % 2 == 0)
        >>> output = Output.from_scores(images.image_ids, (n * 7 % 10 + 3 * (n % 2 == 0)) / 20)
        >>> model = EvaluatedModel("A", images, output, Choices(target="opacity", chosen_on={}))
        >>> frame = replicates({"A": [model]}, Resamples(60, 200, 0))["A"][0]
        >>> frame.shape[0], float(frame.loc[0, ("all", "", "average_precision")].round(3))
        (201, 0.679)
    """
    functions = {
        (system, seed): _figures_of(model, boxed_only=boxed_only, own_metrics=own_metrics)
        for system, members in models.items()
        for seed, model in enumerate(members)
    }
    if again is None:
        again = choose_again(models, resamples)
    columns = [(name, choice) for name in functions for choice in again.get(name, {})]
    chosen_values = [again[name][choice] for name, choice in columns]
    beside = np.column_stack(chosen_values) if chosen_values else None

    def statistic(
        weights: npt.NDArray[np.int16], chosen: Floats | None = None
    ) -> dict[tuple[tuple[str, int], MetricKey], Floats]:
        rows: dict[tuple[str, int], dict[str, Floats]] = {name: {} for name in functions}
        if chosen is not None:
            for (name, choice), column in zip(columns, chosen.T, strict=True):
                rows[name][choice] = column
        return {
            (name, key): values
            for name, figures in functions.items()
            for key, values in figures(weights, rows[name]).items()
            if is_resampled(key)
        }

    drawn = cluster_bootstrap(statistic, resamples, advance, beside)
    frames: dict[str, list[pd.DataFrame]] = {system: [] for system in models}
    unknown = np.full(resamples.n_replicates, np.nan)
    for name, figures in functions.items():
        values = {
            key: np.append(value, drawn.get((name, key), unknown))
            for key, value in figures.once.items()
        }
        frames[name[0]].append(pd.DataFrame(values))
    return frames


def choose_again(
    models: Models, resamples: Resamples, image_blind: Models | None = None
) -> ChosenAgain:
    """Make the choices of every seed of every system again on resampled validation patients.

    The values are those of `refit_choices`, by system and seed. The baselines in `image_blind`, by
    display name of their system, have the thresholds of their system and choose their own score cut
    of boxes; their values are under the name that `image_blind_name` returns.
    """
    image_blind = image_blind or {}
    choices = {
        (system, seed): model.choices_made_again
        for system, members in models.items()
        for seed, model in enumerate(members)
    }
    for system, members in image_blind.items():
        for seed, model in enumerate(members):
            of_boxes = model.choices.box_choice
            choices[image_blind_name(system), seed] = [] if of_boxes is None else [of_boxes]
    chosen = refit_choices(choices, resamples)
    for system, members in image_blind.items():
        for seed in range(len(members)):
            own = chosen[image_blind_name(system), seed]
            chosen[image_blind_name(system), seed] = chosen[system, seed] | own
            n_relearned = len(members[seed].relearned)
            if n_relearned:  # equal shares of neighbouring resamples, so that each is made once
                share = np.arange(resamples.n_replicates) * n_relearned // resamples.n_replicates
                chosen[image_blind_name(system), seed][PLACES] = share.astype(np.float64)
    return chosen


def refit_choices(
    choices: Mapping[_Name, Sequence[ValidationScores | BoxChoice]], resamples: Resamples
) -> dict[_Name, dict[str, Floats]]:
    """Refit choices on the same resamples of the validation patients.

    `choices` has those that each model made on validation images. For each model, the result has by
    name of the choice, such as ``max_f1``, the value that is chosen on every resample, shape
    ``(R,)``; NaN where no value can be chosen.
    """
    patients = [choice.patients for made in choices.values() for choice in made]
    if not patients:
        return {name: {} for name in choices}
    names = np.unique(np.concatenate(patients))
    refits = {
        name: [choice.refit(np.searchsorted(names, choice.patients), len(names)) for choice in made]
        for name, made in choices.items()
    }

    def statistic(weights: npt.NDArray[np.int16]) -> dict[tuple[_Name, str], Floats]:
        return {
            (name, what): values
            for name, made in refits.items()
            for refit in made
            for what, values in refit(weights).items()
        }

    drawn = cluster_bootstrap(statistic, replace(resamples, n_clusters=len(names), stream=_STREAM))
    chosen: dict[_Name, dict[str, Floats]] = {name: {} for name in choices}
    for (name, what), values in drawn.items():
        chosen[name][what] = values
    return chosen


class FiguresOfWeights:
    """All figures of one model for many weightings of the patients at once.

    A weight is the number of times that a bootstrap resample draws a patient; with all weights 1
    the figures are those of the images themselves. So each figure is defined once for both. With
    `boxed_only`, figures of whole images are left out. `located` replaces the places that the model
    gives.
    """

    def __init__(
        self,
        model: EvaluatedModel,
        *,
        boxed_only: bool = False,
        located: Located | None = None,
        own_metrics: Sequence[str] = (),
    ) -> None:
        self.model = model
        located = located or model.located
        images = model.images
        self._own = {
            MetricKey(ALL, "", metric): own_figure(
                metric, images.y_true, model.scores, images.patients
            )
            for metric in own_metrics
        }
        self._ranked: RankedScores | None = None
        if not boxed_only:
            self._ranked = RankedScores(images.y_true, model.scores, images.patients)
        self._ranked_normal: RankedScores | None = None
        normal = images.versus_normal
        if normal is not None and not boxed_only:
            self._ranked_normal = RankedScores(
                images.y_true[normal], model.scores[normal], images.patients[normal]
            )
        self._calibration: CalibrationFigures | None = None
        if model.probability is not None and not boxed_only:
            self._calibration = CalibrationFigures(
                images.y_true, model.probability, images.patients
            )
        self._points: CalledShare | None = None
        if located.localised is not None:
            boxed = images.y_true & images.is_boxed
            self._points = CalledShare(
                model.scores,
                boxed & located.localised,
                boxed,
                images.patients,
                images.n_patients,
            )
        self._by_rule: dict[int, _Boxes] = {}
        self._decided: _Boxes | None = None
        self._stored: FigureOfWeights | None = None
        if located.pairs is not None:
            self._decided = _Boxes(located.pairs, model)
            is_detector = model.output.gives_boxes and model.output.has_scores
            if is_detector and model.choices.overlap is not None:
                self._stored = _precision_of_stored(model)
        self._making = Lock()  # replicates are computed by several threads

    @property
    def once(self) -> dict[MetricKey, Floats]:
        """Figures of the images themselves, shape ``(1,)`` each."""
        figures = self(np.ones((1, self.model.images.n_patients), dtype=np.int16))
        if self._calibration is not None:  # without the knots that approximate replicates
            exact = self._calibration.figures()
            figures |= {MetricKey(ALL, "", metric): value for metric, value in exact.items()}
        return figures

    def __call__(
        self, weights: Integers, chosen: Mapping[str, Floats] | None = None
    ) -> dict[MetricKey, Floats]:
        """Compute all figures for each row of patient weights, with the row's own choices.

        The whole-number weights of P patients in R weightings have shape ``(R, P)``; `chosen` has
        the choices that each row makes on its validation patients, by name, shape ``(R,)`` each
        (NaN where a row could choose nothing). All other choices are those of the model. The values
        by key have shape ``(R,)`` each; NaN where a figure is undefined.
        """
        chosen = chosen or {}
        figures: dict[MetricKey, Floats] = {}
        ranked = normal = None
        if self._ranked is not None:
            ranked = self._ranked.sums(weights)
            if self.model.output.has_scores:
                figures = _keyed(ALL, "", ranked.figures())
        if self._ranked_normal is not None:
            normal = self._ranked_normal.sums(weights, beside=ranked)  # the positives are the same
            if self.model.output.has_scores:
                figures |= _keyed(VERSUS_NORMAL, "", normal.figures())
        if self._calibration is not None:
            figures |= _keyed(ALL, "", self._calibration.figures(weights))
        found = None if self._points is None else self._points.at(weights)
        if found is not None:
            whatever_score = np.full(len(weights), -np.inf)
            figures[MetricKey(ALL, "", "pointing_accuracy")] = found(whatever_score)
        figures |= self._of_own(weights)
        figures |= self._of_boxes(weights, chosen)
        for policy, choice in self.model.thresholds.items():
            if choice.threshold is None:
                continue
            cuts = chosen.get(policy, np.full(len(weights), choice.threshold))
            values: dict[str, Floats] = {}
            if ranked is not None:
                counts = ranked.counts(cuts)
                of_policy = {name: counts[name] for name in family("counts")}
                values = {**rates(**of_policy), **of_policy}
            if found is not None:
                values["localised_sensitivity"] = found(cuts)
            figures |= _keyed(ALL, policy, values)
            if ranked is not None and normal is not None:
                against = normal.counts(cuts)
                of_normal = of_policy | {name: against[name] for name in ("fp", "tn")}
                figures |= _keyed(VERSUS_NORMAL, policy, rates(**of_normal))
        return figures

    def _of_own(self, weights: Integers) -> dict[MetricKey, Floats]:
        """Compute the figures of the user's own; NaN for boxes without scores."""
        if not self.model.output.has_scores:
            return {key: np.full(len(weights), np.nan) for key in self._own}
        return {key: of_weights(weights) for key, of_weights in self._own.items()}

    def _of_boxes(self, weights: Integers, chosen: Mapping[str, Floats]) -> dict[MetricKey, Floats]:
        """Compute the figures of boxes, by the rule of boxes and the score cut of each row."""
        if self._decided is None:
            return {}
        cut = np.full(len(weights), self.model.choices.box_cut, dtype=np.float64)
        cuts = chosen.get(BOX_CUT, cut)
        rules = chosen.get(BOX_RULE) if self.model.rule_is_open else None
        if rules is None:
            figures = self._decided.figures(weights, cuts)
        else:
            figures = {}
            for index in np.unique(rules).astype(int).tolist():
                rows = rules == index
                of_rule = self._boxes_by(index).figures(weights[rows], cuts[rows])
                for name, values in of_rule.items():
                    figures.setdefault(name, np.full(len(weights), np.nan))[rows] = values
        if not self.model.output.has_scores:
            return _keyed(ALL, "", figures)
        stored = np.column_stack([figures[name] for name in family("coco_decided")])
        if self._stored is not None:
            stored = self._stored(weights)
        elif rules is not None and self.model.output.gives_boxes:
            stored = self._decided.precision(weights)  # no stored box was left out
        of_stored = dict(zip(family("coco"), stored.T, strict=True))
        return _keyed(ALL, "", of_stored | figures)

    def _boxes_by(self, index: int) -> _Boxes:
        """Return the figures of the boxes that a candidate rule gives; they are kept for reuse."""
        choice = self.model.choices.box_choice
        if choice is None or self._decided is None or index == choice.index:
            assert self._decided is not None  # noqa: S101 - there is a rule, so there are boxes
            return self._decided
        with self._making:
            if index not in self._by_rule:
                pairs = self.model.pairs_by(choice.candidates[index].rule)
                self._by_rule[index] = _Boxes(pairs, self.model)
            return self._by_rule[index]


class _FiguresOfRelearned:
    """Figures of an image-blind baseline whose positions are learned again for each resample."""

    def __init__(self, model: EvaluatedModel) -> None:
        self.once = FiguresOfWeights(model, boxed_only=True).once
        self._model = model

    def __call__(self, weights: Integers, chosen: Mapping[str, Floats]) -> dict[MetricKey, Floats]:
        """Compute all figures for each row of patient weights, with the row's own positions."""
        values: dict[MetricKey, Floats] = {}
        places = chosen[PLACES].astype(int)
        for index in np.unique(places).tolist():
            rows = places == index
            located = self._model.relearned[index]()
            again = FiguresOfWeights(self._model, boxed_only=True, located=located)
            of_rows = {name: column[rows] for name, column in chosen.items()}
            for key, column in again(weights[rows], of_rows).items():
                values.setdefault(key, np.full(len(weights), np.nan))[rows] = column
        return values


def _figures_of(
    model: EvaluatedModel, *, boxed_only: bool, own_metrics: Sequence[str]
) -> FiguresOfWeights | _FiguresOfRelearned:
    """Return the figures of a system, or of an image-blind baseline, as a function of weights."""
    if model.relearned:
        return _FiguresOfRelearned(model)
    return FiguresOfWeights(model, boxed_only=boxed_only, own_metrics=own_metrics)


class _Boxes:
    """Figures of one set of predicted boxes for many weightings of the patients."""

    def __init__(self, pairs: BoxPairs | None, model: EvaluatedModel) -> None:
        if pairs is None:
            raise ValueError("a rule of boxes gives boxes")
        patients, n_patients = _patients_of_boxes(model)
        self._ranked: list[tuple[tuple[str, ...], FigureOfWeights]] = []
        if model.output.has_scores:
            self._ranked = [
                (family(name), prepare(pairs, patients, n_patients))
                for name, prepare in RANKED.items()
            ]
            scores = model.scores[model.images.is_boxed]
            with_images = WeightedVinBigDataScore(pairs, scores, patients, n_patients)
            self._ranked.append((family("vinbigdata"), with_images))
        self._rsna: WeightedRsnaScore | None = None
        self._calls: WeightedCalls | None = None
        if model.choices.box_cut is not None:
            self._rsna = WeightedRsnaScore(pairs, patients, n_patients)
            self._calls = WeightedCalls(pairs, patients, n_patients)

    def precision(self, weights: Integers) -> Floats:
        """Return AP50 and AP for each row of weights, shape ``(R, 2)``."""
        return self._ranked[0][1](weights)

    def figures(self, weights: Integers, cuts: Floats) -> dict[str, Floats]:
        """Return the figures by metric, shape ``(R,)``, with boxes called at the row's own cut."""
        figures: dict[str, Floats] = {}
        for names, of_weights in self._ranked:
            columns = of_weights(weights).reshape(len(weights), -1).T
            figures |= dict(zip(names, columns, strict=True))
        if self._rsna is not None:
            (name,) = family("rsna")
            figures[name] = self._rsna.at(np.asarray(weights, dtype=np.float64), cuts)
        if self._calls is not None:
            columns = self._calls.at(np.asarray(weights, dtype=np.float64), cuts).T
            figures |= dict(zip(family("called_boxes"), columns, strict=True))
        return figures


def _patients_of_boxes(model: EvaluatedModel) -> tuple[Integers, int]:
    """Return the patient of each image on which localisation is evaluated, and their number."""
    images = model.images
    return images.patients[images.is_boxed], images.n_patients


def _precision_of_stored(model: EvaluatedModel) -> FigureOfWeights:
    """Return AP50 and AP of all boxes that a detector stored, as a function of weights."""
    pairs = model.pairs_by(OverlapRule(None))
    assert pairs is not None  # noqa: S101 - a detector stores boxes
    return RANKED["coco_decided"](pairs, *_patients_of_boxes(model))


def _keyed(subgroup: str, policy: str, values: Mapping[str, Floats]) -> dict[MetricKey, Floats]:
    return {MetricKey(subgroup, policy, metric): column for metric, column in values.items()}
