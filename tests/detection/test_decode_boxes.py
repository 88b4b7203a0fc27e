"""Boxes are torchvision's, by numpy and, on a GPU, of a whole batch at once."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from cxr_compare.detection.dense import HeadPass
from cxr_compare.detection.detector import Detections
from cxr_compare.detection.frames import MAX_PER_FINDING, MIN_SCORE, decode_boxes
from cxr_compare.detection.model import build_detector
from cxr_compare.detection.retinanet import LesionRetinaNet
from tests.detection.test_parity import as_torchvision, limit_as_ours

SIZE = 96
COUNT = 5


@pytest.fixture(scope="module")
def detector() -> LesionRetinaNet:
    model = build_detector(
        "retinanet",
        backbone="resnet18",
        fpn_channels=16,
        head_convs=1,
        n_findings=2,
        image_size=SIZE,
    )
    return model.eval()


def draw_heads(model: LesionRetinaNet, seed: int, *, mean: float, coarse: bool = False) -> HeadPass:
    """Outputs of heads: scores spread widely, boxes that overlap; coarse ones with many ties."""
    draw = torch.Generator().manual_seed(seed)
    with torch.inference_mode():
        heads = model.run(torch.zeros(COUNT, 1, SIZE, SIZE, dtype=torch.uint8))
    logits = mean + 2.0 * torch.randn(heads.outputs["cls_logits"].shape, generator=draw)
    if coarse:
        logits = logits.bfloat16().float()
    logits[..., 0] = -torch.inf  # background, which torchvision would return
    offsets = 0.3 * torch.randn(heads.outputs["bbox_regression"].shape, generator=draw)
    outputs = {"cls_logits": logits, "bbox_regression": offsets}
    return heads._replace(outputs=outputs)


def by_torchvision(model: LesionRetinaNet, heads: HeadPass) -> list[dict[str, Tensor]]:
    """The first boxes of each finding that torchvision's own method gives."""
    levels = {n: list(v.split(heads.level_sizes, 1)) for n, v in heads.outputs.items()}
    anchors = [list(a.split(heads.level_sizes)) for a in heads.anchors]
    limit_as_ours(model, 2)
    boxes = model.postprocess_detections(levels, anchors, [(SIZE, SIZE)] * COUNT)
    limited = []
    for image in boxes:
        rank = torch.zeros_like(image["labels"])
        for label in (1, 2):
            same = image["labels"] == label
            rank[same] = torch.arange(int(same.sum()))
        limited.append({name: values[rank < MAX_PER_FINDING] for name, values in image.items()})
    return limited


def by_numpy(model: LesionRetinaNet, heads: HeadPass) -> Detections:
    return model.detections(heads)


def together(model: LesionRetinaNet, heads: HeadPass) -> Detections:
    """As on a GPU."""
    logits, offsets = heads.outputs["cls_logits"][..., 1:], heads.outputs["bbox_regression"]
    return model.decode_batch(logits, offsets, heads)


def require_equal(ours: Detections, theirs: Sequence[dict[str, Tensor]]) -> None:
    """The same boxes, each with a partner: rounding may exchange two that score alike."""
    for one, other in zip(map(as_torchvision, ours), theirs, strict=True):
        assert (one["scores"].diff() <= 0).all()
        assert len(one["boxes"]) == len(other["boxes"])
        sides = (
            torch.cat([boxes["boxes"] / 1e-3, boxes["scores"][:, None] / 1e-6], 1).double()
            for boxes in (one, other)
        )
        first, second = sides
        same = (first[:, None] - second).abs().amax(2) <= 1
        same &= one["labels"][:, None] == other["labels"]
        assert same.any(0).all()
        assert same.any(1).all()


@pytest.mark.parametrize("decode", [by_numpy, together])
@pytest.mark.parametrize(
    ("mean", "reason"), [(0.0, "every limit reached"), (-12.0, "few candidates"), (-30.0, "none")]
)
def test_boxes_are_torchvisions(detector, decode, mean, reason):
    heads = draw_heads(detector, 0, mean=mean)
    boxes = decode(detector, heads)
    require_equal(boxes, by_torchvision(detector, heads))
    most = max(map(len, boxes))
    low, high = {"every limit reached": (200, 200), "few candidates": (5, 199), "none": (0, 0)}[
        reason
    ]
    assert low <= most <= high


@pytest.mark.parametrize("mean", [0.0, -7.0])
def test_equal_scores_keep_the_anchors_order_on_every_device(detector, mean):
    heads = draw_heads(detector, 3, mean=mean, coarse=True)
    assert heads.outputs["cls_logits"].unique().numel() < 2000  # many of some 10,000 are equal
    require_equal(together(detector, heads), [*map(as_torchvision, by_numpy(detector, heads))])


@pytest.mark.parametrize("decode", [by_numpy, together])
def test_infinite_output_is_reported_and_leaves_the_other_images_unchanged(detector, decode):
    heads = draw_heads(detector, 4, mean=-6.0)
    expected = decode(detector, heads)
    heads.outputs["cls_logits"][1, 7, 2] = torch.inf
    heads.outputs["bbox_regression"][3, 5, 0] = torch.nan
    boxes = decode(detector, heads)
    assert [image is None for image in boxes] == [False, True, False, True, False]
    require_equal(boxes[::2], [*map(as_torchvision, expected[::2])])


@pytest.mark.parametrize("decode", [by_numpy, together])
def test_a_score_just_at_the_least_is_a_box_and_one_below_is_none(detector, decode):
    heads = draw_heads(detector, 5, mean=-30.0)
    at = torch.logit(torch.tensor(MIN_SCORE, dtype=torch.float64))
    heads.outputs["cls_logits"][0, 3, 1] = (at + 1e-5).float()
    heads.outputs["cls_logits"][1, 3, 1] = (at - 1e-5).float()
    assert [len(image) for image in decode(detector, heads)] == [1, 0, 0, 0, 0]


def test_suppression_continues_until_enough_boxes_remain():
    # The best 400 boxes are one; 150 others lie apart, so the hundredth kept is far down the list.
    offsets_px = np.concatenate([np.zeros(400), np.arange(1, 151)]).astype(np.float32)
    anchors = np.stack(
        [4 * offsets_px, 0 * offsets_px, 4 * offsets_px + 3, 0 * offsets_px + 3], axis=1
    )
    logits = np.linspace(3, -3, len(offsets_px), dtype=np.float32)[None, :, None]
    offsets = np.zeros((1, len(offsets_px), 4), np.float32)
    (boxes,) = decode_boxes(logits, offsets, anchors, [len(offsets_px)], 1000)
    assert boxes.corners[:, 0].tolist() == [4.0 * rank for rank in range(MAX_PER_FINDING)]
