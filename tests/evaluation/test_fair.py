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


def training(size=96, epochs=2, weights="none", monitor="auroc", seed=0, average=0.0, images=100):
    run = {"epochs": epochs, "n_train": images, "pretrained": weights, "monitor": monitor}
    settings = {"training": {"seed": seed, "ema_decay": average}, "data": {"image_size": size}}
    return {"recipe": {"config": settings, "run": run, "preprocess": {"size": size}}}


def test_trainings_of_one_budget_are_only_said_to_be_one_each():
    pair = {"A": training(weights="coco"), "B": training(weights="imagenet")}
    said = product.budget_cautions(pair)
    assert set(said) == {"one_training"}
    assert "0.04" in said["one_training"]


@pytest.mark.parametrize(
    ("other", "numbers"),
    [
        ({"size": 128}, ("96 px", "128 px")),
        ({"epochs": 6}, ("200", "600")),
        ({"weights": "imagenet"}, ("random weights", "published weights")),
        ({"average": 0.99}, ("no", "yes")),
        ({"monitor": "epoch"}, ("AUROC", "last epoch")),
    ],
)
def test_an_unequal_budget_is_a_caution_with_its_numbers(other, numbers):
    said = product.budget_cautions({"A": training(), "B": training(**other), "C": {}})
    assert all(number in said["unequal_budget"] for number in numbers)
    assert "(C)" not in said["unequal_budget"]


def test_several_seeds_of_a_configuration_are_more_than_one_training():
    runs = {"A": training(), "B": training(seed=1), "C": training(size=128)}
    assert "one_training" not in product.budget_cautions(runs)
    assert product.budget_cautions({"A": {}, "B": training()}) == {}


def test_a_recipe_without_a_run_says_nothing():
    bare = {"recipe": {"config": {"training": {}}, "run": {"epochs": 2}}}
    assert product.budget_cautions({"A": bare, "B": bare}) == {}
