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


def test_small_scores_keep_their_order_under_noisy_or():
    small = BOXES.assign(score=BOXES["score"] * 1e-17)
    first, second, _ = product.scores_of_boxes(small, IDS, "noisy_or")
    assert first == pytest.approx(2e-17)
    assert second == pytest.approx(3e-18)


# Three boxes of one score on ill images, one on the others: the best box tells nothing. Patients
# have two images, the odd ones choose thresholds.
N = 160
NAMES = [f"i{n:03d}" for n in range(N)]
ILL = np.arange(N) // 2 % 2
COUNTED = pd.DataFrame(
    [
        (name, 20.0 + 40 * place, 20.0, 50.0 + 40 * place, 50.0, 0.5)
        for name, ill in zip(NAMES, ILL, strict=True)
        for place in range(3 if ill else 1)
    ],
    columns=BOXES.columns,
)
TRUTH = pd.DataFrame(
    {
        "image_id": NAMES,
        "label": ILL,
        "patient_id": [f"p{n // 2}" for n in range(N)],
        "role": np.where(np.arange(N) // 4 % 2, "val", "test"),
    }
)
LESIONS = pd.DataFrame(
    [(name, 20, 20, 50, 50) for name, ill in zip(NAMES, ILL, strict=True) if ill],
    columns=["image_id", "x1", "y1", "x2", "y2"],
)
OTHER = pd.Series(np.random.default_rng(0).random(N), index=NAMES)


def compared(boxes=COUNTED, truth=TRUTH, **options):
    """A detector beside a classifier, with the detector's figures and its scores of images."""
    systems = {"D": boxes, "C": OTHER}
    result = cxr_compare.compare(systems, truth=truth, boxes=LESIONS, replicates=100, **options)
    rows = result.figures.query("first == 'D' and second == ''")
    decided = result.decisions.query("system == 'D'").set_index("image_id")
    return result, rows.set_index("metric")["estimate"], decided


def methods_of(result, folder):
    page = (result.save(folder).folder / "report.html").read_text()
    return page[page.index('id="methods"') :]


@pytest.mark.parametrize(
    ("rule", "healthy", "ill", "auroc"),
    [
        (None, 0.5, 0.5, 0.5),
        ("noisy_or", 0.5, 0.875, 1.0),
        ("mean_of_top_3", 0.5 / 3, 0.5, 1.0),
        (lambda scores: scores.mean() / len(scores), 0.5, 0.5 / 3, 0.0),
    ],
    ids=["best box", "noisy_or", "mean_of_top_3", "function"],
)
def test_validation_and_test_images_have_scores_by_one_rule_and_boxes_keep_theirs(
    rule, healthy, ill, auroc, tmp_path
):
    result, figures, decided = compared(image_score=rule)
    assert figures["auroc"] == auroc
    assert figures["ap50"] == pytest.approx(compared()[1]["ap50"])
    expected = np.where(decided["label"] == 1, ill, healthy)
    assert decided["score"].to_numpy() == pytest.approx(expected)
    if auroc == 1:  # a threshold of test scores, so validation was reduced as test was
        assert (decided["decision_max_f1"] == (decided["label"] == 1)).all()
        assert figures["f1"] == 1
    assert result.answer.by_image_score == {
        "D": {"max": 0.5, "noisy_or": 1.0, "mean_of_top_3": 1.0}
    }
    text = methods_of(result, tmp_path / "report")
    name = rule if isinstance(rule, str) else "the function" if rule else "max"
    assert f"({name}" in text
    assert "by other image scores" in (tmp_path / "report/report.html").read_text()


def test_a_threshold_of_images_counts_boxes_where_the_best_box_is_the_score():
    assert compared(policy="threshold=0.4")[0].lesions["system"].unique() == ["D"]
    assert compared(policy="threshold=0.4", image_score="noisy_or")[0].lesions.empty


def test_the_primary_figure_is_given_by_each_rule_unless_it_is_one_of_places():
    result, _, _ = compared(metric="f1", policy="max_f1", image_score="noisy_or")
    of_rules = {"noisy_or": 1.0, "mean_of_top_3": 1.0}  # the best box gives no threshold
    assert result.answer.by_image_score == {"D": of_rules}
    given = {"truth": TRUTH, "boxes": LESIONS, "replicates": 100}
    places = cxr_compare.compare({"D": COUNTED}, metric="ap50", **given)
    assert not places.answer.by_image_score


def test_the_primary_figure_of_patients_is_given_by_each_rule():
    result, figures, _ = compared(unit="patient", image_score="noisy_or")
    assert result.answer.by_image_score["D"]["noisy_or"] == figures["auroc"]


@pytest.mark.parametrize("rule", ["mean", "", len], ids=str)
def test_a_rule_that_is_none_is_refused(rule):
    with pytest.raises(InputError, match="image_score"):
        compared(image_score=rule)


GIVEN = COUNTED.assign(
    image_score=np.where(COUNTED["image_id"].isin(LESIONS["image_id"]), 0.3, 0.1)
)


@pytest.mark.parametrize("column", ["image_score", "Image Score", "p"])
def test_scores_of_images_beside_boxes_count_and_the_boxes_keep_their_ap50(column, tmp_path):
    given = GIVEN.rename(columns={"image_score": column})
    columns = {"D.image_score": "p"} if column == "p" else None
    result, figures, decided = compared(given, columns=columns)
    assert figures["auroc"] == 1
    assert figures["ap50"] == pytest.approx(compared()[1]["ap50"])
    assert decided["score"].tolist() == np.where(decided["label"] == 1, 0.3, 0.1).tolist()
    assert "given beside its boxes" in methods_of(result, tmp_path / "report")


def test_a_file_of_boxes_has_scores_of_images_too(tmp_path):
    GIVEN.to_csv(tmp_path / "boxes.csv", index=False)
    assert compared(tmp_path / "boxes.csv")[1]["auroc"] == 1


def test_a_row_without_a_box_gives_the_score_of_its_image():
    sick = LESIONS["image_id"].iloc[0]
    empty = pd.DataFrame({"image_id": [sick], "image_score": [0.05]})
    _, _, decided = compared(pd.concat([GIVEN[GIVEN["image_id"] != sick], empty]))
    assert decided["score"].get(sick, 0.05) == 0.05


def test_no_column_of_scores_of_images_is_read_where_the_user_says_so():
    result, figures, _ = compared(GIVEN, columns={"D.image_score": ""}, image_score="noisy_or")
    assert figures["auroc"] == 1
    assert result.answer.provenance.systems["D"]["image_score"] == "noisy_or"


@pytest.mark.parametrize(
    ("boxes", "options", "parts"),
    [
        (GIVEN, {"image_score": "max"}, ["image_score", "D.image_score"]),
        (GIVEN[GIVEN["image_id"] != NAMES[0]], {}, [NAMES[0], "D.image_score"]),
        (GIVEN.assign(image_score=GIVEN["image_score"] * 20), {}, ["outside [0, 1]"]),
        (GIVEN.assign(image_score=np.linspace(0, 1, len(GIVEN))), {}, ["second"]),
        (GIVEN.drop(columns="score"), {}, ["D.score"]),
        (
            COUNTED.drop(columns="score").assign(p=0.3),
            {"columns": {"D.image_score": "p"}},
            ["leave it out"],
        ),
        (OTHER, {"columns": {"D.image_score": "p"}}, ["D.image_score"]),
    ],
    ids=["a rule, too", "an image without", "per cent", "two", "no score", "no ranks", "no boxes"],
)
def test_scores_of_images_that_are_not_understood_are_asked_about(boxes, options, parts):
    with pytest.raises(InputError) as refused:
        compared(boxes, **options)
    assert all(part in str(refused.value) for part in parts), refused.value


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
        (
            {"augmentation.horizontal_flip": 0.5, "augmentation.scale": 0.1},
            ["random changes none (A), scale 0.1, horizontal_flip 0.5 (B)"],
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
