"""A classifier starts from other weights, and public CheXNets give the same answers here."""

import pickle
import re
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models import densenet121, resnet18, resnet50, squeezenet1_1

from cxr_compare.classification.model import (
    COLOUR_MEAN,
    COLOUR_STD,
    ImageClassifier,
    build_classifier,
    start_from,
)
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.networks.checkpoints import Checkpoint
from cxr_compare.networks.model_files import read_weights
from cxr_compare.networks.public_checkpoints import (
    CHEXNET_FINDINGS,
    XRAYVISION_FINDINGS,
    PublicCheckpoint,
    recognise_public_checkpoint,
)

IMAGES = torch.randint(
    0, 256, (2, 1, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
)


def test_a_run_of_another_network_is_named():
    state = build_classifier("small_cnn", image_size=64).state_dict()
    model = build_classifier("resnet18", image_size=64)
    match = "run: .*small_cnn.* resnet18.*model.backbone .*small_cnn"
    with pytest.raises(InputError, match=match):
        start_from(model, Checkpoint("run", state, network="small_cnn"))


def public_checkpoint(state: dict[str, torch.Tensor]) -> PublicCheckpoint | None:
    return recognise_public_checkpoint(Checkpoint("file", state))


class CheXNet(nn.Module):
    """As arnoweng/CheXNet and zoogzog/chexnet make it."""

    def __init__(self) -> None:
        super().__init__()
        self.densenet121 = densenet121()
        self.densenet121.classifier = nn.Sequential(nn.Linear(1024, 14), nn.Sigmoid())

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.densenet121(pixels)


def dotted(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Names as torchvision had them in 2017, without step counters."""
    old = {}
    for key, value in state.items():
        for part in ("norm1", "norm2", "conv1", "conv2"):
            if "denselayer" in key:
                key = key.replace(f".{part}.", f".{part[:-1]}.{part[-1]}.")
        old[key] = value
    return {key: value for key, value in old.items() if not key.endswith("num_batches_tracked")}


def published(kind: str, network: nn.Module) -> dict[str, object]:
    """What each maker's file holds."""
    state = network.state_dict()
    if kind == "jrzech":  # of a bare densenet121, after its conversion
        return {key.removeprefix("densenet121."): value for key, value in state.items()}
    wrapped = {f"module.{key}": value for key, value in state.items()}
    rest: dict[str, object] = {"epoch": 7, "best_loss": np.float64(0.1)}
    if kind == "arnoweng":
        return {**rest, "state_dict": OrderedDict(dotted(wrapped)), "optimizer": {"state": {}}}
    return {**rest, "state_dict": OrderedDict(wrapped), "optimizer": {"state": {}}}


@pytest.fixture(scope="module")
def chexnet() -> nn.Module:
    torch.manual_seed(0)
    network = CheXNet()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return network.eval()


def build(name: str = "densenet121", **arguments: object) -> ImageClassifier:
    return build_classifier(name, **{"n_findings": 3, "image_size": 64, **arguments}).eval()


@pytest.mark.parametrize("kind", ["arnoweng", "zoogzog", "jrzech"])
def test_public_chexnet_gives_its_published_scores(kind, chexnet, tmp_path):
    file = tmp_path / "model.pth.tar"
    torch.save(published(kind, chexnet), file)
    state = read_weights(file)
    public = public_checkpoint(state)
    assert public is not None
    assert (public.findings, public.size) == (CHEXNET_FINDINGS, 224)
    model = build(mean=public.mean, std=public.std, channels=public.channels)
    findings = ["pneumonia", "hernia", "lung_opacity"]
    note = start_from(model, Checkpoint("file", state), findings)
    assert re.search("pneumonia, hernia;.* lung_opacity$", note)
    mean, std = (torch.tensor(v).reshape(3, 1, 1) for v in (COLOUR_MEAN, COLOUR_STD))
    with torch.no_grad():
        expected = chexnet((IMAGES.expand(-1, 3, -1, -1) / 255 - mean) / std)
        scores = model(IMAGES).sigmoid()
    columns = [CHEXNET_FINDINGS.index(finding) for finding in findings[:2]]
    torch.testing.assert_close(scores[:, :2], expected[:, columns], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("name", "size"), [("densenet121", 224), ("resnet50", 512)])
def test_torchxrayvision_weights_give_torchxrayvision_logits(name, size):
    torch.manual_seed(0)
    grey = nn.Conv2d(1, 64, 7, 2, 3, bias=False)
    if name == "densenet121":
        network = densenet121(num_classes=18)
        network.features.conv0 = grey
    else:
        network = resnet50(num_classes=18)
        network.conv1 = grey
    network.eval()
    state = {**network.state_dict(), "op_threshs": torch.zeros(18)}
    public = public_checkpoint(state)
    assert public is not None
    assert (public.findings, public.size) == (XRAYVISION_FINDINGS, size)
    model = build(name, mean=public.mean, std=public.std, channels=public.channels)
    findings = ["lung_opacity", "pneumonia", "mass"]
    assert start_from(model, Checkpoint("file", state), findings).endswith("and its last layer")
    with torch.no_grad():
        expected = network((2 * (IMAGES / 255) - 1) * 1024)  # torchxrayvision's `normalize`
        logits = model(IMAGES)
    rows = [XRAYVISION_FINDINGS.index(finding) for finding in findings]
    torch.testing.assert_close(logits, expected[:, rows], rtol=1e-4, atol=1e-3)


def test_pickled_model_is_refused_with_its_conversion(tmp_path):
    file = tmp_path / "checkpoint"  # as jrzech/reproduce-chexnet saves it
    torch.save({"model": nn.Sequential(nn.Linear(2, 2), nn.Sigmoid()), "epoch": 3}, file)
    with pytest.raises(InputError, match=r"Sequential\).*torch.save\(model.state_dict\(\)"):
        read_weights(file)


def test_weights_only_never_runs_code_of_a_file(tmp_path):
    class Mark:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (tmp_path / "ran",))

    (tmp_path / "evil.pth").write_bytes(pickle.dumps({"state_dict": Mark()}))
    with pytest.raises(InputError):
        read_weights(tmp_path / "evil.pth")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("network", "classes"),
    [(densenet121, 14), (resnet18, 14), (resnet50, 18)],  # 14 of what? the last in colour
)
def test_what_is_no_public_chexnet_is_not_taken_for_one(network, classes):
    with torch.device("meta"):  # shapes alone are looked at
        state = network(num_classes=classes).state_dict()
    assert public_checkpoint(state) is None
    assert public_checkpoint({"alpha": torch.zeros(2)}) is None


def test_findings_of_another_run_are_matched_by_name():
    source, model = build("resnet18"), build("resnet18", n_findings=2)
    nn.init.normal_(source.classifier.bias)
    before = model.classifier.weight[0].clone()
    run = Checkpoint("run", source.state_dict(), ("mass", "nodule", "edema"))
    note = start_from(model, run, ("hernia", "edema"))
    assert note == (
        "run: takes the features of resnet18 and its last layer for edema; it starts anew for "
        "hernia"
    )
    assert torch.equal(model.classifier.weight[1], source.classifier.weight[2])
    assert model.classifier.bias[1] == source.classifier.bias[2]
    assert torch.equal(model.classifier.weight[0], before)


@pytest.mark.parametrize(
    ("findings", "learned"),
    [(None, ("mass", "nodule", "edema")), (("a", "b", "c"), ("d", "e", "f"))],
)
def test_the_last_layer_starts_anew_where_nothing_is_shared(findings, learned):
    source, model = build("small_cnn"), build("small_cnn")
    before = model.classifier.weight.clone()
    note = start_from(model, Checkpoint("run", source.state_dict(), findings), learned)
    assert note.endswith("the last layer starts anew")
    assert torch.equal(model.classifier.weight, before)
    assert torch.equal(model.trunk.block1.conv.weight, source.trunk.block1.conv.weight)


def test_real_squeezenet_file_gives_its_features(shared_data):
    state = read_weights(shared_data / "weights" / "squeezenet1_1_model.pth")
    model = build("squeezenet1_1", last_stride=16)
    note = start_from(model, Checkpoint("squeezenet1_1_model.pth", state))
    assert note.endswith("takes the features of squeezenet1_1; the last layer starts anew")
    theirs = squeezenet1_1(num_classes=3).eval()
    theirs.load_state_dict(state)
    pixels = model.preprocess.normalise(IMAGES).expand(-1, 3, -1, -1)
    with torch.no_grad():
        torch.testing.assert_close(model.features(IMAGES), theirs.features(pixels))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("densenet121", "weights of squeezenet1_1, not of densenet121; set model.backbone to sq"),
        ("resnet18", "weights of squeezenet1_1, not of resnet18"),
    ],
)
def test_real_weights_of_another_network_are_refused(shared_data, name, message):
    state = read_weights(shared_data / "weights" / "squeezenet1_1_model.pth")
    model = build(name)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(InputError, match=message):
        start_from(model, Checkpoint("file", state))
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_a_keras_file_is_refused_in_one_line(shared_data):
    with pytest.raises(InputError, match="is an HDF5 file, as Keras writes it") as caught:
        read_weights(shared_data / "weights" / "foreign_keras_v1.0.hdf5")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda s: s.pop("layer3.0.conv1.weight"), r"1 missing \(first layer3.0.conv1.weight\)"),
        (lambda s: s["layer1.0.bn1.bias"].fill_(float("nan")), "file: layer1.0.bn1.bias "),
        (
            lambda s: s.update({"module.conv1.weight": s["conv1.weight"]}),
            r"\(conv1.weight and module.conv1",
        ),
        (
            lambda s: s.update({"layer1.0.bn1.bias": torch.zeros(3)}),
            r" 1 of .*layer1.0.bn1.bias",
        ),
    ],
)
def test_damaged_weights_are_refused_and_change_nothing(spoil, message):
    state = {key: value.clone() for key, value in resnet18().state_dict().items()}
    spoil(state)
    model = build("resnet18")
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(InputError, match=message):
        start_from(model, Checkpoint("file", state))
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_last_layer_that_is_not_finite_is_refused():
    source, model = build("small_cnn"), build("small_cnn")
    nn.init.constant_(source.classifier.bias, float("inf"))
    with pytest.raises(InputError, match=r"^run: classifier\.bias "):
        start_from(model, Checkpoint("run", source.state_dict(), list("abc")), list("abc"))
