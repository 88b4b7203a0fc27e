"""Evaluation of the runs of a learning-curve study, and the curves fitted to them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from cxr_compare import Predictions
from cxr_compare.evaluation.sources.labelled_split import LabelledSplit
from cxr_compare.studies.curve import curve_sentences
from cxr_compare.studies.curve.curve_study import (
    CURVE_METRICS,
    CurveModel,
    CurveStudy,
    Difference,
    Kind,
    SizeFigure,
    SizePoint,
)
from cxr_compare.studies.curve.learning_curve import LearningCurve, fit_learning_curves
from cxr_compare.studies.curve.share_figures import EvaluatedRun, ShareFigures, evaluate_shares

_PAIRS: tuple[tuple[Kind, Kind], ...] = (
    ("detector", "classifier"),
    ("mixed", "classifier"),
    ("mixed", "detector"),
)


@dataclass(frozen=True)
class CurveDesign:
    """Design of a learning-curve study: models, shares of the training data, seeds and splits.

    A split divides the patients of a data set into training, validation and test patients. For a
    share of the data, a smaller split is made, in which only this share of the training and
    validation patients is kept.

    Attributes:
        models: Description of each model by its kind: ``detector`` (learns from boxes),
            ``classifier`` (learns from labels) or ``mixed`` (learns from labels and some boxes).
        shares: Shares of the annotated training and validation patients that models are trained on,
            ascending, in (0, 1].
        parts: Name of the smaller split that a model is trained on. The key has the name of the
            whole split, whose test images evaluate the model, the share and the seed, such as
            ``("default", 0.5, 0)``.
        length: Sentence for the page that says how long the models of each share were trained, such
            as "8 epochs.".
    """

    models: Mapping[Kind, CurveModel]
    shares: Sequence[float]
    seeds: Sequence[int]
    parts: Mapping[tuple[str, float, int], str]
    length: str

    @property
    def splits(self) -> list[str]:
        """Names of the splits whose test images evaluate the models; each has other test images."""
        return list(dict.fromkeys(split for split, _, _ in self.parts))


def evaluate_curve(
    design: CurveDesign,
    test_set: LabelledSplit,
    predictions: Mapping[tuple[Kind, str, float, int], Predictions],
    *,
    made: Mapping[str, Any],
    replicates: int,
    advance: Callable[..., None],
) -> CurveStudy:
    """Evaluate the trained models of a learning-curve study, and fit the learning curves.

    The metrics are computed on test images, which are the same for all shares of the training data.
    The use of the test images is logged.

    The keys of `predictions` are the kind of model, the name of the split, the share and the seed,
    such as ``("detector", "default", 0.5, 0)``. `made` records how the study was made, such as
    versions; the key ``command`` has the command line. `replicates` are bootstrap resamples of the
    test patients. `advance` is called without arguments for each evaluated model. Raises InputError
    if a model was trained or selected on test patients, or no test image of a split can be
    evaluated.
    """
    systems: dict[str, list[EvaluatedRun]] = {}
    for (model, split, share, seed), answers in predictions.items():
        name = _name(model, share, seed)
        part = design.parts[split, share, seed]
        systems.setdefault(name, []).append(EvaluatedRun(split, part, answers))
    evaluated = evaluate_shares(systems, test_set, replicates=replicates, advance=advance)
    counts = _counts(design, test_set)
    points = _points(design, counts, evaluated)
    dataset = test_set.dataset
    return CurveStudy(
        data_set=dataset.name,
        target=test_set.target.display_name,
        folds=design.splits,
        n_seeds=len(design.seeds),
        models=list(design.models.values()),
        points=points,
        differences=_differences(design, evaluated),
        fits=_fits(design, evaluated, points),
        absent=_absent(design, evaluated),
        commands=[made["command"]],
        notes=_notes(design, counts[max(counts)], evaluated),
        provenance={**made, "data_set": dataset.ids.to_json() | {"name": dataset.name}},
    )


def _name(model: str, share: float, seed: int) -> str:
    return f"{model}, {share:g}, seed {seed}"


def _seeds(design: CurveDesign, model: str, share: float) -> list[str]:
    return [_name(model, share, seed) for seed in design.seeds]


def _shares(design: CurveDesign, model: str) -> list[float]:
    return [share for share in design.shares if model != "mixed" or share < max(design.shares)]


def _points(
    design: CurveDesign, counts: Mapping[float, _Counts], evaluated: ShareFigures
) -> list[SizePoint]:
    points = []
    for model in design.models:
        for share in _shares(design, model):
            names = _seeds(design, model, share)
            figures = {
                metric: SizeFigure(
                    evaluated.estimate(metric, names).as_interval, tuple(seeds.tolist())
                )
                for metric in CURVE_METRICS
                if not np.isnan(seeds := evaluated.values(metric, names)).any()
            }
            points.append(_size_point(model, share, counts, figures))
    return points


class _Counts(NamedTuple):
    """Numbers of annotated images and boxes at a share, as means over splits and seeds.

    `labelled` images have a label, and `positive` of them the finding. On `boxed` images all
    lesions are boxed or there is known to be none; `boxed_positive` of them have the finding.
    """

    labelled: float
    positive: float
    boxed: float
    boxed_positive: float
    boxes: float


def _counts(design: CurveDesign, test_set: LabelledSplit) -> dict[float, _Counts]:
    """Count, for each share, the annotations of the images for training and validation."""
    dataset = test_set.dataset
    labels = test_set.truth.label.dropna() == 1
    trusted = labels[labels.index.isin(test_set.truth.boxes_trusted)]
    boxes = test_set.truth.true_boxes["image_id"]
    by_share: dict[float, list[_Counts]] = {}
    for (_, share, _), part in design.parts.items():
        split = dataset.split(part)
        ids = split.loc[split["role"].isin(["train", "val"]), "image_id"]
        labelled, boxed = (values[values.index.isin(ids)] for values in (labels, trusted))
        n_boxes = int(boxes.isin(boxed.index).sum())
        counts = len(labelled), int(labelled.sum()), len(boxed), int(boxed.sum()), n_boxes
        by_share.setdefault(share, []).append(_Counts(*counts))
    return {share: _Counts(*np.mean(rows, axis=0).tolist()) for share, rows in by_share.items()}


def _size_point(
    model: Kind, share: float, counts: Mapping[float, _Counts], figures: Mapping[str, SizeFigure]
) -> SizePoint:
    """Return the point of a model at one size.

    A classifier learns from labels; a detector from images that are fully boxed or without a
    lesion; the mixed model from all labels and the boxes of its share.
    """
    size_counts = counts[share]
    whole = counts[max(counts)]
    if model == "classifier":
        return SizePoint(
            model, share, size_counts.labelled, 0.0, 0.0, size_counts.positive, figures
        )
    if model == "detector":
        images = size_counts.boxed
        positive = size_counts.boxed_positive
    else:
        images = whole.labelled
        positive = whole.positive
    return SizePoint(model, share, images, size_counts.boxes, size_counts.boxed, positive, figures)


def _differences(design: CurveDesign, evaluated: ShareFigures) -> list[Difference]:
    differences = []
    for first, second in _PAIRS:
        if not {first, second} <= design.models.keys():
            continue
        for metric in CURVE_METRICS:
            for share in _shares(design, first):
                other = max(design.shares) if Difference.with_all_labels(first, second) else share
                groups = _seeds(design, first, share), _seeds(design, second, other)
                if not np.isnan(evaluated.values(metric, [*groups[0], *groups[1]])).any():
                    gap = evaluated.estimate(metric, *groups)
                    differences.append(
                        Difference(metric, share, first, second, gap.as_interval, gap.p_value)
                    )
    return differences


def _fits(
    design: CurveDesign, evaluated: ShareFigures, points: Sequence[SizePoint]
) -> dict[str, dict[Kind, LearningCurve]]:
    """Fit curves of detector and classifier; the mixed model has all labels at every size."""
    models: tuple[Kind, ...] = ("detector", "classifier")
    fits: dict[str, dict[Kind, LearningCurve]] = {}
    for metric in CURVE_METRICS:
        figures = evaluated.figures[metric]
        evaluated_models = [
            model for model in models if _any(figures.reasons, evaluated.systems, model)
        ]
        if not evaluated_models:
            continue
        rows = [
            [
                [evaluated.systems.index(name) for name in _seeds(design, model, s)]
                for s in design.shares
            ]
            for model in evaluated_models
        ]
        # Columns of the covariance, in the order of the models, their sizes and their seeds.
        order = np.concatenate([np.ravel(of_arm) for of_arm in rows])
        amounts = [[p.n_images for p in points if p.kind == model] for model in evaluated_models]
        curves = fit_learning_curves(
            amounts,
            [figures.values[np.array(of_arm)] for of_arm in rows],
            figures.covariance[np.ix_(order, order)],
            evaluated.freedom,
        )
        fits[metric] = dict(zip(evaluated_models, curves, strict=True))
    return fits


def _any(reasons: Mapping[str, str], systems: Sequence[str], model: str) -> bool:
    """Return True if any system of a model has the figure."""
    return any(name.startswith(f"{model},") and name not in reasons for name in systems)


def _absent(design: CurveDesign, evaluated: ShareFigures) -> dict[tuple[str, Kind], str]:
    """Return the reason why a model has no figure at any size, by metric and model."""
    return {
        (metric, model): next(
            r for name, r in figures.reasons.items() if name.startswith(f"{model},")
        )
        for metric, figures in evaluated.figures.items()
        for model in design.models
        if not _any(figures.reasons, evaluated.systems, model)
    }


def _notes(design: CurveDesign, whole: _Counts, evaluated: ShareFigures) -> list[str]:
    """Return notes on the design and its limits."""
    notes = [
        curve_sentences.evaluated(evaluated.n_images, evaluated.n_patients, design.length),
        curve_sentences.ANNOTATED,
        curve_sentences.THRESHOLD,
        curve_sentences.NESTED,
        curve_sentences.SAME_POOL,
        *evaluated.notes,
    ]
    if whole.boxed < whole.labelled:
        notes.append(curve_sentences.boxed(whole.labelled, whole.boxed))
    if len(design.splits) > 1:
        notes.append(curve_sentences.folds(len(design.splits)))
    return notes
