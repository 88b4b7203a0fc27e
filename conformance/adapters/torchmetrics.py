"""torchmetrics: boxes by its default backend, images by its binary and multilabel functions."""

from functools import partial

import torch
from torchmetrics.detection import MeanAveragePrecision
from torchmetrics.functional import classification

from conformance.adapters import of_arrays
from conformance.cases import Case

PACKAGE = "torchmetrics"


def boxes(key: str, case: Case) -> float | None:
    """Return a figure of boxes; its -1 for "no true box" is undefined."""
    metric = MeanAveragePrecision()
    for image in case.images:
        truth, found = case.rows(image)
        true = {"boxes": [r[1:5] for r in truth], "labels": [r[5] for r in truth]}
        crowd = {"iscrowd": torch.tensor([int(r[6]) for r in truth], dtype=torch.int64)}
        box = {"boxes": [r[1:5] for r in found], "labels": [r[6] for r in found]}
        score = {"scores": torch.tensor([r[5] for r in found], dtype=torch.float32)}
        metric.update([_tensors(box, case) | score], [_tensors(true, case) | crowd])
    value = float(metric.compute()[key])
    return None if value == -1 else value


def _tensors(rows: dict[str, list], case: Case) -> dict[str, torch.Tensor]:
    numbers = [case.classes.index(kind) for kind in rows["labels"]]
    return {
        "boxes": torch.tensor(rows["boxes"], dtype=torch.float32).reshape(-1, 4),
        "labels": torch.tensor(numbers, dtype=torch.int64),
    }


def images(name: str, case: Case) -> float:
    """Return a figure of labels and scores; NaN is undefined."""
    several = {"num_labels": len(case.classes)} if case.labels.ndim == 2 else {}
    metric = getattr(classification, f"{'multilabel' if several else 'binary'}_{name}")
    at = {} if name in ("auroc", "average_precision") else {"threshold": case.threshold}
    return float(metric(torch.tensor(case.scores), torch.tensor(case.labels), **several, **at))


NAMES = {"accuracy": "accuracy", "precision": "precision", "recall": "recall", "f1": "f1_score"}
NAMES |= {"specificity": "specificity", "npv": "negative_predictive_value"}
NAMES |= {"mcc": "matthews_corrcoef", "auroc": "auroc", "average_precision": "average_precision"}
FIGURES = {"ap50": partial(boxes, "map_50"), "ap": partial(boxes, "map")}
FIGURES |= {ours: partial(images, theirs) for ours, theirs in NAMES.items()}
FIGURES["macro_auroc"] = FIGURES["auroc"]
FIGURES = of_arrays(FIGURES)
