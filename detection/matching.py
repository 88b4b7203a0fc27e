"""Which anchors learn which lesion: by overlap (RetinaNet) or by adaptive selection (ATSS)."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

import torch
from torch import Tensor
from torchvision.models.detection._utils import Matcher
from torchvision.ops import box_iou

from data_prep.contracts.errors import InputError

MatchingRule = Literal["iou", "atss"]
Match = Callable[[Tensor, Tensor, Sequence[int]], Tensor]
BACKGROUND = Matcher.BELOW_LOW_THRESHOLD  # -1; -2 is ignored
MAX_TOP_K = 100


def build_matching(
    rule: MatchingRule = "iou",
    *,
    low: float = 0.4,
    high: float = 0.5,
    top_k: int = 9,
    per_place: int = 9,
) -> Match:
    """Choose how anchors are matched with lesions.

    Args:
        rule: ``iou`` or ``atss``.
        low: Anchors that overlap every lesion by less (IoU) are background; ``iou`` only.
        high: Anchors that overlap a lesion by at least this learn it; between the two an anchor
            is ignored. The best anchors of a lesion are never ignored or background: they learn
            the lesion that they overlap most, at any IoU.
        top_k: Places on each level that are candidates for a lesion; ``atss`` only.
        per_place: Anchors at each place of every level.

    Returns:
        A function of boxes (N, 4), anchors (A, 4), both xyxy px, and the number of anchors on each
        level. It gives (A,) int64: the index of the matched box, -1 background, -2 ignored.

    Raises:
        InputError: An argument is outside its range.

    Example:
        >>> match = build_matching("iou")
        >>> anchors = torch.tensor([[0.0, 0, 8, 8], [0.0, 0, 16, 8], [40.0, 40, 48, 48]])
        >>> match(torch.tensor([[0.0, 0, 9, 8]]), anchors, [3]).tolist()
        [0, 0, -1]
    """
    if rule not in ("iou", "atss"):
        raise InputError(f"matching: expected iou or atss, but got {rule!r}")
    if not 0 < low <= high < 1:
        raise InputError(
            f"matching: expected 0 < matching_low <= matching_high < 1, but got {low} and {high}"
        )
    if not 1 <= top_k <= MAX_TOP_K:
        raise InputError(f"atss_top_k: expected 1 to {MAX_TOP_K}, but got {top_k}")
    if rule == "atss":
        return partial(match_by_atss, per_place=per_place, top_k=top_k)
    matcher = Matcher(high, low, allow_low_quality_matches=True)
    return partial(match_by_iou, matcher=matcher)


def match_by_iou(
    boxes: Tensor, anchors: Tensor, level_sizes: Sequence[int], *, matcher: Matcher
) -> Tensor:
    """Match by fixed IoU thresholds, exactly as torchvision's RetinaNet does.

    Args:
        boxes: (N, 4) xyxy, px; N may be 0.
        anchors: (A, 4) xyxy, px.
        level_sizes: Not used: a threshold is the same on every level.
        matcher: torchvision's, with its thresholds.

    Returns:
        (A,) int64: index of the matched box, -1 background, -2 ignored.
    """
    if not len(boxes):
        return _background(anchors)
    return matcher(box_iou(boxes, anchors))


def match_by_atss(
    boxes: Tensor,
    anchors: Tensor,
    level_sizes: Sequence[int],
    *,
    per_place: int = 9,
    top_k: int = 9,
) -> Tensor:
    """Match by adaptive training sample selection: each lesion sets its own IoU threshold.

    The candidates of a lesion are the anchors at the ``top_k`` places of each level that lie
    nearest to its centre. Those learn it whose IoU reaches mean plus standard deviation of all
    candidates' and whose centre is inside it; an anchor wanted twice takes the lesion that it
    overlaps most. As in the authors' code, a place brings all its anchors (nine in RetinaNet).

    One thing is added: a lesion left without an anchor, as one smaller than a stride may be, gets
    its best free candidate. Otherwise it would be learned as background and nothing else.

    Args:
        boxes: (N, 4) xyxy, px; N may be 0.
        anchors: (A, 4) xyxy, px, level by level; the anchors of a place share their centre and
            follow one another.
        level_sizes: Anchors on each level; they add up to A.
        per_place: Anchors at each place, the same on all levels.
        top_k: Places on each level.

    Returns:
        (A,) int64: index of the matched box, or -1 for background.

    Source:
        Zhang et al. 2020, Bridging the Gap Between Anchor-based and Anchor-free Detection via
        Adaptive Training Sample Selection.

    Example:
        >>> anchors = torch.tensor([[-4.0, -4, 4, 4], [4.0, -4, 12, 4], [12.0, -4, 20, 4]])
        >>> match_by_atss(torch.tensor([[5.0, -4, 13, 4]]), anchors, [3], per_place=1).tolist()
        [-1, 0, -1]
    """
    if not len(boxes):
        return _background(anchors)
    overlap = box_iou(boxes, anchors)  # (N, A)
    candidates = _nearest_places(boxes, anchors, level_sizes, per_place, top_k)  # (N, C)
    quality = overlap.gather(1, candidates)  # (N, C)
    inside = _centre_inside(boxes, anchors[candidates])  # (N, C)
    least = quality.mean(dim=1, keepdim=True) + quality.std(dim=1, keepdim=True)  # (N, 1)
    chosen = (quality >= least) & inside
    wanted = torch.full_like(overlap, -1.0)  # (N, A): IoU where a lesion wants an anchor
    wanted.scatter_(1, candidates, torch.where(chosen, quality, -1.0))
    best, owner = wanted.max(dim=0)  # (A,)
    matched = torch.where(best >= 0, owner, BACKGROUND)
    return _give_each_box_an_anchor(matched, quality, candidates)


def _background(anchors: Tensor) -> Tensor:
    return anchors.new_full((len(anchors),), BACKGROUND, dtype=torch.int64)


def _nearest_places(
    boxes: Tensor, anchors: Tensor, level_sizes: Sequence[int], per_place: int, top_k: int
) -> Tensor:
    """Anchors at the nearest places of each level, (N, C); of equals the earlier place."""
    middle = _centres(boxes)  # (N, 2)
    each = torch.arange(per_place, device=boxes.device)  # (per_place,)
    found, start = [], 0
    for size in level_sizes:
        places = _centres(anchors[start : start + size : per_place])  # (P, 2)
        distance = (middle[:, None] - places[None]).square().sum(-1)  # (N, P)
        # A stable sort, not topk: which of two equals topk takes depends on the machine.
        nearest = distance.sort(dim=1, stable=True).indices[:, :top_k]  # (N, k)
        found.append((start + nearest[..., None] * per_place + each).flatten(1))
        start += size
    return torch.cat(found, dim=1)


def _centres(boxes: Tensor) -> Tensor:
    return (boxes[..., :2] + boxes[..., 2:]) / 2


def _centre_inside(boxes: Tensor, candidates: Tensor) -> Tensor:
    """Whether the centre of each candidate (N, C, 4) lies inside its box (N, 4)."""
    centre = _centres(candidates)  # (N, C, 2)
    return ((centre > boxes[:, None, :2]) & (centre < boxes[:, None, 2:])).all(-1)


def _give_each_box_an_anchor(matched: Tensor, quality: Tensor, candidates: Tensor) -> Tensor:
    """Give boxes that no anchor learns their best candidate that is still free, if there is one."""
    learned = torch.zeros(len(quality), dtype=torch.bool, device=matched.device)
    learned[matched[matched >= 0]] = True
    for box in (~learned).nonzero()[:, 0].tolist():  # few: lesions smaller than a stride
        free = matched[candidates[box]] == BACKGROUND
        if free.any():
            best = torch.where(free, quality[box], -1.0).argmax()
            matched[candidates[box, best]] = box
    return matched
