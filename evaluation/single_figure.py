"""One figure of one system with its interval, from arrays, by the statistics of a comparison."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxr_compare.data_prep.contracts.errors import InputError, counted
from cxr_compare.data_prep.contracts.keywords import with_known_keywords
from cxr_compare.data_prep.contracts.notebook import html_table
from cxr_compare.data_prep.contracts.own_parts import is_own_part, part_name
from cxr_compare.data_prep.contracts.text import TEXT
from cxr_compare.evaluation.boxes.box_checks import check_arguments
from cxr_compare.evaluation.boxes.boxes_table import box_tables
from cxr_compare.evaluation.boxes.read_boxes import index_of_ids
from cxr_compare.evaluation.choices import Choices
from cxr_compare.evaluation.evaluated_model import EvaluatedModel
from cxr_compare.evaluation.figure_intervals import compute_figures
from cxr_compare.evaluation.figures import TIDY_COLUMNS, Figure
from cxr_compare.evaluation.labelled_images import LabelledImages
from cxr_compare.evaluation.metrics.metric import ALL, Metric, MetricKey
from cxr_compare.evaluation.metrics.own_metric import OWN, register_metric
from cxr_compare.evaluation.metrics.registry import METRICS, family
from cxr_compare.evaluation.output import Output
from cxr_compare.evaluation.replicates import is_resampled
from cxr_compare.evaluation.replicates import replicates as draw_replicates
from cxr_compare.evaluation.statistics.arrays import check_truth_and_scores, patient_names
from cxr_compare.evaluation.statistics.bootstrap import Resamples
from cxr_compare.evaluation.statistics.calibration import RawScores
from cxr_compare.evaluation.statistics.figure_text import number, range_text
from cxr_compare.evaluation.threshold_figures import is_closed
from cxr_compare.evaluation.thresholds import ThresholdChoice

_SYSTEM = "system"
_ANY_BOX = 0.5  # threshold that every box without a score, which gets the score 1, reaches
_OF_VALIDATION = {
    "threshold": "is what validation images chose",
}
"""Families of metrics that cannot be computed as a single figure, with the reason."""
_WITHOUT_INTERVAL = {"ece": "no interval: resampling alone raises it"}
"""Metrics that are never given an interval, with the reason."""


@dataclass(frozen=True, repr=False)
class FigureEstimate:
    """One figure of one system with its 95 % interval.

    Attributes:
        metric: Short name of the metric, such as ``auroc``.
        estimate: The figure; `None` if it is undefined.
        ci_low: Lower end of the 95 % interval; `None` if there is none.
        ci_high: Upper end of the 95 % interval; `None` if there is none.
        method: Name of the method of the interval; empty if there is none.
        note: Reason why the figure or its interval is missing, or a limitation of the figure; empty
            without such a reason.
        n_images: Number of images on which the figure is computed.
        n_patients: Number of patients of these images; `None` if no patients were given.
        n_positive: Number of positive images among the images that the figure is computed on.
        policy: ``threshold=T`` for a figure at the threshold T; empty for other figures.
        system: Name of the system in the table that `to_frame` returns.

    Example:
        >>> from cxr_compare import metrics
        >>> metrics.FigureEstimate("auroc", 0.9, 0.85, 0.95, "", "", 200, 180, 50)
        auroc 0.900 (95 % CI 0.850 to 0.950), 200 images of 180 patients
    """

    metric: str
    estimate: float | None
    ci_low: float | None
    ci_high: float | None
    method: str
    note: str
    n_images: int
    n_patients: int | None
    n_positive: int
    policy: str = ""
    system: str = _SYSTEM

    def __repr__(self) -> str:
        name = f"{self.metric} at {self.policy}" if self.policy else self.metric
        if self.estimate is None:
            return f"{name} is undefined ({self.note}), {self._counts}"
        if self.ci_low is None:
            return f"{name} {self._value} ({self.note or 'no interval'}), {self._counts}"
        interval = range_text(self.ci_low, self.ci_high)
        return f"{name} {self._value} (95 % CI {interval}), {self._counts}"

    def _repr_html_(self) -> str:
        rows = {
            METRICS[self.metric].title: self._value,
            "95 % CI": range_text(self.ci_low, self.ci_high),
            "Images": self._counts,
            "Positive": f"{self.n_positive:,}",
            "Threshold": self.policy.removeprefix("threshold="),
            "Method": self.method,
            "Note": self.note,
        }
        return html_table({name: text for name, text in rows.items() if text})

    def to_frame(self) -> pd.DataFrame:
        """Return the figure as a table of one row.

        The table has the same columns as the tables of a comparison of systems, so they can be
        joined.

        Returns:
            Table with the columns ``first`` (name of the system), ``second`` (empty), ``metric``,
            ``policy`` (rule for the threshold), ``subgroup``, ``estimate``, ``ci_low``,
            ``ci_high``, ``p_value``, ``n_images``, ``n_patients`` and ``n_positive``; unknown
            values are NaN or missing.
        """
        row = {
            "first": self.system,
            "second": "",
            "metric": self.metric,
            "policy": self.policy,
            "subgroup": ALL,
            "estimate": np.nan if self.estimate is None else self.estimate,
            "ci_low": np.nan if self.ci_low is None else self.ci_low,
            "ci_high": np.nan if self.ci_high is None else self.ci_high,
            "p_value": np.nan,
            "n_images": self.n_images,
            "n_patients": pd.NA if self.n_patients is None else self.n_patients,
            "n_positive": self.n_positive,
        }
        table = pd.DataFrame([row], columns=list(TIDY_COLUMNS))
        return table.astype({"n_patients": "Int64"})

    @property
    def _value(self) -> str:
        return number(self.estimate, digits=0 if self.metric in family("counts") else 3)

    @property
    def _counts(self) -> str:
        images = counted(self.n_images, "image")
        if self.n_patients is None:
            return images
        return f"{images} of {counted(self.n_patients, 'patient')}"


@with_known_keywords
def estimate(
    metric: str | Callable[[Any, Any], Any],
    y_true: Any,
    y_score: Any,
    *,
    patients: npt.ArrayLike | None = None,
    image_ids: Iterable[Any] | None = None,
    threshold: float | None = None,
    replicates: int = 2000,
    seed: int = 0,
) -> FigureEstimate:
    """Compute one figure of one system, such as its AUROC, with a 95 % interval.

    Several images of one patient carry less information than images of as many patients. So if
    patients have several images, give `patients`; otherwise the interval is too narrow.

    Args:
        metric: Short name of a metric, such as ``auroc``, ``recall`` (sensitivity), ``brier`` or
            ``ap50``; ``docs/metrics.md`` lists all. Or a function of yours, or its name
            ``MODULE:NAME`` (docs/own-parts.md).
        y_true: Labels of the images, 0 or 1, shape ``(N,)``. For a metric of boxes, the true boxes:
            a DataFrame with ``image_id``, ``x1``, ``y1``, ``x2``, ``y2`` (original px), or another
            form that `cxr_compare.boxes_table` reads; every lesion must have a box.
        y_score: Scores of the images, shape ``(N,)``; for a metric of calibration, probabilities in
            [0, 1]. For a metric of boxes, the predicted boxes in the form of the true ones, with a
            column ``score`` (in [0, 1]); boxes without it are all called.
        patients: Patient of each image, any names, shape ``(N,)``. With `None`, images are taken as
            independent.
        image_ids: Id of each image, each once, shape ``(N,)``; `None` numbers the images. For a
            metric of boxes the ids are needed, unless `y_true` and `y_score` are lists that hold
            one output for each image; boxes of equal score are ranked in this order.
        threshold: Score from which on an image (or a box, for a metric of called boxes) is called
            positive, in [0, 1]. Metrics at a threshold need it, unless boxes have no scores; `None`
            for all others. It must not have been chosen on these images.
        replicates: Number of bootstrap resamples. The AUROC and figures at a threshold need none.
        seed: Random seed of the bootstrap.

    Returns:
        The figure with its interval. It is printed as one line, and has the attributes
        ``estimate``, ``ci_low`` and ``ci_high`` and the method ``to_frame``.

    Raises:
        InputError: There is no such metric, an argument that it needs is missing, or labels, scores
            or boxes are invalid.

    Source:
        Obuchowski 1997 for the AUROC; Mancl and DeRouen 2001 for shares of images at a threshold,
        Agresti and Caffo 2000 for functions of them, both by patient; a bootstrap of patients for
        other figures; Clopper and Pearson 1934 for a share of 0 or 1.

    Example:
        >>> from cxr_compare import metrics
        >>> found = metrics.estimate("recall", [0, 0, 1, 1, 1], [1, 0, 1, 1, 0], threshold=0.5)
        >>> round(found.estimate, 3)
        0.667
    """
    record = _find_metric(metric)
    metric = record.name
    if record.boxed:
        images, output = _read_boxes(y_true, y_score, image_ids, patients, record)
        if not output.has_scores:
            threshold = _ANY_BOX
        _check_threshold(record, threshold)
    else:
        _check_threshold(record, threshold)
        images, output = _read_scores(y_true, y_score, image_ids, patients)
    if "probability" in record.needs:
        _check_probabilities(output)
    key = MetricKey(ALL, _policy(record, threshold), metric)
    choices = _choices(record, key.policy, threshold)
    model = EvaluatedModel(_SYSTEM, images, output, choices)
    is_drawn = is_resampled(key) and not is_closed(key)
    resamples = Resamples(model.images.n_patients, replicates if is_drawn else 1, seed)
    models = {_SYSTEM: [model]}
    own_metrics = [metric] if record.family == OWN else []
    (drawn,) = draw_replicates(models, resamples, own_metrics=own_metrics)[_SYSTEM]
    frames = {_SYSTEM: [drawn.loc[:, [other == key for other in drawn]]]}
    figure = compute_figures(metric, models, frames, resamples).of(_SYSTEM).get(key, Figure())
    return _as_result(metric, key.policy, figure, patients is not None)


def _as_result(metric: str, policy: str, figure: Figure, knows_patients: bool) -> FigureEstimate:
    note = figure.note or _WITHOUT_INTERVAL.get(metric, "")
    method = figure.method
    if not knows_patients:
        note, method = (_by_image(text) for text in (note, method))
    is_bounded = figure.known and figure.bounded
    return FigureEstimate(
        metric,
        figure.estimate if figure.known else None,
        figure.ci_low if is_bounded else None,
        figure.ci_high if is_bounded else None,
        method,
        note,
        figure.n_images,
        figure.n_patients if knows_patients else None,
        figure.n_positive,
        policy,
    )


def _by_image(text: str) -> str:
    """Change a sentence about patients into one about images, if no patients are known."""
    return text.replace("patient", "image").replace("with images of each class", "of each class")


def _find_metric(name: Any) -> Metric:
    name = part_name(name)
    if is_own_part(name):
        return register_metric(name)
    record = METRICS.get(name)
    if record is None:
        near = [own for own, each in METRICS.items() if each.title.lower().startswith(str(name))]
        near += difflib.get_close_matches(str(name), METRICS, 1, 0.5)
        hint = f"did you mean '{near[0]}'?" if near else "docs/metrics.md names all"
        raise InputError(f"estimate: there is no metric '{name}'; {hint}")
    why = _OF_VALIDATION.get(record.family)
    if why:
        raise InputError(f"estimate: {name} {why}; cxr_compare.compare gives it")
    return record


def _is_at_threshold(record: Metric) -> bool:
    return bool({"threshold", "box_cut"} & set(record.needs)) or record.family == "counts"


def _check_threshold(record: Metric, threshold: float | None) -> None:
    if threshold is None and _is_at_threshold(record):
        what = "a box" if "box_cut" in record.needs else "an image"
        raise InputError(
            f"estimate: {record.name} needs threshold=, the score from which {what} is positive"
        )
    if threshold is not None and not _is_at_threshold(record):
        raise InputError(f"estimate: {record.name} has no threshold; leave it out")
    if threshold is not None and not 0 <= threshold <= 1:
        raise InputError(f"estimate: threshold={threshold} must lie in [0, 1]")


def _policy(record: Metric, threshold: float | None) -> str:
    at_threshold = "threshold" in record.needs or record.family == "counts"
    return f"threshold={threshold:g}" if at_threshold and threshold is not None else ""


def _read_scores(
    y_true: Any, y_score: Any, image_ids: Iterable[Any] | None, patients: Any
) -> tuple[LabelledImages, Output]:
    """Return labels and scores of images, in the order of their ids."""
    truth, scores = check_truth_and_scores(y_true, y_score)
    if image_ids is None:
        width = len(str(len(truth)))
        names = [f"image-{number:0{width}d}" for number in range(1, len(truth) + 1)]
        ids = pd.Index(names, dtype=TEXT)
    else:
        ids = index_of_ids(image_ids)
        _require_ids(ids, len(truth))
    order = np.argsort(ids.to_numpy(dtype=str), kind="stable")
    owners = _owners(patients, ids)
    images = LabelledImages.from_arrays(ids[order], truth[order], owners[order])
    return images, Output.from_scores(images.image_ids, scores[order])


def _read_boxes(
    true_boxes: Any, boxes: Any, image_ids: Iterable[Any] | None, patients: Any, record: Metric
) -> tuple[LabelledImages, Output]:
    """Return images with true boxes, and predicted boxes, which score 1 if they have no score."""
    found, true, ids = box_tables(boxes, true_boxes, image_ids)
    has_scores = "score" in found
    if not has_scores:
        if "box_cut" not in record.needs:
            raise InputError(
                f"estimate: {record.name} needs scores, and the boxes have none; box_f1, "
                "false_marks and rsna_score do without"
            )
        found = found.assign(score=1.0)
    check_arguments(found, true, ids)
    owners = _owners(patients, ids)
    true = true[true["image_id"].isin(ids)].reset_index(drop=True)
    found = found[found["image_id"].isin(ids)].reset_index(drop=True)
    images = LabelledImages.from_arrays(ids, ids.isin(true["image_id"]), owners)
    output = replace(Output.from_boxes(ids, found), has_scores=has_scores)
    return replace(images, true_boxes=true, boxes_trusted=ids), output


def _require_ids(ids: pd.Index, count: int) -> None:
    if len(ids) != count:
        raise InputError(f"estimate: there are {len(ids)} image_ids and {count} labels")
    if not ids.is_unique:
        raise InputError(f"image_ids: '{ids[ids.duplicated()][0]}' appears more than once")


def _owners(patients: Any, ids: pd.Index) -> npt.NDArray[np.str_]:
    return ids.to_numpy(dtype=str) if patients is None else patient_names(patients, len(ids))


def _check_probabilities(output: Output) -> None:
    scores = output.scores(None)
    wrong = ~((scores >= 0) & (scores <= 1)).to_numpy()
    if wrong.any():
        row = int(wrong.argmax())
        raise InputError(
            f"y_score: image '{scores.index[row]}': {scores.iloc[row]} is no probability in [0, 1] "
            f"({counted(int(wrong.sum()), 'row', 'are')} not); are these logits? Apply a sigmoid"
        )


def _choices(record: Metric, policy: str, threshold: float | None) -> Choices:
    return Choices(
        target=record.name,
        chosen_on={},
        thresholds={policy: ThresholdChoice(policy, threshold)} if policy else {},
        box_cut=threshold if "box_cut" in record.needs else None,
        calibration=RawScores() if "probability" in record.needs else None,
    )
