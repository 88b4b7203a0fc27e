from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cxr_compare.data_prep.contracts.tables import write_table
from cxr_compare.data_prep.store.dataset import DataSet
from cxr_compare.evaluation.decisions.decided_output import DecidedOutput, shown_box_cut
from cxr_compare.evaluation.overlays.contours import ActivationGrid, contour_levels, map_shapes
from cxr_compare.evaluation.overlays.draw import draw_overlay, draw_panel, to_png
from cxr_compare.evaluation.overlays.image_prediction import ImagePrediction, ImageTruth
from cxr_compare.evaluation.overlays.outcomes import describe_score, describe_truth, outcome
from cxr_compare.evaluation.overlays.prediction_shapes import prediction_shapes
from cxr_compare.evaluation.overlays.shapes import (
    FAINT_COLOUR,
    Label,
    LabelRequest,
    Shape,
    place_labels,
    rectangle,
)
from cxr_compare.evaluation.overlays.svg import to_svg
from cxr_compare.evaluation.report.cases import CaseSource, display_text
from cxr_compare.evaluation.systems.labelled_split import LabelledSplit

COLOUR = "#56B4E9"
FRAME = (0.0, 0.0, 64.0, 64.0)
SIZE = (64, 64)
LEVELS = (1.0, 2.0, 3.0)


def drawn_shapes(*args, **options):
    return [each for each in prediction_shapes(*args, **options) if isinstance(each, Shape)]


def texts(*args, **options):
    return [each for each in prediction_shapes(*args, **options) if isinstance(each, Label)]


def blob(height: float) -> np.ndarray:
    rows, columns = np.mgrid[:8, :8]
    return height * np.exp(-((rows - 3) ** 2 + (columns - 3) ** 2) / 3)


@pytest.mark.parametrize(
    ("values", "levels"),
    [(blob(0.5), LEVELS), (blob(4.0), ()), (np.full((4, 4), np.nan), LEVELS)],
    ids=["below the levels", "no levels", "broken values"],
)
def test_healthy_lung_does_not_glow(values, levels):
    assert map_shapes(ActivationGrid(values, FRAME, levels), COLOUR) == []


def test_map_is_never_normalised_per_image():
    strong, weak = (map_shapes(ActivationGrid(blob(h), FRAME, LEVELS), COLOUR) for h in (4, 2))
    assert len(strong) == 3
    assert len(weak) == 1  # half the evidence reaches fewer of the same levels


def test_contours_lie_at_the_systems_own_probabilities():
    rng = np.random.default_rng(0)
    peaks = rng.uniform(-4, 8, 4000)
    noisy = 1 / (1 + np.exp(-(peaks - 2 + rng.normal(0, 0.3, 4000))))
    levels = contour_levels(peaks, noisy)
    expected = {p: 2 + np.log(p / (1 - p)) for p in (0.25, 0.5, 0.75)}
    assert levels == pytest.approx(expected, abs=0.15)
    assert contour_levels(peaks, np.minimum(noisy, 0.6)).keys() == {0.25, 0.5}
    assert contour_levels(np.r_[peaks, np.nan], np.r_[noisy, 0.9]) == levels


def test_a_value_that_speaks_against_the_finding_has_no_contour():
    assert contour_levels([-2.0, -1.0], [0.3, 0.9]) == {}
    assert contour_levels([np.nan], [0.9]) == {}


def test_boxes_below_the_threshold_are_thin_grey_and_few():
    boxes = np.array([[0, 0, 9, 9, score] for score in np.linspace(0.01, 0.4, 9)])
    prediction = ImagePrediction("A", COLOUR, boxes=boxes, box_cut=0.39)
    shapes = drawn_shapes(prediction, ImageTruth(0.0), SIZE)
    faint = [shape for shape in shapes if shape.colour == FAINT_COLOUR]
    assert [shape.layer for shape in faint] == ["faint"] * 5  # a layer that is shown on demand
    assert len(drawn_shapes(prediction, ImageTruth(0.0), SIZE, faint=False)) == 1
    assert len(shapes) == 6
    assert all(shape.width < shapes[-1].width for shape in faint)


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


def test_box_exactly_at_the_cut_is_drawn_in_full():
    prediction = ImagePrediction("A", COLOUR, boxes=np.array([[0, 0, 9, 9, 0.3]]), box_cut=0.3)
    assert drawn_shapes(prediction, ImageTruth(0.0), SIZE)[0].colour == COLOUR


def test_called_boxes_bear_their_scores():
    boxes = np.array([[10, 10, 30, 30, 0.914], [40, 40, 60, 60, 0.02]])
    prediction = ImagePrediction("A", COLOUR, boxes=boxes, box_cut=0.5)
    shown = [(each.layer, each.text) for each in texts(prediction, ImageTruth(0.0), SIZE)]
    assert shown == [("boxes", "0.91"), ("faint", "0.02")]


@pytest.mark.parametrize("seed", range(20))
def test_texts_stay_inside_the_image_and_off_each_other(seed):
    rng = np.random.default_rng(seed)
    corners = np.sort(rng.uniform(0, 500, (6, 2, 2)), axis=1).reshape(6, 4)  # xyxy
    corners[0] = (0, 0, 500, 500)  # no room outside
    labels = place_labels(
        [LabelRequest("boxes", box, "0.91", COLOUR) for box in corners], (500, 500), 20.0
    )
    assert labels[0].corner == (0.0, 0.0)
    for place, label in enumerate(labels):
        assert 0 <= label.corner[0] <= 500 - label.width
        assert 0 <= label.corner[1] <= 500 - label.size
        for other in labels[:place]:
            apart = np.abs(np.subtract(label.corner, other.corner))
            assert apart[1] >= 20 or apart[0] >= label.width


def test_text_without_a_free_place_is_left_out():
    box = np.array([0.0, 0.0, 40.0, 20.0])
    labels = place_labels([LabelRequest("boxes", box, "0.91", COLOUR)] * 9, (60.0, 40.0), 20.0)
    assert len(labels) == 2  # in the box and below it


@pytest.mark.parametrize(
    ("grid", "words"),
    [
        (ActivationGrid(blob(0.5), FRAME, LEVELS), ["no evidence above", "the first contour"]),
        (ActivationGrid(blob(4.0), (-64.0, -64.0, 0.0, 0.0), LEVELS),  # beyond the image
         ["no evidence above", "the first contour"]),
        (ActivationGrid(blob(4.0), FRAME, LEVELS), []),
        (None, []),  # a system without maps
    ],
)  # fmt: skip
def test_empty_map_says_that_it_is_empty(grid, words):
    prediction = ImagePrediction("A", COLOUR, grid=grid)
    assert [each.text for each in texts(prediction, None, SIZE)] == words
    assert texts(prediction, ImageTruth(1.0), SIZE) == []  # it has a caption
    no_answer = replace(prediction, withheld=True)  # says nothing, nor that there is no evidence
    assert texts(no_answer, None, SIZE) == []


def test_text_is_drawn_where_it_is_placed():
    label = Label("boxes", "0.91", (20.0, 40.0), 12.0, "#FF0000")
    drawn = draw_panel(np.zeros((64, 64), np.uint8), [label], 128)
    rows, columns = np.nonzero(drawn[:, :, 0] > 100)
    assert 80 <= rows.min() <= rows.max() <= 104
    assert 40 <= columns.min() <= columns.max() <= 40 + 2 * label.width
    assert 'x="34.4" y="46.0"' in to_svg([label])


def test_right_and_wrong_boxes_differ_by_line_not_only_by_colour():
    truth = ImageTruth(1.0, np.array([[10.0, 10.0, 30.0, 30.0]]))
    boxes = np.array([[12, 12, 28, 28, 0.9], [40, 40, 60, 60, 0.8]])
    shapes = drawn_shapes(ImagePrediction("A", COLOUR, boxes=boxes, box_cut=0.5), truth, SIZE)
    dashed = {tuple(shape.paths[0][0]): shape.dashed for shape in shapes if shape.layer == "boxes"}
    assert dashed == {(12.0, 12.0): False, (40.0, 40.0): True}


@pytest.mark.parametrize(
    ("decision", "label", "localised", "sign", "why"),
    [
        (True, 1.0, True, "right", "right image and place"),
        (True, 1.0, None, "right", "place cannot be evaluated"),
        (True, 1.0, False, "wrong", "right image, wrong place"),
        (False, 1.0, None, "wrong", "missed"),
        (True, 0.0, None, "wrong", "false alarm"),
        (False, 0.0, None, "right", "clear"),
        (None, 1.0, None, "open", "no threshold"),
        (True, float("nan"), None, "open", "truth unknown"),
    ],
)
def test_sign_says_what_became_of_the_image(decision, label, localised, sign, why):
    prediction = ImagePrediction("A", COLOUR, decision=decision, localised=localised)
    assert outcome(prediction, ImageTruth(label))[0] == sign, why


@pytest.mark.parametrize(
    ("localised", "within_cell", "words"),
    [
        (False, True, "found; points beside the lesion, within one map cell"),
        (False, False, "right image, wrong place"),
        (False, None, "right image, wrong place"),  # no system has a map
        (True, True, "found, on the lesion"),
    ],
)
def test_a_place_is_wrong_only_beyond_one_map_cell(localised, within_cell, words):
    prediction = ImagePrediction(
        "A", COLOUR, decision=True, localised=localised, within_cell=within_cell
    )
    assert outcome(prediction, ImageTruth(1.0))[1] == words
    of_another = f"{words} of B" if localised is False and within_cell else words
    assert outcome(replace(prediction, cell_of="B"), ImageTruth(1.0))[1] == of_another
    sized = f"{words} (64 px)" if localised is False and within_cell else words
    assert outcome(replace(prediction, cell=64.0), ImageTruth(1.0))[1] == sized


@pytest.mark.parametrize(
    ("score", "threshold", "words"),
    [(0.5, 0.5, "score 0.500 ≥ 0.500"), (0.50001, 0.50002, "score 0.50001 < 0.50002")],
)
def test_a_tie_is_positive_and_two_numbers_never_read_the_same(score, threshold, words):
    shown = describe_score(ImagePrediction("A", COLOUR, score=score, threshold=threshold))
    assert shown == words


@pytest.mark.parametrize(
    ("decision", "threshold", "cut", "why"),
    [
        (True, 0.3, 0.3, "all boxes at or above the threshold"),
        (True, 0.9, 0.6, "noisy-or: no box reaches the threshold, the best one decided"),
        (False, 0.3, np.inf, "a negative image shows no box in full"),
        (None, None, 0.5, "undecided"),
    ],
)
def test_boxes_in_full_follow_the_decision(decision, threshold, cut, why):
    assert shown_box_cut(np.array([0.6, 0.2]), decision, threshold) == cut, why


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


def test_every_panel_shows_the_same_window():
    pixels = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64).astype(np.uint8)
    predictions = [ImagePrediction("A", COLOUR), ImagePrediction("B", COLOUR)]
    figure = draw_overlay(pixels, ImageTruth(0.0), predictions, finding="F", title="x", panel=64)
    panels = [figure[6:70, 6 + at * 70 : 70 + at * 70] for at in range(4)]
    assert all((panel == panels[0]).all() for panel in panels)


def test_aspect_of_the_image_is_kept():
    figure = draw_overlay(
        np.zeros((100, 50), np.uint8), ImageTruth(0.0), [], finding="F", title="x", panel=80
    )
    assert figure.shape[1] == 2 * (40 + 6) + 6


@pytest.mark.parametrize("pixels", [np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4), np.uint16)])
def test_image_that_is_not_8_bit_grey_is_refused(pixels):
    with pytest.raises(ValueError, match="expected grey uint8"):
        draw_overlay(pixels, ImageTruth(0.0), [], finding="F", title="x")


def test_raster_and_vector_draw_the_box_at_the_same_place():
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


def test_boxes_of_a_map_are_all_meant(comparison):
    maps = comparison.systems["CheXNet"].maps
    boxes = comparison.systems["RetinaNet"].boxes
    decisions = comparison.decisions.query("system == 'CheXNet'").set_index("image_id")
    decisions = decisions.assign(decision=decisions["decision_max_f1"])
    output = DecidedOutput("CheXNet", decisions, boxes, maps, {0.5: 1.0}, threshold=0.5)
    assert output.prediction("p01", COLOUR).box_cut == 0.0
    assert output.prediction("p02", COLOUR).box_cut == np.inf


def test_image_without_any_output_reads_as_empty(comparison):
    output = DecidedOutput("A", comparison.decisions.iloc[:0], comparison.systems["CheXNet"].boxes)
    prediction = output.prediction("p01", COLOUR)
    assert (prediction.score, prediction.decision, len(prediction.boxes)) == (None, None, 0)


def test_overlay_survives_the_way_to_disk(tmp_path):
    image = np.zeros((4, 6, 3), np.uint8)
    image[1, 2] = (10, 20, 30)
    to_png(image, tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as again:
        assert (np.asarray(again) == image).all()
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_single_readers_are_drawn_thin_and_named(test_set, evaluation_set):
    folder, target = evaluation_set.folder, evaluation_set.target()
    image_id = evaluation_set.boxes["image_id"].iloc[0]
    assert CaseSource(test_set, ()).truth(image_id).readers == {}
    findings = pd.read_parquet(folder / "findings.parquet")
    boxes = pd.read_parquet(folder / "boxes.parquet")
    mine = findings[findings["image_id"] == image_id]
    drawn = boxes[boxes["image_id"] == image_id]
    findings = pd.concat([findings, *(mine.assign(reader=name) for name in ("R1", "R2"))])
    boxes = pd.concat([boxes, drawn.assign(reader="R1"), drawn.assign(reader="R1", x1=0.0)])
    write_table(findings, folder / "findings.parquet", "findings")
    write_table(boxes, folder / "boxes.parquet", "boxes")
    dataset = DataSet.open(folder)
    reader = CaseSource(LabelledSplit(dataset, target), ())
    truth = reader.truth(image_id)
    assert describe_truth(truth, "F") == "F: present, 1 box; R1 2 boxes, R2 0 boxes"
    assert truth.title == "Truth"
    assert replace(truth, label=np.nan).title == replace(truth, boxes=None).title == "Readers"
    both = replace(truth, readers={**truth.readers, "R2": truth.boxes})
    shapes = both.shapes((100, 100), 1 / 20)
    drawn = [(s.width, s.colour) for s in shapes if isinstance(s, Shape)]
    assert [width for width, _ in drawn] == [1.5, 1.5, 1.5, 2.0]
    assert len({colour for _, colour in drawn}) == 3
    assert [label.text for label in shapes if isinstance(label, Label)] == ["R1", "R1", "R2"]
    assert reader.truth("no such image").readers == {}


@pytest.mark.parametrize(
    ("decoded", "words"),
    [
        ({"voi": None, "inverted": True}, "grey as stored, inverted"),
        ({"voi": "percentiles", "inverted": False}, "range of the pixels, not inverted"),
        ({"voi": "window_sigmoid", "window_center": 40, "window_width": 80.5, "inverted": False},
         "window 40/80.5 of the file, not inverted"),
    ],
    ids=["no window", "deep image", "window"],
)  # fmt: skip
def test_overlay_says_how_its_greys_came_about(decoded, words):
    assert display_text(decoded) == words


def test_facts_stand_below_the_plain_image():
    plain = np.zeros((64, 64), np.uint8)
    options = {"finding": "F", "title": "a", "panel": 300}
    bare = draw_overlay(plain, ImageTruth(0.0), [], **options)
    told = draw_overlay(plain, ImageTruth(0.0), [], facts="PA, inverted", **options)
    assert bare.shape == told.shape
    assert (bare != told).any()


def test_flood_of_boxes_is_bounded_and_counted():
    boxes = np.array([[0, 0, 9, 9, score] for score in np.linspace(0.5, 0.9, 30)])
    prediction = ImagePrediction("A", COLOUR, score=0.9, threshold=0.3, boxes=boxes, box_cut=0.3)
    assert len(drawn_shapes(prediction, ImageTruth(0.0), SIZE)) == 8
    assert describe_score(prediction) == "score 0.900 ≥ 0.300; 8 of 30 boxes"
    assert describe_score(replace(prediction, boxes=boxes[:8])) == "score 0.900 ≥ 0.300"
