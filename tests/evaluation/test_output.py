"""What a system says of some images: read part by part, boxes and findings to one score."""

import pandas as pd
import pytest

from cxr_compare.data_prep.contracts.finding_names import Target
from cxr_compare.data_prep.store.prediction_info import PredictionsInfo
from cxr_compare.data_prep.store.prediction_writer import PredictionWriter
from cxr_compare.data_prep.store.predictions import Predictions
from cxr_compare.evaluation.boxes.map_boxes import MapBoxRule
from cxr_compare.evaluation.reduction import Reduction
from cxr_compare.evaluation.sources.read_predictions import read_output

TARGET = Target("either", ("x", "y"), "X or Y")
FRAME = {"x1": 0.0, "y1": 0.0, "x2": 20.0, "y2": 10.0}


@pytest.fixture
def classifier(tmp_path):
    """Two parts; image c failed; finding z is outside the target."""
    info = PredictionsInfo(system="S", kind="scores", inference_id="s")
    with PredictionWriter(tmp_path / "classifier", info) as writer:
        for image, status in (("a", "ok"), ("b", "ok"), ("c", "failed")):
            images = pd.DataFrame({"image_id": [image], "status": status, "reason": None})
            if status == "failed":
                writer.add(images)
                continue
            findings = ["x", "y", "z"]
            scores = pd.DataFrame({"image_id": image, "finding": findings})
            scores["score"] = [0.2, 0.6, 0.9] if image == "a" else [0.5, 0.1, 0.9]
            maps = pd.DataFrame({"image_id": image, "finding": findings, "method": "cam"})
            maps = maps.assign(grid_h=1, grid_w=2, **FRAME)
            maps["values"] = [[1.0, 0.0], [0.0, 1.0], [0.0, 9.0]]
            writer.add(images, scores=scores, maps=maps)
    return Predictions.open(tmp_path / "classifier")


def test_only_asked_images_and_members_of_the_target_are_read(classifier):
    rows = classifier.rows("scores", TARGET.any_of, pd.Index(["b"]))
    assert rows[["image_id", "finding"]].to_numpy().tolist() == [["b", "x"], ["b", "y"]]
    assert classifier.rows("boxes", TARGET.any_of, pd.Index(["b"])).empty


def test_a_target_of_two_findings_takes_the_higher_score_and_its_map(classifier):
    output = read_output(classifier, TARGET, pd.Index(["b", "a"]))
    assert output.scores(None).tolist() == [0.5, 0.6]
    assert output.maps.set_index("image_id")["finding"].to_dict() == {"a": "y", "b": "x"}
    # a: the map of y peaks right; b: the map of x peaks left.
    assert output.points()["point_x"].tolist() == [5.0, 15.0]


def test_without_a_scale_maps_give_no_boxes(classifier):
    output = read_output(classifier, TARGET, pd.Index(["a"]))
    assert output.boxes(output.scores(None), None, None) is None
    boxes = output.boxes(output.scores(None), (0.0, 1.0), MapBoxRule(0.5))
    assert boxes["score"].round(6).tolist() == [0.6]


def test_a_detector_answers_with_boxes_of_the_target_only(tmp_path):
    info = PredictionsInfo(system="D", kind="boxes", inference_id="d")
    boxes = pd.DataFrame({"image_id": "a", "finding": ["x", "z"], "score": [0.4, 0.9], **FRAME})
    with PredictionWriter(tmp_path / "detector", info) as writer:
        images = pd.DataFrame({"image_id": ["a", "b"], "status": "ok", "reason": None})
        writer.add(images, boxes=boxes)
    output = read_output(Predictions.open(tmp_path / "detector"), TARGET, pd.Index(["a", "b"]))
    assert output.scores(Reduction("max")).tolist() == [0.4, 0.0]
    points = output.points()
    assert points.loc["a"].tolist() == [10.0, 5.0]
    assert points.loc["b"].isna().all()
    assert len(output.boxes(output.scores(None), None, None)) == 1
