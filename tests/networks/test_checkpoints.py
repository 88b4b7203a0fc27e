"""A checkpoint's tensors are found under any name, and what differs is said with what to do."""

from __future__ import annotations

import numpy as np
import pytest

from data_prep.contracts.errors import InputError
from networks.checkpoints import body_key, describe_difference, load_layers, match_names

OWN = {"conv1.weight": np.zeros((8, 3, 7, 7)), "bn1.bias": np.zeros(8)}


class Values:
    """What is used of a tensor, without torch."""

    def __init__(self, *shape: int) -> None:
        self.values = np.ones(shape)
        self.shape = shape

    def isfinite(self) -> np.ndarray:
        return np.isfinite(self.values)


class Layers:
    """What is used of a module, without torch."""

    def __init__(self) -> None:
        self.loaded: object = None

    def state_dict(self) -> dict[str, np.ndarray]:
        return OWN

    def load_state_dict(self, values: object, *, strict: bool) -> None:
        assert not strict
        self.loaded = values


def _tell(found: object, wanted: object) -> str:
    return f"{len(found)} of {len(wanted)}"


def test_tensors_of_other_layers_may_repeat_a_name_those_of_the_body_may_not() -> None:
    state = {"module.conv1.weight": Values(8, 3, 7, 7), "bn1.bias": Values(8)}
    state |= {"fc.weight": Values(9, 8), "module.fc.weight": Values(9, 8)}
    state |= {"bn1.num_batches_tracked": Values()}
    layers = Layers()
    load_layers(layers, state, source="w.pth", describe=_tell)
    assert layers.loaded == {
        "conv1.weight": state["module.conv1.weight"],
        "bn1.bias": state["bn1.bias"],
    }
    state["model.bn1.bias"] = Values(8)
    told = r"^w.pth: holds two networks \(bn1.bias and model.bn1.bias\); save one alone$"
    with pytest.raises(InputError, match=told):
        load_layers(Layers(), state, source="w.pth", describe=_tell)
    with pytest.raises(InputError, match=r"fc\.weight and module\.fc\.weight"):
        match_names(state, body_key, source="w.pth")


@pytest.mark.parametrize("shape", [(8, 1, 5, 5), (4, 1, 7, 7), (8, 2, 7, 7)])
def test_only_a_grey_first_layer_of_the_same_size_stands_for_one_in_colour(
    shape: tuple[int, ...],
) -> None:
    state = {"conv1.weight": Values(*shape), "bn1.bias": Values(8)}
    with pytest.raises(InputError, match=r"^w.pth: 2 of 2$"):
        load_layers(Layers(), state, source="w.pth", describe=_tell)


@pytest.mark.parametrize(
    ("what", "name", "known", "told"),
    [
        ("resnet18", "vgg16", ("resnet18", "vgg16"), "not of vgg16; set KEY to resnet18"),
        ("vgg or alexnet", "resnet18", ("vgg11", "vgg16"), "; set KEY to vgg11 or vgg16"),
        ("u-net", "resnet18", ("resnet18", "vgg16"), "; take a file of one of resnet18, vgg16"),
        ("u-net", "resnet18", (), "weights of u-net, not of resnet18; take another file"),
        # The name or its family: the tensors tell more.
        ("vgg or alexnet", "vgg16", ("vgg16",), "not weights of vgg16, whose 3 tensors were"),
        ("vgg16", "vgg16", ("vgg16",), "1 missing (first a); 1 too many (first d)"),
        (None, "vgg16", ("vgg16",), "(first d); take another file, or set KEY to the"),
    ],
)  # fmt: skip
def test_what_differs_is_said_with_what_to_do(
    what: str | None, name: str, known: tuple[str, ...], told: str
) -> None:
    found, wanted = {"b": (1,), "c": (2,), "d": (4,)}, {"a": (1,), "b": (1,), "c": (2,)}
    assert told in describe_difference(
        found, wanted, name=name, what=what, known=known, setting="KEY"
    )
