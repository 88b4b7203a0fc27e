"""A model's files: weights and architecture are written, read, or refused in one line."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.records import write_json
from cxr_compare.networks.model_files import load_model, load_weights, read_weights, save_model


def build_net(*, width: int = 4, weights: str | None = None) -> nn.Module:
    """A network with a buffer and a batch-norm counter."""
    assert weights is None, "would be fetched"
    net = nn.Sequential(nn.Conv2d(1, width, 3), nn.BatchNorm2d(width))
    net.architecture = {"kind": "classifier", "name": "net", "arguments": {"width": width}}
    return net


NET = {"kind": "classifier", "name": "net"}
BUILDERS: dict[str, Callable[..., nn.Module]] = {"classifier": build_net}


@pytest.fixture
def net():
    torch.manual_seed(0)
    net = build_net(width=6)
    net(torch.rand(2, 1, 8, 8))  # moves the batch norm's statistics
    return net


def test_the_model_of_a_stranger_fetches_no_weights(net, tmp_path):
    net.architecture["arguments"]["weights"] = "imagenet"
    save_model(net, tmp_path)
    assert torch.equal(load_model(tmp_path, BUILDERS)[0].weight, net[0].weight)


def test_a_model_comes_back_with_weights_buffers_and_arguments(net, tmp_path):
    save_model(net.to(memory_format=torch.channels_last), tmp_path)
    back = load_model(tmp_path, BUILDERS)
    assert not back.training
    assert back.architecture == net.architecture
    for name, value in net.state_dict().items():
        assert torch.equal(back.state_dict()[name], value), name


def test_draws_that_are_left_out_leave_values_within_the_limits_that_a_network_waits_for(
    net, tmp_path
):
    drawn = []

    def build_waiting_net(width: int) -> nn.Module:
        built = build_net(width=width)
        if not built[0].weight.is_meta:
            weight = built[0].weight.detach()
            # torch's trunc_normal_ draws until this holds, for ever if nothing is drawn.
            drawn.append(weight.normal_(0.5, 0.1).sub(0.5).abs().max())
            drawn.append(weight.uniform_(-2, -1).add(1.5).abs().max())
        return built

    save_model(net, tmp_path)
    back = load_model(tmp_path, {"classifier": build_waiting_net})
    assert max(drawn) <= 0.5
    assert torch.equal(back[0].weight, net[0].weight)


def test_the_same_weights_give_the_same_bytes_in_the_format_that_transformers_asks_for(
    net, tmp_path
):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    save_model(net, tmp_path / "a")
    save_model(net.to(memory_format=torch.channels_last), tmp_path / "b")
    first, second = (tmp_path / side / "model.safetensors" for side in "ab")
    assert first.read_bytes() == second.read_bytes()
    with safe_open(first, "pt") as weights:
        assert weights.metadata()["format"] == "pt"


@pytest.mark.parametrize("form", ["safetensors", "pth", "state_dict", "model"])
def test_weights_are_read_from_the_usual_files(form, net, tmp_path):
    path = tmp_path / ("weights.safetensors" if form == "safetensors" else "weights.pth")
    if form == "safetensors":
        save_file(net.state_dict(), path)
    else:
        torch.save(net.state_dict() if form == "pth" else {form: net.state_dict()}, path)
    other = build_net(width=6)
    load_weights(other, read_weights(path), path)
    assert torch.equal(other[0].weight, net[0].weight)


def test_figures_beside_the_weights_are_passed_over(net, tmp_path):
    # As public checkpoints have them: epoch, best loss (NumPy's or torch's), the optimiser's state.
    optimiser = torch.optim.Adam(net.parameters()).state_dict()
    content = {"epoch": 3, "best_loss": np.float32(0.1), "optimizer": optimiser}
    torch.save({**content, "state_dict": net.state_dict()}, tmp_path / "model.pth.tar")
    assert read_weights(tmp_path / "model.pth.tar").keys() == net.state_dict().keys()


class Stranger:
    """An object that only unpickling with code could read."""


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cannot be read as weights"),
        (b"not a zip", "cannot be read as weights"),
        (b"\x89HDF\r\n\x1a\n", "HDF5"),
        ({"a": Stranger()}, r"holds Python objects \(.*Stranger\).*model.state_dict\(\)"),
        ({"a": 1}, "'a' is no tensor"),
        ({}, "expected a dictionary of tensors"),
    ],
)
def test_a_file_that_is_not_weights_is_refused_in_one_line(content, message, tmp_path):
    path = tmp_path / "weights.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(InputError, match=message) as error:
        read_weights(path)
    assert "\n" not in str(error.value)
    assert str(error.value).startswith(str(path))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"none\.pth: no such weights file"):
        read_weights(tmp_path / "none.pth")


def test_weights_of_another_architecture_name_what_differs_and_change_nothing(net):
    state = {
        f"backbone.{key}" if key == "1.bias" else key: v for key, v in net.state_dict().items()
    }
    state["0.weight"] = torch.zeros(6, 3, 3, 3)
    other = build_net(width=6)
    before = other[0].weight.clone()
    with pytest.raises(InputError) as error:
        load_weights(other, state, "weights.pth")
    message = str(error.value)
    assert message.startswith("weights.pth: ")
    assert "1 missing (1.bias)" in message
    assert "1 unexpected (backbone.1.bias)" in message
    assert "0.weight (6, 3, 3, 3) instead of (6, 1, 3, 3)" in message
    assert "\n" not in message
    assert torch.equal(other[0].weight, before)


def test_a_missing_batch_norm_counter_is_no_error(net):
    state = {k: v for k, v in net.state_dict().items() if not k.endswith("num_batches_tracked")}
    load_weights(build_net(width=6), state, "weights.pth")


@pytest.mark.parametrize(
    ("architecture", "message"),
    [
        ({"kind": "other", "arguments": {}}, r"\bkind\b"),
        (
            NET | {"arguments": {"depth": 3}},
            "unexpected keyword argument 'depth'",
        ),
        (
            NET | {"arguments": {"width": 3}},
            "weights of another architecture",
        ),
        (
            NET | {"arguments": {"width": 10**9}},
            "weights of another architecture",
        ),
        (
            NET | {"arguments": {"width": 10**30}},
            r"model\.(json|safetensors)",
        ),
        (
            NET | {"arguments": {"width": -1}},
            "negative dimension",
        ),
        ({}, r"architecture\.kind: "),
        (3, "architecture: "),
    ],
)
def test_another_architecture_is_refused_in_one_line(architecture, message, net, tmp_path):
    save_model(net, tmp_path)
    path = tmp_path / "model.json"
    write_json(path, "model", {"architecture": architecture})
    with pytest.raises(InputError, match=message) as error:
        load_model(tmp_path, BUILDERS)
    assert "\n" not in str(error.value)
