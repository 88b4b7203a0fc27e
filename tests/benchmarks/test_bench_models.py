"""The networks' benchmark: both sides are one network, and a quick run has every row."""

import json
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.__main__ import bench
from benchmarks.bench import open_setting
from benchmarks.bench_inference import make_run, torchvision_peer
from benchmarks.bench_models import (
    QUICK_CLASSIFIER,
    QUICK_DETECTOR,
    classifier_floats,
    classifier_step,
    classifier_twins,
    detector_floats,
    detector_twins,
    labelled,
    peak,
    precisions,
    stacked_images,
)
from cxr_compare.serving.trained_model import TrainedModel

pytestmark = pytest.mark.release


def test_both_classifiers_are_one_network_with_the_same_output():
    ours, peer = classifier_twins(QUICK_CLASSIFIER, seed=0, device="cpu")
    images = torch.randint(256, (2, 1, 64, 64), dtype=torch.uint8)
    with torch.no_grad():
        torch.testing.assert_close(
            ours.eval()(images), peer.eval()(classifier_floats(ours, images)), rtol=1e-4, atol=1e-5
        )
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in peer.parameters())


def test_our_step_moves_every_weight_and_says_how_many_images_it_took():
    ours, _ = classifier_twins(QUICK_CLASSIFIER, seed=0, device="cpu")
    before = [parameter.detach().clone() for parameter in ours.parameters()]
    images = torch.randint(256, (2, 1, 64, 64), dtype=torch.uint8)
    assert classifier_step(ours, labelled(images, 0), "cpu", "fp32")() == 2
    moved = [not torch.equal(a, b) for a, b in zip(before, ours.parameters(), strict=True)]
    assert all(moved)


def test_both_detectors_are_one_network_with_the_same_output():
    ours, peer = detector_twins(QUICK_DETECTOR, seed=0, device="cpu")
    assert ours.state_dict().keys() == peer.state_dict().keys()
    for model in (ours, peer):  # of two images, statistics would magnify what rounding does
        for layer in model.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.eval()
    images = torch.randint(256, (2, 1, 96, 96), dtype=torch.uint8)
    target = {"boxes": torch.tensor([[10.0, 10, 60, 60]]), "labels": torch.tensor([1])}
    pairs: list[Any] = [ours(images, [target] * 2), peer(detector_floats(images), [target] * 2)]
    for name in ("classification", "bbox_regression"):
        torch.testing.assert_close(pairs[0][name], pairs[1][name], rtol=1e-4, atol=1e-4)


@pytest.mark.long
def test_a_quick_run_measures_the_machine_and_training(tmp_path):
    out = tmp_path / "bench.json"
    bench(["machine", "training"], quick=True, out=out)
    rows = json.loads(out.read_text())["rows"]
    peaks = [row for row in rows if row["group"] == "machine"]
    assert [row["unit"] for row in peaks] == ["GFLOP/s"] * 4 + ["GB/s"]
    steps = [row for row in rows if row["group"] == "training"]
    assert len(steps) == 2 * len(precisions("cpu"))
    for row in steps:
        assert (row["unit"], row["n"]) == ("images/s", 1), row["failed"]
        assert row["ratio"] == pytest.approx(row["ours"] / row["peer"])
        assert row["share"] > 0
        assert row["share_of"] in row["names"]["ours"]


@pytest.mark.long
def test_a_quick_run_measures_every_back_end(tmp_path):
    out = tmp_path / "bench.json"
    bench(["inference", "predict"], quick=True, out=out)
    rows = json.loads(out.read_text())["rows"]
    assert [row["failed"] for row in rows] == [""] * len(rows)
    named = {row["names"]["ours"] for row in rows if "cxr predict" not in row["work"]}
    assert {"torch fp32", "onnx fp32", "openvino fp32", "openvino int8"} <= named
    assert {row["work"].split(" on ")[0] for row in rows} == {"inference", "cxr predict"}


def test_the_operations_of_a_product_are_those_that_are_counted():
    assert peak("matrix product", "fp32", "cpu", small=True)() == 2 * 128**3 / 1e9


def test_the_peer_finds_the_boxes_that_our_run_finds():
    with open_setting(None, None, seed=0, quick=True) as setting:
        run = make_run(setting, "detector", QUICK_DETECTOR)
        pixels = torch.from_numpy(np.load(stacked_images(setting, QUICK_DETECTOR)))
        model = TrainedModel.open(run).model
        network, count_floats = torchvision_peer("detector", QUICK_DETECTOR, str(run), "cpu")
    with torch.inference_mode():
        ours: Any = model(pixels)
        theirs: Any = network(count_floats(pixels))
    for image, boxes in zip(ours, theirs, strict=True):
        count = len(image)
        assert 20 < count <= 100, "as many as a trained network finds"
        np.testing.assert_allclose(image.corners, boxes[:count], rtol=1e-3, atol=0.05)
