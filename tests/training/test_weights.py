"""A network starts from the weights that fit it and refuses the others; a run is what it was."""

import io
import pickle
import shutil
from collections import OrderedDict
from functools import cache
from pathlib import Path
from urllib.error import URLError
from zipfile import ZIP_DEFLATED, ZipFile

import numpy as np
import pytest
import torch
from torch import nn
from torchvision import models
from torchvision.models.detection import retinanet_resnet50_fpn, retinanet_resnet50_fpn_v2

import cxr_compare
from cxr_compare import InputError
from tests.adapters import networks

SIDE = 96
RELEASE = pytest.mark.release
NORMS = {"swin_t": "norm.weight", "convnext_tiny": "classifier.0.weight"}


@pytest.fixture(autouse=True)
def same_sums(one_thread):
    """One order of summation, and one seed."""
    torch.manual_seed(0)


def classifier(name="densenet121", n_findings=2):
    return networks.classifier(name, SIDE, n_findings)


def detector(name="resnet18", norm="batch", **keys):
    usual = {"norm": norm, "fpn_channels": 16, "head_convs": 1}
    return networks.detector(name, SIDE, **(usual | keys))


def of_2017(state):
    """Names of DenseNet's layers as torchvision had them in 2017, without counters."""
    old = {}
    for key, value in state.items():
        for part in ("norm1", "norm2", "conv1", "conv2"):
            if "denselayer" in key:
                key = key.replace(f".{part}.", f".{part[:-1]}.{part[-1]}.")
        old[key] = value
    return {key: value for key, value in old.items() if "num_batches" not in key}


@pytest.fixture(scope="module")
def chexnet():
    """Tensors of the CheXNet of 2017: 14 outputs, in torchvision's names of today."""
    torch.manual_seed(1)
    network = models.densenet121(num_classes=14)
    nn.init.normal_(network.classifier.bias)
    state = network.state_dict()
    names = {key: key.replace("classifier.", "classifier.0.") for key in state}
    return {f"densenet121.{names[key]}": value for key, value in state.items()}


def write_chexnet(chexnet, layout, folder):
    """The file of a publisher: arnoweng, zoogzog or jrzech."""
    wrapped = {f"module.{key}": value for key, value in chexnet.items()}
    # The best loss is NumPy's number, and the optimiser's state is no tensor.
    rest = {"epoch": 7, "best_loss": np.float64(0.1), "optimizer": {"state": {}}}
    content = {
        "arnoweng": {**rest, "state_dict": OrderedDict(of_2017(wrapped))},
        "zoogzog": {**rest, "state_dict": OrderedDict(wrapped)},
        "jrzech": {key.removeprefix("densenet121."): value for key, value in chexnet.items()},
    }[layout]
    torch.save(content, folder / "model.pth.tar")
    return str(folder / "model.pth.tar")


@pytest.mark.parametrize("layout", ["arnoweng", "zoogzog", "jrzech"])
def test_a_public_chexnet_gives_its_features_and_the_rows_of_its_findings(
    layout, chexnet, tmp_path
):
    path = write_chexnet(chexnet, layout, tmp_path)
    model = classifier()
    before = model.classifier.weight[1].clone()
    start = networks.start_from(model, path, ["pneumonia", "lung_opacity"])
    assert start.is_unknown
    assert "604 of 604" in start.taken
    assert "pneumonia" in start.taken
    row = networks.CHEXNET_FINDINGS.index("pneumonia")
    weight = chexnet["densenet121.classifier.0.weight"]
    assert torch.equal(model.classifier.weight[0], weight[row])
    assert model.classifier.bias[0] == chexnet["densenet121.classifier.0.bias"][row]
    assert torch.equal(model.classifier.weight[1], before)
    require_trunk(model, chexnet, "densenet121.features.")


def require_trunk(model, state, prefix):
    for key, value in model.trunk.state_dict().items():
        if "num_batches" not in key:
            assert torch.equal(value, state[prefix + key]), key


def test_imagenet_and_coco_without_a_network_say_which_file_to_put_where(monkeypatch, tmp_path):
    def offline(*arguments, **options):
        raise URLError("no network")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", offline)
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path))
    cases = [(classifier("resnet18"), "imagenet", "resnet18-f37072fd.pth")]
    with torch.device("meta"):
        peer = networks.detector("resnet50", SIDE, head="v2")
    cases.append((peer, "coco", "retinanet_resnet50_fpn_v2_coco-5905b1c5.pth"))
    for model, weights, file in cases:
        with pytest.raises(InputError) as raised:
            networks.start_from(model, weights, ["opacity"])
        assert str(tmp_path / "checkpoints" / file) in str(raised.value)
        assert "\n" not in str(raised.value)


def old_names(state):
    """Names of torchvision's first RetinaNet, of which its COCO file is."""
    old = {}
    for key, value in state.items():
        parts = key.split(".")
        if "_head.conv." in key:
            parts[3:5] = [str(2 * int(parts[3]))]
        elif "inner_blocks" in key or "layer_blocks" in key:
            del parts[4]
        old[".".join(parts)] = value
    return old


@pytest.mark.release
@pytest.mark.parametrize("head", ["v1", pytest.param("v2", marks=pytest.mark.release)])
def test_coco_weights_reach_all_but_the_class_layer(head, monkeypatch):
    build = {"v1": retinanet_resnet50_fpn, "v2": retinanet_resnet50_fpn_v2}[head]
    state = build(weights=None, weights_backbone=None).state_dict()
    for key, value in state.items():
        if key.endswith("running_var"):
            value.uniform_(0.001, 1.0)
    file = old_names(state) if head == "v1" else state
    assert ("head.regression_head.conv.6.weight" in file) == (head == "v1")
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", lambda *_, **__: file)
    model = networks.detector("resnet50", SIDE, head=head, norm="frozen")
    random = model.head.classification_head.cls_logits.weight.clone()
    start = networks.start_from(model, "coco", ["opacity"])
    assert not start.is_unknown
    shift = 1e-5 if head == "v1" else 0.0  # its batch norms were published with epsilon 0
    for key, value in model.state_dict().items():
        expected = state[key] - shift if key.endswith("running_var") else state[key]
        if "cls_logits" not in key:
            assert torch.equal(value, expected), key
    assert torch.equal(model.head.classification_head.cls_logits.weight, random)


@pytest.mark.parametrize("name", ["swin_t", pytest.param("convnext_tiny", marks=RELEASE)])
def test_a_file_of_a_network_of_layer_norms_fills_all_and_its_last_stage_learns(name, tmp_path):
    torch.save(of(name), tmp_path / "w.pth")
    model = classifier(name)
    start = networks.start_from(model, str(tmp_path / "w.pth"), ["a", "b"])
    n_tensors = len(model.trunk.state_dict())
    assert f"took {n_tensors} of {n_tensors}" in start.taken
    assert torch.equal(model.trunk.norm.weight, start.state[NORMS[name]])
    networks.freeze(model.trunk, 1)
    learning = {key for key, tensor in model.trunk.named_parameters() if tensor.requires_grad}
    assert {key.partition(".")[0] for key in learning} == {"6", "7", "norm"}


# A run as start


@pytest.fixture(scope="module")
def classifier_run(world, tmp_path_factory):
    """A finished run of a classifier on densenet121 for mass and edema."""
    model = classifier()
    networks.draw_weights(model, 6)
    folder = tmp_path_factory.mktemp("weights") / "classifier"
    run = networks.run_with(world.run("classifier"), model, folder, ["mass", "edema"])
    return run, model.state_dict()


def test_a_run_of_a_classifier_gives_the_last_layer_of_its_findings(classifier_run):
    run, state = classifier_run
    model = classifier()
    before = model.classifier.weight[0].clone()
    start = networks.start_from(model, str(run), ["hernia", "mass"])
    assert "mass" in start.taken
    assert torch.equal(model.classifier.weight[1], state["classifier.weight"][0])
    assert torch.equal(model.classifier.bias[1], state["classifier.bias"][0])
    assert torch.equal(model.classifier.weight[0], before)
    assert "anew" in networks.start_from(classifier(), str(run), ["hernia", "cyst"]).taken


def test_a_run_of_a_detector_gives_all_its_weights_or_all_but_its_class_layer(world):
    run = world.run("detector")
    state = networks.read_weights(run / "model.safetensors")
    finding = cxr_compare.Run.open(run, device="cpu").network.info.findings[0]
    for findings, all_of_it in (([finding], True), ([finding, "mass"], False)):
        model = detector(n_findings=len(findings), head="v2")
        start = networks.start_from(model, str(run), findings)
        assert "100 of 100" in start.taken
        rest = len([key for key in state if "body" not in key and "num_batches" not in key])
        assert f"{rest if all_of_it else rest - 2} of {rest} of the pyramid" in start.taken
        for key, value in model.state_dict().items():
            if "num_batches" not in key and ("cls_logits" not in key or all_of_it):
                assert torch.equal(value, state[key]), key


@pytest.mark.parametrize("given", ["folder", "file"])
def test_a_run_whose_weights_were_changed_is_refused(given, classifier_run, tmp_path):
    run = Path(shutil.copytree(classifier_run[0], tmp_path / "run"))
    path = run / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    weights = str(run if given == "folder" else path)
    with pytest.raises(InputError, match=r"model\.safetensors"):
        networks.start_from(classifier(), weights, ["mass", "edema"])
    with pytest.raises(InputError, match=r"model\.safetensors"):
        networks.open_network(run, "cpu")


# What does not fit


@cache
def of(name):
    """Tensors of torchvision's network."""
    return models.get_model(name, num_classes=5).state_dict()


def half(state):
    return dict(list(state.items())[: len(state) // 2])


def without_first(state):
    return dict(list(state.items())[1:])


def grey(state):
    return state | {"conv1.weight": state["conv1.weight"][:, :1]}


def spoiled(key, value):
    def spoil(state):
        return state | {key: torch.full_like(state[key], value)}

    return spoil


def twice(state):
    return state | {f"module.{key}": value for key, value in state.items()}


REFUSED = [  # file of a network, change of it, network that it is for, a word of the message
    ("resnet34", dict, "resnet18", "larger"),  # all of resnet18 is in it
    pytest.param("efficientnet_b1", dict, "efficientnet_b0", "larger", marks=pytest.mark.release),
    ("resnet18", dict, "mobilenet_v3_small", "0 of "),
    ("resnet18", half, "resnet18", " of 100 "),
    ("resnet18", without_first, "resnet18", "first layer"),
    pytest.param("resnet18", grey, "resnet18", "first layer", marks=pytest.mark.release),
    ("resnet18", spoiled("layer1.0.conv1.weight", np.nan), "resnet18", "layer1.0.conv1.weight"),
    pytest.param(
        "resnet18", spoiled("fc.bias", np.inf), "resnet18", "fc.bias", marks=pytest.mark.release
    ),
    ("resnet18", twice, "resnet18", "two networks"),
]


@pytest.mark.parametrize(("name", "change", "other", "word"), REFUSED)
def test_weights_that_do_not_fit_are_refused_and_change_nothing(
    name, change, other, word, tmp_path
):
    torch.save(change(of(name)), tmp_path / "w.pth")
    model = classifier(other)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(InputError, match=word) as raised:
        networks.start_from(model, str(tmp_path / "w.pth"), ["a", "b"])
    assert "\n" not in str(raised.value)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


# Files of a model


class Stranger:
    """An object that only unpickling with code could read."""


NO_WEIGHTS = {
    "empty": b"",
    "no archive": b"not a zip",
    "of Keras": b"\x89HDF\r\n\x1a\n",
    "an object": {"a": Stranger()},
    "a number": {"a": 1},
    "nothing": {},
    "a list": [torch.zeros(2)],
    "a tensor": torch.zeros(2),
    "a name": {"model": "resnet18"},
}


@pytest.mark.parametrize("what", NO_WEIGHTS)
@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_a_file_that_is_no_weights_is_refused_in_one_line(what, suffix, tmp_path):
    path = tmp_path / f"w.{suffix}"
    content = NO_WEIGHTS[what]
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(InputError) as raised:
        networks.read_weights(path)
    assert str(raised.value).startswith(str(path))
    assert "\n" not in str(raised.value)


def test_no_code_of_a_weights_file_is_run(tmp_path):
    class Mark:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    (tmp_path / "evil.pth").write_bytes(pickle.dumps({"state_dict": Mark()}))
    with pytest.raises(InputError):
        networks.read_weights(tmp_path / "evil.pth")
    assert not (tmp_path / "ran").exists()


class Storage:
    """A storage of float32 in a file of torch, of which the pickle states the number."""

    def __init__(self, number):
        self.number = number


class Call:
    """A value that is made by a call when the pickle is read."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


class WithStorages(pickle.Pickler):
    def persistent_id(self, value):
        if isinstance(value, Storage):
            return "storage", torch.FloatStorage, "0", "cpu", value.number
        return None


@pytest.mark.parametrize("bomb", ["unpacked", "called"])
def test_weights_that_take_far_more_memory_than_their_file_has_are_refused(
    bomb, tmp_path, monkeypatch
):
    """They would end the process, and with it a server, by a file of some kilobytes."""
    networks.lower_margin(monkeypatch, 2**26)
    number = 2**27
    shape = (0, (number,), (1,), False, OrderedDict())
    value = {
        "unpacked": Call(torch._utils._rebuild_tensor_v2, Storage(number), *shape),
        "called": Call(bytearray, 4 * number),
    }
    content = io.BytesIO()
    WithStorages(content, protocol=2).dump({"w": value[bomb]})
    path = tmp_path / "weights.pth"
    with ZipFile(path, "w", ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("weights/data.pkl", content.getvalue())
        archive.writestr("weights/version", b"3\n")
        archive.writestr("weights/byteorder", b"little")
        with archive.open("weights/data/0", "w") as storage:
            for _ in range(4 * number >> 22 if bomb == "unpacked" else 1):
                storage.write(bytes(1 << 22))
    with pytest.raises(InputError, match="cannot be read as weights"):
        networks.read_weights(path)


@pytest.mark.parametrize("kind", ["classifier", "detector"])
def test_a_stored_network_opens_again_and_answers_the_same(kind, tmp_path):
    keys = {"anchor_sizes": [8.0, 16, 32, 64, 128], "views": ["flip"], "nms_iou": 0.35}
    model = detector(**keys) if kind == "detector" else classifier("small_cnn")
    networks.draw_weights(model, 8)
    networks.save_model(model.eval(), tmp_path / "run")
    again = networks.load_model(tmp_path / "run")
    assert not again.training
    assert again.arguments == model.arguments
    image = torch.randint(0, 256, (1, 1, SIDE, SIDE), dtype=torch.uint8)
    with torch.no_grad():
        first, other = (one(image) for one in (model, again))
    if kind == "detector":
        assert torch.equal(first[1][0]["boxes"], other[1][0]["boxes"])
        assert again.views == ("flip",)
    else:
        assert torch.equal(first[0], other[0])


# Predictions of a run


@pytest.mark.parametrize(("views", "is_noted"), [("flip,scale0.8", True), ("scale0.8", False)])
def test_the_view_flip_of_a_run_without_mirrored_images_is_noted(
    views, is_noted, world, tmp_path, capsys
):
    run = world.run("detector")
    cxr_compare.predict(run, data=world.data, views=views, out=tmp_path / "predicted")
    assert ("learned from no mirrored image" in capsys.readouterr().err) == is_noted
