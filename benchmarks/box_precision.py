"""AP50 and AP of boxes beside three programs for COCO, each of which is handed its own input."""

from collections.abc import Callable, Iterator
from importlib import import_module, metadata
from importlib.util import find_spec
from typing import Any

import numpy as np
import pandas as pd

import cxr_compare
from benchmarks.turns import Work
from cxr_compare.data_prep.base.boxes import EDGES

PEERS = {
    "pycocotools": ("pycocotools.coco", "pycocotools.cocoeval", "COCOeval"),
    "faster-coco-eval": ("faster_coco_eval", "faster_coco_eval", "COCOeval_faster"),
    "ultrafast-pycocotools": ("ultrafast_pycocotools", "ultrafast_pycocotools", "COCOeval"),
}
"""Modules with `COCO` and with the evaluator, and its name."""


def peers() -> Iterator[str]:
    """Yield the programs that are installed, and say of others that they are left out."""
    for name, (module, *_) in PEERS.items():
        if find_spec(module.partition(".")[0]) is None:
            print(f"{name} is not installed and is left out: pip install {name}\n")
        else:
            yield name


def precision_work(names: list[str], n_images: int, n_boxes: int) -> Work:
    """AP of boxes at random places; the first of each image is a true box, too."""
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 800, (n_images * n_boxes, 2))
    found = pd.DataFrame(np.hstack([corners, corners + rng.uniform(40, 200, corners.shape)]))
    found.columns = EDGES
    found.insert(0, "image_id", np.repeat(np.arange(n_images), n_boxes).astype(str))
    found["score"] = rng.random(len(found))
    lesions = found.iloc[::n_boxes, :5]
    ids = [str(number) for number in range(n_images)]

    def ours() -> dict[str, float | None]:
        return cxr_compare.metrics.box_average_precision(found, lesions, ids)

    def check(own: dict[str, float], other: dict[str, float]) -> None:
        np.testing.assert_allclose([own["ap50"], own["ap"]], [other["ap50"], other["ap"]])

    truth = {
        "images": [{"id": number + 1} for number in range(n_images)],
        "categories": [{"id": 1, "name": "lesion"}],
        "annotations": _entries(lesions),
    }
    results = _entries(found)
    others = {f"{name} {metadata.version(name)}": _peer(name, truth, results) for name in names}
    return Work(f"AP50 and AP of {n_images:,} images with {n_boxes} boxes", ours, others, check)


def _peer(name: str, truth: dict[str, Any], results: list[Any]) -> Callable[[], object]:
    coco_module, module, evaluator = PEERS[name]
    make_coco, make_evaluator = import_module(coco_module).COCO, import_module(module)

    def evaluate() -> dict[str, float]:
        coco = make_coco()
        coco.dataset = truth
        coco.createIndex()
        of_boxes = getattr(make_evaluator, evaluator)(coco, coco.loadRes(results), "bbox")
        of_boxes.params.maxDets = [100]
        of_boxes.params.areaRng, of_boxes.params.areaRngLbl = [[0, 1e10]], ["all"]
        of_boxes.evaluate()
        of_boxes.accumulate()
        precision = np.asarray(of_boxes.eval["precision"])[:, :, 0, 0, 0]
        return {"ap50": float(precision[0].mean()), "ap": float(precision.mean())}

    return evaluate


def _entries(boxes: pd.DataFrame) -> list[dict[str, Any]]:
    """Return boxes as a list of COCO."""
    corners = boxes[EDGES].to_numpy()
    sides = corners[:, 2:] - corners[:, :2]
    images = boxes["image_id"].astype(int) + 1
    scores = boxes["score"] if "score" in boxes else [1.0] * len(boxes)
    columns = zip(images, corners.tolist(), sides.tolist(), scores, strict=True)
    return [
        {
            "id": number,
            "image_id": image,
            "category_id": 1,
            "bbox": [*corner[:2], *side],
            "area": side[0] * side[1],
            "iscrowd": 0,
            "score": score,
        }
        for number, (image, corner, side, score) in enumerate(columns, start=1)
    ]
