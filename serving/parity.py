"""The comparison of an export with its run: their answers must agree before the export is kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from cxr_compare.data_prep.contracts.boxes import EDGES, box_iou
from cxr_compare.data_prep.contracts.errors import InputError, counted
from cxr_compare.data_prep.dataset import DataSet
from cxr_compare.data_prep.store.loose_pixels import LoosePixels
from cxr_compare.data_prep.store.pixel_store import PixelSource
from cxr_compare.data_prep.store.prediction_writer import concat_parts
from cxr_compare.data_prep.synth.rendering import draw_image, draw_patient
from cxr_compare.evaluation.boxes.average_precision import unchecked_average_precision
from cxr_compare.evaluation.metrics.image_metrics import auroc
from cxr_compare.evaluation.sources.labelled_split import LabelledSplit
from cxr_compare.serving.export_spec import BOXES_FILE, INPUT, ORIGINAL_SIZE, Proof

if TYPE_CHECKING:
    from cxr_compare.evaluation.decided_output import DecidedOutput
    from cxr_compare.serving.exported_model import ExportedModel
    from cxr_compare.serving.run import Run

# Both sides compute in float32, so they differ only by the order in which sums are rounded.
_SCORE_LIMIT = 1e-3
_MAP_LIMIT = 1e-4  # share of the largest value of all maps, or of 1
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

    A float32 export must give the same scores, boxes and activation maps on some validation images
    (synthetic ones without a data set). At a lower precision numbers differ, so AUROC, AP50 and
    decisions on all validation images are compared.

    `store` has the pixels of the data set at the size that the run reads; without a data set it is
    None and `validation` (ids) is empty. An InputError is raised if the answers differ by more than
    the limits, or if there is no data set for a lower precision.
    """
    ids = sorted(validation)
    if exported.precision == "fp32":
        return _prove_equal(run, exported, store, ids)
    if dataset is None or store is None:
        raise InputError(f"--precision {exported.precision}: needs the run's data set, as --data")
    return _prove_quality(run, exported, LabelledSplit(dataset, run.target), store, ids)


def _prove_equal(
    run: Run, exported: ExportedModel, store: PixelSource | None, ids: list[str]
) -> Proof:
    """Require the same scores, boxes and maps on some images."""
    size = exported.preprocess.size
    if store is None:
        patients = [draw_patient(0, number, 0.9) for number in range(_PHANTOMS)]
        images = [draw_image(patient, 0, max(size, _PHANTOM_SIZE)).pixels for patient in patients]
    else:
        rows = np.linspace(0, len(ids) - 1, min(_MOST_IMAGES, len(ids))).astype(int)
        images = [store.image(ids[row]) for row in rows]
    source = LoosePixels({f"{row:03d}": image for row, image in enumerate(images)}, size)
    expected, got = _answers(run, exported, source, source.ids, source.sizes)
    _require_same(exported, expected, got.decisions["score"], got.boxes)
    if expected.maps is not None and got.maps is not None:
        maps = np.stack(expected.maps["values"].to_list())
        others = np.stack(got.maps["values"].to_list())
        limit = _MAP_LIMIT * max(1.0, np.abs(maps).max())
        equal = np.allclose(maps, others, rtol=0, atol=limit)
        _require(exported, equal, f"activation maps differ by more than {limit:.2g}")
    if (exported.folder / BOXES_FILE).is_file():
        _require_same(exported, expected, *_answers_alone(exported, source), f"{BOXES_FILE}: ")
    kind = "synthetic image" if store is None else "validation image"
    return _proof(counted(len(images), kind), expected, got)


def _prove_quality(
    run: Run, exported: ExportedModel, split: LabelledSplit, store: PixelSource, ids: list[str]
) -> Proof:
    """Require nearly the same AUROC, AP50 and decisions on labelled validation images."""
    labels = split.truth.label.reindex(ids).dropna()
    sizes = split.dataset.images[["image_id", "width", "height"]]
    outputs = _answers(run, exported, store, labels.index, sizes)
    images = split.truth.select(outputs[0].decisions.index)
    pairs = {"auroc": [auroc(images.label, output.decisions["score"]) for output in outputs]}
    if run.model.kind == "boxes":
        pairs["ap50"] = [
            unchecked_average_precision(output.boxes, images.true_boxes, images.boxed_images)[
                "ap50"
            ]
            for output in outputs
        ]
    figures: dict[str, Any] = {}
    for name, (before, after) in pairs.items():
        if before is not None and after is not None:
            figures[name] = before, after
            fall = f"{name.upper()} falls from {before:.3g} to {after:.3g}"
            _require(exported, before - after <= _DROP_LIMIT, fall)
    text = f"{counted(len(labels), 'validation image')} of “{split.dataset.name}”"
    proof = _proof(text, *outputs, **figures)
    changed = f"{proof.decisions_changed:.1%} of the decisions change"
    _require(exported, proof.decisions_changed <= _CHANGED_LIMIT, changed)
    return proof


def _answers(
    run: Run, exported: ExportedModel, source: PixelSource, ids: pd.Index, sizes: pd.DataFrame
) -> tuple[DecidedOutput, DecidedOutput]:
    """Return what the run and its export say about the same images, in the same order."""
    expected, got = (
        run.decided(concat_parts(list(model.predict(source, ids, sizes, _BATCH))))
        for model in (run.model, exported)
    )
    missing = expected.decisions.index.symmetric_difference(got.decisions.index)
    _require(exported, missing.empty, f"{counted(len(missing), 'image')} without an answer")
    return expected, got


def _answers_alone(exported: ExportedModel, source: LoosePixels) -> tuple[pd.Series, pd.DataFrame]:
    """Return scores and boxes of the network that ends in them, by ONNX Runtime alone."""
    import onnxruntime

    session = onnxruntime.InferenceSession(exported.folder / BOXES_FILE)
    scores = {}
    boxes = []
    for name, width, height in source.sizes.itertuples(index=False):
        inputs = {INPUT: source.image(name)[None, None], ORIGINAL_SIZE: np.array([width, height])}
        score, corners, *_ = session.run(None, inputs)
        scores[name] = float(score[0])
        boxes.append(pd.DataFrame(corners, columns=EDGES).assign(image_id=name))
    return pd.Series(scores), pd.concat(boxes)


def _require_same(
    exported: ExportedModel,
    expected: DecidedOutput,
    scores: pd.Series,
    boxes: pd.DataFrame,
    network: str = "",
) -> None:
    """Require the image scores and boxes of the run."""
    apart = _apart(expected, scores)
    _require(exported, apart <= _SCORE_LIMIT, f"{network}image scores differ by {apart:.3g}")
    n_boxes = 0
    n_matched = 0
    for name in scores.index:
        corners, others = (
            table.loc[table["image_id"] == name, EDGES].to_numpy(np.float64)
            for table in (expected.boxes, boxes)
        )
        same = box_iou(corners[:, None], others) >= _SAME_BOX  # (N, M)
        n_boxes += sum(same.shape)
        n_matched += int(same.any(axis=0).sum() + same.any(axis=1).sum())
    share = n_matched / n_boxes if n_boxes else 1.0
    _require(exported, share >= _MATCHED_SHARE, f"{network}{share:.1%} of the boxes agree")


def _apart(expected: DecidedOutput, scores: pd.Series) -> float:
    """Return the largest difference of two image scores; NaN if one is missing."""
    return float((expected.decisions["score"] - scores).abs().max(skipna=False))


def _proof(images: str, expected: DecidedOutput, got: DecidedOutput, **figures: Any) -> Proof:
    changed = expected.decisions["decision"] != got.decisions["decision"]
    apart = _apart(expected, got.decisions["score"])
    return Proof(
        images=images,
        score_difference=apart,
        decisions_changed=float(changed.mean()),
        **figures,
    )


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
