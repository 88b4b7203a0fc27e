"""What every detector and classifier must do, whatever its architecture."""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchvision.ops import box_iou

from cxr_compare.classification.model import build_classifier
from cxr_compare.classification.model import start_from as start_classifier
from cxr_compare.configs.settings import TrainingSettings
from cxr_compare.data_prep.store.views import parse_views
from cxr_compare.detection.frames import MAX_PER_FINDING, MIN_SCORE
from cxr_compare.detection.model import build_detector
from cxr_compare.detection.model import start_from as start_detector
from cxr_compare.networks.checkpoints import Checkpoint
from cxr_compare.networks.cost import count_flops, measure_latency
from cxr_compare.networks.model_files import load_model, save_model
from cxr_compare.networks.registry import DETECTORS
from cxr_compare.serving.trained_model import MultiViewDetector
from cxr_compare.training.callbacks import RampedAverage
from cxr_compare.training.optim import build_optimiser
from tests.architectures.model_cases import BOXES, MODEL_CASES, SIZE, ModelCase, patches


def _state(model: nn.Module) -> dict[str, Tensor]:
    """Weights and statistics, without batch norm's step counters, which change nothing."""
    state = model.state_dict()
    return {name: v.clone() for name, v in state.items() if not name.endswith("batches_tracked")}


def _require_equal(model: nn.Module, state: dict[str, Tensor]) -> None:
    now = model.state_dict()
    assert [name for name, value in state.items() if not torch.equal(value, now[name])] == []


def _gradients(case: ModelCase, model: nn.Module, batch: Any) -> dict[str, Tensor]:
    """Of a batch, by the parameters that learn; None where one has none."""
    model.zero_grad()
    torch.manual_seed(1)
    sum(case.losses(model, batch).values()).backward()
    return {name: p.grad for name, p in model.named_parameters() if p.requires_grad}


@cache
def _learn(name: str) -> Any:
    """The model, after it has learned the five images by heart."""
    case = MODEL_CASES[name]
    model, batch = case.build(), case.batch()
    settings = TrainingSettings(
        epochs=1, batch_size=5, learning_rate=case.rate, weight_decay=0.0, monitor="val_loss"
    )
    optimiser = build_optimiser(model, settings)
    for _ in range(case.steps):
        optimiser.zero_grad()
        sum(case.losses(model, batch).values()).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
    return model.eval()


@pytest.fixture
def learned(case: ModelCase) -> Any:
    """The trained model, which no test changes."""
    return _learn(case.name)


def test_every_detector_here_has_a_model_case():
    architectures = {
        case.model["architecture"] for case in MODEL_CASES.values() if case.kind == "detector"
    }
    assert architectures == {*DETECTORS, "lesion_centernet:CenterNet"}


@pytest.mark.parametrize("pixels", [0, 255])
def test_empty_images_without_a_finding_have_finite_losses_and_a_gradient_everywhere(case, pixels):
    images = torch.full((2, 1, SIZE, SIZE), pixels, dtype=torch.uint8)
    gradients = _gradients(case, case.build(), case.batch(images, boxed=False))
    assert [name for name, gradient in gradients.items() if gradient is None] == []
    assert all(gradient.isfinite().all() for gradient in gradients.values())


def test_a_batch_with_findings_has_a_gradient_everywhere(case):
    gradients = _gradients(case, case.build(), case.batch())
    assert [name for name, gradient in gradients.items() if gradient is None] == []
    assert all(gradient.isfinite().all() for gradient in gradients.values())


def test_a_batch_is_learned_by_heart(case, learned):
    if case.kind == "classifier":  # in training mode: few batches have moved the statistics
        model = copy.deepcopy(learned).train()
        assert sum(case.losses(model, case.batch()).values()).item() < 0.1
        return
    answers = case.answers(learned, patches())
    *positive, negative = (max([0.0, *answer["scores"].tolist()]) for answer in answers)
    assert min(positive) > 2 * negative


def test_box_at_any_border_is_detected_inside_the_image(detector, learned):
    for answer, box in zip(detector.answers(learned, patches()), BOXES, strict=True):
        assert (answer["corners"] >= 0).all()
        assert (answer["corners"] <= SIZE).all()
        assert (answer["corners"][:, 2:] >= answer["corners"][:, :2]).all()
        assert answer["scores"].tolist() == sorted(answer["scores"].tolist(), reverse=True)
        assert (answer["scores"] >= MIN_SCORE).all()
        assert len(answer["scores"]) <= MAX_PER_FINDING
        if box is not None:
            assert box_iou(torch.tensor([box]).float(), answer["corners"][:1]).item() > 0.5


def _require_close(actual: list[dict[str, Tensor]], expected: list[dict[str, Tensor]]) -> None:
    for one, other in zip(actual, expected, strict=True):
        assert one.keys() == other.keys()
        torch.testing.assert_close(one["scores"], other["scores"], rtol=1e-3, atol=1e-4)
        if "maps" in one:
            torch.testing.assert_close(one["maps"], other["maps"], rtol=1e-3, atol=1e-3)
        else:  # those of equal score may change places
            sure = int((other["scores"] > 0.2).sum())
            torch.testing.assert_close(
                one["corners"][:sure], other["corners"][:sure], atol=0.1, rtol=0
            )


def test_a_batch_answers_as_its_images_one_by_one(case, learned):
    images = patches()
    alone = [answer for image in images for answer in case.answers(learned, image[None])]
    _require_close(case.answers(learned, images), alone)


def test_output_that_is_not_finite_is_reported(detector, learned):
    broken = copy.deepcopy(learned)
    with torch.no_grad():
        for parameter in broken.parameters():
            parameter.fill_(torch.nan)
    answers = detector.answers(broken, patches())
    assert answers == [{}] * len(BOXES)


def test_validation_leaves_weights_statistics_mode_and_generator_as_they_were(case):
    norm = {"norm": "batch"} if case.kind == "detector" else {}
    model, batch = case.build(**norm).train(), case.batch()
    before, drawn = _state(model), torch.random.get_rng_state()
    (losses, _), (again, _) = case.validate(model, batch), case.validate(model, batch)
    assert losses == again
    assert model.training
    assert torch.equal(torch.random.get_rng_state(), drawn)
    _require_equal(model, before)
    assert not any(loss.requires_grad for loss in losses.values())


def test_a_seed_repeats_weights_and_losses(case):
    batch, losses = case.batch(), []
    for _ in range(2):
        model = case.build()
        state = _state(model)
        losses.append(state | case.losses(model, batch))
    one, other = losses
    assert [name for name, value in one.items() if not torch.equal(value, other[name])] == []


def test_halves_of_a_batch_weigh_as_the_whole_does(case):
    """So do two processes, of which each has a half, and batches that are accumulated."""
    model, batch = case.build(**dict(case.alone)), case.batch()
    _without_chance(model)
    whole = _gradients(case, model, batch)
    whole = {name: gradient.clone() for name, gradient in whole.items()}
    rows = [[0, 1, 2], [3, 4]]  # the second has the image without a finding
    parts = [(_gradients(case, model, _part(batch, part)), len(part) / len(batch)) for part in rows]
    for name, expected in whole.items():
        total = sum(share * gradients[name] for gradients, share in parts)
        largest = float(expected.abs().max())
        torch.testing.assert_close(total, expected, rtol=1e-2, atol=1e-3 * largest + 1e-7)


def _without_chance(model: nn.Module) -> None:
    """Leave out what differs in a half: statistics of a batch, dropout, samples of anchors."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d | nn.Dropout):
            module.eval()
        for name in ("dropout", "attention_dropout", "activation_dropout"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)
        if hasattr(module, "fg_bg_sampler"):
            module.fg_bg_sampler.batch_size_per_image = 10**6


def _part(batch: Any, rows: list[int]) -> Any:
    fields = {name: getattr(batch, name) for name in batch.__dataclass_fields__}
    parts = {
        name: [value[row] for row in rows] if isinstance(value, list) else value[rows]
        for name, value in fields.items()
        if isinstance(value, list | Tensor)
    }
    return type(batch)(**parts)


def test_bf16_computes_losses_and_boxes_in_float32(case, learned):
    model, batch = copy.deepcopy(learned).train(), case.batch()
    with torch.autocast("cpu", torch.bfloat16):
        losses = case.losses(model, batch)
        answers = case.answers(learned, batch.images)
    assert {loss.dtype for loss in losses.values()} == {torch.float32}
    sum(losses.values()).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
    full = case.answers(learned, batch.images)
    for half, exact in zip(answers, full, strict=True):
        assert {value.dtype for value in half.values()} <= {torch.float32, torch.int64}
        best, expected = (
            max([0.0, *detections["scores"].tolist()]) for detections in (half, exact)
        )
        assert best == pytest.approx(expected, abs=0.15)


def test_averaged_weights_answer(case, learned):
    average = RampedAverage(learned, 0.9)
    average.update_parameters(learned)
    average.update_parameters(learned)
    _require_close(case.answers(average.module, patches()), case.answers(learned, patches()))


def test_views_of_a_flipped_image_flip_its_boxes_back(detector, learned):
    viewed = MultiViewDetector(learned, parse_views("flip")[1:]).eval()
    mirrored = patches().flip(3)
    for there, here in zip(viewed(mirrored), learned(patches()), strict=True):
        back = there.corners[:1, [2, 1, 0, 3]] * [-1, 1, -1, 1] + [SIZE, 0, SIZE, 0]
        np.testing.assert_allclose(back, here.corners[:1], atol=0.01)
    joined = MultiViewDetector(learned, parse_views("flip,scale0.8")).eval()(patches())
    assert None not in joined


@pytest.mark.parametrize("size", [64, 160, pytest.param(1024, marks=pytest.mark.long)])
def test_images_of_each_size_are_learned_and_answered(case, size):
    size = max(size, SIZE) if case.kind == "detector" else size
    model, images = case.build(size), patches(size)[:2]
    assert all(loss.isfinite() for loss in case.losses(model, case.batch(images)).values())
    assert len(case.answers(model, images[:1])) == 1


def test_cost_is_measured(case):
    model = case.build()
    assert count_flops(model, SIZE) > 1e6
    assert measure_latency(model, SIZE, repeats=1)["latency_ms"] > 0


def test_frozen_stages_stay_as_they_are_and_all_else_learns(case):
    norm = {"norm": "batch"} if case.kind == "detector" else {}
    model = case.build(**norm).train()
    stages = [[p for layer in stage for p in layer.parameters()] for stage in model.stages]
    body = {id(p) for stage in stages for p in stage}
    rest = [p for p in model.parameters() if p.requires_grad and id(p) not in body]
    for how, learning in (("head", 0), (2, 2), ("all", len(stages))):
        model.freeze_for_epoch(how)
        learns = [all(p.requires_grad for p in stage) for stage in stages]
        n_frozen = len(stages) - learning
        assert learns == [False] * n_frozen + [True] * learning
        assert all(p.requires_grad for p in rest)
        frozen = [layer for stage in model.stages[:n_frozen] for layer in stage]
        fixed = {id(v) for layer in frozen for v in (*layer.parameters(), *layer.buffers())}
        named = (*model.named_parameters(), *model.named_buffers())
        state = {name: value.clone() for name, value in named if id(value) in fixed}
        gradients = _gradients(case, model, case.batch())
        assert [name for name, gradient in gradients.items() if gradient is None] == []
        _require_equal(model, state)


def test_a_saved_model_opens_again_and_answers_the_same(case, learned, tmp_path):
    save_model(learned, tmp_path)
    builders = {"detector": build_detector, "classifier": build_classifier}
    again = load_model(tmp_path, builders)
    assert again.architecture == learned.architecture
    for one, other in zip(
        case.answers(again, patches()), case.answers(learned, patches()), strict=True
    ):
        assert all(torch.equal(value, other[name]) for name, value in one.items())


def test_a_run_of_the_same_model_gives_all_its_weights_and_of_other_findings_no_class_layer(
    case, learned
):
    start = start_detector if case.kind == "detector" else start_classifier
    model = case.build()
    start(model, Checkpoint("run", learned.state_dict(), ("opacity",)), ("opacity",))
    _require_equal(model, _state(learned))
    fresh = case.build()
    other = _state(fresh)
    start(fresh, Checkpoint("run", learned.state_dict(), ("mass",)), ("opacity",))
    changed = {name for name, value in _state(fresh).items() if not value.equal(other[name])}
    differing = {name for name, value in _state(learned).items() if not value.equal(other[name])}
    assert changed < differing
    assert case.losses(fresh, case.batch())
