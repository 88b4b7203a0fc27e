"""The detector is torchvision's RetinaNet where it should be, learns, and opens again."""

from dataclasses import replace
from functools import partial
from inspect import signature
from urllib.error import URLError

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models import resnet18
from torchvision.models.detection import retinanet_resnet50_fpn, retinanet_resnet50_fpn_v2
from torchvision.ops.misc import FrozenBatchNorm2d

from cxr_compare.configs.model_settings import RetinaNetSettings
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.detection.detector import build_targets, training_losses, validation_losses
from cxr_compare.detection.model import build_detector
from cxr_compare.detection.retinanet import LesionRetinaNet, build_anchors

PEERS = {"v1": retinanet_resnet50_fpn, "v2": retinanet_resnet50_fpn_v2}
COCO_ANCHORS = (32, 64, 128, 256, 512)


def test_the_backbone_sees_the_pixels_of_the_store(build_small, batch):
    model = build_small(mean=0.4, std=0.2).eval()
    seen = []
    model.backbone.body.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        model(batch.images)
    assert seen[0].shape == (4, 3, 64, 64)
    grey = (seen[0] * (255 * 0.2) + 255 * 0.4).round().to(torch.uint8)
    for channel in range(3):
        assert torch.equal(grey[:, channel], batch.images[:, 0])


def test_anchors_and_outputs_stay_float32_under_autocast(build_small, batch):
    model = build_small().eval()
    with torch.no_grad():
        expected = model.run(batch.images)
        with torch.autocast("cpu", torch.bfloat16):
            heads = model.run(batch.images)
            losses = model.losses(heads, build_targets(batch, 1))
            boxes = model.detections(heads)
    assert torch.equal(heads.anchors[0], expected.anchors[0])  # bfloat16 would shift them
    assert {x.dtype for x in (*heads.outputs.values(), *losses.values())} == {torch.float32}
    assert all(loss.isfinite() for loss in losses.values())
    assert all(image.corners.dtype == np.float32 for image in boxes)


def test_every_anchor_starts_at_the_prior(build_small, batch):
    model = build_small().eval()
    with torch.no_grad():
        scores = model.run(batch.images).outputs["cls_logits"].sigmoid()
    assert scores.mean() == pytest.approx(0.01, rel=0.05)


def test_p6_comes_from_c5_in_v2_even_where_channel_counts_are_equal(build_small):
    # torchvision would take P5 here: it compares the channel counts (512 and 512).
    from_c5 = build_small(head="v2", fpn_channels=512)
    assert from_c5.backbone.fpn.extra_blocks.use_P5 is False
    assert build_small(head="v1").backbone.fpn.extra_blocks.use_P5 is True


def test_channels_last_gives_the_same_detections(build_small, batch):
    model = build_small().eval()
    with torch.no_grad():
        expected = model(batch.images)
        outputs = model.to(memory_format=torch.channels_last)(batch.images)
    for image, other in zip(outputs, expected, strict=True):
        assert image.scores[:5] == pytest.approx(other.scores[:5], abs=1e-5)


def test_anchors_keep_their_share_of_the_image_and_two_strides():
    expected = ((512, 8, 32), (1024, 8, 64), (64, 8, 16), (64, 4, 8))  # two strides of P3 or P2
    for image_size, stride, smallest in expected:
        _, chosen = build_anchors(None, (1.0,), image_size, stride, steps=1)
        assert chosen["anchor_sizes"] == [size * smallest / 32 for size in COCO_ANCHORS]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"backbone": "vgg"}, "backbone: .*densenet121, resnet18"),
        ({"head": "v3"}, "head: .*'v3'"),
        ({"head": "v2", "fpn_channels": 30}, "8 channels.* 30$"),
        ({"head_convs": 5}, "head_convs: .* 5$"),
        ({"anchor_sizes": (8, 16)}, "anchor_sizes: .*\\[8, 16\\]"),
        ({"weights": "cocoa"}, "weights: .*'cocoa'"),
        ({"weights": "imagenet", "norm": "group"}, "weights imagenet: .*group"),
        ({"weights": "coco", "norm": "frozen"}, "weights coco: .*resnet50.* 256.* 4 "),
        ({"image_size": 8}, "image_size: .*32 px.* 8$"),
        ({"box_loss": "l2"}, "box_loss: .*auto, l1, smooth_l1, giou, diou, ciou.*'l2'"),
    ],
)
def test_a_bad_argument_is_named(build_small, arguments, message):
    with pytest.raises(InputError, match=message):
        build_small(**arguments)


def test_images_of_another_size_are_refused(build_small, batch):
    with pytest.raises(InputError, match=r"uint8.*\(B, 1, 96, 96\).*\(4, 1, 64, 64\)"):
        build_small(image_size=96).eval()(batch.images)


def offline(*_, **__):
    raise URLError("no network")


def test_offline_weights_say_which_file_to_put_where(build_small, monkeypatch, tmp_path):
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", offline)
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path))
    with pytest.raises(InputError, match=r"resnet18-f37072fd\.pth.*no network.*https://") as e:
        build_small(weights="imagenet", norm="frozen")
    assert str(tmp_path / "checkpoints" / "resnet18-f37072fd.pth") in str(e.value)


def test_imagenet_weights_reach_the_backbone(build_small, monkeypatch):
    state = resnet18(weights=None).state_dict()
    monkeypatch.setattr(
        "torchvision.models._api.load_state_dict_from_url", lambda *_, **__: dict(state)
    )
    model = build_small(weights="imagenet", norm="frozen")
    body = model.backbone.body.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in body.items())


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_coco_weights_reach_all_but_the_class_layer(version, monkeypatch):
    published = PEERS[version](weights=None, weights_backbone=None, num_classes=91)
    if version == "v1":  # published with frozen batch norm of epsilon 0
        frozen = partial(FrozenBatchNorm2d, eps=0.0)
        _swap_norms(published, frozen)
    state = published.state_dict()
    monkeypatch.setattr(
        "torchvision.models._api.load_state_dict_from_url", lambda *_, **__: dict(state)
    )
    model = build_detector(
        "retinanet", head=version, norm="frozen", weights="coco", image_size=64
    ).eval()
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        ours, theirs = model.backbone(image), published.eval().backbone(image)
        boxes = model.head.regression_head(list(ours.values()))
        expected = published.head.regression_head(list(theirs.values()))
    torch.testing.assert_close(boxes, expected, rtol=1e-3, atol=1e-5)
    logits = model.head.classification_head.cls_logits
    assert logits.out_channels == 9 * 2
    assert logits.bias[0].item() == pytest.approx(np.log(0.01 / 0.99))


def _swap_norms(model: nn.Module, make) -> None:
    """Replace batch norm by another kind with random statistics."""
    generator = torch.Generator().manual_seed(0)
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.BatchNorm2d):
                norm = make(child.num_features)
                norm.running_var.uniform_(0.001, 1.0, generator=generator)
                setattr(module, name, norm)


def test_validation_runs_the_network_once_and_equals_both_modes(build_small, batch):
    model = build_small(norm="frozen")
    runs = []
    model.backbone.register_forward_hook(lambda *_: runs.append(1))
    losses, boxes = validation_losses(model, batch)
    assert len(runs) == 1
    with torch.no_grad():
        expected = training_losses(model.train(), batch)
        detections = model.eval()(batch.images)
    assert {k: v.item() for k, v in losses.items()} == {k: v.item() for k, v in expected.items()}
    assert np.array_equal(boxes[0].corners, detections[0].corners)


def test_a_box_beside_the_image_is_refused_with_its_image(batch):
    beside = torch.tensor([[70.0, 5.0, 90.0, 25.0]])  # the images have 64 px
    labels = [*batch.labels[:3], torch.tensor([1])]
    bad = type(batch)(batch.image_ids, batch.images, [*batch.boxes[:3], beside], labels)
    with pytest.raises(InputError, match=r"image 'empty': box \[70.0, 5.0, 90.0, 25.0\] .*64 px"):
        build_targets(bad, 1)


@pytest.mark.parametrize(
    ("label", "box", "reason"),
    [
        (0, (1.0, 1.0, 9.0, 9.0), "label 0 "),
        (2, (1.0, 1.0, 9.0, 9.0), "label 2 .*1 to 1 "),
        (1, (1.0, 1.0, float("nan"), 9.0), "1.0, 1.0, nan, 9.0"),
        (1, (9.0, 1.0, 9.0, 9.0), "9.0, 1.0, 9.0, 9.0"),
    ],
)
def test_an_unusable_box_is_refused_with_its_image(label, box, reason, build_small, batch):
    bad = replace(
        batch,
        boxes=[*batch.boxes[:3], torch.tensor([box])],
        labels=[*batch.labels[:3], torch.tensor([label])],
    )
    with pytest.raises(InputError, match=rf"image 'empty': box .*{reason}"):
        training_losses(build_small(), bad)


def test_a_configurations_keys_are_keywords_of_the_builder():
    keys = set(RetinaNetSettings.model_fields) - {"architecture", "trainable", "compile"}
    builders = signature(build_detector), signature(LesionRetinaNet)
    assert keys < {name for builder in builders for name in builder.parameters}
