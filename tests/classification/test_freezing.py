"""What is frozen stays as it is, to the last statistic; what is not learns."""

from __future__ import annotations

import pytest
import torch

from classification.loss import training_losses
from classification.model import freeze_for_epoch, learning_stages


def step(model, batch) -> set[str]:
    """Take one optimiser step; the children of the trunk, and the head, that changed by it."""
    before = {key: value.clone() for key, value in model.state_dict().items()}
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    training_losses(model, batch)["classification"].backward()
    optimiser.step()
    return {
        key.split(".")[1] if key.startswith("trunk.") else "head"
        for key, value in model.state_dict().items()
        if not torch.equal(value, before[key])
    }


@pytest.mark.parametrize(
    ("how", "epoch", "changed"),
    [
        ("head", 0, {"head"}),
        ("head", 9, {"head"}),
        ("stages", 1, {"head"}),
        ("stages", 2, {"head", "layer4"}),
        ("stages", 4, {"head", "layer4", "layer3"}),
        ("head_first", 1, {"head"}),
        ("head_first", 2, {"head", "layer4", "layer3", "layer2", "layer1", "conv1", "bn1"}),
        ("stages", 10, {"head", "layer4", "layer3", "layer2", "layer1", "conv1", "bn1"}),
        ("all", 0, {"head", "layer4", "layer3", "layer2", "layer1", "conv1", "bn1"}),
    ],
)
def test_only_what_shall_learn_changes(how, epoch, changed, build_small, batch):
    model = build_small().train()
    freeze_for_epoch(model, how, epoch, unfreeze_epochs=2)
    model.train()  # as a trainer does at any time: the statistics must not begin to move
    assert step(model, batch) == changed


def test_later_stages_begin_to_learn_without_another_call_of_train(build_small):
    model = build_small().train()
    freeze_for_epoch(model, "stages", 0)
    assert not model.trunk.layer4.training
    freeze_for_epoch(model, "stages", 1)
    assert model.trunk.layer4.training
    assert not model.trunk.layer3.training
    model.eval()
    freeze_for_epoch(model, "stages", 2)
    assert not model.trunk.layer3.training


@pytest.mark.parametrize("name", ["densenet121", "vgg16", "mobilenet_v3_small", "inception_v3"])
def test_the_head_alone_is_a_linear_layer(name, build_small):
    model = build_small(name, image_size=96)
    freeze_for_epoch(model, "head", 0)
    learning = [name for name, p in model.named_parameters() if p.requires_grad]
    assert learning == ["classifier.weight", "classifier.bias"]


def test_no_more_stages_learn_than_there_are():
    assert [learning_stages("stages", epoch, 1, 2) for epoch in range(5)] == [0, 1, 2, 2, 2]
    assert [learning_stages("all", epoch, 1, 2) for epoch in range(2)] == [2, 2]
