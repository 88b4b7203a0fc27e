"""The comparison of an export with its run: their answers must agree before the export is kept.

Boxes are matched by position and not by row, because boxes with equal scores may change rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
import pandas as pd
import torch
from scipy.optimize import linear_sum_assignment

from cxr_compare.data_prep.contracts.boxes import Boxes, box_iou
from cxr_compare.data_prep.contracts.errors import InputError, counted
from cxr_compare.data_prep.contracts.finding_names import Target
from cxr_compare.data_prep.dataset import DataSet
from cxr_compare.data_prep.store.loose_pixels import LoosePixels
from cxr_compare.data_prep.store.pixel_store import PixelSource
from cxr_compare.data_prep.store.prediction_info import PredictionsInfo
from cxr_compare.data_prep.store.prediction_writer import concat_parts
from cxr_compare.data_prep.store.predictions import Predictions
from cxr_compare.data_prep.store.preprocess import letterbox
from cxr_compare.data_prep.synth.rendering import draw_image, draw_patient
from cxr_compare.detection.frames import MAX_PER_FINDING, MIN_SCORE
from cxr_compare.evaluation.boxes.average_precision import unchecked_average_precision
from cxr_compare.evaluation.choices import Choices
from cxr_compare.evaluation.metrics.image_metrics import auroc
from cxr_compare.evaluation.sources.labelled_split import LabelledSplit
from cxr_compare.evaluation.sources.stored_predictions import read_output
from cxr_compare.evaluation.statistics.arrays import is_positive

if TYPE_CHECKING:
    from cxr_compare.serving.run import Run

# Both sides compute in float32, so they differ only by the order in which sums are rounded. The
# quickstart's trained networks differ by 9e-7 in a score and 2e-5 px in a corner. RetinaNet R50 at
# 512 px with random weights, which amplify differences, differs by 2e-5 and 0.015 px. A wrong
# layer, colour, size or anchor changes a score by 0.01 or a corner by 1 px or more. The limits lie
# between.
_SCORE_LIMIT = 1e-3  # also how near a threshold a decision may change
_CORNER_LIMIT = 0.05  # px of the network's image
_MAP_LIMIT = 1e-3  # as a share of the largest value of the original's maps
# Share of boxes without a partner. If two boxes overlap by just the limit of suppression, or have
# equal scores, one side may keep a box that the other drops.
_UNMATCHED_LIMIT = 0.01
# A lower precision gives other numbers, so the quality of the answers is compared. Two trainings
# that differ only in their seed differ by more than this limit.
_DROP_LIMIT = 0.02  # largest fall of AUROC and of AP50 on validation images
_CHANGED_LIMIT = 0.05  # share of validation images whose decision changes at the frozen threshold

_SAME_BOX = 0.9  # IoU of one box computed twice; the corners' limit is far stricter
_MOST_IMAGES = 16  # number of validation images on which a float32 export is compared
_PHANTOMS = 6
_PHANTOM_SIZE = 256
_BATCH = 8
_LEAST_MAP = 1e-30  # smallest divisor, for a map that is zero everywhere
_LEAST_PASSING = 0.25  # share of candidates that stay below the least score, to reach every limit


@dataclass(frozen=True)
class Measure:
    """One difference between the predictions of an export and those of its run.

    The run is the trained network; the export is the same network in ONNX or OpenVINO format.

    Attributes:
        case: Phrase that names the images that were compared, such as ``validation``.
        name: Phrase that names the difference and precedes its value, such as ``AUROC falls by``.
        value: The difference, in the unit that `name` gives.
        limit: Largest difference with which the export is accepted; None if any difference is.
        original: Value measured for the run, such as its AUROC, if `value` is the difference of two
            measured values; else None.
        exported: The same value measured for the export; None if `original` is None.
    """

    case: str
    name: str
    value: float
    limit: float | None = None
    original: float | None = None
    exported: float | None = None

    @property
    def holds(self) -> bool:
        """True if the difference is at most its limit. A difference of NaN never holds."""
        return self.limit is None or self.value <= self.limit

    def words(self) -> str:
        """Return the difference as a phrase for a message.

        Example:
            >>> Measure("validation", "AUROC falls by", 0.03, 0.02, 0.91, 0.88).words()
            'AUROC falls by 0.03 (0.91 to 0.88; at most 0.02 is kept) on validation'
        """
        sides = [] if self.original is None else [f"{self.original:.3g} to {self.exported:.3g}"]
        sides += [] if self.limit is None else [f"at most {self.limit:g} is kept"]
        within = f" ({'; '.join(sides)})" if sides else ""
        return f"{self.name} {self.value:.3g}{within} on {self.case}"


@dataclass(frozen=True)
class Proof:
    """Differences between the predictions of an export and those of the run that it was made from.

    The run is the trained network; the export is the same network in ONNX or OpenVINO format.

    Attributes:
        precision: Number format of the export: ``fp32``, ``bf16`` or ``int8``.
        images: Phrase that describes the images on which both were compared.
        measures: The differences, each with its limit.
    """

    precision: str
    images: str
    measures: tuple[Measure, ...]

    def summary(self) -> str:
        """Return one line that says how far the export agrees with its run.

        Example:
            >>> measures = (Measure("4 images", "image scores differ by", 2e-6, 1e-4),
            ...     Measure("4 images", "decisions changed:", 0, 0))
            >>> Proof("fp32", "4 images", measures).summary()
            'Answers as its run on 4 images: 2 of 2 checks hold; scores differ by at most 2e-06'
        """
        checks = [measure for measure in self.measures if measure.limit is not None]
        holding = sum(measure.holds for measure in checks)
        facts = [f"{holding} of {len(checks)} checks hold"]
        facts += [
            f"{measure.name.removesuffix(' falls by')} {measure.original:.3g} to "
            f"{measure.exported:.3g}"
            for measure in self.measures
            if measure.original is not None
        ]
        apart = [measure.value for measure in self.measures if "scores" in measure.name.split()]
        if apart:
            facts.append(f"scores differ by at most {max(apart):.2g}")
        return f"Answers as its run on {self.images}: {'; '.join(facts)}"

    def require(self, what: str) -> None:
        """Raise an error if the export predicts otherwise than its run, beyond the limits.

        The run is the trained network; the export is the same network in ONNX or OpenVINO format.

        Args:
            what: Name of the export in the message, such as the path of its folder.

        Raises:
            InputError: The value of at least one of `measures` is above its limit, or is NaN. The
                message names all such differences.
        """
        failures = [measure for measure in self.measures if not measure.holds]
        if not failures:
            return
        advice = (
            "this is a fault of the exporter or of the runtime: try the other --format, and report "
            "the line"
        )
        if self.precision != "fp32":
            further = " or bf16" if self.precision == "int8" else ""
            advice = f"export it with --precision fp32{further}"
        figures = "; ".join(measure.words() for measure in failures)
        raise InputError(
            f"{what}: is not kept, it answers otherwise than its run: {figures}; {advice}"
        )

    @property
    def verdict(self) -> str:
        """``kept`` if every difference is within its limit, else ``refused``."""
        return "kept" if all(measure.holds for measure in self.measures) else "refused"


class _Answers(NamedTuple):
    """Answers of a system for images, and the images for which they are finite."""

    output: Predictions
    ran: pd.Index

    @classmethod
    def from_model(
        cls, model: Any, source: PixelSource, ids: pd.Index, sizes: pd.DataFrame
    ) -> Self:
        part = concat_parts(list(model.predict(source, ids, sizes, _BATCH)))
        ran = part.images.loc[part.images["status"] == "ok", "image_id"]
        output = Predictions.from_part(PredictionsInfo(system="", kind=model.kind), part)
        return cls(output, pd.Index(ran, name="image_id"))

    def image_scores(self, target: Target, decision: Choices, ids: pd.Index) -> np.ndarray:
        output = read_output(self.output, target, ids)
        return output.scores(decision.reduction).to_numpy(np.float64)

    def boxes(self, image_id: str, findings: Sequence[str]) -> Boxes:
        rows = self.output.rows("boxes", findings, pd.Index([image_id]))
        return Boxes.from_table(rows, pd.Index(findings).get_indexer(pd.Index(rows["finding"])) + 1)


def prove(
    run: Run,
    exported: Any,
    dataset: DataSet | None = None,
    store: PixelSource | None = None,
    validation: Sequence[str] = (),
) -> Proof:
    """Compare the predictions of an export with those of the run that it was made from.

    The run is the trained network; the export is the same network in ONNX or OpenVINO format. A
    float32 export must give the same boxes, scores, activation maps and decisions. They are
    compared on validation images, on a black image, and with no box and with the largest number of
    boxes. At a lower precision numbers differ, so AUROC, AP50 and decisions on validation images
    are compared. Without a data set a float32 export is compared on synthetic images.

    Args:
        run: The opened run.
        exported: The loaded export.
        dataset: Data set of the run; None compares on synthetic images.
        store: Pixels of the data set at the size that the run reads; None without a data set.
        validation: Ids of the validation images; empty without a data set.

    Returns:
        The differences, each with its limit.

    Raises:
        InputError: At a lower precision than float32, the data set is missing, the run has no
            threshold, or the validation images are all positive or all negative.
    """
    ids = pd.Index(sorted(validation), name="image_id")
    if exported.precision == "fp32":
        if store is None:
            case = "synthetic images"
            images = _phantoms(run.model.preprocess.size)
        else:
            rows = np.linspace(0, len(ids) - 1, min(_MOST_IMAGES, len(ids))).astype(int)
            case = "validation images"
            images = np.stack([store.image(ids[row]) for row in rows])
        measures = _same_answers(case, run, exported, images)
        measures += _same_answers("a black image", run, exported, np.zeros_like(images[:1]))
        if run.model.kind == "boxes":
            measures += _same_at_limits(run.model, exported, images)
        return Proof("fp32", counted(len(images), case.removesuffix("s")), tuple(measures))
    if dataset is None or store is None:
        raise InputError(
            f"--precision {exported.precision}: is evaluated on the run's validation images; give "
            "the data set that it was trained on with --data"
        )
    if (decision := run.decision) is None:
        raise InputError(
            f"{run.folder}: has no operating point to hold the export against; run the "
            "same cxr train command again, which adds it"
        )
    sizes = dataset.images[["image_id", "width", "height"]]
    answers = [_Answers.from_model(model, store, ids, sizes) for model in (run.model, exported)]
    evaluated_on = counted(len(ids), "validation image") + f" of “{dataset.name}”"
    return Proof(
        exported.precision,
        evaluated_on,
        tuple(_falls(decision, answers, LabelledSplit(dataset, run.target), ids)),
    )


def _phantoms(size: int) -> np.ndarray:
    """Return synthetic chest images, uint8 (N, S, S)."""
    drawn = [
        draw_image(draw_patient(0, index, 0.9), 0, max(size, _PHANTOM_SIZE)).pixels
        for index in range(_PHANTOMS)
    ]
    return np.stack([letterbox(pixels, size)[0] for pixels in drawn])


def _same_answers(case: str, run: Run, exported: Any, images: np.ndarray) -> list[Measure]:
    """Measure differences of boxes, scores, maps and decisions, which must be the same."""
    source = LoosePixels({f"{i:03d}": image for i, image in enumerate(images)}, images.shape[1])
    sides = [
        _Answers.from_model(model, source, source.ids, source.sizes)
        for model in (run.model, exported)
    ]
    first, second = (side.ran for side in sides)
    ran = first.intersection(second)
    findings = run.model.findings
    failed = len(first.symmetric_difference(second))
    measures = [Measure(case, "images that one side alone can answer:", failed, 0)]
    if run.model.kind == "boxes":
        pairs = [[side.boxes(image_id, findings) for side in sides] for image_id in ran]
        measures += _same_boxes(case, pairs)
    else:
        scores, maps = (
            [
                side.output.rows(table, findings, ran).sort_values(["image_id", "finding"])[column]
                for side in sides
            ]
            for table, column in (("scores", "score"), ("maps", "values"))
        )
        grids = [np.stack([np.asarray(values) for values in of_side]) for of_side in maps]
        share = _apart(*grids) / max(float(np.abs(grids[0]).max()), _LEAST_MAP)
        measures += [
            Measure(case, "scores differ by", _apart(*map(np.asarray, scores)), _SCORE_LIMIT),
            Measure(case, "maps differ, as a share of their largest value, by", share, _MAP_LIMIT),
        ]
    if (decision := run.decision) is None:
        return measures
    before, after = (side.image_scores(run.target, decision, ran) for side in sides)
    thresholds = [choice.threshold for choice in decision.thresholds.values()]
    changed = sum(
        int((_called_apart(before, after, cut) & (np.abs(before - cut) > _SCORE_LIMIT)).sum())
        for cut in thresholds
        if cut is not None  # a score just at it may lie on either side
    )
    return [
        *measures,
        Measure(case, "image scores differ by", _apart(before, after), _SCORE_LIMIT),
        Measure(case, "decisions changed:", changed, 0),
    ]


def _called_apart(before: np.ndarray, after: np.ndarray, threshold: float) -> np.ndarray:
    """Return for each image whether its decision changes."""
    return np.asarray(is_positive(before, threshold) != is_positive(after, threshold))


def _same_boxes(case: str, pairs: Iterable[Sequence[Boxes]]) -> list[Measure]:
    differences = [match_boxes(one, two, most=MAX_PER_FINDING) for one, two in pairs]
    boxes, unmatched, scores, corners = zip(*differences, strict=True)
    share = sum(unmatched) / max(2 * sum(boxes), 1)
    return [
        Measure(case, "boxes compared:", sum(boxes)),
        Measure(case, "share of boxes without a partner:", share, _UNMATCHED_LIMIT),
        Measure(case, "scores of boxes differ by", max(scores), _SCORE_LIMIT),
        Measure(case, "corners differ, in px, by", max(corners), _CORNER_LIMIT),
    ]


class _BoxDifference(NamedTuple):
    """Differences between two sets of boxes, among those that matter."""

    boxes: int  # number of boxes of the side that has more
    unmatched: int  # number of boxes without a partner, of both sides
    score: float  # largest difference of matched scores
    corner: float  # largest difference of matched corners, px


def match_boxes(first: Boxes, second: Boxes, *, most: int) -> _BoxDifference:
    """Match the boxes that two versions of a detector predict for one image, label by label.

    Each box has at most one partner. The matching maximises the sum of the IoU, and two boxes are
    partners only if their IoU is at least 0.9. If a version gives `most` boxes of a label, its list
    was cut off there. A box of the other version that scores hardly more than the last box of that
    list may then be missing, and is not counted as unmatched.

    Args:
        first: Boxes of one version, with scores and labels.
        second: Boxes of the other version.
        most: Largest number of boxes of one label that a version gives.

    Returns:
        The larger number of boxes of the two versions, the number of boxes of both versions without
        a partner, and the largest differences of the scores and of the corners (px) of partners.
    """
    total = _BoxDifference(0, 0, 0.0, 0.0)
    for label in np.union1d(first.labels, second.labels):
        sides = [boxes[boxes.labels == label] for boxes in (first, second)]
        (boxes, scores), (others, other_scores) = ((side.corners, side.scores) for side in sides)
        iou = box_iou(boxes.astype(np.float64)[:, None], others.astype(np.float64))
        one, two = linear_sum_assignment(iou, maximize=True)
        same = iou[one, two] >= _SAME_BOX
        one = one[same]
        two = two[same]
        apart = _apart(scores[one], other_scores[two])
        cuts = [float(side.scores.min()) for side in sides if len(side) >= most]
        least = max(cuts) + 2 * apart if cuts else -np.inf
        lacking = [np.delete(scores, one), np.delete(other_scores, two)]
        total = _BoxDifference(
            total.boxes + max(int((scores > least).sum()), int((other_scores > least).sum())),
            total.unmatched + sum(int((values > least).sum()) for values in lacking),
            max(total.score, apart),
            max(total.corner, _apart(boxes[one], others[two])),
        )
    return total


def _apart(one: np.ndarray, two: np.ndarray) -> float:
    """Return the largest difference; NaN if one of them is."""
    return float(np.abs(one.astype(np.float64) - two).max(initial=0.0))


def _same_at_limits(model: Any, exported: Any, images: np.ndarray) -> list[Measure]:
    """Compare boxes with all logits moved by a constant: no detection, and every limit reached.

    The run's side is decoded as on a GPU: on a CPU runs and exports share one decoder.
    """
    with torch.inference_mode():
        heads = model.model.run(torch.from_numpy(images[:, None]))
        logits, offsets = model.model.box_outputs(heads.outputs)
    outputs = exported.session.run(images[:, None])
    least = float(np.log(MIN_SCORE / (1 - MIN_SCORE)))
    shifts = {
        "images without a detection": least - 1.0 - float(logits.max()),
        "images at every limit": least - float(np.quantile(logits.numpy(), _LEAST_PASSING)),
    }
    none = Boxes.joined([])
    measures: list[Measure] = []
    for case, shift in shifts.items():
        original = model.model.decode_batch(logits + shift, offsets, heads)
        decoded = exported.decode(outputs | {"logits": outputs["logits"] + np.float32(shift)})
        pairs = zip(original, decoded, strict=True)
        measures += _same_boxes(case, ((one or none, other or none) for one, other in pairs))
    return measures


def _falls(
    decision: Choices, answers: Sequence[_Answers], test_set: LabelledSplit, ids: pd.Index
) -> Iterator[Measure]:
    """Measure the loss of AUROC, AP50 and decisions on labelled validation images."""
    case = "validation images"
    folder = test_set.dataset.folder
    labels = test_set.labels.reindex(ids).dropna()
    ran, ran_exported = (answer.ran for answer in answers)
    evaluated = labels.index.intersection(ran).intersection(ran_exported).sort_values()
    scores = [answer.image_scores(test_set.target, decision, evaluated) for answer in answers]
    areas = [auroc(labels.reindex(evaluated), values) for values in scores]
    if None in areas:
        raise InputError(
            f"{folder}: the validation images of the run are all of one kind; AUROC, by "
            "which an export is evaluated, needs positive and negative ones"
        )
    lost = len(ran.difference(ran_exported))
    yield Measure(case, "images that the export cannot answer:", lost, 0)
    figures = {"AUROC falls by": areas}
    if answers[0].output.kind == "boxes":
        images = test_set.truth.select(evaluated)
        boxed = images.boxed_images
        outputs = [read_output(answer.output, test_set.target, boxed) for answer in answers]
        figures["AP50 falls by"] = [
            unchecked_average_precision(output.predicted_boxes, images.true_boxes, boxed)["ap50"]
            for output in outputs
        ]
    for name, (before, after) in figures.items():
        if before is not None and after is not None:
            yield Measure(case, name, before - after, _DROP_LIMIT, before, after)
    threshold = decision.thresholds[decision.policy(None, folder)].threshold
    if threshold is not None:
        share = float(np.mean(_called_apart(scores[0], scores[1], threshold)))
        yield Measure(case, "share of decisions changed:", share, _CHANGED_LIMIT)
    yield Measure(case, "image scores differ by", _apart(*scores))
