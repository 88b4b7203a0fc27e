"""Several systems as one: fused boxes, mean probabilities, and what is remembered."""

import numpy as np
import pandas as pd
import pytest

from cxr_compare.data_prep.contracts.boxes import EDGES
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.tables import write_table
from cxr_compare.data_prep.store.prediction_writer import PredictionWriter
from cxr_compare.data_prep.store.predictions import Predictions
from cxr_compare.evaluation.metrics.notes import Note
from cxr_compare.evaluation.systems.ensemble import (
    _check_members,
    _check_same_findings,
    _checked_weights,
    _findings_of,
    _join_classifiers,
    _join_detectors,
    _join_images,
    _joined_cost,
    _joined_id,
    _joined_seen,
)
from cxr_compare.evaluation.systems.stored_predictions import (
    common_images_of_predictions,
    describe_training_data,
)

oracle_wbf = pytest.importorskip("ensemble_boxes.ensemble_boxes_wbf")


@pytest.fixture
def detectors(predict):
    return [predict(f"D{seed}", "boxes", seed=seed) for seed in (1, 2)]


def fail(member, image_id, reason="unreadable"):
    """Mark an image of a written member as failed."""
    part = member.folder / "predicted_images.parquet" / "part-00000.parquet"
    images = member.images.copy()
    chosen = images["image_id"] == image_id
    images["reason"] = images["reason"].astype(object)
    images.loc[chosen, ["status", "reason"]] = ["failed", reason]
    write_table(images, part, "predicted_images")
    return Predictions.open(member.folder)


def test_fused_boxes_are_those_of_the_oracle(detectors, evaluation_set):
    joined = _join_detectors(detectors, evaluation_set, [2, 1])
    for image_id in evaluation_set.image_ids("val")[:20]:
        parts = [d.boxes[d.boxes["image_id"] == image_id] for d in detectors]
        boxes, scores, _ = oracle_wbf.weighted_boxes_fusion(
            [part[EDGES].to_numpy() / 100 for part in parts],
            [part["score"].to_numpy() for part in parts],
            [np.zeros(len(part)) for part in parts], weights=[2, 1], iou_thr=0.5,
        )  # fmt: skip
        ours = joined.tables["boxes"]
        ours = ours[ours["image_id"] == image_id]
        np.testing.assert_allclose(ours["score"], scores, atol=1e-6)
        np.testing.assert_allclose(ours[EDGES].to_numpy() / 100, boxes, atol=1e-6)


def test_classifiers_give_the_weighted_mean_and_their_maps_too(predict):
    members = [predict(f"C{seed}", "scores", seed=seed, maps=True) for seed in (1, 2)]
    joined = _join_classifiers(members, weights=[3, 1])
    first, second = (m.scores.set_index("image_id")["score"] for m in members)
    mean = joined.tables["scores"].set_index("image_id")["score"]
    np.testing.assert_allclose(mean, 0.75 * first[mean.index] + 0.25 * second[mean.index])
    values = [m.maps.set_index("image_id")["values"] for m in members]
    image_id = mean.index[0]
    row = joined.tables["maps"].set_index("image_id").loc[image_id]
    expected = 0.75 * values[0][image_id] + 0.25 * values[1][image_id]
    np.testing.assert_allclose(row["values"], expected)


def test_maps_that_differ_in_grid_are_left_out_and_said(predict):
    members = [predict("C1", "scores", seed=1, maps=True), predict("C2", "scores", seed=2)]
    joined = _join_classifiers(members, [1, 1])
    assert "maps" not in joined.tables
    assert joined.notes == [
        "Activation maps left out: the members' maps are not of one kind and grid."
    ]


def test_an_image_that_failed_in_one_member_failed_and_gives_nothing(detectors, evaluation_set):
    lost = detectors[0].boxes["image_id"].iloc[0]
    members = [detectors[0], fail(detectors[1], lost)]
    joined = _join_detectors(members, evaluation_set, [1, 1])
    row = joined.images.set_index("image_id").loc[lost]
    assert (row["status"], row["reason"]) == ("failed", "D2: unreadable")
    assert (joined.images["status"] == "failed").sum() == 1
    assert lost not in set(joined.tables["boxes"]["image_id"])
    both = _join_images([fail(members[0], lost, "too dark"), members[1]])
    assert both.set_index("image_id").loc[lost, "reason"] == "D1: too dark; D2: unreadable"


def test_members_that_do_not_belong_together_are_refused(predict, evaluation_set, detectors):
    with pytest.raises(InputError, match="at least two"):
        _check_members(detectors[:1], evaluation_set)
    with pytest.raises(InputError, match="says the same as"):
        _check_members([detectors[0], detectors[0]], evaluation_set)
    fewer = predict("D3", "boxes", seed=3, skip=(detectors[0].boxes["image_id"].iloc[0],))
    with pytest.raises(InputError, match=r"other images than .*1 differ"):
        _check_members([detectors[0], fewer], evaluation_set)
    other = Predictions(detectors[1].folder, detectors[1].info | {"data_set": {"content_id": "x"}})
    with pytest.raises(InputError, match="content_id x"):
        _check_members([detectors[0], other], evaluation_set)
    mass = Predictions(detectors[1].folder, detectors[1].info | {"findings": ["mass"]})
    with pytest.raises(InputError, match=r"systems of the same findings$"):
        _check_same_findings([detectors[0], mass])
    shared = sorted(_findings_of(detectors[0]))[0]
    more = Predictions(detectors[1].folder, detectors[1].info | {"findings": ["mass", shared]})
    with pytest.raises(InputError, match=f"--finding {shared}' leaves out the others"):
        _check_same_findings([detectors[0], more])


@pytest.mark.parametrize(
    "weights", [[1.0], [1.0, -1.0], [1.0, float("nan")], [1e308, 1e308], [1.0, 1e-300]]
)
def test_wrong_weights_are_refused(weights):
    with pytest.raises(InputError, match="--weights: 2 members need 2 numbers"):
        _checked_weights(weights, 2)


def with_info(member, **facts):
    return Predictions(member.folder, member.info | facts)


COST = {"parameters": 10, "flops": 5.0, "latency_ms": 2.0, "latency_device": "cpu"}
TRAINED = {"size_bytes": 8, "train_seconds": 60.0, "train_device": "cpu", "peak_memory_bytes": 5}


@pytest.mark.parametrize(
    ("cost", "of_the_second", "total"),
    [
        (COST, {}, {"parameters": 20, "flops": 10.0, "latency_ms": 4.0, "latency_device": "cpu"}),
        (COST, {"latency_device": "gpu", "flops": None},
         {"parameters": 20, "flops": None, "latency_ms": None}),
        # Memory is that of the largest member.
        (TRAINED, {"peak_memory_bytes": 9},
         {"size_bytes": 16, "train_seconds": 120, "peak_memory_bytes": 9, "flops": None}),
        (TRAINED, {"train_device": "gpu"}, {"size_bytes": 16, "train_seconds": None}),
    ],
)  # fmt: skip
def test_cost_is_summed_and_unknown_where_it_cannot_be(detectors, cost, of_the_second, total):
    costs = (cost, cost | of_the_second)
    members = [with_info(m, cost=each) for m, each in zip(detectors, costs, strict=True)]
    found = _joined_cost(members, "A + B")
    assert {key: found[key] for key in total} == total
    assert found["made_of"] == "A + B"


def write_seen(member, ids, role):
    frame = pd.DataFrame({"image_id": ids, "patient_id": [f"p{i}" for i in ids], "role": role})
    write_table(frame, member.folder / "seen.parquet", "seen")


def test_what_any_member_has_seen_is_seen(detectors):
    write_seen(detectors[0], ["a", "b"], ["train", "test"])
    write_seen(detectors[1], ["b", "c"], ["val", "train"])
    seen, unknown = _joined_seen(detectors)
    assert dict(zip(seen["image_id"], seen["role"], strict=True)) == {
        "a": "train", "b": "val", "c": "train"
    }  # fmt: skip
    assert unknown == []


def test_a_member_that_does_not_tell_what_it_has_seen_is_named(detectors, test_set, tmp_path):
    write_seen(detectors[0], ["elsewhere"], ["train"])
    seen, unknown = _joined_seen(detectors)
    assert unknown == ["D2"]
    info = detectors[0].info | {"system": "E", "seen_unknown": unknown, "inference_id": "e"}
    with PredictionWriter(tmp_path / "E", info) as writer:
        writer.add(detectors[0].images, boxes=detectors[0].boxes)
        write_table(seen, tmp_path / "E" / "seen.parquet", "seen")
    system = Predictions.open(tmp_path / "E")
    _, notes = common_images_of_predictions({"E": system}, test_set)
    told = "What D2 in E was trained on is unknown: test images may not be new to it."
    assert Note("training", told) in notes
    assert describe_training_data(system)["unknown"] == "D2"


def test_the_id_follows_members_and_settings(detectors):
    first = _joined_id(detectors, {"iou": 0.5})
    assert first == _joined_id(detectors, {"iou": 0.5})
    assert first != _joined_id(detectors, {"iou": 0.6})
    assert first != _joined_id(detectors[::-1], {"iou": 0.5})


def test_an_ensemble_that_holds_the_spread_of_its_members_still_opens(predict, tmp_path):
    member = predict("C1", "scores", seed=1)
    with PredictionWriter(tmp_path / "old", member.info) as writer:
        writer.add(member.images, scores=member.scores.assign(spread=0.1))
    assert Predictions.open(tmp_path / "old").scores["score"].equals(member.scores["score"])
