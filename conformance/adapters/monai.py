"""MONAI: COCO's AP, FROC of marks that are points (CAMELYON16), and figures of images."""

from functools import partial

import numpy as np
import torch
from monai.apps.detection.metrics.coco import COCOMetric
from monai.apps.detection.metrics.matching import matching_batch
from monai.data.box_utils import box_iou
from monai.metrics import (
    compute_average_precision,
    compute_confusion_matrix_metric,
    compute_fp_tp_probs,
    compute_froc_curve_data,
    compute_froc_score,
    compute_roc_auc,
)

from conformance.adapters import of_arrays
from conformance.cases import RATES, Case

PACKAGE = "monai"
CHOSEN = (
    "`COCOMetric`: COCO's IoU cuts and `max_detection=[100]`, crowds as `gt_ignore`; FROC: "
    "the rates of the cases, a mark being the centre of its box"
)


def box_precision(key: str, case: Case) -> float | None:
    """Return AP50 or AP; its -1 is undefined, and a crowd is a box that is left out."""
    names = [f"class {number}" for number in range(len(case.classes))]
    coco = COCOMetric(names, iou_list=[0.5], iou_range=[0.5, 0.95, 0.05], max_detection=[100])
    rows = [case.rows(image) for image in case.images]

    def corners(kind):
        return [np.array([r[1:5] for r in each[kind]], dtype=float).reshape(-1, 4) for each in rows]

    def numbers(kind):
        return [np.array([case.classes.index(r[5 + kind]) for r in each[kind]]) for each in rows]

    matches = matching_batch(
        iou_fn=box_iou,
        iou_thresholds=coco.iou_thresholds,
        pred_boxes=corners(1),
        pred_classes=numbers(1),
        pred_scores=[np.array([r[5] for r in found]) for _, found in rows],
        gt_boxes=corners(0),
        gt_classes=numbers(0),
        gt_ignore=[np.array([r[6] for r in true], dtype=bool) for true, _ in rows],
    )
    value = coco(matches)[0][key]
    return None if value == -1 else float(value)


def froc(rates: list[float], case: Case) -> float:
    """Return the mean sensitivity at rates; a mark is the centre of a box, a lesion a mask."""
    false, true, lesions = [], [], 0
    side = int(max((v for r in [*case.truth, *case.boxes] for v in r[1:5]), default=0)) + 1
    for image in case.images:
        truth, found = case.rows(image)
        mask = np.zeros((side, side), dtype=int)
        for number, (_, x1, y1, x2, y2, *_) in enumerate(truth, start=1):
            mask[round(y1) : round(y2), round(x1) : round(x2)] = number
        x, y = (np.array([(r[k] + r[k + 2]) / 2 for r in found]) for k in (1, 2))
        probs = np.array([r[5] for r in found], dtype=np.float32)  # as the lesions' scores
        of_image = compute_fp_tp_probs(probs, y, x, mask)
        false, true = [*false, *of_image[0]], [*true, *of_image[1]]
        lesions += of_image[2]
    curve = compute_froc_curve_data(np.array(false), np.array(true), lesions, len(case.images))
    return float(compute_froc_score(*curve, eval_thresholds=tuple(rates)))


def auroc(case: Case) -> float:
    """Return the AUROC, the mean over classes."""
    return float(compute_roc_auc(torch.tensor(case.scores), torch.tensor(case.labels)))


def average_precision(case: Case) -> float:
    """Return the average precision of images."""
    return float(compute_average_precision(torch.tensor(case.scores), torch.tensor(case.labels)))


def at_threshold(name: str, case: Case) -> float:
    """Return a figure of the counts of decisions."""
    called, labels = case.scores >= case.threshold, case.labels.astype(bool)
    pairs = ((called, labels), (called, ~labels), (~called, ~labels), (~called, labels))
    counts = torch.tensor([float((a & b).sum()) for a, b in pairs])  # tp, fp, tn, fn
    return float(compute_confusion_matrix_metric(name, counts))


FIGURES = {"auroc": auroc, "macro_auroc": auroc, "average_precision": average_precision}
FIGURES["ap50"] = partial(box_precision, "AP_IoU_0.50_MaxDet_100")
FIGURES["ap"] = partial(box_precision, "mAP_IoU_0.50_0.95_0.05_MaxDet_100")
FIGURES |= {"froc_mean": partial(froc, list(RATES.values()))}
FIGURES |= {f"froc_at_{name}": partial(froc, [rate]) for name, rate in RATES.items()}
NAMES = {"recall": "sensitivity", "mcc": "matthews correlation coefficient", "f1": "f1 score"}
NAMES |= {"npv": "negative predictive value", "balanced_accuracy": "balanced accuracy"}
NAMES |= {name: name for name in ("specificity", "precision", "accuracy")}
FIGURES |= {ours: partial(at_threshold, theirs) for ours, theirs in NAMES.items()}
FIGURES = of_arrays(FIGURES)
