"""Overlays as pixels: shapes over an image, and sheets of panels."""

import io
import re

import numpy as np
import pytest
from PIL import Image

from cxr_compare.evaluation.overlays.draw import draw_panel, encode_jpeg, to_png
from cxr_compare.evaluation.overlays.image_prediction import ImagePrediction, ImageTruth
from cxr_compare.evaluation.overlays.shapes import (
    Label,
    Shape,
    rectangle,
)
from cxr_compare.evaluation.overlays.sheet import SHEET_WIDTH, draw_case

COLOUR = "#56B4E9"


def draw_sheet(*given, **options):
    return draw_case(*given, **options).sheet()


@pytest.mark.parametrize(
    ("shape", "systems", "width", "why"),
    [
        ((3000, 2400), 2, (1980, 2000), "a large image fills the sheet"),
        ((3000, 2400), 9, (1980, 2000), "four panels in a row, in three rows"),
        ((600, 600), 1, (1800, 1850), "no panel has more px than the image"),
        ((100, 100), 0, (960, 1000), "a small image is enlarged"),
        ((2000, 300), 2, (1980, 2000), "a narrow image is padded"),
    ],
)
def test_sheet_is_as_wide_as_the_image_allows(shape, systems, width, why):
    predictions = [ImagePrediction(f"S{number}", COLOUR) for number in range(systems)]
    drawn = draw_case(
        np.zeros(shape, np.uint8), ImageTruth(0.0), predictions, finding="F", title="x"
    )
    low, high = width
    assert low <= drawn.sheet().shape[1] <= min(high, SHEET_WIDTH), why


def test_rows_of_a_sheet_are_about_equally_full():
    predictions = [ImagePrediction(f"S{number}", COLOUR) for number in range(3)]
    options = {"finding": "F", "title": "x", "panel": 64}
    sheet = draw_sheet(np.full((64, 64), 90, np.uint8), ImageTruth(0.0), predictions, **options)
    assert sheet.shape[1] == 3 * (64 + 6) + 6  # five panels: three and two
    whole = (sheet == 90).all(axis=2)
    assert whole.any(axis=0).sum() == 3 * 64
    assert whole.any(axis=1).sum() == 2 * 64


def test_jpeg_is_never_larger_than_asked_and_keeps_the_colour_of_thin_lines():
    pixels = np.zeros((60, 90, 3), np.uint8)
    pixels[:, 45] = (255, 0, 0)
    for side, size in ((30, (30, 20)), (500, (90, 60))):
        with Image.open(io.BytesIO(encode_jpeg(pixels, side, 90))) as image:
            assert image.size == size
            last = np.asarray(image).astype(int)
    assert last[30, 45, 0] - last[30, 45, 1] > 200


def test_text_is_drawn_where_it_is_placed():
    label = Label("boxes", "0.91", (20.0, 40.0), 12.0, "#FF0000")
    drawn = draw_panel(np.zeros((64, 64), np.uint8), [label], 128)
    rows, columns = np.nonzero(drawn[:, :, 0] > 100)
    assert 80 <= rows.min() <= rows.max() <= 104
    assert 40 <= columns.min() <= columns.max() <= 40 + 2 * label.width


def test_text_stays_outside_the_image():
    pixels = np.full((64, 64), 90, np.uint8)
    prediction = ImagePrediction(
        "A system of a very long name, longer than its panel", COLOUR, score=0.1
    )
    figure = draw_sheet(
        pixels, ImageTruth(0.0), [prediction], finding="Opacity", title="x", panel=96
    )
    assert (figure[6 : 6 + 96, 6 : 6 + 96] == 90).all()
    assert figure.shape[0] > 96
    assert (figure[-1] == 255).all()


def test_long_captions_are_wrapped_and_not_cut():
    def drawn(system: str, title: str) -> np.ndarray:
        prediction = ImagePrediction(system, COLOUR, score=0.1)
        return draw_sheet(
            np.zeros((64, 64), np.uint8), ImageTruth(0.0), [prediction], finding="F", title=title,
            panel=240,
        )  # fmt: skip

    short = drawn("A", "x")
    long = drawn("A system whose name has many more letters than its panel", "x")
    word = drawn("A", "file_name_without_a_space_" * 4)
    assert long.shape[0] > short.shape[0]
    assert word.shape[0] > short.shape[0]
    other = drawn("A system whose name has very few letters more than its panel", "x")
    assert (other[: len(long)] != long).any()


def test_every_panel_shows_the_same_window():
    pixels = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64).astype(np.uint8)
    predictions = [ImagePrediction("A", COLOUR), ImagePrediction("B", COLOUR)]
    figure = draw_sheet(pixels, ImageTruth(0.0), predictions, finding="F", title="x", panel=64)
    panels = [figure[6:70, 6 + at * 70 : 70 + at * 70] for at in range(4)]
    assert all((panel == panels[0]).all() for panel in panels)


def test_aspect_of_the_image_is_kept():
    options = {"finding": "F", "title": "x", "panel": 80}
    figure = draw_sheet(np.zeros((100, 80), np.uint8), ImageTruth(0.0), [], **options)
    assert figure.shape[1] == 2 * (64 + 6) + 6
    tall = draw_sheet(np.full((90, 30), 90, np.uint8), ImageTruth(0.0), [], **options)
    grey = (tall[6:86, 6:59] == 90).all(axis=2)  # padded with black, for the text below it
    assert grey.any(axis=0).sum() == 27


@pytest.mark.parametrize("pixels", [np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4), np.uint16)])
def test_image_that_is_not_8_bit_grey_is_refused(pixels):
    with pytest.raises(ValueError, match=re.escape(str(pixels.shape))):
        draw_sheet(pixels, ImageTruth(0.0), [], finding="F", title="x")


def test_box_is_drawn_at_its_position():
    box = Shape("boxes", (rectangle([16, 16, 48, 48]),), "#FF0000", width=1, rim=0)
    drawn = draw_panel(np.zeros((64, 64), np.uint8), [box], 64)
    rows, columns = np.nonzero(drawn[:, :, 0] > 100)
    assert (rows.min(), rows.max()) == pytest.approx((15.5, 47.5), abs=1)
    assert (columns.min(), columns.max()) == pytest.approx((15.5, 47.5), abs=1)


def test_hole_of_a_tinted_area_stays_clear():
    ring = (rectangle([4, 4, 60, 60]), rectangle([20, 20, 44, 44]))
    shape = Shape("map", ring, "#FFFFFF", width=0, tint=0.5, rim=0)
    drawn = draw_panel(np.zeros((64, 64), np.uint8), [shape], 64)
    assert drawn[12, 12, 0] > 100
    assert drawn[32, 32, 0] == 0


def test_overlay_survives_the_way_to_disk(tmp_path):
    image = np.zeros((4, 6, 3), np.uint8)
    image[1, 2] = (10, 20, 30)
    to_png(image, tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as again:
        assert (np.asarray(again) == image).all()
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_facts_stand_below_the_plain_image():
    plain = np.zeros((64, 64), np.uint8)
    options = {"finding": "F", "title": "a", "panel": 300}
    bare = draw_sheet(plain, ImageTruth(0.0), [], **options)
    with_facts = draw_sheet(plain, ImageTruth(0.0), [], facts="PA, inverted", **options)
    assert bare.shape[0] < with_facts.shape[0]
