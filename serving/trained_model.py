"""A trained run that predicts with torch."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal, cast

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional

from cxr_compare.classification.activation_maps import MapMethod
from cxr_compare.classification.inference import predict_scores
from cxr_compare.classification.model import ImageClassifier, build_classifier
from cxr_compare.data_prep.contracts.boxes import Boxes
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.finding_names import Target
from cxr_compare.data_prep.store.pixel_store import PixelSource, require_images
from cxr_compare.data_prep.store.prediction_info import PredictionsInfo
from cxr_compare.data_prep.store.prediction_writer import Part
from cxr_compare.data_prep.store.preprocess import Preprocess
from cxr_compare.data_prep.store.views import View
from cxr_compare.data_prep.work.background_threads import read_ahead
from cxr_compare.detection.detector import Detections, Detector, predict_boxes
from cxr_compare.detection.frames import best_boxes
from cxr_compare.detection.model import build_detector
from cxr_compare.evaluation.sources.box_fusion import NAME, OVERLAP, best_box_fusion
from cxr_compare.networks.cost import count_flops, count_parameters, measure_latency
from cxr_compare.networks.model_files import WEIGHTS_FILE, load_model
from cxr_compare.serving.export_spec import (
    PREPROCESS_FILE,
    digest_files,
    require_names,
    validation_folder,
)
from cxr_compare.serving.peak_memory import PeakMemory
from cxr_compare.training.run_folder import RunFolder
from cxr_compare.training.run_info import RunInfo

Precision = Literal["fp32", "bf16"]
BUILDERS: dict[str, Callable[..., nn.Module]] = {
    "detector": build_detector,
    "classifier": build_classifier,
}
_MOST_IMAGES = 16  # largest number of images that are predicted at a time
# Pixels of one batch on a CPU. A larger batch does not fit its caches, and takes longer an image.
_BATCH_PIXELS = 8 * 224**2


@dataclass(frozen=True)
class TrainedModel:
    """The trained network of a run (folder of a training), with the preprocessing of its input.

    Attributes:
        views: Versions of each image, such as mirrored, whose outputs are joined; the plain image
            comes first. A single view means no test-time augmentation.
        maps: Method by which a classifier's activation maps are made, such as ``cam``.
        names: Name of a finding in the predictions, by the name that the network learned. Findings
            that are not among the keys are left out; None keeps all, under their learned names.
    """

    backend: ClassVar = "torch"

    run: RunFolder
    model: Detector | ImageClassifier
    preprocess: Preprocess
    precision: Precision
    device: str
    views: tuple[View, ...] = (View(),)
    maps: str = "cam"
    names: Mapping[str, str] | None = None

    def __repr__(self) -> str:
        finds = f"{self.kind} of {', '.join(self.findings)}"
        return f"<TrainedModel: {finds} at {self.preprocess.size} px, {self.run.folder}>"

    @classmethod
    def open(
        cls,
        folder: str | Path,
        *,
        precision: Precision = "fp32",
        device: str = "cpu",
        views: tuple[View, ...] = (View(),),
        maps: MapMethod = "cam",
    ) -> TrainedModel:
        """Load the trained network of a complete run, in evaluation mode on the device.

        `device` is ``auto`` (a GPU if there is one), ``cpu`` or ``cuda``. The class explains
        `views` and `maps`. Raises InputError if the training has not ended, the weights do not fit
        the architecture, or the model cannot make such maps or views.
        """
        run = RunFolder.open(folder)
        folder = run.folder
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        run.require_weights()
        model = cast("Detector | ImageClassifier", load_model(folder, BUILDERS))
        model.to(device).to(memory_format=torch.channels_last)  # as in training: faster
        how = model.map_method(maps) if isinstance(model, ImageClassifier) else maps
        if maps != "cam" and not isinstance(model, ImageClassifier):
            raise InputError(f"{folder}: a detector shows boxes, not maps; leave out --maps {maps}")
        if len(views) > 1 and not isinstance(model, Detector):
            raise InputError(f"{folder}: --tta joins a detector's boxes; leave it out")
        preprocess = Preprocess.read(folder / PREPROCESS_FILE)
        return cls(run, model, preprocess, precision, device, views, how)

    def with_names(self, names: Mapping[str, str]) -> TrainedModel:
        """Return this model with only the findings of `names`, under the names of a data set.

        `names` gives the name in the data set by the learned name, as ``{"opacity":
        "lung_opacity"}``. See `require_names` for its errors.
        """
        require_names(names, self.learnt, self.run.folder)
        return replace(self, names=names)

    @cached_property
    def viewed(self) -> nn.Module:
        """The network that predicts; with several `views` of an image it joins their outputs."""
        if len(self.views) < 2:
            return self.model
        return MultiViewDetector(cast("Detector", self.model), self.views)

    @property
    def tta(self) -> dict[str, Any] | None:
        """Description of the test-time augmentation, for ``predictions.json``; None without it."""
        if len(self.views) < 2:
            return None
        return {"views": [view.name for view in self.views], "joined_by": NAME, "iou": OVERLAP}

    @property
    def folder(self) -> Path:
        """Folder of the training (run)."""
        return self.run.folder

    @property
    def run_folder(self) -> Path:
        """Folder of the training (run)."""
        return self.run.folder

    @property
    def info(self) -> RunInfo:
        """Content of ``run.json``: facts about the training, such as its best epoch."""
        return self.run.info

    @property
    def synthetic(self) -> bool:
        """True if the run is known to have learned from synthetic images only."""
        return self.run.synthetic

    @property
    def target(self) -> Target:
        """Finding, or group of findings, that decides whether an image is positive."""
        name = str(self.info.target)
        stored = validation_folder(self.folder) / "predictions.json"
        target = PredictionsInfo.read(stored).target if stored.is_file() else None
        return Target(name, self.learnt, target.display_name if target else name)

    @property
    def batch_size(self) -> int:
        """Number of images to predict at a time, by the device and the image size."""
        if self.device != "cpu":
            return _MOST_IMAGES
        return max(1, min(_MOST_IMAGES, _BATCH_PIXELS // self.preprocess.size**2))

    @property
    def kind(self) -> Literal["boxes", "scores"]:
        """``boxes`` for a detector, ``scores`` for a classifier."""
        return "boxes" if isinstance(self.model, Detector) else "scores"

    @property
    def learnt(self) -> tuple[str, ...]:
        """Findings that the model learned, in the order of its outputs."""
        return self.run.info.findings

    @property
    def findings(self) -> tuple[str, ...]:
        """Findings that the model predicts, under the names of `names` if it is given."""
        return self.learnt if self.names is None else tuple(self.names.values())

    def inference_id(self) -> str:
        """Return a digest of everything on which the predictions depend, besides the image.

        It covers weights, preprocessing, precision, device, views, kind of maps and names of the
        findings.
        """
        digest = digest_files(self.run.folder)
        digest.update(f"torch {self.precision} {self.device}".encode())
        if self.tta is not None:
            digest.update(json.dumps(self.tta, sort_keys=True).encode())
        if self.maps != "cam":
            digest.update(f"maps {self.maps}".encode())
        if self.names is not None:
            digest.update(f"names {json.dumps(self.names, sort_keys=True)}".encode())
        return digest.hexdigest()[:16]

    def chose(self, inference_id: str | None) -> bool:
        """Return True if thresholds chosen on predictions with this digest are for this model.

        They are if the weights and the precision are the same, on any device.
        """
        devices = dict.fromkeys((self.device, "cpu", "cuda"))
        return any(replace(self, device=name).inference_id() == inference_id for name in devices)

    def training_id(self) -> str:
        """Return the digest that identifies the training, for every device and number format.

        It is the `inference_id` for float32 on a CPU. Exports of the network store this digest as
        well.
        """
        plain = replace(self, precision="fp32", device="cpu", names=None)
        return plain.inference_id()

    def cost(self, sample_images: np.ndarray | None = None) -> dict[str, Any]:
        """Measure the time for one image; return it with its size and training facts.

        `sample_images` are uint8 ``(N, S, S)``; None takes noise. Real images matter for a
        detector, because decoding takes longer if there are more boxes. ``latency_ms`` is the
        median time of a batch of one image in ms. None stands for an unknown figure.
        """
        size = self.preprocess.size
        images = None if sample_images is None else torch.from_numpy(sample_images).unsqueeze(1)
        memory = PeakMemory(self.viewed, self.device)
        latency = measure_latency(
            self.viewed, size, images=images, device=self.device, precision=self.precision
        )
        peak = memory.read()
        trained = self.run.info
        return {
            "parameters": count_parameters(self.model).total,
            "trainable_parameters": trained.trainable_parameters,
            "size_bytes": (self.run.folder / WEIGHTS_FILE).stat().st_size,
            "train_seconds": trained.seconds,
            "train_device": trained.device_name,
            "peak_memory_bytes": peak,
            "flops": count_flops(self.viewed, size),
            **latency,
            "precision": self.precision,
            "image_size": size,
        }

    def predict(
        self,
        source: PixelSource,
        image_ids: pd.Index,
        sizes: pd.DataFrame,
        batch_size: int,
        *,
        many: bool | None = None,
    ) -> Iterator[Part]:
        """Predict images batch by batch, as `Predictor.predict` describes."""
        require_images(source, image_ids)
        batches = read_ahead(self._batches(source, image_ids, batch_size))
        shared: dict[str, Any] = {
            "placement": source.placement,
            "device": self.device,
            "precision": self.precision,
        }
        if isinstance(self.model, ImageClassifier):
            parts = predict_scores(self.model, batches, self.learnt, maps=self.maps, **shared)
        else:
            detector = cast("Detector", self.viewed)
            parts = predict_boxes(detector, batches, self.learnt, images=sizes, **shared)
        for part in parts:
            yield part.with_findings(self.names)

    def _batches(
        self, source: PixelSource, image_ids: pd.Index, batch_size: int
    ) -> Iterator[tuple[list[str], Tensor]]:
        """Yield images from their store, uint8 (B, 1, S, S); page-locked for a GPU."""
        for start in range(0, len(image_ids), batch_size):
            names = [str(image_id) for image_id in image_ids[start : start + batch_size]]
            images = torch.from_numpy(np.stack([source.image(name) for name in names])[:, None])
            yield names, images.pin_memory() if self.device == "cuda" else images


def _render_view(images: Tensor, view: View) -> Tensor:
    if view.flip:
        images = images.flip(3)
    if view.scale == 1.0:
        return images
    size = images.shape[-1]
    content = view.content_size(size)
    before = view.offset(size)
    # Continuous edges, as boxes have them: the first pixel begins at 0 before and after.
    scaled = functional.interpolate(
        images.float(), (content, content), mode="bilinear", antialias=True, align_corners=False
    )
    after = view.canvas_size(size) - content - before
    return functional.pad(
        scaled.round().clamp(0, 255).to(torch.uint8), (before, after, before, after)
    )


@contextmanager
def _with_size(holder: Any, side: int) -> Iterator[None]:
    """Let a model read squares of another side: its layers and anchors do not mind."""
    before = holder.preprocess
    holder.preprocess = before.with_values(size=side)
    try:
        yield
    finally:
        holder.preprocess = before


class MultiViewDetector(nn.Module):
    """A detector that predicts an image several times, for example mirrored, and joins the boxes.

    It has the interface of a plain detector, so that `detection.detector.predict_boxes` and the
    measurements of time and operations accept it. `evaluation.sources.ensemble` fuses the boxes.
    There is no such class for classifiers: on RSNA's five folds the mirrored view raised CheXNet's
    AUROC from 0.874 to 0.880, but lowered its mean FROC sensitivity from 0.325 to 0.261.

    The plain image is the first of `views`.
    """

    def __init__(self, model: Detector, views: Sequence[View]) -> None:
        super().__init__()
        self.model = model
        self.views = tuple(views)
        self.n_findings = model.n_findings

    def forward(self, images: Tensor) -> Detections:
        """Return the boxes of each image, as `Detector` does in evaluation mode.

        The images are square, as the pixel store resized them, uint8 (B, 1, S, S), and the boxes
        are in px of the square. An image for which the output of any view is not finite has None.
        """
        size = images.shape[-1]
        failed = set()
        parts: list[Boxes] = []
        views: list[int] = []  # number of the view of each box
        for number, view in enumerate(self.views):
            with _with_size(self.model, view.canvas_size(size)):
                detections = self.model(_render_view(images, view))
            for image, boxes in enumerate(detections):
                if boxes is None:
                    failed.add(image)
                    continue
                groups = image * (self.n_findings + 1) + boxes.labels
                parts.append(Boxes(view.boxes_to_image(boxes.corners, size), boxes.scores, groups))
                views += [number] * len(boxes)
        every = Boxes.joined(parts)
        shown = (every.corners[:, 2:] > every.corners[:, :2]).all(axis=1)
        fused = best_box_fusion(
            every[shown],
            models=np.asarray(views, np.int64)[shown],
            n_models=len(self.views),
        )
        owners, labels = np.divmod(fused.labels, self.n_findings + 1)
        fused = replace(fused, labels=labels)
        return [
            None if image in failed else best_boxes(fused[owners == image])
            for image in range(len(images))
        ]
