"""Anchors learn the lesions that RetinaNet's or ATSS's rule gives them, and no lesion gets none."""

import math
import pickle
import statistics

import numpy as np
import pytest
import torch
from torchvision.models.detection import RetinaNet
from torchvision.models.detection.image_list import ImageList

from data_prep.contracts.errors import InputError
from detection.anchors import DEFAULT_RATIOS, build_anchors
from detection.matching import build_matching, match_by_atss
from detection.model import training_losses

BACKGROUND = -1


def anchors_of(size: int, finest: float = 16.0) -> tuple[torch.Tensor, list[int]]:
    """All anchors for an image of a size, and how many each level has."""
    sides, side = [], size // 8
    for _ in range(5):
        sides.append(side)
        side = -(-side // 2)
    generator = build_anchors(size, [finest * 2**level for level in range(5)], DEFAULT_RATIOS)
    images = ImageList(torch.zeros(1, 3, size, size), [(size, size)])
    anchors = generator(images, [torch.zeros(1, 1, n, n) for n in sides])[0]
    return anchors, [9 * n * n for n in sides]


def draw_boxes(rng: np.random.Generator, count: int, size: int) -> torch.Tensor:
    """Boxes from a few pixels to half the image, overlapping at will, on quarter pixels."""
    sides = np.exp(rng.uniform(np.log(3), np.log(size / 2), (count, 2)))
    corner = rng.uniform(0, size - sides)
    boxes = np.concatenate([corner, corner + sides], axis=1)
    boxes = (boxes * 4).round() / 4
    boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
    return torch.from_numpy(boxes.astype(np.float32))


def iou(a: list[float], b: list[float]) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0) * max(height, 0)
    area = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return shared / (area - shared)


def centre(box: list[float]) -> tuple[float, float]:
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2


def slow_atss(boxes, anchors, level_sizes, top_k: int, per_place: int = 9) -> list[int]:
    """ATSS one box and one anchor at a time, from the paper's algorithm 1."""
    owner, overlap_of = [BACKGROUND] * len(anchors), [-1.0] * len(anchors)
    candidates_of = []
    for number, box in enumerate(boxes):
        candidates, start = [], 0
        for size in level_sizes:
            places = range(start, start + size, per_place)
            nearest = sorted(places, key=lambda p: math.dist(centre(anchors[p]), centre(box)))
            candidates += [p + i for p in nearest[:top_k] for i in range(per_place)]
            start += size
        overlaps = [iou(box, anchors[c]) for c in candidates]
        least = statistics.mean(overlaps) + statistics.stdev(overlaps)
        for c, overlap in zip(candidates, overlaps, strict=True):
            x, y = centre(anchors[c])
            inside = box[0] < x < box[2] and box[1] < y < box[3]
            if inside and overlap >= least and overlap > overlap_of[c]:
                owner[c], overlap_of[c] = number, overlap
        candidates_of.append(list(zip(candidates, overlaps, strict=True)))
    for number, candidates in enumerate(candidates_of):  # what is added to the paper
        if number not in owner:
            free = [pair for pair in candidates if owner[pair[0]] == BACKGROUND]
            owner[max(free, key=lambda pair: pair[1])[0]] = number
    return owner


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("size", "top_k"), [(96, 9), (64, 3), (64, 1)])
def test_atss_is_the_algorithm_of_the_paper(seed, size, top_k):
    anchors, level_sizes = anchors_of(size)
    boxes = draw_boxes(np.random.default_rng(seed), 1 + seed, size)
    expected = slow_atss(boxes.tolist(), anchors.tolist(), level_sizes, top_k)
    got = match_by_atss(boxes, anchors, level_sizes, top_k=top_k)
    assert got.tolist() == expected
    assert any(owner >= 0 for owner in expected)


def test_atss_leaves_no_lesion_without_an_anchor():
    anchors, level_sizes = anchors_of(96)
    tiny = torch.tensor([[41.0, 41.0, 43.0, 43.0]])  # between the places of every level
    boxes = torch.cat([tiny, draw_boxes(np.random.default_rng(9), 7, 96)])
    matched = match_by_atss(boxes, anchors, level_sizes)
    assert set(range(8)) <= set(matched.tolist())


def test_atss_gives_lesions_of_one_middle_anchors_of_their_own():
    anchors, level_sizes = anchors_of(96)
    boxes = torch.tensor([[32.0, 32.0, 48.0, 48.0], [20.0, 20.0, 60.0, 60.0]])
    matched = match_by_atss(boxes, anchors, level_sizes)
    for number, box in enumerate(boxes):
        sides = (anchors[matched == number][:, 2:] - anchors[matched == number][:, :2]).mean(0)
        assert torch.allclose(sides, box[2:] - box[:2], rtol=0.3)


def test_atss_does_not_depend_on_the_order_of_the_boxes():
    anchors, level_sizes = anchors_of(96)
    boxes = draw_boxes(np.random.default_rng(3), 5, 96)
    matched = match_by_atss(boxes, anchors, level_sizes)
    turned = match_by_atss(boxes.flip(0), anchors, level_sizes)
    assert torch.equal(matched, torch.where(turned >= 0, 4 - turned, turned))


@pytest.mark.parametrize("rule", ["iou", "atss"])
def test_an_image_without_boxes_is_all_background(rule):
    anchors, level_sizes = anchors_of(64)
    matched = build_matching(rule)(torch.zeros(0, 4), anchors, level_sizes)
    assert matched.shape == (len(anchors),)
    assert (matched == BACKGROUND).all()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("low", "high"), [(0.4, 0.5), (0.3, 0.6), (0.5, 0.5)])
def test_iou_matching_is_torchvisions(low, high, seed):
    anchors, level_sizes = anchors_of(96)
    boxes = draw_boxes(np.random.default_rng(seed), 4, 96)
    backbone = torch.nn.Identity()
    backbone.out_channels = 16
    peer = RetinaNet(backbone, 2, fg_iou_thresh=high, bg_iou_thresh=low)
    seen = []
    peer.head.compute_loss = lambda *arguments: seen.append(arguments[-1])
    peer.compute_loss([{"boxes": boxes}, {"boxes": boxes[:0]}], {}, [anchors, anchors])
    match = build_matching("iou", low=low, high=high)
    for got, expected in zip((boxes, boxes[:0]), seen[0], strict=True):
        assert torch.equal(match(got, anchors, level_sizes), expected)


def test_the_detector_learns_by_the_matching_it_was_built_with(build_small, batch):
    torch.manual_seed(0)
    by_iou = build_small()
    by_atss = build_small(matching="atss")
    by_atss.load_state_dict(by_iou.state_dict())
    heads = by_atss.run_heads(batch.images)
    matched = by_atss.match(batch.boxes[0], heads.anchors[0], heads.level_sizes)
    expected = slow_atss(
        batch.boxes[0].tolist(), heads.anchors[0].tolist(), heads.level_sizes, top_k=9
    )
    assert matched.tolist() == expected
    losses = [training_losses(m, batch)["bbox_regression"].item() for m in (by_iou, by_atss)]
    assert losses[0] != losses[1]


def test_atss_takes_the_number_of_anchors_at_a_place_from_the_ratios(build_small, batch):
    model = build_small(matching="atss", anchor_ratios=(0.7, 1.4))
    heads = model.run_heads(batch.images)
    matched = model.match(batch.boxes[0], heads.anchors[0], heads.level_sizes)
    expected = slow_atss(
        batch.boxes[0].tolist(), heads.anchors[0].tolist(), heads.level_sizes, 9, per_place=6
    )
    assert matched.tolist() == expected


@pytest.mark.parametrize("rule", ["iou", "atss"])
def test_a_matching_can_be_sent_to_another_training_process(rule):
    match = pickle.loads(pickle.dumps(build_matching(rule)))  # noqa: S301  our own bytes
    anchors, level_sizes = anchors_of(64)
    boxes = draw_boxes(np.random.default_rng(0), 2, 64)
    expected = build_matching(rule)(boxes, anchors, level_sizes)
    assert torch.equal(match(boxes, anchors, level_sizes), expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"matching": "hungarian"}, "matching: expected iou or atss"),
        ({"matching_low": 0.6}, "expected 0 < matching_low <= matching_high < 1, but got 0.6 and"),
        ({"matching_high": float("nan")}, "expected 0 < matching_low"),
        ({"atss_top_k": 0}, "atss_top_k: expected 1 to 100"),
    ],
)
def test_a_bad_matching_is_named(build_small, arguments, message):
    with pytest.raises(InputError, match=message):
        build_small(**arguments)
