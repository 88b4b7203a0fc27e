"""Fairness of a comparison: budgets of trainings, and the rule from boxes to an image's score."""

import numpy as np
import pandas as pd
import pytest

import cxr_compare
from cxr_compare import InputError
from tests.adapters import figures as product

IDS = ["a", "b", "c"]
SCORES = {"a": [0.5, 0.2, 0.9, 0.4], "b": [0.3]}  # c has no box
BOXES = pd.DataFrame(
    [(name, 0.0, 0.0, 9.0, 9.0, score) for name, of in SCORES.items() for score in of],
    columns=["image_id", "x1", "y1", "x2", "y2", "score"],
)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("max", [0.9, 0.3, 0]),
        ("noisy_or", [1 - 0.5 * 0.8 * 0.1 * 0.6, 0.3, 0]),
        ("mean_of_top_3", [(0.9 + 0.5 + 0.4) / 3, 0.1, 0]),
        (np.median, [0.45, 0.3, 0]),
    ],
)
def test_boxes_make_the_score_of_an_image_by_the_rule_that_is_named(rule, expected):
    assert product.scores_of_boxes(BOXES, IDS, rule).tolist() == pytest.approx(expected)


def test_a_certain_box_makes_a_certain_image_and_no_warning():
    certain = BOXES.assign(score=1.0)
    assert product.scores_of_boxes(certain, IDS, "noisy_or").tolist() == [1, 1, 0]


def test_the_rule_decides_the_figures_and_is_said():
    rng = np.random.default_rng(1)
    ids = [f"i{n}" for n in range(80)]
    label = np.arange(80) % 2
    rows = [
        (name, 1.0, 1.0, 9.0, 9.0, score)
        for name, sick in zip(ids, label, strict=True)
        for score in np.clip(rng.random(4) * 0.6 + 0.2 * sick, 0, 1)
    ]
    boxes = pd.DataFrame(rows, columns=BOXES.columns)
    truth = pd.DataFrame({"image_id": ids, "label": label, "width": 20, "height": 20})
    found = {}
    for rule in ("max", "noisy_or", "mean_of_top_3"):
        result = cxr_compare.compare({"D": boxes}, truth=truth, image_score=rule, replicates=100)
        figures = result.figures
        found[rule] = figures.loc[figures["metric"] == "auroc", "estimate"].iloc[0]
        scores = product.scores_of_boxes(boxes, ids, rule)
        assert found[rule] == pytest.approx(product_auroc(label, scores))
        (note,) = [note for note in result.answer.notes if "noisy_or" in note]
        assert all(f"{name} {value:.3f}" in note for name, value in found.items())
    assert len(set(found.values())) == 3
    with pytest.raises(InputError, match="image_score"):
        cxr_compare.compare({"D": boxes}, truth=truth, image_score="mean")


def product_auroc(label, scores):
    positive, negative = scores[label == 1].to_numpy(), scores[label == 0].to_numpy()
    above = positive[:, None] > negative
    return above.mean() + (positive[:, None] == negative).mean() / 2


PAIRS = [
    ("retinanet_small", "chexnet_small"),
    ("retinanet_lite", "efficientnet_lite"),
    ("retinanet_quickstart", "chexnet_quickstart"),
]


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
def test_trainings_of_one_budget_are_only_said_to_be_one_each(pair):
    said = product.budget_cautions({"A": (pair[0],), "B": (pair[1],)})
    assert set(said) == {"one_training"}
    assert "Each system is one training; no interval" in said["one_training"]
    assert "training.seed=1" in said["one_training"]


def test_what_cannot_be_equal_is_said_by_its_own_name():
    said = product.budget_cautions({"A": ("retinanet",), "B": ("chexnet",)})["unequal_budget"]
    facts = said.partition(": ")[2].split("; ")
    assert facts == [
        "start weights COCO's (A), ImageNet's (B)",
        "trainable stages 3 (A), all (B).",
    ]


@pytest.mark.parametrize(
    ("changes", "facts"),
    [
        ({"data.image_size": 96}, ["image size 128 px (A), 96 px (B)"]),
        ({"training.epochs": 6}, ["images seen 192 (A), 576 (B)", "steps 24 (A), 72 (B)"]),
        ({"training.batch_size": 32}, ["steps 24 (A), 6 (B)", "batch 8 (A), 32 (B)"]),
        ({"training.ema_decay": 0.99}, ["averaged weights none (A), 0.99 (B)"]),
        ({"training.monitor": "epoch"}, ["kept epoch best AUROC (A), last (B)"]),
        ({"model.weights": "imagenet"}, ["start weights random (A), ImageNet's (B)"]),
        ({"training.positive_share": 0}, ["share of positives drawn 0.5 (A), as they come (B)"]),
        ({"training.positive_weight": 3}, ["weight of a positive 1.0 (A), 3.0 (B)"]),
        ({"augmentation.horizontal_flip": 0.5}, ["horizontal_flip 0.0 (A), 0.5 (B)"]),
        (
            {f"augmentation.{key}": 0.1 for key in ("scale", "shift", "noise", "cutout")},
            ["random changes of images (4 settings)"],
        ),
    ],
    ids=lambda value: next(iter(value)),
)
def test_an_unequal_budget_is_a_caution_with_its_numbers(changes, facts):
    pair = {"A": ("retinanet_quickstart",), "B": ("chexnet_quickstart", changes)}
    said = product.budget_cautions(pair)["unequal_budget"]
    assert said.partition(": ")[2].removesuffix(".").split("; ") == facts


def test_trainings_of_other_software_have_no_known_budget():
    pair = {"A": ("retinanet_quickstart",), "B": ("chexnet_quickstart", {"training.epochs": 6})}
    said = product.budget_cautions({**pair, "C": None})
    assert "(C)" not in said["unequal_budget"]
    assert said["one_training"].startswith("A and B are one training each")
    assert product.budget_cautions({"A": pair["A"], "C": None}) == {}
