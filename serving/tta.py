"""Test-time augmentation: a model that joins its predictions on several views of each image.

The wrapped models take the place of plain ones in `detection.inference.predict_boxes` and
`classification.inference.predict_scores`, and in what measures time and operations.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from classification.loss import scores_of
from classification.model import ImageClassifier
from data_prep.augment.views import View
from data_prep.contracts.boxes import Boxes
from detection.detector import Detector
from detection.frames import MAX_PER_FINDING, MIN_SCORE
from evaluation.boxes.fusion import best_box_fusion


def _render_view(images: Tensor, view: View) -> Tensor:
    if view.flip:
        images = images.flip(3)
    if view.scale == 1.0:
        return images
    size = images.shape[-1]
    content, before = view.content(size), view.offset(size)
    # Continuous edges, as boxes have them: the first pixel begins at 0 before and after.
    scaled = functional.interpolate(
        images.float(), (content, content), mode="bilinear", antialias=True, align_corners=False
    )
    after = view.canvas(size) - content - before
    return functional.pad(
        scaled.round().clamp(0, 255).to(torch.uint8), (before, after, before, after)
    )


@contextmanager
def _with_size(holder: Any, side: int) -> Iterator[None]:
    """Let a model read squares of another side: its layers and anchors do not mind."""
    before = holder.preprocess
    holder.preprocess = replace(before, size=side)
    try:
        yield
    finally:
        holder.preprocess = before


class _MultiViewDetector(nn.Module):
    """A detector whose boxes from several views are joined by `evaluation.boxes.fusion`."""

    def __init__(self, model: Detector, views: Sequence[View]) -> None:
        super().__init__()
        self.model, self.views, self.n_findings = model, tuple(views), model.n_findings

    def forward(self, images: Tensor) -> list[dict[str, Tensor]]:
        """Detections in store px, as `Detector` gives them in evaluation mode."""
        size = images.shape[-1]
        n_images, parts = len(images), []
        finite = torch.ones(n_images, dtype=torch.bool)
        for number, view in enumerate(self.views):
            with _with_size(self.model, view.canvas(size)):
                detections = self.model(_render_view(images, view))
            for image, of_image in enumerate(detections):
                finite[image] &= bool(of_image["finite"])
                boxes = view.boxes_back(of_image["boxes"].float().numpy(), size)
                group = image * (self.n_findings + 1) + of_image["labels"].numpy()
                scores = of_image["scores"].double().numpy()
                parts.append((boxes, scores, group, np.full(len(boxes), number)))
        corners, scores, groups, models = (
            np.concatenate(part) for part in zip(*parts, strict=True)
        )
        shown = (corners[:, 2:] > corners[:, :2]).all(axis=1)
        fused = best_box_fusion(
            Boxes(corners, scores, groups)[shown],
            models=models[shown],
            weights=[1.0] * len(self.views),
        )
        return [self._of_image(image, fused, finite[image]) for image in range(n_images)]

    def _of_image(self, image: int, boxes: Boxes, ok: Tensor) -> dict[str, Tensor]:
        first = image * (self.n_findings + 1)
        rows = []
        for group in range(first + 1, first + self.n_findings + 1):
            start, stop = np.searchsorted(boxes.labels, [group, group + 1])  # by falling score
            sure = boxes.scores[start:stop] >= MIN_SCORE
            rows.append(np.arange(start, stop)[sure][:MAX_PER_FINDING])
        kept = boxes[np.concatenate(rows)]
        kept = kept[np.argsort(-kept.scores, kind="stable")]
        return {
            "boxes": torch.from_numpy(kept.corners),
            "scores": torch.from_numpy(kept.scores),
            "labels": torch.from_numpy(kept.labels - first),
            "finite": ok,
        }


class _MultiViewClassifier(nn.Module):
    """A classifier whose probabilities and maps are means over several views.

    Maps are laid back onto the grid of the plain view first. The mean of a mean map plus the bias
    is near, but no longer equal to, the logit.
    """

    def __init__(self, model: ImageClassifier, views: Sequence[View]) -> None:
        super().__init__()
        self.model, self.views, self.n_findings = model, tuple(views), model.n_findings
        self.map_frame = model.map_frame
        self._matrices: dict[Any, list[Tensor]] = {}

    def features(self, images: Tensor) -> list[Tensor]:
        """The last feature maps of each view; see `ImageClassifier.features`."""
        self._size = images.shape[-1]
        features = []
        for view in self.views:
            with _with_size(self.model, view.canvas(self._size)):
                features.append(self.model.features(_render_view(images, view)))
        return features

    def logits(self, features: Sequence[Tensor]) -> Tensor:
        """Logit of the mean probability, float64 (B, K)."""
        return torch.stack([scores_of(self.model.logits(f)) for f in features]).mean(dim=0).logit()

    def maps(self, features: Sequence[Tensor]) -> Tensor:
        """Mean of the maps on the grid of the plain view, float32 (B, K, h, w)."""
        plain = self.model.maps(features[0])
        back = [
            self._back(self.model.maps(f), view, plain.shape[2:])
            for view, f in zip(self.views[1:], features[1:], strict=True)
        ]
        return torch.stack([plain, *back]).mean(dim=0)

    def forward(self, images: Tensor) -> Tensor:
        """Logits of a batch."""
        return self.logits(self.features(images))

    def _back(self, maps: Tensor, view: View, grid: Sequence[int]) -> Tensor:
        """A view's maps on the cells of the plain view, by linear interpolation."""
        key = view, self._size, maps.shape[2:], maps.device, maps.dtype
        if key not in self._matrices:  # made and sent once
            self._matrices[key] = [each.to(maps) for each in self._rows_back(maps, view, grid)]
        rows, columns = self._matrices[key]
        return torch.einsum("yh,bkhw,xw->bkyx", rows, maps, columns)

    def _rows_back(self, maps: Tensor, view: View, grid: Sequence[int]) -> Iterator[Tensor]:
        start, _, end, _ = self.model.map_frame(1, 1)
        stride, middle = end - start, (start + end) / 2
        for axis, (n_out, n_in) in enumerate(zip(grid, maps.shape[2:], strict=True)):
            place = middle + stride * np.arange(n_out)  # store px
            if view.flip and axis == 1:
                place = self._size - place
            place = place * view.content(self._size) / self._size + view.offset(self._size)
            at = np.clip((place - middle) / stride, 0, n_in - 1)
            matrix = np.maximum(0, 1 - np.abs(at[:, None] - np.arange(n_in)))
            yield torch.from_numpy(matrix)


def with_views(model: nn.Module, views: Sequence[View]) -> nn.Module:
    """The model that joins all views; the model itself where there is only the plain one."""
    if len(views) < 2:
        return model
    if isinstance(model, Detector):
        return _MultiViewDetector(model, views)
    return _MultiViewClassifier(model, views)  # type: ignore[arg-type]
