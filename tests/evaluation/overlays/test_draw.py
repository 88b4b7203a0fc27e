"""Overlays as pixels and as SVG."""

import re

import numpy as np
import pytest
from PIL import Image

from cxr_compare.evaluation.overlays.draw import draw_overlay, draw_panel, to_png
from cxr_compare.evaluation.overlays.image_prediction import ImagePrediction, ImageTruth
from cxr_compare.evaluation.overlays.shapes import (
    Label,
    Shape,
    rectangle,
)
from cxr_compare.evaluation.overlays.svg import to_svg

COLOUR = "#56B4E9"


def test_png_shows_boxes_below_the_threshold_when_asked_to():
    prediction = ImagePrediction("A", COLOUR, boxes=np.array([[8, 8, 40, 40, 0.1]]), box_cut=0.5)
    plain = np.zeros((64, 64), np.uint8)
    options = {"finding": "F", "title": "a", "panel": 96}
    drawn = [
        draw_overlay(plain, ImageTruth(0.0), [prediction], **options, faint=on) for on in (0, 1)
    ]
    system = slice(-102, -6)  # the last panel
    assert not drawn[0][6:102, system].any()
    assert drawn[1][6:102, system].any()


def test_text_is_drawn_where_it_is_placed():
    label = Label("boxes", "0.91", (20.0, 40.0), 12.0, "#FF0000")
    drawn = draw_panel(np.zeros((64, 64), np.uint8), [label], 128)
    rows, columns = np.nonzero(drawn[:, :, 0] > 100)
    assert 80 <= rows.min() <= rows.max() <= 104
    assert 40 <= columns.min() <= columns.max() <= 40 + 2 * label.width
    assert 'x="34.4" y="46.0"' in to_svg([label])


def test_text_stays_outside_the_image():
    pixels = np.full((64, 64), 90, np.uint8)
    prediction = ImagePrediction(
        "A system of a very long name, longer than its panel", COLOUR, score=0.1
    )
    figure = draw_overlay(
        pixels, ImageTruth(0.0), [prediction], finding="Opacity", title="x", panel=96
    )
    assert (figure[6 : 6 + 96, 6 : 6 + 96] == 90).all()
    assert figure.shape[0] > 96
    assert (figure[-1] == 255).all()


def test_long_captions_are_wrapped_and_not_cut():
    def drawn(system: str, title: str) -> np.ndarray:
        prediction = ImagePrediction(system, COLOUR, score=0.1)
        return draw_overlay(
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
    figure = draw_overlay(pixels, ImageTruth(0.0), predictions, finding="F", title="x", panel=64)
    panels = [figure[6:70, 6 + at * 70 : 70 + at * 70] for at in range(4)]
    assert all((panel == panels[0]).all() for panel in panels)


def test_aspect_of_the_image_is_kept():
    options = {"finding": "F", "title": "x", "panel": 80}
    figure = draw_overlay(np.zeros((100, 80), np.uint8), ImageTruth(0.0), [], **options)
    assert figure.shape[1] == 2 * (64 + 6) + 6
    tall = draw_overlay(np.full((90, 30), 90, np.uint8), ImageTruth(0.0), [], **options)
    grey = (tall[6:86, 6:59] == 90).all(axis=2)  # padded with black, for the text below it
    assert grey.any(axis=0).sum() == 27


@pytest.mark.parametrize("pixels", [np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4), np.uint16)])
def test_image_that_is_not_8_bit_grey_is_refused(pixels):
    with pytest.raises(ValueError, match=re.escape(str(pixels.shape))):
        draw_overlay(pixels, ImageTruth(0.0), [], finding="F", title="x")


def test_raster_and_vector_draw_the_box_at_the_same_position():
    box = Shape("boxes", (rectangle([16, 16, 48, 48]),), "#FF0000", width=1, rim=0)
    drawn = draw_panel(np.zeros((64, 64), np.uint8), [box], 64)
    rows, columns = np.nonzero(drawn[:, :, 0] > 100)
    assert (rows.min(), rows.max()) == pytest.approx((15.5, 47.5), abs=1)
    assert (columns.min(), columns.max()) == pytest.approx((15.5, 47.5), abs=1)
    assert 'd="M16 16L48 16L48 48L16 48Z"' in to_svg([box])


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
    bare = draw_overlay(plain, ImageTruth(0.0), [], **options)
    with_facts = draw_overlay(plain, ImageTruth(0.0), [], facts="PA, inverted", **options)
    assert bare.shape[0] < with_facts.shape[0]
