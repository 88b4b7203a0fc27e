"""Learning rates over a training, and which weights decay."""

import pytest
import torch
from torch import nn

from cxr_compare.configs.settings import TrainingSettings
from cxr_compare.training.optim import build_optimiser, build_schedule
from tests.training.small_training import training_settings


def _rates(how: TrainingSettings, epochs: int, steps: int) -> list[float]:
    optimiser = build_optimiser(nn.Linear(2, 1), how)
    how = how.model_copy(update={"epochs": epochs})
    schedule = build_schedule(optimiser, how, steps=steps, batches=1)["scheduler"]
    rates = []
    for _ in range(steps):
        rates.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        schedule.step()
    return rates


def test_schedules_rise_and_fall_as_documented():
    how = training_settings(learning_rate=1.0, warmup_epochs=2)
    rates = _rates(how, epochs=10, steps=100)  # one cycle
    assert max(rates) == pytest.approx(1.0, abs=0.01)
    assert 18 <= rates.index(max(rates)) <= 21
    assert rates[0] < 0.05
    assert rates[-1] < 0.01
    how = training_settings(schedule="cosine", learning_rate=1.0, warmup_epochs=1)
    rates = _rates(how, epochs=10, steps=100)
    assert rates[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert rates[55] == pytest.approx(0.5, abs=0.01)
    assert rates[-1] < 0.001
    how = training_settings(schedule="step", learning_rate=1.0, warmup_epochs=1)
    rates = _rates(how, epochs=10, steps=40)
    expected = [0.25, 0.5, 0.75, *[1.0] * 24, *[0.1] * 10, *[0.01] * 3]
    assert rates == pytest.approx(expected)
    how = training_settings(schedule="constant", learning_rate=0.5, warmup_epochs=0)
    assert set(_rates(how, epochs=3, steps=12)) == {0.5}


@pytest.mark.parametrize("schedule", ["one_cycle", "cosine", "step", "constant"])
def test_warm_up_longer_than_the_training_is_harmless(schedule):
    how = training_settings(schedule=schedule, learning_rate=1.0, warmup_epochs=5)
    for epochs, steps in ((1, 1), (1, 2), (2, 5)):  # as in a first try
        assert all(0 <= rate <= 1 for rate in _rates(how, epochs, steps))


@pytest.mark.parametrize("optimiser", ["adamw", "sgd", "rmsprop"])
def test_biases_and_norms_do_not_decay(optimiser):
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.GroupNorm(1, 2))
    how = training_settings(optimiser=optimiser, weight_decay=0.1, momentum=0.3)
    groups = build_optimiser(model, how).param_groups
    decays = {p.ndim: group["weight_decay"] for group in groups for p in group["params"]}
    assert decays == {4: 0.1, 1: 0.0}
    if optimiser != "adamw":
        assert {group["momentum"] for group in groups} == {0.3}
    assert {group.get("alpha") for group in groups} == {0.9 if optimiser == "rmsprop" else None}


def test_frozen_weights_are_left_out_and_a_model_of_no_others_is_refused():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    model[0].requires_grad_(False)
    groups = build_optimiser(model, training_settings()).param_groups
    assert sum(len(group["params"]) for group in groups) == 2
    with pytest.raises(ValueError, match="all are frozen"):
        build_optimiser(model.requires_grad_(False), training_settings())


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("adamw", torch.optim.AdamW),
        ("adam", torch.optim.Adam),
        ("sgd", torch.optim.SGD),
        ("rmsprop", torch.optim.RMSprop),
    ],
)
@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_optimisers_are_those_of_torch_and_lower_a_loss(name, kind, momentum):
    torch.manual_seed(0)
    net = nn.Linear(4, 1)
    how = training_settings(optimiser=name, learning_rate=0.05, weight_decay=0.0, momentum=momentum)
    optimiser = build_optimiser(net, how)
    assert type(optimiser) is kind
    inputs = torch.randn(64, 4)
    targets = inputs @ torch.tensor([[1.0], [-2.0], [0.5], [0.0]])
    losses = []
    for _ in range(150):
        optimiser.zero_grad()
        loss = nn.functional.mse_loss(net(inputs), targets)
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.05 * losses[0]


def test_fused_sgd_steps_as_torchs_plain_one_to_rounding():
    torch.manual_seed(0)
    nets = [nn.Linear(64, 64) for _ in range(2)]
    nets[1].load_state_dict(nets[0].state_dict())
    how = training_settings(optimiser="sgd", weight_decay=0.1)
    optimisers = [
        build_optimiser(net, how, fused=fused)
        for net, fused in zip(nets, (True, False), strict=True)
    ]
    for _ in range(5):
        gradients = [torch.randn_like(p) for p in nets[0].parameters()]
        for net, optimiser in zip(nets, optimisers, strict=True):
            for parameter, gradient in zip(net.parameters(), gradients, strict=True):
                parameter.grad = gradient.clone()
            optimiser.step()
    torch.testing.assert_close(nets[0].weight, nets[1].weight, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(nets[0].bias, nets[1].bias, rtol=1e-6, atol=1e-7)
