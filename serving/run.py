"""A run or an export that answers for images."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, overload

import numpy as np
from PIL import Image, ImageOps

from cxr_compare.data_prep.base.errors import InputError
from cxr_compare.data_prep.base.files import named_file
from cxr_compare.data_prep.base.names import Target
from cxr_compare.data_prep.images.decoded_image import DecodedImage, grey_from_rgb
from cxr_compare.data_prep.images.image import read_image
from cxr_compare.data_prep.images.loose_images import find_image_files
from cxr_compare.data_prep.preprocess import Placement, letterbox
from cxr_compare.data_prep.seen import SeenImages
from cxr_compare.detection.inference import original_boxes
from cxr_compare.evaluation.boxes.map_boxes import MapFrame, map_peak
from cxr_compare.evaluation.boxes.pointing import best_centres
from cxr_compare.evaluation.choices import Choices
from cxr_compare.evaluation.drawn import OperatingPoint
from cxr_compare.evaluation.overlays.colours import system_mark
from cxr_compare.evaluation.policies import USUAL_POLICY, parse
from cxr_compare.serving.answer import Answer, Answers
from cxr_compare.serving.decision import DECISION_FILE, Decision
from cxr_compare.serving.guard import GUARD_FILE, SWAPPED, Guard, file_warnings
from cxr_compare.serving.network import Network, open_network, seen_by

ARRAY = "array"
"""Name of an image without a file."""
_SEEN = {
    "train": "{image} trained {system}: the answer says nothing about new images",
    "val": "{image} served to choose the weights and the threshold of {system}",
}


class _Seen(NamedTuple):
    """What a network sees on one image.

    Attributes:
        scores: Score of each finding.
        boxes: Edges in px of the image, score, and number of the finding from 1, ``(N, 6)``.
        drawn: Point and heat map, as `ImagePrediction` has them.
    """

    scores: list[float]
    boxes: np.ndarray
    drawn: dict[str, Any]


class Run:
    """A run of cxr train, or an export of one, which answers for images.

    Attributes:
        name: What its answers call it.
        digest: First digits of the SHA-256 of its weights, by which an answer names it.
        target: What it decides.
        network: What computes.
        point: Threshold and calibration.
        mark: Colour and symbol in its drawings.
    """

    mark = system_mark(0)

    def __init__(self, name: str, network: Network, policy: str | None) -> None:
        self.folder, self.name, self.network = network.folder, name, network
        info = network.info
        self.digest = info.weights_digest[:12]
        display_name = info.target if self.decision is None else self.decision.finding
        self.target = Target(info.target, info.findings, display_name)
        self.point = self._operating_point(policy)
        seen = seen_by(network)
        training_images = None if seen is None else SeenImages(seen)
        has_pixels = training_images is not None and training_images.has_pixels
        self.training_images = training_images if has_pixels else None
        guard = named_file(self.folder, GUARD_FILE, network.files)
        self.guard = None if guard is None else Guard.read(guard)

    @classmethod
    def open(
        cls,
        folder: str | Path,
        *,
        name: str | None = None,
        policy: str | None = None,
        device: str = "auto",
        model: Any = None,
    ) -> Run:
        """Open a run or an export.

        `policy` chooses the threshold on the validation scores that the run stores, such as
        ``sensitivity>=0.95``. `model` is what `cxr_compare.train` was given.
        """
        network = open_network(folder, device, model)
        return cls(name or network.info.name, network, policy)

    @cached_property
    def decision(self) -> Decision | None:
        """Validation scores of the run; None for a training that was stopped before them."""
        path = named_file(self.folder, DECISION_FILE, self.network.files)
        return None if path is None else Decision.read(path)

    def _operating_point(self, policy: str | None) -> OperatingPoint:
        decision = self.decision
        if self.network.info.classes:
            if policy is not None:
                raise InputError(f"policy: {self.name} calls the highest class; leave policy out")
            levels = None if decision is None else decision.map_levels
            return OperatingPoint("", Choices(levels=levels))
        policy = policy or USUAL_POLICY
        parse(policy)
        if decision is None:
            reason = "it has no validation scores; the same cxr train command adds them"
            return OperatingPoint(policy, Choices(reasons={policy: reason}))
        if decision.weights != self.network.info.weights_digest:
            reason = "its validation scores are of other weights; train it again"
            return OperatingPoint(policy, Choices(reasons={policy: reason}))
        return OperatingPoint(policy, decision.choices(policy))

    @cached_property
    def cautions(self) -> list[str]:
        """Sentences on what limits all its answers."""
        caution = None if self.decision is None else self.decision.caution(self.name)
        return [] if caution is None else [caution]

    def __fspath__(self) -> str:
        """Return its folder, so that it may be given where a path is."""
        return str(self.folder)

    def __str__(self) -> str:
        """Return what the training kept."""
        info = self.network.info
        figure = "" if info.monitor == "epoch" else f": {info.monitor} {info.best_value:.3f}"
        epoch_text = f"{self.name}, epoch {info.best_epoch} of {info.epochs}{figure} on validation"
        threshold = self.point.threshold
        decision_text = f"no threshold ({self.point.reason})"
        if info.classes:
            decision_text = f"calls the highest class of {', '.join(info.classes)}"
        if threshold is not None:
            decision_text = f"positive from score {threshold:.3g} on ({self.point.policy})"
        return f"{epoch_text}; {decision_text}\nRun: {self.folder}"

    __repr__ = __str__

    def to_dict(self) -> dict[str, Any]:
        """Return the record of the training."""
        return self.network.info.to_json()

    @overload
    def predict(self, image: list[Any] | tuple[Any, ...]) -> Answers: ...

    @overload
    def predict(self, image: str | Path) -> Any: ...  # of a folder Answers, which no type can tell

    @overload
    def predict(self, image: np.ndarray | Image.Image) -> Answer: ...

    def predict(self, image: Any) -> Answer | Answers:
        """Answer for an image, for several in a list, or for all images in a folder.

        An image is a path, a PIL image, or uint8 pixels ``(H, W)`` or ``(H, W, 3)``. One that
        cannot be read raises InputError; in a folder it is left out with its reason.
        """
        if isinstance(image, list | tuple):
            return Answers([self._answer_given(one_image) for one_image in image])
        if isinstance(image, str | Path) and Path(image).is_dir():
            from cxr_compare.serving.answer_files import answer_files

            return answer_files([self], find_image_files([Path(image)]))
        return self._answer_given(image)

    def _answer_given(self, image: Any) -> Answer:
        name, read = _read_given(image)
        answer = self.answer(name, read)
        return answer if name == ARRAY else answer.without_pixels()

    def answer(self, name: str, image: DecodedImage) -> Answer:
        """Answer for an image that is read; an output that is not finite raises InputError."""
        square, placement = letterbox(image.pixels, self.network.preprocess.size)
        output = self.network(square[None, None])
        if isinstance(output, list):
            seen = self._detected(name, output[0], placement, image)
        else:
            scores_of, maps_of = (part[0] for part in output)
            seen = self._classified(scores_of, maps_of, placement)
        if seen is None:
            raise InputError(f"{name}: the output of {self.name} is not finite")
        scores, boxes, drawn = seen
        info, point = self.network.info, self.point
        of_classes = [max(0.0, 1.0 - sum(scores)), *scores]
        return Answer.of_prediction(
            point.decide(self.name, self.mark, max(scores), boxes[:, :5], **drawn),
            np.array(info.findings, dtype=object)[boxes[:, 5].astype(int) - 1],
            image.pixels,
            image=name,
            system=self.name,
            run=self.digest,
            kind=self.network.kind,
            finding=self.target.display_name,
            policy=point.policy,
            threshold=point.threshold,
            threshold_probability=point.probability(point.threshold),
            undecided_because=point.reason or None,
            findings=dict(zip(info.findings, scores, strict=True)),
            classes=dict(zip(info.classes, of_classes, strict=False)),  # most runs have none
            notes=_notes(image),
            **self.doubts(name, image, square),
            **self.seen(image),
        )

    def _detected(
        self, name: str, rows: np.ndarray, placement: Placement, image: DecodedImage
    ) -> _Seen | None:
        """Return what a detector sees, of the rows of its output; None if these are not finite."""
        findings = self.network.info.findings
        boxes = original_boxes(name, rows, findings, placement, image.pixels.shape[::-1])
        if boxes is None:
            return None
        numbers = range(1, len(findings) + 1)
        scores = [float(boxes[boxes[:, 5] == n, 4].max(initial=0.0)) for n in numbers]
        of_one_image = np.zeros(len(boxes), np.int64)
        ((x, y),) = best_centres(boxes[:, :4], boxes[:, 4], of_one_image, 1).tolist()
        return _Seen(scores, boxes, {"point": (x, y) if len(boxes) else None})

    def _classified(
        self, scores: np.ndarray, maps: np.ndarray, placement: Placement
    ) -> _Seen | None:
        """Return what a classifier sees: the map is that of the finding with the highest score."""
        if not (np.isfinite(scores).all() and np.isfinite(maps).all()):
            return None
        findings = self.network.info.findings
        edges: Any = self.network.map_frame  # a classifier has one
        best = min(range(len(findings)), key=lambda number: (-scores[number], findings[number]))
        frame = MapFrame(*placement.frame_to_original(edges))
        grid = maps[best].astype(np.float64)
        drawn = {"point": map_peak(grid, frame), "heat": self.point.heat(grid, frame)}
        return _Seen(scores.tolist(), np.empty((0, 6)), drawn)

    def doubts(self, name: str, image: DecodedImage, square: np.ndarray) -> dict[str, Any]:
        """Return why an answer for an image cannot be trusted: ``warnings``, ``no_chest_xray``."""
        warnings = file_warnings(None if name == ARRAY else Path(name), image)
        is_other = False
        if self.guard is not None:
            repair = self.guard.repair(square)
            is_other = repair == ""
            negative = _negative_by_header(image)
            if repair == SWAPPED and negative:
                repair = (
                    f"as a negative it would: its header says {negative}, so it was inverted, and "
                    "the header is probably wrong"
                )
            warnings += self.guard.warnings(repair, image.header.get("age_years"), self.name)
        if self.network.info.synthetic and not image.header.get("synthetic") and not is_other:
            warnings.append(
                f"{self.name} learned from synthetic drawings only, from no real chest X-ray"
            )
        return {"warnings": warnings, "no_chest_xray": is_other}

    def seen(self, image: DecodedImage) -> dict[str, Any]:
        """Return what the training made of an image, and the cautions of its answer."""
        known = self.training_images
        use = None if known is None else known.find(image.pixel_sha256, image.perceptual_hash)
        if use is None:
            is_new = known is not None and not self.network.info.unknown_weights
            return {"cautions": self.cautions, "seen_in_training": "no" if is_new else "unknown"}
        which = "a near copy of this image" if use.is_near else "this image"
        caution = _SEEN[use.role].format(image=which, system=self.name)
        return {"cautions": [*self.cautions, caution], "seen_in_training": use.role}


def _read_given(image: Any) -> tuple[str, DecodedImage]:
    """Read an image given as a path, a PIL image, or uint8 pixels ``(H, W)`` or ``(H, W, 3)``."""
    if isinstance(image, str | Path):
        return str(image), read_image(image)
    pixels = image
    if isinstance(image, Image.Image):
        # Modes of more bits would be cut to 8, and transparency has no grey.
        plain = image.mode in ("1", "L", "RGB")
        pixels = np.asarray(ImageOps.exif_transpose(image).convert("RGB")) if plain else None
    is_array = isinstance(pixels, np.ndarray) and pixels.dtype == np.uint8 and pixels.size > 0
    if not is_array or not (pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] == 3)):
        kind = f"{getattr(image, 'dtype', type(image).__name__)} {getattr(image, 'shape', '')}"
        raise InputError(f"image: give the path of the file, or uint8 (H, W); got {kind.strip()}")
    grey = pixels if pixels.ndim == 2 else grey_from_rgb(pixels)
    return ARRAY, DecodedImage(np.ascontiguousarray(grey))


def _negative_by_header(image: DecodedImage) -> str:
    """Return how the header of an image that was inverted says so; empty for any other."""
    if not image.record.get("inverted"):
        return ""
    is_dicom = image.record["photometric"] == "MONOCHROME1"
    return "MONOCHROME1" if is_dicom else "that it is a negative"


def _notes(image: DecodedImage) -> list[str]:
    notes = []
    negative = _negative_by_header(image)
    if negative:
        notes.append(f"inverted, because its header says {negative}")
    if image.header.get("synthetic"):
        notes.append("this file says of itself that it is synthetic")
    return notes
