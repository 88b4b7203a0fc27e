"""An exported network answers as the network that it was made of."""

import ctypes
import json
import sys
from pathlib import Path

import numpy as np
import onnx
import openvino
import pytest
import torch
from torch import nn

from cxr_compare.classification.model import build_classifier
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.detection.model import build_detector
from cxr_compare.serving.export_graph import write_graph
from cxr_compare.serving.export_spec import FACTS_SECTION, ExportSpec, Format
from cxr_compare.serving.exported_model import open_session
from tests.plain_info import export_spec

SIZE = 64
FORMATS: tuple[Format, ...] = ("onnx", "openvino")
RNG = np.random.default_rng(7)
IMAGES = RNG.integers(0, 256, (5, 1, SIZE, SIZE), dtype=np.uint8)


def spec_of(fmt: Format, kind: str, findings: tuple[str, ...]) -> ExportSpec:
    return export_spec(format=fmt, kind=kind, findings=findings, size=SIZE)


@pytest.fixture(scope="module")
def detector() -> nn.Module:
    torch.manual_seed(0)
    model = build_detector(
        "retinanet",
        backbone="resnet18",
        fpn_channels=32,
        head_convs=1,
        n_findings=2,
        image_size=SIZE,
    )
    # Scores spread over the whole range: many candidates, ties among them.
    nn.init.normal_(model.head.classification_head.cls_logits.weight, std=0.5)
    return model.eval()


@pytest.fixture(scope="module")
def classifier() -> nn.Module:
    torch.manual_seed(0)
    return build_classifier("small_cnn", n_findings=3, image_size=SIZE).eval()


@pytest.mark.parametrize("fmt", FORMATS)
def test_a_detector_gives_the_same_logits_and_offsets(fmt, detector, tmp_path):
    write_graph(detector, tmp_path, fmt)
    with torch.inference_mode():
        heads = detector.run(torch.from_numpy(IMAGES))
    session = open_session(tmp_path, spec_of(fmt, "boxes", ("a", "b")))
    for count in (1, 5):
        outputs = session.run(IMAGES[:count])
        expected = heads.outputs["cls_logits"][:count, :, 1:].numpy()
        np.testing.assert_allclose(outputs["logits"], expected, atol=1e-4)
        expected = heads.outputs["bbox_regression"][:count].numpy()
        np.testing.assert_allclose(outputs["offsets"], expected, atol=1e-4)
    assert not detector.training


@pytest.mark.parametrize("fmt", FORMATS)
def test_the_file_of_the_network_says_what_is_needed_to_use_it(fmt, systems, tmp_path):
    folder, run = systems["boxes"]
    preprocess = run.model.preprocess
    facts = ExportSpec.open(folder).facts(preprocess, run.decision)
    write_graph(run.model.model, tmp_path, fmt, facts)
    if fmt == "onnx":
        network = onnx.load(tmp_path / "model.onnx")
        names = [
            [value.name for value in part] for part in (network.graph.input, network.graph.output)
        ]
        stored = {entry.key: json.loads(entry.value) for entry in network.metadata_props}
    else:
        network = openvino.Core().read_model(tmp_path / "model.xml")
        names = [[value.any_name for value in part] for part in (network.inputs, network.outputs)]
        section = network.get_rt_info(FACTS_SECTION).astype(dict)
        stored = {key: json.loads(value.astype(str)) for key, value in section.items()}
    assert [stored["input"], stored["outputs"]] == names
    assert (stored["size"], stored["mean"], stored["std"]) == (SIZE, 0.5, 0.25)
    assert stored["findings"] == ["lung_opacity"]
    assert (stored["target"], stored["policy"], stored["threshold"]) == ("opacity", "max_f1", 0.5)


def test_channels_that_differ_by_colour_stay_separate(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = build_classifier("small_cnn", image_size=SIZE, channels="imagenet").eval()
    write_graph(model, tmp_path, "onnx")
    with torch.inference_mode():
        expected = model.logits(model.features(torch.from_numpy(IMAGES)))
    outputs = open_session(tmp_path, spec_of("onnx", "scores", ("a",))).run(IMAGES)
    np.testing.assert_allclose(outputs["logits"], expected.numpy(), atol=1e-4)


@pytest.mark.parametrize("fmt", FORMATS)
def test_a_stream_keeps_the_order_and_fills_up_the_last_batch(fmt, classifier, tmp_path):
    write_graph(classifier, tmp_path, fmt)
    with torch.inference_mode():
        features = classifier.features(torch.from_numpy(IMAGES))
        logits, maps = classifier.logits(features), classifier.maps(features)
    spec = spec_of(fmt, "scores", ("a", "b", "c"))
    session = open_session(tmp_path, spec, many=True, batch_size=3)
    outputs = list(session.stream(IMAGES[start : start + 3] for start in (0, 3)))
    assert [len(output["logits"]) for output in outputs] == [3, 2]
    actual = np.concatenate([output["logits"] for output in outputs])
    np.testing.assert_allclose(actual, logits.numpy(), atol=1e-4)
    actual = np.concatenate([output["maps"] for output in outputs])
    np.testing.assert_allclose(actual, maps.numpy(), atol=1e-4)


@pytest.mark.parametrize("fmt", FORMATS)
def test_a_damaged_or_missing_network_is_one_line(fmt: Format, tmp_path: Path) -> None:
    spec = spec_of(fmt, "scores", ("a",))
    with pytest.raises(InputError, match=r"model.(onnx|xml): "):
        open_session(tmp_path, spec)
    for name in ("model.onnx", "model.xml", "model.bin"):
        (tmp_path / name).write_bytes(b"no network")
    with pytest.raises(InputError, match="cannot be loaded"):
        open_session(tmp_path, spec)


class _Stack(ctypes.Structure):
    """`stack_t` of signal.h."""

    _fields_ = (("start", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


@pytest.mark.skipif(sys.platform != "linux", reason="OpenVINO sets the stack on Linux alone")
def test_signals_keep_a_stack_whichever_of_two_networks_goes_first(classifier, tmp_path):
    # OpenVINO gives the thread a stack for signals, and takes it back in any order: Python then
    # died of the next Ctrl-C or SIGTERM.
    write_graph(classifier, tmp_path, "openvino")
    spec = spec_of("openvino", "scores", ("a", "b", "c"))
    first, second = (open_session(tmp_path, spec) for _ in range(2))
    del first
    del second
    stack = _Stack()
    assert ctypes.CDLL(None).sigaltstack(None, ctypes.byref(stack)) == 0
    lines = Path("/proc/self/maps").read_text().splitlines()
    mapped = [[int(end, 16) for end in line.split()[0].split("-")] for line in lines]
    assert stack.start
    assert any(start <= stack.start < end for start, end in mapped)
