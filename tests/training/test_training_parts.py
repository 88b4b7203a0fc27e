"""The parts of a training: augmentation, draws, losses, optimiser, schedule, number format."""

import numpy as np
import pytest
import torch

from tests.adapters.training import (
    EpochSampler,
    average_of,
    balancing_weights,
    changed,
    changes,
    draw_of_step,
    figures_of_boxes,
    figures_of_scores,
    masked_cross_entropy,
    optimiser,
    positive_weights,
    precision,
    rates,
)

# --- augmentation ---------------------------------------------------------------------------------

SIDE = 160
MOVES = [
    {"horizontal_flip": 0.5},
    {"rotate_degrees": 30},
    {"scale": 0.3},
    {"scale": 0.3, "stretch": True},
    {"shift": 0.2},
    {"rotate_degrees": 20, "scale": 0.2, "shift": 0.1, "horizontal_flip": 0.5, "stretch": True},
]
GREYS = [
    {"brightness": 0.3},
    {"contrast": 0.4},
    {"gamma": 0.8},
    {"blur": 1.5},
    {"noise": 0.08},
    {"cutout": 0.5},
]


def named(keys):
    return "+".join(keys)


def patch(centre, radii):
    """A bright ellipse in the dark, and its box."""
    y, x = np.mgrid[:SIDE, :SIDE] + 0.5
    inside = ((x - centre[0]) / radii[0]) ** 2 + ((y - centre[1]) / radii[1]) ** 2 <= 1
    box = [centre[0] - radii[0], centre[1] - radii[1], centre[0] + radii[0], centre[1] + radii[1]]
    return np.where(inside, 220, 20).astype(np.uint8), box


@pytest.mark.parametrize("keys", MOVES, ids=named)
def test_a_box_follows_its_patch(keys):
    pipeline, draw = changes(**keys), np.random.default_rng(0)
    for seed in range(200):
        centre, radii = draw.uniform(64, SIDE - 64, 2), draw.uniform(8, 24, 2)
        pixels, box = patch(centre, radii)
        made = changed(pipeline, pixels, [box], seed)
        assert made.rows.tolist() == [0]
        rows, columns = np.nonzero(made.pixels > 120)
        drawn = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        np.testing.assert_allclose(made.boxes[0], np.clip(drawn, 0, SIDE), atol=1.6)


@pytest.mark.parametrize("keys", GREYS, ids=named)
def test_a_change_of_greys_leaves_boxes_on_their_patch(keys):
    pipeline, draw = changes(**keys), np.random.default_rng(0)
    different = 0
    for seed in range(200):
        pixels, box = patch(draw.uniform(40, SIDE - 40, 2), draw.uniform(8, 24, 2))
        made = changed(pipeline, pixels, [box], seed)
        different += not np.array_equal(made.pixels, pixels)
        assert made.pixels.dtype == np.uint8
        if keys.keys() != {"cutout"}:
            np.testing.assert_allclose(made.boxes, [box], atol=1e-3)
        for x1, y1, x2, y2 in made.boxes:  # a hole may leave a part of it
            assert x1 >= box[0] - 1
            assert y1 >= box[1] - 1
            assert x2 <= box[2] + 1
            assert y2 <= box[3] + 1
    assert different > 60


@pytest.mark.parametrize(
    "keys", [{"shift": 0.4}, {"scale": 0.9}, {"rotate_degrees": 45}], ids=named
)
def test_a_box_of_which_less_than_three_tenths_stay_in_the_image_is_dropped(keys):
    pipeline, kept = changes(**keys), 0
    corner, inner = [0.0, 0.0, 20.0, 20.0], [60.0, 60.0, 100.0, 100.0]
    for seed in range(200):
        made = changed(pipeline, np.zeros((SIDE, SIDE), np.uint8), [corner, inner], seed)
        kept += 0 in made.rows
        assert (made.boxes >= 0).all()
        assert (made.boxes <= SIDE).all()
        assert (made.boxes[:, 2:] - made.boxes[:, :2] >= 1).all()
        assert 1 in made.rows or "scale" in keys
        if keys == {"shift": 0.4}:
            for row, box in zip(made.rows, made.boxes, strict=True):
                whole = 400 if row == 0 else 1600
                assert np.prod(box[2:] - box[:2]) >= 0.3 * whole - 1
    assert 0 < kept < 200


@pytest.mark.parametrize(
    "box",
    [(0, 0, 160, 160), (0, 0, 5, 5), (155, 155, 160, 160), (158, 0, 160, 160), (0, 40, 9, 42)],
)
def test_a_box_on_the_border_survives_a_flip(box):
    made = changed(changes(horizontal_flip=1.0), np.zeros((SIDE, SIDE), np.uint8), [box], 3)
    mirrored = [[SIDE - box[2], box[1], SIDE - box[0], box[3]]]
    np.testing.assert_allclose(made.boxes, mirrored, atol=1e-3)


def test_a_seed_alone_decides_what_an_image_becomes():
    keys = {key: value for each in (*MOVES[-1:], *GREYS) for key, value in each.items()}
    noise = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE)).astype(np.uint8)
    boxes = [[10.0, 10.0, 60.0, 60.0]]
    pipeline, seen = changes(**keys), set()
    for seed in range(20):
        first = changed(pipeline, noise, boxes, seed)
        changed(pipeline, noise[::-1].copy(), boxes, seed + 99)
        again = changed(changes(**keys), noise, boxes, seed)
        assert all(np.array_equal(one, two) for one, two in zip(first, again, strict=True))
        seen.add(first.pixels.tobytes())
    assert len(seen) == 20


# --- which images are drawn -----------------------------------------------------------------------


def epoch_of(sampler, epoch):
    sampler.set_epoch(epoch)
    return list(sampler)


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_positive_share_draws_that_share(share):
    positive = np.arange(2000) < 200
    sampler = EpochSampler(2000, seed=0, step=1, weights=balancing_weights(positive, share))
    drawn = np.array([row for row, _ in sampler])
    assert positive[drawn].mean() == pytest.approx(share, abs=0.04)
    assert len(np.unique(drawn[~positive[drawn]])) > 100  # all kinds, each as often as another


@pytest.mark.parametrize(("n_rows", "world_size"), [(24, 2), (29, 3), (11, 6), (6, 2)])
def test_processes_share_the_whole_steps_of_one_process(n_rows, world_size):
    size = 6
    one = epoch_of(EpochSampler(n_rows, seed=1, step=size), 2)
    assert len(one) == n_rows // size * size
    share = size // world_size
    parts = [
        epoch_of(EpochSampler(n_rows, 1, size, None, rank, world_size), 2)
        for rank in range(world_size)
    ]
    for step in range(len(one) // size):
        batch = [pair for part in parts for pair in part[step * share : (step + 1) * share]]
        assert sorted(batch) == sorted(one[step * size : (step + 1) * size])


# --- loss, optimiser, schedule --------------------------------------------------------------------


def test_unknown_labels_teach_nothing():
    draw = torch.Generator().manual_seed(0)
    for _ in range(20):
        logits = torch.randn(6, 14, generator=draw, requires_grad=True)
        targets = (torch.rand(6, 14, generator=draw) < 0.5).float()
        unknown = torch.rand(6, 14, generator=draw) < 0.4
        weight = torch.rand(14, generator=draw) + 0.5
        loss = masked_cross_entropy(logits, targets.masked_fill(unknown, torch.nan), weight)
        loss.backward()
        assert not logits.grad[unknown].any()
        assert logits.grad[~unknown].all()
        each = torch.nn.functional.binary_cross_entropy_with_logits(
            logits, targets, pos_weight=weight, reduction="none"
        )
        assert loss.item() == pytest.approx(each[~unknown].mean().item(), rel=1e-5)


def test_unknown_labels_count_for_no_figure():
    draw = np.random.default_rng(0)
    scores, targets = draw.random((40, 3)), draw.integers(0, 2, (40, 3)).astype(float)
    targets[draw.random((40, 3)) < 0.4] = np.nan
    spoiled = np.where(np.isnan(targets), 1 - scores, scores)
    assert figures_of_scores(spoiled, targets) == figures_of_scores(scores, targets)
    targets[:, 1] = np.nan  # never read: the mean of the others
    several = figures_of_scores(scores, targets)
    assert several == figures_of_scores(scores[:, [0, 2]], targets[:, [0, 2]])


def test_the_precision_of_an_epoch_is_the_mean_over_findings_by_their_own_boxes():
    box = [0.0, 0, 10, 10]  # both boxes are of finding 1, which image b does not show
    figures = figures_of_boxes(["a", "b"], [[*box, 1, 0.9], [*box, 1, 0.8]], [[*box, 1], [*box, 2]])
    assert figures["ap50"] == pytest.approx((1 + 0) / 2)


def test_what_a_network_draws_is_of_its_seed_epoch_and_step():
    places = [(1, 0, 0), (2, 0, 0), (1, 1, 0), (1, 0, 1)]
    drawn = [draw_of_step(*place) for place in places]
    assert len({*drawn}) == 4
    assert drawn == [draw_of_step(*place) for place in places]


def test_balanced_positives_weigh_as_much_as_the_negatives():
    nan = np.nan
    targets = np.array([[1, 1, 0, nan], [0, 1, 0, nan], [0, 1, 0, 1], [nan, nan, nan, 0]], float)
    assert positive_weights("balanced", targets).tolist() == [2.0, 1.0, 1.0, 1.0]
    assert positive_weights(1.0, targets) is None
    assert positive_weights(3.0, targets).tolist() == [3.0]


@pytest.mark.parametrize(
    ("name", "kind", "arguments"),
    [
        ("adamw", torch.optim.AdamW, {"fused": True}),
        ("adam", torch.optim.Adam, {"fused": True}),
        ("sgd", torch.optim.SGD, {"momentum": 0.3, "nesterov": True, "fused": True}),
        ("rmsprop", torch.optim.RMSprop, {"momentum": 0.3, "alpha": 0.9, "centered": False}),
    ],
)
def test_optimisers_are_those_of_torch_and_norms_and_biases_do_not_decay(name, kind, arguments):
    model = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.GroupNorm(1, 2))
    made = optimiser(model, optimiser=name, momentum=0.3, weight_decay=0.1)
    assert type(made) is kind
    assert all(
        group[key] == value for group in made.param_groups for key, value in arguments.items()
    )
    decays = {p.ndim: group["weight_decay"] for group in made.param_groups for p in group["params"]}
    assert decays == {4: 0.1, 1: 0.0}
    model[0].requires_grad_(False)
    groups = optimiser(model, optimiser=name).param_groups
    assert sum(len(group["params"]) for group in groups) == 2


def test_schedules_rise_and_fall_as_documented():
    cycle = rates(100, epochs=10, learning_rate=1.0, warmup_epochs=2.0)
    assert max(cycle) == pytest.approx(1, abs=0.01)
    assert 18 <= int(np.argmax(cycle)) <= 21
    assert cycle[0] < 0.05
    assert cycle[-1] < 0.01
    cosine = rates(100, epochs=10, schedule="cosine", learning_rate=1.0, warmup_epochs=1.0)
    assert cosine[:10] == pytest.approx([(n + 1) / 10 for n in range(10)])
    assert cosine[55] == pytest.approx(0.5, abs=0.01)
    assert cosine[-1] < 0.001
    assert set(rates(12, schedule="constant", learning_rate=0.5, warmup_epochs=0.0)) == {0.5}


def test_the_average_of_weights_follows_its_formula_and_counters_are_copied():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.BatchNorm1d(4))
    average = average_of(model, 0.5)
    expected = {name: value.clone() for name, value in model.state_dict().items()}
    for step in range(5):
        model(torch.randn(6, 4))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += torch.randn_like(parameter)
        average.update_parameters(model)
        share = 1 - min(0.5, (1 + step) / (10 + step)) if step else 1.0  # first it is a copy
        for name, value in model.state_dict().items():
            is_float = value.is_floating_point()
            expected[name] = expected[name].lerp(value, share) if is_float else value.clone()
    for name, value in average.module.state_dict().items():
        torch.testing.assert_close(value, expected[name])


# --- number format --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("machine", "expected"),
    [
        ({}, "fp32"),
        ({"bf16": True}, "bf16"),
        ({"gpu": True, "bf16": True}, "bf16"),
        ({"gpu": True, "capability": (7, 5)}, "fp16"),  # a T4
        ({"gpu": True, "capability": (6, 1)}, "fp32"),
    ],
)
def test_auto_takes_what_the_machine_computes_fast(machine, expected):
    assert precision("auto", **machine) == expected
