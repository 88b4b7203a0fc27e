"""Known mistakes in predicted boxes are named by the true boxes, and change no figure."""

import json

import numpy as np
import pandas as pd
import pytest

import cxr_compare
from cxr_compare import metrics
from cxr_compare.data_prep.contracts.boxes import EDGES
from cxr_compare.evaluation.boxes.other_readings import other_readings
from cxr_compare.evaluation.verdict import cautions

N = 40


def lesions() -> pd.DataFrame:
    """A true box of the left or the right lung in each of 40 images of different sizes."""
    rng = np.random.default_rng(8)
    width = rng.integers(900, 1500, N).astype(float)
    height = rng.integers(1600, 2400, N).astype(float)
    x1 = np.where(np.arange(N) % 3 == 0, 0.55, 0.12) * width + rng.uniform(0, 90, N)
    y1 = rng.uniform(0.1, 0.5, N) * height
    ids = [f"{number:03d}" for number in 10 + 2 * np.arange(N)]
    sides = {"x2": x1 + 0.2 * width, "y2": y1 + rng.uniform(0.2, 0.4, N) * height}
    return pd.DataFrame(
        {"image_id": ids, "width": width, "height": height, "x1": x1, "y1": y1, **sides}
    )


def found() -> pd.DataFrame:
    """Predicted boxes near the lesions, and a false box on every second image."""
    rng = np.random.default_rng(9)
    table = lesions().assign(score=rng.uniform(0.5, 1.0, N))
    near = table[EDGES].to_numpy() + rng.normal(0, 12, (N, 4))
    false = table.iloc[::2].assign(x1=20.0, y1=20.0, x2=110.0, y2=90.0, score=0.3)
    columns = ["image_id", "width", "height", *EDGES, "score"]
    return pd.concat([table.assign(**dict(zip(EDGES, near.T, strict=True))), false])[columns]


def written(change) -> pd.DataFrame:
    """Write the predicted boxes in another way: `change` takes x1, y1, x2, y2 and the table."""
    table = found()
    edges = change(*(table[edge] for edge in EDGES), table)
    return table.assign(**dict(zip(EDGES, edges, strict=True)))


def in_thousandths(x1, y1, x2, y2, t):
    return [1000 * v / t[s] for v, s in zip((x1, y1, x2, y2), ["width", "height"] * 2, strict=True)]


MISTAKES = {
    "y, x": (lambda x1, y1, x2, y2, t: (y1, x1, y2, x2), "as y, x, y, x", "yxyx"),
    "0 to 1000": (in_thousandths, "in coordinates from 0 to 1000", "1000"),
    "y, x from 0 to 1000": (
        lambda *a: [in_thousandths(*a)[position] for position in (1, 0, 3, 2)],
        "as y, x, y, x, in coordinates from 0 to 1000",
        "yxyx",
    ),
    "sizes as corners": (
        lambda x1, y1, x2, y2, t: (x1, y1, x2 - x1, y2 - y1),
        "as x, y, width and height, not as corners",
        'box_format="xywh"',
    ),
    "corners as sizes": (
        lambda x1, y1, x2, y2, t: (x1, y1, x1 + x2, y1 + y2),
        "as corners, not as x, y, width and height",
        'box_format="xyxy"',
    ),
    "centre as corner": (
        lambda x1, y1, x2, y2, t: ((x1 + x2) / 2, (y1 + y2) / 2, 1.5 * x2 - x1 / 2,
                                   1.5 * y2 - y1 / 2),
        "as centre, width and height, not as x, y, width and height",
        'box_format="cxcywh"',
    ),
    "halved": (
        lambda x1, y1, x2, y2, t: (x1 / 2, y1 / 2, x2 / 2, y2 / 2),
        "in px of a resized image (factor ",
        "give x * 2",
    ),
    "square": (
        lambda *a: [edge * 0.512 for edge in in_thousandths(*a)],
        "in px of images resized to 5",
        "width / 5",
    ),
    "mirrored": (
        lambda x1, y1, x2, y2, t: (t["width"] - x2, y1, t["width"] - x1, y2),
        "mirrored left to right",
        "width - x2",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("change", "name", "advice"), MISTAKES.values(), ids=MISTAKES)
def test_each_mistake_is_named_with_what_to_do_and_the_figure_that_it_would_give(
    change, name, advice
):
    right = metrics.box_average_precision(found(), lesions(), lesions()["image_id"])["ap50"]
    assert right > 0.9
    reading = other_readings(written(change), lesions(), lesions(), system="my net")[0]
    assert reading.name.startswith(name)
    assert advice in reading.advice
    assert reading.ap50 == pytest.approx(right, abs=0.03)
    assert reading.now < 0.5


def test_boxes_that_match_and_boxes_that_match_by_no_reading_are_not_doubted():
    assert other_readings(found(), lesions(), lesions()) == []
    rng = np.random.default_rng(10)
    corner = rng.uniform(0, 700, (N, 2))
    anywhere = lesions().assign(score=0.5)
    anywhere[EDGES] = np.hstack([corner, corner + rng.uniform(50, 300, (N, 2))])
    assert other_readings(anywhere, lesions(), lesions()) == []
    assert other_readings(found().iloc[:0], lesions(), lesions()) == []
    assert other_readings(found(), lesions().iloc[:0], lesions()) == []


def test_few_lesions_say_too_little():
    few = lesions().iloc[:4]
    swapped = written(MISTAKES["y, x"][0])
    assert other_readings(swapped, few, few) == []


def test_classes_that_are_counted_differently_are_named():
    classes = np.array(["mass", "nodule", "effusion"])
    truth = lesions().assign(finding=classes[np.arange(N) % 3])
    one_up = lesions().assign(finding=classes[(np.arange(N) + 1) % 3], score=0.9)
    reading = other_readings(one_up, truth, truth)[0]
    assert "nodule as mass" in reading.name
    assert "class_names" in reading.advice
    assert other_readings(truth.assign(score=0.9), truth, truth) == []


def test_numbers_of_images_that_count_them_otherwise_are_named():
    truth = lesions()  # images 010, 012, ... in their order
    positions = truth.assign(image_id=[f"{n:03d}" for n in range(1, N + 1)], score=0.9)
    assert "as its position, counted from 1" in other_readings(positions, truth, truth)[0].name
    truth = truth.assign(image_id=[f"{n:03d}" for n in range(20, 20 + N)])
    one_less = truth.assign(image_id=[f"{n:03d}" for n in range(19, 19 + N)], score=0.9)
    everything = pd.DataFrame({"image_id": [f"{n:03d}" for n in range(100)]})
    reading = other_readings(one_less, truth, everything)[0]
    assert reading.name == "with images numbered from 0, not from 1"
    assert "file name" in reading.advice
    assert other_readings(truth.assign(score=0.9), truth, everything) == []


def test_without_sizes_only_what_needs_none_is_tried():
    ids = lesions()[["image_id"]]
    swapped = other_readings(written(MISTAKES["y, x"][0]), lesions(), ids)
    assert swapped[0].name == "as y, x, y, x"
    assert other_readings(written(MISTAKES["mirrored"][0]), lesions(), ids) == []


def test_the_metric_warns_and_gives_the_figure_of_the_boxes_as_read():
    swapped = written(MISTAKES["y, x"][0])
    ids = lesions()["image_id"]
    with pytest.warns(UserWarning, match="yxyx"):
        ap50 = metrics.box_average_precision(swapped, lesions(), ids)["ap50"]
    assert ap50 == other_readings(swapped, lesions(), lesions())[0].now < 0.1


def compared(boxes, out=None):
    truth = lesions()
    negative = pd.DataFrame({"image_id": [f"{n:03d}" for n in range(100, 140)]})
    labels = pd.concat([truth[["image_id"]].assign(label=1),
                        negative.assign(label=0)])  # fmt: skip
    columns = ["image_id", *EDGES]
    result = cxr_compare.compare(
        {"A": boxes[[*columns, "score"]]}, truth=labels, boxes=truth[columns], replicates=100
    )
    if out is not None:
        result.save(out)
    return result


def test_a_comparison_says_so_everywhere_and_every_figure_stays(tmp_path, monkeypatch):
    boxes = written(MISTAKES["y, x"][0])
    result = compared(boxes, tmp_path / "report")
    (caution,) = [text for text in result.cautions if "y, x, y, x" in text]
    for words in ("AP50 of A", 'order="yxyx"', "--columns A.box_order=yxyx"):
        assert words in caution
    assert caution in json.loads((tmp_path / "report" / "answer.json").read_text())["cautions"]
    assert "y, x, y, x" in (tmp_path / "report" / "report.html").read_text()
    assert "y, x, y, x" in str(result)
    monkeypatch.setattr(cautions, "other_readings", lambda *_, **__: [])
    without = compared(boxes)
    assert not any("y, x, y, x" in text for text in without.cautions)
    pd.testing.assert_frame_equal(result.figures, without.figures, check_exact=True)
    pd.testing.assert_frame_equal(result.decisions, without.decisions, check_exact=True)
    assert not any("would be" in text for text in compared(found()).cautions)
