"""The comparison of an export with its run: their answers must agree before the export is kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import numpy as np
import pandas as pd

from cxr_compare.data_prep.contracts.boxes import EDGES, box_iou
from cxr_compare.data_prep.contracts.errors import InputError, counted
from cxr_compare.data_prep.dataset import DataSet
from cxr_compare.data_prep.store.loose_pixels import LoosePixels
from cxr_compare.data_prep.store.pixel_store import PixelSource
from cxr_compare.data_prep.store.prediction_writer import concat_parts
from cxr_compare.data_prep.store.preprocess import letterbox
from cxr_compare.data_prep.synth.rendering import draw_image, draw_patient
from cxr_compare.evaluation.boxes.average_precision import unchecked_average_precision
from cxr_compare.evaluation.metrics.image_metrics import auroc
from cxr_compare.evaluation.sources.labelled_split import LabelledSplit
from cxr_compare.serving.export_spec import BOXES_FILE, INPUT, ORIGINAL_SIZE, Proof

if TYPE_CHECKING:
    from cxr_compare.evaluation.decided_output import DecidedOutput
    from cxr_compare.serving.exported_model import ExportedModel
    from cxr_compare.serving.predictor import Predictor
    from cxr_compare.serving.run import Run
    from cxr_compare.serving.trained_model import TrainedModel

# Both sides compute in float32, so they differ only by the order in which sums are rounded: by 2e-5
# for RetinaNet R50 at 512 px with random weights, which amplify differences. A wrong layer, colour
# or size changes an output by 0.01 or more.
_OUTPUT_LIMIT = 1e-4  # share of the largest value of an output, or of 1
_SCORE_LIMIT = 1e-3
_SAME_BOX = 0.9  # IoU of one box computed twice
_MATCHED_SHARE = 0.99  # of two boxes with equal scores either may be suppressed
# A lower precision gives other numbers; trainings that differ only in their seed differ by more.
_DROP_LIMIT = 0.02  # of AUROC and of AP50
_CHANGED_LIMIT = 0.05  # share of the decisions

_MOST_IMAGES = 16  # number of validation images on which a float32 export is compared
_PHANTOMS = 6
_PHANTOM_SIZE = 256
_BATCH = 8


def prove(
    run: Run,
    exported: ExportedModel,
    dataset: DataSet | None = None,
    store: PixelSource | None = None,
    validation: Sequence[str] = (),
) -> Proof:
    """Compare the answers of an export with those of the run that it was made from.

    A float32 export must give the same outputs and scores on some validation images (synthetic ones
    without a data set) and on a black image. At a lower precision numbers differ, so AUROC, AP50
    and decisions on all validation images are compared.

    `store` has the pixels of the data set at the size that the run reads; without a data set it is
    None and `validation` (ids) is empty. Raises InputError if the answers differ by more than the
    limits, or cannot be compared because the run has no threshold or the validation images are all
    positive or all negative.
    """
    ids = sorted(validation)
    if exported.precision == "fp32":
        rows = np.linspace(0, len(ids) - 1, min(_MOST_IMAGES, len(ids))).astype(int)
        size = exported.preprocess.size
        squares = _phantoms(size) if store is None else [store.image(ids[row]) for row in rows]
        of = "synthetic image" if store is None else "validation image"
        return _prove_equal(run, exported, squares, counted(len(squares), of))
    if dataset is None or store is None:
        raise InputError(f"--precision {exported.precision}: needs the run's data set, as --data")
    return _prove_quality(run, exported, LabelledSplit(dataset, run.target), store, ids)


def _phantoms(size: int) -> list[np.ndarray]:
    """Return synthetic chest images, uint8 (S, S)."""
    patients = [draw_patient(0, number, 0.9) for number in range(_PHANTOMS)]
    drawn = [draw_image(patient, 0, max(size, _PHANTOM_SIZE)).pixels for patient in patients]
    return [letterbox(pixels, size)[0] for pixels in drawn]


def _answers(
    run: Run, model: Predictor, source: PixelSource, ids: pd.Index, sizes: pd.DataFrame
) -> DecidedOutput:
    return run.decided(concat_parts(list(model.predict(source, ids, sizes, _BATCH))))


def _prove_equal(
    run: Run, exported: ExportedModel, squares: Sequence[np.ndarray], images: str
) -> Proof:
    """Require the same outputs, scores and boxes on some images and on a black one."""
    squares = [*squares, np.zeros_like(squares[0])]
    source = LoosePixels(
        {f"{row:03d}": square for row, square in enumerate(squares)}, len(squares[0])
    )
    batch = np.stack(squares)[:, None]
    outputs = exported.session.run(batch)
    for name, expected in cast("TrainedModel", run.model).outputs(batch).items():
        limit = _OUTPUT_LIMIT * max(1.0, float(np.abs(expected).max()))
        equal = np.allclose(outputs[name], expected, rtol=0, atol=limit)
        _require(exported, equal, f"its output {name} differs by more than {limit:.2g}")
    answers, others = (
        _answers(run, model, source, source.ids, source.sizes) for model in (run.model, exported)
    )
    apart = _apart(answers.decisions["score"], others.decisions["score"])
    _require(exported, apart <= _SCORE_LIMIT, f"image scores differ by {apart:.3g}")
    if (exported.folder / BOXES_FILE).is_file():
        _require_boxes(exported, answers, source)
    return Proof(images=images, score_difference=apart, decisions_changed=_changed(answers, others))


def _require_boxes(exported: ExportedModel, answers: DecidedOutput, source: LoosePixels) -> None:
    """Require the image scores and boxes of the run from the network that ends in them."""
    import onnxruntime

    session = onnxruntime.InferenceSession(exported.folder / BOXES_FILE)
    matched = []
    for name in source.ids:
        square = source.image(name)
        inputs = {INPUT: square[None, None], ORIGINAL_SIZE: np.array(square.shape)}
        score, corners, *_ = session.run(None, inputs)
        apart = abs(float(score[0]) - answers.decisions.loc[name, "score"])
        _require(exported, apart <= _SCORE_LIMIT, f"{BOXES_FILE}: a score differs by {apart:.3g}")
        expected = answers.boxes.loc[answers.boxes["image_id"] == name, EDGES].to_numpy(float)
        if len(corners) and len(expected):
            iou = box_iou(expected[:, None], corners.astype(np.float64))
            matched += [*(iou.max(axis=0) >= _SAME_BOX), *(iou.max(axis=1) >= _SAME_BOX)]
        else:
            matched += [False] * (len(corners) + len(expected))
    share = float(np.mean(matched)) if matched else 1.0
    _require(exported, share >= _MATCHED_SHARE, f"{BOXES_FILE}: {share:.1%} of the boxes agree")


def _prove_quality(
    run: Run, exported: ExportedModel, split: LabelledSplit, store: PixelSource, ids: list[str]
) -> Proof:
    """Require nearly the same AUROC, AP50 and decisions on labelled validation images."""
    if run.decision is None:
        raise InputError(
            f"{run.folder}: has no operating point to hold the export against; run the same cxr "
            "train command again, which adds it"
        )
    labels = split.truth.label.reindex(ids).dropna()
    sizes = split.dataset.images[["image_id", "width", "height"]]
    answers, others = (
        _answers(run, model, store, labels.index, sizes) for model in (run.model, exported)
    )
    missing = answers.decisions.index.difference(others.decisions.index)
    _require(exported, missing.empty, f"{counted(len(missing), 'image')} without an answer")
    figures: dict[str, tuple[float, float]] = {}
    areas = [
        auroc(labels.loc[each.decisions.index], each.decisions["score"])
        for each in (answers, others)
    ]
    if areas[0] is None or areas[1] is None:
        raise InputError(
            f"{split.dataset.folder}: the run's validation images are all of one kind; AUROC, by "
            "which an export is evaluated, needs positive and negative ones"
        )
    figures["auroc"] = areas[0], areas[1]
    if run.model.kind == "boxes":
        images = split.truth.select(answers.decisions.index)
        before, after = (
            unchecked_average_precision(each.boxes, images.true_boxes, images.boxed_images)["ap50"]
            for each in (answers, others)
        )
        if before is not None and after is not None:
            figures["ap50"] = before, after
    for name, (before, after) in figures.items():
        fall = f"{name.upper()} falls from {before:.3g} to {after:.3g}"
        _require(exported, before - after <= _DROP_LIMIT, fall)
    changed = _changed(answers, others)
    _require(exported, changed <= _CHANGED_LIMIT, f"{changed:.1%} of the decisions change")
    return Proof(
        images=counted(len(labels), "validation image") + f" of “{split.dataset.name}”",
        score_difference=_apart(answers.decisions["score"], others.decisions["score"]),
        decisions_changed=changed,
        **figures,
    )


def _apart(scores: pd.Series, others: pd.Series) -> float:
    """Return the largest difference of two columns of scores; infinity if one lacks an image."""
    if not scores.index.equals(others.index):
        return float("inf")
    return float((scores - others).abs().max())


def _changed(answers: DecidedOutput, others: DecidedOutput) -> float:
    """Return the share of the images whose decision changes."""
    return float((answers.decisions["decision"] != others.decisions["decision"]).mean())


def _require(exported: ExportedModel, holds: bool, difference: str) -> None:
    """Refuse an export if a condition does not hold."""
    if holds:
        return
    advice = "this is a fault of the exporter or the runtime: report it, and try the other --format"
    if exported.precision != "fp32":
        advice = "export it with --precision fp32"
    raise InputError(
        f"it is not kept, as it answers otherwise than its run: {difference}; {advice}"
    )
