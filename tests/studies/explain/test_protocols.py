"""Figures of other programs: by hand, by those programs themselves, and found again."""

import contextlib
import importlib
import io
import json
from functools import cache

import numpy as np
import pandas as pd
import pytest
import supervision
import torch
from supervision.metrics import MeanAveragePrecision as SupervisionAp
from torchmetrics.detection import MeanAveragePrecision as TorchmetricsAp

from cxr_compare.data_prep.contracts.boxes import EDGES, box_iou
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.evaluation.boxes.average_precision import coco_annotations
from cxr_compare.studies.explain.protocols import ProtocolEvaluator, explain_figure
from tests.evaluation.boxes.simulated import simulate
from tests.evaluation.boxes.test_rsna_score import rsna_by_hand


def table(*rows, **columns):
    """Boxes: image, x1, y1, x2, y2 and, of predicted ones, a score."""
    names = ["image_id", *EDGES, "score"][: len(rows[0])]
    return pd.DataFrame(rows, columns=names).assign(**columns)


IMAGES = pd.Index(["a", "b", "c"])
TRUTH = table(("a", 0, 0, 10, 10), ("a", 50, 50, 60, 60))
# In falling score: false, hit, second box on the lesion just found, hit of IoU 0.6.
FOUND = table(
    ("b", 0, 0, 10, 10, 0.9), ("a", 0, 0, 10, 10, 0.8), ("a", 1, 0, 10, 10, 0.7),
    ("a", 50, 50, 60, 56, 0.6),
)  # fmt: skip


def value(found, truth, **rules):
    evaluator = ProtocolEvaluator(found, truth, IMAGES)
    chosen = evaluator.complete(rules)
    assert {name: getattr(chosen, name) for name in rules} == rules  # none is useless here
    return pytest.approx(evaluator.value(chosen))


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ({}, 1 / 2),  # hits are 2nd and 4th of four: precision 1/2 at both
        ({"area": "11"}, 1 / 2),
        ({"area": "all"}, 1 / 2),
        ({"area": "steps"}, 1 / 2),
        ({"area": "raw-trapezoids"}, ((0 + 1 / 2) / 2 + (1 / 3 + 1 / 2) / 2) / 2),
        ({"area": "trapezoids"}, (99.5 * 0.5) / 100),  # 0 at recall 1 itself
        ({"images": "positive"}, (51 + 50 * 2 / 3) / 101),
        ({"images": "predicted"}, 1 / 2),
        ({"floor": "0.7"}, 51 / 2 / 101),  # the second lesion is lost
        ({"most": "1"}, 51 / 2 / 101),
        ({"iou": "0.75"}, 51 / 2 / 101),
        ({"iou": "0.5:0.95"}, (3 * 1 / 2 + 7 * 51 / 2 / 101) / 10),  # 0.5, 0.55 and 0.6
        ({"repeats": "ignored"}, 2 / 3),
        # Image a, 3 boxes and 2 lesions: 2 hits below IoU 0.6, 1 from there on. Image b: 0.
        ({"area": "rsna", "iou": "0.4:0.75"}, (4 * 2 / 3 + 4 * 1 / 4) / 8 / 2),
    ],
    ids=str,
)
def test_each_rule_by_hand(rules, expected):
    assert expected == value(FOUND, TRUTH, **rules)


def test_a_box_whose_best_lesion_is_taken_takes_another_only_by_coco():
    truth = table(("a", 0, 0, 10, 10), ("a", 0, 3, 10, 13))
    found = table(("a", 0, 0, 10, 10, 0.9), ("a", 0, 1, 10, 11, 0.8))
    assert value(found, truth) == 1
    assert value(found, truth, match="best") == 51 / 101


def test_corners_that_are_pixels_widen_both_boxes():
    truth, found = table(("a", 0, 0, 3, 1)), table(("a", 0, 0, 1, 1, 0.9))  # 1/3, then 4/8
    assert value(found, truth) == 0
    assert value(found, truth, corners="pixels") == 1


def test_classes_are_averaged_pooled_or_alone():
    truth = table(("a", 0, 0, 9, 9), ("a", 20, 0, 29, 9)).assign(finding=["mass", "nodule"])
    found = table(("a", 0, 0, 9, 9, 0.9), ("a", 20, 0, 29, 9, 0.8), finding="mass")
    for classes, expected in (("mean", 0.5), ("mass", 1), ("nodule", 0), ("one", 1)):
        assert value(found, truth, classes=classes) == expected


@pytest.mark.parametrize(("crowd", "expected"), [("ignored", 1), ("absent", 1 / 2), ("true", 1)])
def test_boxes_on_a_crowd(crowd, expected):
    truth = table(("a", 0, 0, 10, 10), ("b", 0, 0, 20, 20)).assign(crowd=[False, True])
    found = table(("b", 0, 0, 20, 18, 0.9), ("a", 0, 0, 10, 10, 0.8))
    assert value(found, truth, crowd=crowd) == expected


@pytest.mark.parametrize(
    ("form", "box"),
    [
        ("widths-as-corners", (10, 20, 40, 70)), ("corners-as-widths", (10, 20, 20, 30)),
        ("centre-as-corner", (0, 5, 20, 35)), ("corner-as-centre", (20, 35, 40, 65)),
        ("swapped", (20, 10, 50, 30)),
    ],
)  # fmt: skip
def test_a_misread_format_is_undone(form, box):
    """Each box is the lesion (10, 20, 30, 50) as the program reads it."""
    assert value(table(("a", *box, 0.9)), table(("a", 10, 20, 30, 50)), form=form) == 1


# ------------------------------------------------------------------ other programs


@cache
def drawn():
    boxes, truth, images = simulate(5, 90, jitter=6)
    return boxes, truth, images, ProtocolEvaluator(boxes, truth, images)


def coco_like(modules, cap, images):
    """AP50 and AP of a program with the interface of pycocotools."""

    def entries(frame):
        at = images.get_indexer(frame["image_id"])
        corners = frame[EDGES].to_numpy()[at >= 0]
        scores = frame["score"].to_numpy()[at >= 0] if "score" in frame else None
        return coco_annotations(at[at >= 0] + 1, corners, scores)

    boxes, truth, *_ = drawn()
    with contextlib.redirect_stdout(io.StringIO()):
        true = importlib.import_module(modules[0]).COCO()
        true.dataset = {
            "images": [{"id": k + 1, "width": 200, "height": 200} for k in range(len(images))],
            "categories": [{"id": 1, "name": "lesion"}], "annotations": entries(truth),
        }  # fmt: skip
        true.createIndex()
        found = true.loadRes(entries(boxes))
        evaluator = getattr(importlib.import_module(modules[1]), modules[2])(true, found, "bbox")
        evaluator.params.maxDets = [1, 1, cap]
        evaluator.evaluate()
        evaluator.accumulate()
    precision = np.asarray(evaluator.eval["precision"])[:, :, 0, 0, -1]
    return precision[0].mean(), precision.mean()


@pytest.mark.parametrize(
    "modules",
    [
        ("pycocotools.coco", "pycocotools.cocoeval", "COCOeval"),
        ("faster_coco_eval", "faster_coco_eval", "COCOeval_faster"),
        ("hotcoco", "hotcoco", "COCOeval"),
    ],
    ids=lambda modules: modules[0],
)
@pytest.mark.parametrize(("cap", "images"), [(100, "all"), (1, "all"), (100, "positive")])
def test_figures_of_programs_like_pycocotools(modules, cap, images):
    _, truth, every, evaluator = drawn()
    rules = {"most": str(cap), "images": images}
    own = [
        evaluator.value(evaluator.complete({**rules, "iou": iou})) for iou in ("0.5", "0.5:0.95")
    ]
    evaluated = every if images == "all" else every[every.isin(truth["image_id"])]
    assert coco_like(modules, cap, evaluated) == pytest.approx(own, abs=1e-9)


def by_image():
    """Corners and scores of the predicted boxes, and corners of the true ones, image by image."""
    boxes, truth, images, _ = drawn()
    for name in images:
        found = boxes[boxes["image_id"] == name].sort_values("score", ascending=False)
        true = truth.loc[truth["image_id"] == name, EDGES].to_numpy()
        yield found[EDGES].to_numpy(), found["score"].to_numpy(), true


def test_figures_of_torchmetrics_and_supervision():
    evaluator = drawn()[3]
    metric, other = TorchmetricsAp(), SupervisionAp()
    for found, scores, true in by_image():
        labels = [torch.zeros(len(corners), dtype=torch.int) for corners in (found, true)]
        boxes = [torch.tensor(corners) for corners in (found, true)]
        metric.update(
            [{"boxes": boxes[0], "scores": torch.tensor(scores), "labels": labels[0]}],
            [{"boxes": boxes[1], "labels": labels[1]}],
        )
        found = supervision.Detections(found, confidence=scores, class_id=labels[0].numpy())
        true = supervision.Detections(true, class_id=labels[1].numpy())
        other.update(found, true)
    own = [evaluator.value(evaluator.complete({"iou": iou})) for iou in ("0.5", "0.75", "0.5:0.95")]
    figures, others = metric.compute(), other.compute()
    named = [float(figures[name]) for name in ("map_50", "map_75", "map")]
    assert named == pytest.approx(own, abs=1e-6)
    assert [others.map50, others.map75, others.map50_95] == pytest.approx(own, abs=1e-6)


def curve(wider, iou=0.5):
    """Recall and precision where a box may take only the true box that it overlaps most."""
    hits, scores = [], []
    for found, of_boxes, true in by_image():
        taken, widths = set(), np.array([0, 0, wider, wider])
        for box, score in zip(found + widths, of_boxes, strict=True):
            overlap = box_iou(box, true + widths) if len(true) else np.zeros(1)
            best = int(overlap.argmax())
            hits.append(overlap[best] >= iou and best not in taken)
            scores.append(score)
            taken |= {best} if hits[-1] else set()
    hits = np.array(hits)[np.argsort(-np.array(scores), kind="stable")]
    return np.cumsum(hits) / len(drawn()[1]), np.cumsum(hits) / np.arange(1, len(hits) + 1)


@pytest.mark.parametrize("iou", [0.3, 0.5])
def test_figures_of_the_published_rules_of_pascal_voc_and_ultralytics(iou):
    """As described: the development kits, and Ultralytics before and after pull request 24175."""
    evaluator = drawn()[3]
    recall, precision = curve(1, iou)
    rules = {"match": "best", "corners": "pixels", "iou": str(iou)}
    levels = [precision[recall >= t].max(initial=0) for t in np.arange(0, 1.1, 0.1)]
    own = evaluator.value(evaluator.complete({**rules, "area": "11"}))
    assert own == pytest.approx(np.mean(levels))
    best = np.maximum.accumulate(precision[::-1])[::-1]
    own = evaluator.value(evaluator.complete({**rules, "area": "all"}))
    assert own == pytest.approx((np.diff(recall, prepend=0) * best).sum())
    recall, precision = curve(0, iou)
    for area, last in (("trapezoids-to-1", []), ("trapezoids", [(recall[-1], 0)])):
        points = [(0, 1), *zip(recall, precision, strict=True), *last, (1, 0)]
        x, y = np.array(points).T
        height = np.interp(np.linspace(0, 1, 101), x, np.maximum.accumulate(y[::-1])[::-1])
        own = evaluator.value(evaluator.complete({"match": "best", "iou": str(iou), "area": area}))
        assert own == pytest.approx(np.trapezoid(height) / 100)


@pytest.mark.parametrize("floor", ["0", "0.3"])
def test_figure_of_the_rsna_challenge(floor):
    boxes, truth, images, evaluator = drawn()
    rules = {"area": "rsna", "iou": "0.4:0.75", "floor": floor}
    expected = rsna_by_hand(boxes, truth, images, float(floor))
    assert evaluator.value(evaluator.complete(rules)) == pytest.approx(expected)


# ------------------------------------------------------------------ what explains a figure


@pytest.mark.parametrize(
    ("rules", "name", "changes"),
    [
        ({}, "COCO AP50", []),
        ({"area": "11", "match": "best", "corners": "pixels"}, "Pascal VOC 2007", []),
        ({"floor": "0.6"}, "COCO AP50", ["boxes from score 0.6"]),
        ({"area": "rsna", "iou": "0.4:0.75", "floor": "0.3"}, "RSNA", ["boxes from score 0.3"]),
    ],
    ids=str,
)
def test_the_protocol_of_a_figure_is_found(rules, name, changes):
    boxes, truth, images, evaluator = drawn()
    figure = round(evaluator.value(evaluator.complete(rules)), 6)
    answer = explain_figure(figure, boxes, truth, images)
    assert answer["within"]
    assert answer["found"] == (not changes or answer["chance"] < 0.05)
    assert answer["best"]["value"] == pytest.approx(figure, abs=1e-6)
    assert answer["best"]["protocol"].startswith(name)
    assert answer["best"]["changes"] == changes
    assert answer["cxr"]["value"] == pytest.approx(evaluator.value(evaluator.complete({})))
    if changes and name != "RSNA":  # one rule is the whole difference
        assert answer["main_rule"]["rule"] == changes[0]
        assert answer["main_rule"]["value"] == pytest.approx(figure, abs=1e-6)
    assert f"would give {figure:.4f}" in json.loads(json.dumps(answer))["text"]


def test_a_figure_that_no_protocol_gives_is_answered_with_the_nearest():
    answer = explain_figure(0.9999, *drawn()[:3])
    assert (answer["within"], answer["n_within"]) == (False, [0, 0, 0])
    assert answer["text"].startswith("None of ")
    away = [abs(one["value"] - 0.9999) for one in (answer["best"], *answer["next_best"])]
    assert away == sorted(away)


def test_a_figure_is_met_within_half_of_its_last_digit():
    assert explain_figure("0.50", FOUND, TRUTH, IMAGES)["tolerance"] == pytest.approx(0.005)
    assert explain_figure(0.5, FOUND, TRUTH, IMAGES)["tolerance"] == pytest.approx(0.05)
    answer = explain_figure(0.4975, FOUND, TRUTH, IMAGES)
    assert answer["best"]["protocol"] == "Ultralytics mAP50 from April 2026"
    assert answer["tolerance"] == pytest.approx(0.0001)
    assert sum(answer["n_within"]) > 1


def test_share_of_arbitrary_figures_that_are_explained_is_the_one_printed():
    boxes, truth, images, evaluator = drawn()
    figure = round(evaluator.value(evaluator.complete({"floor": "0.6", "most": "1"})), 4)
    answer = explain_figure(figure, boxes, truth, images)
    most = len(answer["best"]["changes"])
    values = [
        evaluator.value(rules)
        for rules, known in evaluator.protocols().items()
        if known.n_changes <= most
    ]
    grid = np.linspace(max(0, figure - 0.15), min(1, figure + 0.15), 5001)
    distance = abs(grid[:, None] - np.array(values)).min(axis=1)
    assert answer["chance"] == pytest.approx((distance <= 1e-4).mean(), abs=0.03)


def test_two_figures_are_explained_by_one_protocol_jointly():
    boxes, truth, images, evaluator = drawn()
    rules = evaluator.complete({"floor": "0.4", "images": "positive"})
    first, at_075 = (f"{evaluator.value(one):.4f}" for one in (rules, rules._replace(iou="0.75")))
    alone = explain_figure(first, boxes, truth, images)
    joint = explain_figure([first, f"ap75={at_075}"], boxes, truth, images)
    assert joint["within"]
    assert sum(joint["n_within"]) <= sum(alone["n_within"])
    assert joint["chance"] < alone["chance"] / 2
    other = f"{evaluator.value(rules._replace(floor='0.55')):.4f}"
    assert explain_figure([first, f"score0.55={other}"], boxes, truth, images)["within"]
    wrong = explain_figure([first, "ap75=0.9999"], boxes, truth, images)
    assert not wrong["within"]


@pytest.mark.parametrize(
    "figure", ["1.2", "ap75=0.3", "map=0.3", ["0.3", "0.4"], ["0.3", "score=0.4"], [], "0.3.1"]
)
def test_other_texts_are_no_figures(figure):
    with pytest.raises(InputError, match="--figure"):
        explain_figure(figure, FOUND, TRUTH, IMAGES)


def test_without_a_box_there_is_no_figure():
    with pytest.raises(InputError, match="no predicted, or no true box"):
        explain_figure(0.5, FOUND[:0], TRUTH, IMAGES)
    with pytest.raises(InputError, match="no image of it is in image_ids"):
        explain_figure(0.5, FOUND[:1], TRUTH, IMAGES[1:])
