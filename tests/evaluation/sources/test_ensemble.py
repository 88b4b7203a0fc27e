"""Ensembles: fused boxes, mean probabilities, and the recorded members, costs and training data."""

import itertools

import numpy as np
import pandas as pd
import pytest

from cxr_compare.data_prep.contracts.boxes import EDGES
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.store.prediction_info import MadeOn
from cxr_compare.data_prep.store.predictions import Predictions
from cxr_compare.evaluation.sources.ensemble import join_systems
from cxr_compare.evaluation.sources.stored_predictions import describe_training_data, read_eligible
from tests.stored_json import bind_tables, put_table

oracle_wbf = pytest.importorskip("ensemble_boxes.ensemble_boxes_wbf")


@pytest.fixture
def detectors(predict):
    return [predict(f"D{seed}", "boxes", seed=seed) for seed in (1, 2)]


@pytest.fixture
def join(evaluation_set, tmp_path):
    """Join members in a predictions folder."""
    numbers = itertools.count()

    def join_members(members):
        return join_systems(members, evaluation_set, tmp_path / f"ensemble-{next(numbers)}")

    return join_members


def fail(member, image_id, reason="unreadable"):
    """Mark an image of a written member as failed."""
    part = member.folder / "predicted_images.parquet" / "part-00000.parquet"
    images = member.images.copy()
    chosen = images["image_id"] == image_id
    images["reason"] = images["reason"].astype(object)
    images.loc[chosen, ["status", "reason"]] = ["failed", reason]
    put_table(images, part, "predicted_images")
    return Predictions.open(member.folder)


def test_fused_boxes_are_those_of_the_oracle(detectors, evaluation_set, join):
    joined = join(detectors)
    for image_id in evaluation_set.image_ids("val")[:20]:
        parts = [d.boxes[d.boxes["image_id"] == image_id] for d in detectors]
        boxes, scores, _ = oracle_wbf.weighted_boxes_fusion(
            [part[EDGES].to_numpy() / 100 for part in parts],
            [part["score"].to_numpy() for part in parts],
            [np.zeros(len(part)) for part in parts],
            iou_thr=0.5,
        )
        ours = joined.boxes[joined.boxes["image_id"] == image_id]
        np.testing.assert_allclose(ours["score"], scores, atol=1e-6)
        np.testing.assert_allclose(ours[EDGES].to_numpy() / 100, boxes, atol=1e-6)


def test_classifiers_give_the_mean_and_their_maps_too(predict, join):
    members = [predict(f"C{seed}", "scores", seed=seed, maps=True) for seed in (1, 2)]
    joined = join(members)
    first, second = (m.scores.set_index("image_id")["score"] for m in members)
    mean = joined.scores.set_index("image_id")["score"]
    np.testing.assert_allclose(mean, (first[mean.index] + second[mean.index]) / 2)
    values = [m.maps.set_index("image_id")["values"] for m in members]
    image_id = mean.index[0]
    row = joined.maps.set_index("image_id").loc[image_id]
    np.testing.assert_allclose(row["values"], (values[0][image_id] + values[1][image_id]) / 2)


def test_maps_of_one_member_alone_are_left_out_with_a_note(predict, join):
    members = [predict("C1", "scores", seed=1, maps=True), predict("C2", "scores", seed=2)]
    joined = join(members)
    (note,) = joined.info.notes
    assert "maps" in note
    assert joined.maps.empty


def test_an_image_that_failed_in_one_member_failed_and_has_no_boxes(detectors, join):
    lost = detectors[0].boxes["image_id"].iloc[0]
    members = [detectors[0], fail(detectors[1], lost)]
    joined = join(members)
    row = joined.images.set_index("image_id").loc[lost]
    assert (row["status"], row["reason"]) == ("failed", "D2: unreadable")
    assert (joined.images["status"] == "failed").sum() == 1
    assert lost not in set(joined.boxes["image_id"])
    both = join([fail(members[0], lost, "too dark"), members[1]])
    assert both.images.set_index("image_id").loc[lost, "reason"] == "D1: too dark; D2: unreadable"


def test_members_that_do_not_belong_together_are_refused(predict, detectors, join):
    first, second = detectors
    with pytest.raises(InputError, match="two"):
        join([first])
    with pytest.raises(InputError, match=f"{first.folder}.*inference_id"):
        join([first, first])
    missing = first.boxes["image_id"].iloc[0]
    fewer = predict("D3", "boxes", seed=3, skip=(missing,))
    with pytest.raises(InputError, match=rf"{fewer.folder}.*\b1\b.*'{missing}'"):
        join([first, fewer])
    with pytest.raises(InputError, match="content_id x"):
        join([first, with_info(second, data_set=MadeOn(name="x", content_id="x"))])
    with pytest.raises(InputError, match=rf"{second.folder}.*mass.*opacity"):
        join([first, with_info(second, findings=["mass"])])
    (finding,) = set(first.boxes["finding"])
    with pytest.raises(InputError, match=rf"{second.folder}.*mass.*{first.folder}.*{finding}"):
        join([first, with_info(second, findings=["mass", finding])])


def with_info(member, **facts):
    return Predictions(member.folder, member.info.with_values(**facts))


COST = {"parameters": 10, "flops": 5.0, "latency_ms": 2.0, "latency_device": "cpu"}
TRAINED = {"size_bytes": 8, "train_seconds": 60.0, "train_device": "cpu", "peak_memory_bytes": 5}


@pytest.mark.parametrize(
    ("cost", "differences", "total"),
    [
        (COST, {}, {"parameters": 20, "flops": 10.0, "latency_ms": 4.0, "latency_device": "cpu"}),
        (
            COST,
            {"latency_device": "gpu", "flops": None},
            {"parameters": 20, "flops": None, "latency_ms": None},
        ),
        # Memory is that of the largest member.
        (
            TRAINED,
            {"peak_memory_bytes": 9},
            {"size_bytes": 16, "train_seconds": 120, "peak_memory_bytes": 9, "flops": None},
        ),
        (TRAINED, {"train_device": "gpu"}, {"size_bytes": 16, "train_seconds": None}),
    ],
)
def test_cost_is_summed_and_unknown_where_it_cannot_be(detectors, join, cost, differences, total):
    first, second = detectors
    joined = join([with_info(first, cost=cost), with_info(second, cost=cost | differences)])
    assert {key: joined.info.cost[key] for key in total} == total
    assert joined.info.cost["made_of"].startswith("D1 + D2")


def write_seen(member, ids, role):
    frame = pd.DataFrame({"image_id": ids, "patient_id": [f"p{i}" for i in ids], "role": role})
    put_table(frame, member.folder / "seen.parquet", "seen")
    bind_tables(member.folder)
    member.info = Predictions.open(member.folder).info


def test_training_images_of_any_member_are_those_of_the_ensemble(detectors, join):
    write_seen(detectors[0], ["a", "b"], ["train", "test"])
    write_seen(detectors[1], ["b", "c"], ["val", "train"])
    joined = join(detectors)
    roles = dict(zip(joined.seen["image_id"], joined.seen["role"], strict=True))
    assert roles == {"a": "train", "b": "val", "c": "train"}
    assert joined.info.seen_unknown == ()


def test_a_member_without_a_list_of_training_images_is_named(detectors, join, test_set):
    write_seen(detectors[0], ["elsewhere"], ["train"])
    joined = join(detectors)
    assert joined.info.seen_unknown == ("D2",)
    notes = read_eligible({"E": joined}, test_set).notes
    (note,) = [note.text for note in notes if note.kind == "training"]
    assert "D2 in E" in note
    assert describe_training_data(joined)["unknown"] == "D2"


def test_the_id_follows_the_members(detectors, join):
    first = join(detectors).info.inference_id
    assert join(detectors).info.inference_id == first
    assert join(detectors[::-1]).info.inference_id != first
