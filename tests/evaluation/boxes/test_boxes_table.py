"""One table from what detection libraries return, and box metrics that take their outputs."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from cxr_compare import metrics
from cxr_compare.data_prep.contracts.boxes import EDGES
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.evaluation.boxes.boxes_table import boxes_table

torch = pytest.importorskip("torch")
IDS = ["a", "b", "c"]
EXPECTED = pd.DataFrame({
    "image_id": ["a", "a", "c"], "x1": [10.0, 50, 7], "y1": [20.0, 60, 8], "x2": [30.0, 90, 17],
    "y2": [40.0, 80, 28], "score": [0.75, 0.25, 0.5],
})  # fmt: skip
COLUMNS = ["image_id", *EDGES, "score"]


def of_image(image_id: str) -> pd.DataFrame:
    return EXPECTED[EXPECTED["image_id"] == image_id]


def torchvision_outputs(scores: bool = True, **of_tensor: Any) -> list[dict[str, Any]]:
    outputs = []
    for image_id in IDS:
        rows = of_image(image_id)
        output = {
            "boxes": torch.tensor(rows[EDGES].to_numpy(), **of_tensor).reshape(-1, 4),
            "labels": torch.ones(len(rows), dtype=torch.int64),
        }
        if scores:
            output["scores"] = torch.tensor(rows["score"].to_numpy(), **of_tensor)
        outputs.append(output)
    return outputs


def coco_results() -> list[dict[str, Any]]:
    return [
        {"image_id": row.image_id, "category_id": 1, "score": row.score,
         "bbox": [row.x1, row.y1, row.x2 - row.x1, row.y2 - row.y1]}
        for row in EXPECTED.itertuples()
    ]  # fmt: skip


def ultralytics_results() -> list[Any]:
    """Objects with the documented attributes of a result, for the package is AGPL."""
    results = []
    for image_id in IDS:
        rows = of_image(image_id)
        boxes = SimpleNamespace(
            xyxy=torch.tensor(rows[EDGES].to_numpy()),
            conf=torch.tensor(rows["score"].to_numpy()),
            cls=torch.zeros(len(rows)),
        )
        path = f"/images/{image_id}.png"
        results.append(SimpleNamespace(boxes=boxes, names={0: "opacity"}, path=path))
    return results


def assert_expected(table: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(
        table[COLUMNS], EXPECTED, check_dtype=False, check_index_type=False
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dicts_of_torchvision_and_torchmetrics_become_a_table(dtype):
    table = boxes_table(torchvision_outputs(dtype=dtype), IDS)
    assert_expected(table)
    assert table["finding"].tolist() == ["1", "1", "1"]
    named = boxes_table(torchvision_outputs(dtype=dtype), IDS, class_names={1: "opacity"})
    assert set(named["finding"]) == {"opacity"}


def test_class_numbers_with_a_point_are_the_same_classes():
    outputs = [{"boxes": torch.tensor([[1.0, 2, 3, 4]]), "labels": torch.tensor([1.0])}]
    frame = boxes_table(outputs, ["a"])
    assert frame["finding"].tolist() == ["1"]
    frame = frame.assign(finding=[1.0])
    for boxes in (outputs, frame):
        assert boxes_table(boxes, ["a"], class_names=["x", "y"])["finding"].tolist() == ["y"]
    assert boxes_table(outputs, ["a"], class_names={1.0: "y"})["finding"].tolist() == ["y"]


def test_names_of_classes_are_by_number():
    outputs = [{"boxes": [[1, 2, 3, 4]], "labels": [1]}]
    by_index = pd.Series(["x", "y"], index=[1, 2])
    assert boxes_table(outputs, ["a"], class_names=by_index)["finding"].tolist() == ["x"]
    for names in ("opacity", {"opacity": 1}, [None, None], 2):
        with pytest.raises(InputError, match="class"):
            boxes_table(outputs, ["a"], class_names=names)


def test_tensors_that_need_gradients_become_a_table():
    outputs = torchvision_outputs()
    for output in outputs:
        output["boxes"].requires_grad_()
        output["scores"].requires_grad_()
    assert_expected(boxes_table(outputs, IDS))


def test_boxes_of_torchvision_that_state_their_format_are_read_by_it():
    from torchvision.tv_tensors import BoundingBoxes

    outputs = torchvision_outputs()
    for output in outputs:
        first, second = output["boxes"][:, :2], output["boxes"][:, 2:]
        sides = torch.hstack([first, second - first])
        output["boxes"] = BoundingBoxes(sides, format="XYWH", canvas_size=(99, 99))
    assert_expected(boxes_table(outputs, IDS))


def test_the_real_predictions_of_torchvision_become_a_table():
    import torchvision

    torch.manual_seed(0)
    model = torchvision.models.detection.fasterrcnn_mobilenet_v3_large_320_fpn(
        weights=None, weights_backbone=None, num_classes=2, box_score_thresh=0.0
    ).eval()
    with torch.no_grad():
        outputs = model([torch.rand(3, 64, 64) for _ in IDS])
    table = boxes_table(outputs, IDS)
    assert len(table) == sum(len(output["boxes"]) for output in outputs) > 0
    first = outputs[0]["boxes"].numpy()
    np.testing.assert_allclose(table.query("image_id == 'a'")[EDGES].to_numpy(), first)


def test_detections_of_supervision_become_a_table():
    sv = pytest.importorskip("supervision")
    outputs = []
    for image_id in IDS:
        rows = of_image(image_id)
        one = sv.Detections(
            xyxy=rows[EDGES].to_numpy().reshape(-1, 4),
            confidence=rows["score"].to_numpy(),
            class_id=np.zeros(len(rows), int),
            data={"class_name": np.array(["opacity"] * len(rows))},
        )
        outputs.append(one if len(rows) else sv.Detections.empty())
    table = boxes_table(outputs, IDS)
    assert_expected(table)
    assert set(table["finding"]) == {"opacity"}
    assert len(boxes_table(outputs[0], ["a"])) == 2  # one image alone


def test_files_of_ultralytics_decide_where_the_ids_are_in_another_order():
    table = boxes_table(ultralytics_results(), ["c.png", "a.png", "b.png"])
    expected = EXPECTED.assign(image_id=EXPECTED["image_id"] + ".png")
    pd.testing.assert_frame_equal(table[COLUMNS], expected, check_dtype=False)


def test_files_of_ultralytics_that_contradict_the_ids_are_refused_and_folders_count():
    results = ultralytics_results()
    with pytest.raises(InputError, match=r"outputs\[1\].*b\.png"):
        boxes_table(results, ["b", "z", "c"])
    for result, folder in zip(results, "xyz", strict=True):
        result.path = f"/images/{folder}/view1.png"
    table = boxes_table(results, ["z/view1.png", "x/view1.png", "y/view1.png"])
    assert table["image_id"].tolist() == ["x/view1.png", "x/view1.png", "z/view1.png"]


def test_results_of_ultralytics_are_named_by_their_files_or_by_ids():
    table = boxes_table(ultralytics_results())
    assert_expected(table)
    assert set(table["finding"]) == {"opacity"}
    other = boxes_table(ultralytics_results(), (7, 8, 9))
    assert other["image_id"].tolist() == ["7", "7", "9"]
    results = ultralytics_results()
    for result, path in zip(results, ("p2/0", "p3/1", "p1/0"), strict=True):
        result.path = f"/images/{path}.png"
    by_path = boxes_table(results, ("p1/0", "p2/0", "p3/1"))
    assert by_path["image_id"].tolist() == ["p2/0", "p2/0", "p1/0"]
    with pytest.raises(InputError, match="p2/0"):
        boxes_table(results, ("p1/0", "p2/0", "p4/1"))


def test_coco_results_need_no_ids_and_annotations_keep_their_crowds():
    assert_expected(boxes_table(coco_results()))
    drawn = [{key: entry[key] for key in ("image_id", "bbox")} for entry in coco_results()]
    table = boxes_table([{**entry, "iscrowd": n == 1} for n, entry in enumerate(drawn)])
    assert table["crowd"].tolist() == [False, True, False]
    assert "score" not in table


@pytest.mark.parametrize(
    "columns",
    [
        ["filename", "xmin", "ymin", "xmax", "ymax", "confidence"],
        ["image_id", "x", "y", "width", "height", "score"],
        ["Image Index", "cx", "cy", "w", "h", "prob"],
    ],
)
def test_frames_are_read_under_the_usual_names_of_columns(columns):
    sides = EXPECTED[["x2", "y2"]].to_numpy() - EXPECTED[["x1", "y1"]].to_numpy()
    edges = EXPECTED[EDGES].to_numpy()
    edges = np.hstack([edges[:, :2], sides]) if "xmax" not in columns else edges
    edges = np.hstack([edges[:, :2] + sides / 2, sides]) if "cx" in columns else edges
    frame = pd.DataFrame(edges, columns=columns[1:5])
    frame[columns[0]], frame[columns[5]] = EXPECTED["image_id"], EXPECTED["score"]
    assert_expected(boxes_table(frame))


def test_shares_become_px_with_the_sizes_of_the_images():
    shares = EXPECTED.assign(**{edge: EXPECTED[edge] / 100 for edge in EDGES})
    with pytest.raises(InputError, match=r"row 0, image 'a'.*shares"):
        boxes_table(shares)
    sizes = dict.fromkeys(IDS, (100, 100))
    assert_expected(boxes_table(shares, image_sizes=sizes, in_shares=True))
    frame = pd.DataFrame({"image_id": IDS, "width": 100, "height": 100})
    assert_expected(boxes_table(shares, image_sizes=frame, in_shares=True))


@pytest.mark.parametrize(
    "sizes",
    [
        {"a": (100, 100), "b": (100, 200, 3)},
        {"a": (100, 100), "b": 100},
        {"a": (100, 100), "b": (100, 0)},
        {"a": (100, 100), "b": (90, 90), 2: (50, 50), "2": (60, 60)},
        pd.DataFrame({"image_id": ["a", "b"], "width": [100, "wide"], "height": 100}),
        pd.DataFrame({"image_id": ["a", "b", "b"], "width": [100, 100, 90], "height": 100}),
        [(100, 100)],
    ],
)
def test_a_size_that_is_not_one_width_and_height_is_refused(sizes):
    outputs = [{"boxes": [[0.1, 0.2, 0.3, 0.4]]}] * 2
    with pytest.raises(InputError, match="image_sizes"):
        boxes_table(outputs, ["a", "b"], image_sizes=sizes, in_shares=True)


@pytest.mark.parametrize("form", ["xyxy", "xywh"])
def test_boxes_with_y_before_x_are_turned_as_the_user_says(form):
    outputs = torchvision_outputs()
    for output in outputs:
        if form == "xywh":
            output["boxes"][:, 2:] -= output["boxes"][:, :2]
        output["boxes"] = output["boxes"][:, [1, 0, 3, 2]]
    assert_expected(boxes_table(outputs, IDS, box_format=form, order="yxyx"))
    with pytest.raises(InputError, match="yx"):
        boxes_table(outputs, IDS, order="yx")


METRICS = {
    "box_average_precision": metrics.box_average_precision,
    "froc": metrics.froc,
    "match_boxes": metrics.match_boxes,
}


def plain(result: Any) -> Any:
    """The values of a result as lists."""
    if isinstance(result, dict):
        return result
    values = result if isinstance(result, tuple) else vars(result).values()
    return [value.tolist() for value in values]


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
def test_box_metrics_take_outputs_of_libraries_and_any_sequence_of_ids(metric):
    truth = EXPECTED.drop(columns="score").assign(x1=EXPECTED["x1"] + 1)
    expected = metric(EXPECTED, truth, pd.Index(IDS))
    drawn = [{"boxes": truth.loc[truth["image_id"] == name, EDGES].to_numpy()} for name in IDS]
    of_libraries = (torchvision_outputs(), ultralytics_results(), coco_results())
    sequences = (tuple(IDS), np.array(IDS), pd.Series(IDS, index=[4, 5, 6]))
    for boxes, ids in zip(of_libraries, sequences, strict=True):
        assert plain(metric(boxes, drawn, ids)) == plain(expected)
    assert plain(metric(EXPECTED, truth, IDS)) == plain(expected)


@pytest.mark.parametrize(
    ("metric", "argument"),
    [
        (metrics.froc, {"hit": "center"}),
        (metrics.iobb, {"cut": 50}),
        (metrics.iobb, {"cut": np.nan}),
        (metrics.match_boxes, {"iou_thresholds": [50]}),
        (metrics.match_boxes, {"iou_thresholds": [0.0]}),
        (metrics.match_boxes, {"iou_thresholds": 0.5}),
    ],
)
def test_an_argument_that_would_match_nothing_or_everything_is_refused(metric, argument):
    [name] = argument
    with pytest.raises(InputError, match=name):
        metric(EXPECTED, EXPECTED.drop(columns="score"), IDS, **argument)


def test_average_precision_of_torchmetrics_inputs_is_that_of_torchmetrics():
    detection = pytest.importorskip("torchmetrics.detection")
    truth = torchvision_outputs(scores=False)
    truth[0]["boxes"] = truth[0]["boxes"] + 3
    evaluated = detection.MeanAveragePrecision(backend="faster_coco_eval")
    evaluated.update(torchvision_outputs(), truth)
    theirs = evaluated.compute()
    ours = metrics.box_average_precision(torchvision_outputs(), truth, IDS)
    assert ours["ap50"] == pytest.approx(float(theirs["map_50"]), abs=1e-6)
    assert ours["ap"] == pytest.approx(float(theirs["map"]), abs=1e-6)


def with_first(key: str, value: Any) -> list[dict[str, Any]]:
    outputs = torchvision_outputs()
    outputs[0][key] = value
    return outputs


@pytest.mark.parametrize(
    ("outputs", "ids", "says"),
    [
        (torchvision_outputs(), ["a", "b"], "3 outputs and 2 image_ids"),
        (torchvision_outputs(), ["a", "b", "b"], "'b'"),
        (torchvision_outputs(), "abc", "'abc'"),
        (torchvision_outputs(), ["a", None, "c"], "number 1"),
        (torchvision_outputs(), None, "image"),
        (with_first("scores", [0.5]), IDS, r"outputs\[0\]: has 2 boxes and 1 scores"),
        (with_first("boxes", torch.ones(2, 3)), IDS, r"shape \(N, 4\), got \(2, 3\)"),
        (with_first("boxes", [[1, 2], [3]]), IDS, r"outputs\[0\]: boxes: are no numbers"),
        (with_first("scores", torch.tensor([0.5, np.nan])), IDS,
         "outputs: number 0, box 1, image 'a': score=nan"),
        (with_first("boxes", [[10, 20, 5, 40], [1, 2, 3, 4]]), IDS, r"box 0, image 'a': box \[10"),
        ([{"scores": [0.5]}], ["a"], r"outputs\[0\]: has no 'boxes'; it has scores"),
        ([*torchvision_outputs()[:2], torchvision_outputs(scores=False)[2]], IDS,
         r"outputs\[2\]: has no scores, and others have"),
        ([7], ["a"], r"outputs\[0\]: expected a dict with boxes"),
        ([], ["a"], "empty list"),
        ([{"image_id": 1, "bbox": [1, 2, 3]}], None, "entry 0 needs image_id and bbox"),
        (pd.DataFrame({"name": ["a"]}), None, "'image_id'"),
        ({"image_id": ["a"]}, None, "dict of image_id"),
        (torchvision_outputs(), set(IDS), "set"),
        (torchvision_outputs(), pd.Index(["a", None, "c"], dtype="str"), "number 1"),
        (with_first("labels", [1, None]), IDS, "number 0, box 1: the class is missing"),
        ([{"image_id": 1, "bbox": [1, 2, 3, 4], "category_id": 2},
          {"image_id": 1, "bbox": [1, 2, 3, 4]}], None, "entry 1 has no category_id"),
        (EXPECTED.assign(crowd="few"), None, "row 0: crowd='few'"),
        (EXPECTED.assign(image_id=["a", " ", "c"]), None, "row 1: image_id is missing"),
        ([{"image_id": None, "bbox": [1, 2, 3, 4]}], None, "entry 0 needs image_id"),
        (pd.DataFrame({"patientId": ["a", None], "PredictionString": "0.5 1 2 3 4"}), None,
         "row 1: patientId is missing"),
        (pd.DataFrame({"image_id": ["a", None], "answer": "<loc0001><loc0002><loc0003><loc0004>"}),
         None, "row 1: image_id is missing"),
        (EXPECTED.assign(score="high"), None, "row 0, image 'a': score='high' is no number"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_refused_by_output_image_and_value(outputs, ids, says):
    with pytest.raises(InputError, match=says):
        boxes_table(outputs, ids)


def test_coco_results_that_look_like_corners_need_a_stated_format():
    corners = [
        {"image_id": n, "bbox": [100 + n, 120, 300 + n, 320], "score": 0.5} for n in range(12)
    ]
    with pytest.raises(InputError, match=r"entry 0, image '0'.*corners.*box_format"):
        boxes_table(corners)
    assert boxes_table(corners, box_format="xyxy")["x2"].tolist() == [300 + n for n in range(12)]
    assert boxes_table(corners, box_format="xywh")["x2"].iloc[0] == 400


def test_classes_that_differ_in_spelling_alone_give_the_figure_without_a_warning(recwarn):
    found = EXPECTED.assign(finding="Mass")
    truth = EXPECTED.drop(columns="score")
    figures = metrics.box_average_precision(found, truth.assign(finding="mass"), IDS)
    assert figures == metrics.box_average_precision(EXPECTED, truth, IDS)
    assert not recwarn.list
    found.loc[1, "finding"] = None
    with pytest.raises(InputError, match="row 1"):
        metrics.box_average_precision(found, truth.assign(finding="mass"), IDS)


def test_boxes_of_several_classes_give_no_figure_of_one_class():
    outputs = torchvision_outputs()
    outputs[0]["labels"] = torch.tensor([1, 2])
    with pytest.raises(InputError, match=r"boxes: .*\b2 classes \(1, 2\)"):
        metrics.box_average_precision(outputs, torchvision_outputs(scores=False), IDS)


def test_corners_read_as_sides_are_asked_about_where_sizes_are_known():
    corners = [{"image_id": "a", "bbox": [500 + n, 500, 700, 700]} for n in range(4)]
    with pytest.raises(InputError, match=r"entry 0, image 'a'.*are these corners\?.*\"xyxy\""):
        boxes_table(corners, image_sizes={"a": (1000, 1000)})
    table = boxes_table(corners, image_sizes={"a": (1000, 1000)}, box_format="xyxy")
    assert table["x2"].tolist() == [700] * 4


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
def test_two_lists_of_outputs_need_no_ids(metric):
    truth = torchvision_outputs(scores=False)
    assert plain(metric(torchvision_outputs(), truth)) == plain(
        metric(torchvision_outputs(), truth, IDS)
    )
    with pytest.raises(InputError, match=r"boxes: .*\b3\b.*\b2\b"):
        metric(torchvision_outputs(), truth[:2])
    with pytest.raises(InputError, match="image_ids: missing, and boxes is no list"):
        metric(EXPECTED, truth)


def test_coco_results_that_loadres_has_read_keep_their_scores():
    from pycocotools.coco import COCO

    truth = COCO()
    truth.dataset = {"images": [{"id": 1}], "annotations": [], "categories": [{"id": 1}]}
    truth.createIndex()
    result = truth.loadRes([{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.5}])
    assert boxes_table(result.dataset["annotations"])["score"].tolist() == [0.5]


def test_a_box_without_width_is_left_out_with_a_warning_and_many_are_refused():
    outputs = [{"boxes": [[8, 8, 12, 12]], "scores": [0.5]} for _ in range(11)]
    outputs[3]["boxes"] = [[12, 8, 12, 12]]
    ids = [f"i{number}" for number in range(11)]
    with pytest.warns(UserWarning, match="i3"):
        table = boxes_table(outputs, ids)
    assert set(table["image_id"]) == {*ids} - {"i3"}
    with pytest.raises(InputError, match="i3"):
        boxes_table(outputs[:4], ids[:4])
