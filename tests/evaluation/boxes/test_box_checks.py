"""Box metrics refuse what would give a figure from wrong input, by row, image and value."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from cxr_compare import metrics
from cxr_compare.data_prep.contracts.box_check import check_predictions
from cxr_compare.data_prep.contracts.box_readings import BoxReading
from cxr_compare.data_prep.contracts.boxes import EDGES
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.evaluation.boxes.box_checks import near_ids

IDS = [f"image-{number}" for number in range(10)]
METRICS = {
    "box_average_precision": metrics.box_average_precision,
    "froc": metrics.froc,
    "match_boxes": metrics.match_boxes,
}


def true_boxes() -> pd.DataFrame:
    """One true box of 200 x 100 px in each of ten images, at x1 = 300, y1 = 400."""
    return pd.DataFrame({"image_id": IDS, "x1": 300.0, "y1": 400.0, "x2": 500.0, "y2": 500.0})


def found_boxes() -> pd.DataFrame:
    return true_boxes().assign(score=np.linspace(0.05, 0.95, 10))


def as_widths(table: pd.DataFrame) -> pd.DataFrame:
    return table.assign(x2=table["x2"] - table["x1"], y2=table["y2"] - table["y1"])


def in_shares(table: pd.DataFrame) -> pd.DataFrame:
    return table.assign(**{edge: table[edge] / 1000 for edge in EDGES})


def changed(column: str, value: Any) -> Callable[[pd.DataFrame], pd.DataFrame]:
    """Change the cell of a column in row 3."""

    def change(table: pd.DataFrame) -> pd.DataFrame:
        table = table.copy()
        table.loc[3, column] = value
        return table

    return change


def renamed(pattern: str) -> Callable[[pd.DataFrame], pd.DataFrame]:
    return lambda table: table.assign(image_id=[pattern.format(i) for i in table["image_id"]])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (changed("score", np.nan), r"boxes: row 3, image 'image-3': score=nan"),
        (changed("score", 2.5), r"row 3, image 'image-3': score=2\.5.*logits.*sigmoid"),
        (changed("score", -1.5), r"row 3, image 'image-3': score=-1\.5.*logits.*sigmoid"),
        (lambda t: t.assign(score=100 * t["score"]), r"row 0.*score=5\.0.*percent.*100"),
        (changed("x1", np.nan), r"boxes: row 3, image 'image-3': x1=nan"),
        (changed("y2", np.inf), r"row 3, image 'image-3'.*y2=inf"),
        (changed("x2", 300), r"row 3, image 'image-3': x1=300.*x2=300.*needs x1 < x2"),
        (changed("x2", 299), r"row 3, image 'image-3'.*x2=299"),
        (as_widths, r"row 0, image 'image-0'.*x2=200.*widths and heights.*x2 = x1 \+ width"),
        (in_shares, r"row 0, image 'image-0'.*x1=0\.3.*shares.*multiply"),
        (renamed("other-{}"), r"boxes: no image .* in image_ids.*'other-image-0'.*'image-0'"),
        (renamed("{}.png"), r"boxes: row 0: image 'image-0\.png' is not.*'image-0'"),
        (lambda t: renamed("{}")(t).assign(image_id=t["image_id"].str.upper()), r"'IMAGE-0' is no"),
        (lambda t: pd.concat([t, renamed("{}.jpg")(t.tail(1))]), r"row 9: image 'image-9\.jpg'"),
        (lambda t: t.drop(columns="x1"), r"boxes: column 'x1' is missing; it has image_id"),
        (lambda t: t.assign(x1="left"), r"boxes: row 0, image 'image-0': x1='left' is no number"),
        (changed("image_id", None), r"boxes: row 3: image_id is missing"),
        (lambda t: t.to_dict("list"), r"boxes: expected a DataFrame .* got dict"),
    ],
)
def test_wrong_predicted_boxes_give_no_figure(change, says):
    with pytest.raises(InputError, match=says):
        metrics.box_average_precision(change(found_boxes()), true_boxes(), pd.Index(IDS))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (as_widths, r"truth: row 0.*widths and heights"),
        (renamed("other-{}"), r"truth: no image .* in image_ids.*'other-image-0'"),
    ],
)
def test_wrong_true_boxes_give_no_figure(change, says):
    with pytest.raises(InputError, match=says):
        metrics.box_average_precision(found_boxes(), change(true_boxes()), pd.Index(IDS))


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
def test_every_metric_checks_predicted_and_true_boxes(metric):
    with pytest.raises(InputError, match="boxes: row 3"):
        metric(changed("x1", np.nan)(found_boxes()), true_boxes(), IDS)
    with pytest.raises(InputError, match="truth: row 3"):
        metric(found_boxes(), changed("x1", np.nan)(true_boxes()), IDS)


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
def test_image_ids_that_repeat_or_name_an_image_twice_give_no_figure(metric):
    with pytest.raises(InputError, match="image_ids: 'image-0'"):
        metric(found_boxes(), true_boxes(), [*IDS, "image-0"])
    with_endings = renamed("{}.png")(found_boxes())
    every = sorted({*IDS, *with_endings["image_id"]})  # a union hides that the names differ
    with pytest.raises(InputError, match=r"'image-0'.*'image-0\.png'"):
        metric(with_endings, true_boxes(), every)
    upper = found_boxes().assign(image_id=found_boxes()["image_id"].str.upper())
    with pytest.raises(InputError, match="are one image under two ids"):
        metric(upper, true_boxes(), sorted({*IDS, *upper["image_id"]}))


def test_ids_as_a_list_and_as_numbers_give_the_figure_of_an_index_of_text():
    expected = metrics.box_average_precision(found_boxes(), true_boxes(), pd.Index(IDS))
    assert metrics.box_average_precision(found_boxes(), true_boxes(), IDS) == expected
    numbers = found_boxes().assign(image_id=range(10))
    truth = true_boxes().assign(image_id=range(10))
    texts = [str(number) for number in range(10)]
    assert metrics.box_average_precision(numbers, truth, texts) == expected
    assert expected["ap50"] == pytest.approx(1.0)


def test_right_boxes_of_some_images_or_of_none_still_give_figures():
    subgroup = IDS[:3]
    assert metrics.box_average_precision(found_boxes(), true_boxes(), subgroup)["ap50"] == (
        pytest.approx(1.0)
    )
    no_boxes = found_boxes().iloc[:0]
    assert metrics.box_average_precision(no_boxes, true_boxes(), IDS)["ap50"] == 0.0
    # A subgroup without a predicted box: those of other images show that the ids are right.
    found = found_boxes().query("image_id not in @subgroup")
    assert metrics.box_average_precision(found, true_boxes(), subgroup)["ap50"] == 0.0
    mixed_case = [*IDS, "IMAGE-0"]  # may be another image, for nothing says that it is not
    assert metrics.box_average_precision(found_boxes(), true_boxes(), mixed_case)["ap50"] > 0.9


def test_boxes_that_reach_a_little_beyond_are_left_to_be_clipped():
    sizes = np.full((10, 2), 1000.0)
    over = found_boxes().assign(x2=1030.0)
    for form in ("xyxy", "xywh"):
        checked, _ = check_predictions(over, BoxReading(form, where="boxes"), sizes)
        assert checked["x2"].tolist() == [1030] * 10
    far = found_boxes().assign(x2=1600.0)
    with pytest.raises(InputError, match=r"row 0.*resized"):
        check_predictions(far, BoxReading(where="boxes"), sizes)
    unknown = np.full((10, 2), np.nan)
    assert len(check_predictions(far, BoxReading(where="boxes"), unknown)[0]) == 10


def test_of_two_near_ids_the_first_is_named():
    names = [f"{letter}.png" for letter in "abcdefgh"]
    known = [*names, *(name.replace("png", "dcm") for name in names)]
    assert list(near_ids("ABCDEFGH", known).values()) == names
