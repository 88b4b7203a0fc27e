"""An export that predicts data sets: the same tables as the run that it was made of."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

import numpy as np

from data_prep.contracts.boxes import Boxes
from data_prep.contracts.errors import InputError
from data_prep.store.preprocess import Frame, Placement, Preprocess, frame_in_original
from data_prep.work.pool import processor_name, read_ahead
from detection.decode_boxes import decode_boxes
from evaluation.statistics.calibration import sigmoid
from serving.exported.session import Arrays, Session, open_session
from serving.exported.spec import (
    ANCHORS_FILE,
    MODEL_FILES,
    PREPROCESS_FILE,
    ExportSpec,
    require_names,
)

if TYPE_CHECKING:
    import pandas as pd

    from data_prep.store.pixel_store import PixelSource
    from data_prep.store.predictions import Part

_WARM_UP, _REPEATS = 3, 20
_HASH_BLOCK = 1 << 20
_MOST_IMAGES, _BATCH_PIXELS = 8, 8 * 224**2  # at a time, as serving.trained_model


@dataclass(frozen=True)
class ExportedModel:
    """An exported run's network with what is needed to feed it.

    Attributes:
        folder: The export.
        spec: What it says of itself.
        preprocess: Size and normalisation; the graph normalises, so only the size is applied.
        names: Findings it answers for, by the name that it learnt; None: all that it learnt.
    """

    tta: ClassVar[None] = None
    maps: ClassVar = "cam"
    compiled: ClassVar = False

    folder: Path
    spec: ExportSpec
    preprocess: Preprocess
    names: Mapping[str, str] | None = None
    _streaming: dict[int, Session] = field(default_factory=dict, repr=False)

    def __repr__(self) -> str:
        finds = f"{self.kind} of {', '.join(self.findings)}"
        return f"<ExportedModel: {finds}, {self.spec.backend}, {self.folder}>"

    @classmethod
    def open(cls, folder: str | Path) -> ExportedModel:
        """Open a complete export; the network is loaded when it first predicts."""
        folder = Path(folder)
        spec = ExportSpec.read(folder)
        return cls(folder, spec, Preprocess.from_json(folder / PREPROCESS_FILE))

    def with_names(self, names: Mapping[str, str]) -> ExportedModel:
        """The same model for some of its findings, under the names that a data set gives them."""
        require_names(names, self.learnt, self.folder)
        return replace(self, names=names)

    @property
    def kind(self) -> str:
        """``boxes`` for a detector, ``scores`` for a classifier."""
        return self.spec.kind

    @property
    def learnt(self) -> tuple[str, ...]:
        """Findings in the order of the model's outputs."""
        return self.spec.findings

    @property
    def findings(self) -> tuple[str, ...]:
        """Findings it answers for, as they are called where it predicts."""
        return self.learnt if self.names is None else tuple(self.names.values())

    @property
    def precision(self) -> str:
        """What it computes in."""
        return self.spec.precision

    @property
    def backend(self) -> str:
        """Whose runtime computes."""
        return self.spec.format

    @property
    def batch_size(self) -> int:
        """Images at a time that suit the images' size."""
        return max(1, min(_MOST_IMAGES, _BATCH_PIXELS // self.spec.size**2))

    @property
    def info(self) -> Mapping[str, Any]:
        """What the run's ``run.json`` said."""
        return self.spec.run

    def inference_id(self) -> str:
        """Digest of all that decides a prediction: network, preprocessing, precision, names."""
        digest = hashlib.sha256()
        for name in (*MODEL_FILES[self.spec.format], PREPROCESS_FILE):
            with (self.folder / name).open("rb") as file:
                while block := file.read(_HASH_BLOCK):
                    digest.update(block)
        digest.update(f"{self.spec.backend} cpu".encode())
        if self.names is not None:
            digest.update(f"names {json.dumps(dict(self.names), sort_keys=True)}".encode())
        return digest.hexdigest()[:16]

    def training_id(self) -> str:
        """What tells the training of its run from others."""
        return str(self.info["inference_id"])

    @cached_property
    def session(self) -> Session:
        """The loaded network, for one batch of any size at a time."""
        return open_session(self.folder, self.spec, shares=True)

    def streaming(self, batch_size: int) -> Session:
        """The loaded network for many batches of a size, several of which are under way."""
        if batch_size not in self._streaming:
            self._streaming[batch_size] = open_session(
                self.folder, self.spec, many=True, batch_size=batch_size
            )
        return self._streaming[batch_size]

    @cached_property
    def anchors(self) -> np.ndarray:
        """A detector's anchors, float32 ``(A, 4)`` xyxy, store px."""
        path = self.folder / ANCHORS_FILE
        if not path.is_file():
            raise InputError(f"{path}: is missing; export the run again")
        anchors: np.ndarray = np.load(path, allow_pickle=False)
        return anchors

    def decode(self, outputs: Arrays) -> list[Boxes | None]:
        """A detector's outputs as boxes in store px."""
        return decode_boxes(
            outputs["logits"],
            outputs["offsets"],
            self.anchors,
            self.spec.level_sizes,
            self.spec.size,
        )

    def predict(
        self,
        source: PixelSource,
        image_ids: pd.Index,
        sizes: pd.DataFrame,
        batch_size: int,
        *,
        many: bool | None = None,
    ) -> Iterator[Part]:
        """Predict images batch by batch; memory does not grow with their number.

        `sizes` holds ``image_id, width, height`` of the originals, px. The network is loaded for
        `many` batches under way at once, by default where there are several.
        """
        groups = [
            [str(image_id) for image_id in image_ids[start : start + batch_size]]
            for start in range(0, len(image_ids), batch_size)
        ]
        many = len(groups) > 1 if many is None else many
        session = self.streaming(batch_size) if many else self.session
        from detection.frames import sizes_by_image

        by_image = sizes_by_image(sizes)
        outputs = session.stream(read_ahead(_read(source, groups)))
        for group, output in zip(groups, outputs, strict=True):
            yield self._part(group, output, source.placement, by_image)

    def _part(
        self,
        image_ids: Sequence[str],
        output: Arrays,
        placement: Callable[[str], Placement],
        sizes: pd.DataFrame,
    ) -> Part:
        from classification.frames import scores_frames
        from data_prep.store.predictions import Part, named_rows
        from detection.frames import boxes_frames

        if self.kind == "boxes":
            boxes = boxes_frames(image_ids, self.decode(output), self.learnt, placement, sizes)
            return Part(boxes.images, {"boxes": named_rows(boxes.boxes, self.names)})
        frame = cast(Frame, self.spec.map_frame)
        frames = [frame_in_original(frame, placement(image_id)) for image_id in image_ids]
        shares = _scores_of(output["logits"])
        scored = scores_frames(image_ids, shares, output["maps"], "cam", self.learnt, frames)
        tables = {
            "scores": named_rows(scored.scores, self.names),
            "maps": named_rows(scored.maps, self.names),
        }
        return Part(scored.images, tables)

    def cost(self, sample_images: np.ndarray | None = None) -> dict[str, Any]:
        """What the export costs: its size, what training took, one image measured now at batch 1.

        Of `sample_images`, uint8 (N, S, S), noise by default: decoding boxes takes longer where
        there are more.
        """
        size = self.spec.size
        if sample_images is None:
            noise = np.random.default_rng(0).integers(256, size=(1, size, size))
            sample_images = noise.astype(np.uint8)
        session, times = open_session(self.folder, self.spec), []
        for run in range(_WARM_UP + _REPEATS):
            image = sample_images[run % len(sample_images)][None, None]
            start = time.perf_counter()
            output = session.run(image)
            if self.kind == "boxes":
                self.decode(output)
            times.append(time.perf_counter() - start)
        low, median, high = np.percentile(1000 * np.array(times[_WARM_UP:]), [10, 50, 90])
        run_info = self.spec.run
        return {
            "parameters": run_info.get("parameters"),
            "trainable_parameters": run_info.get("trainable_parameters"),
            "size_bytes": sum(
                (self.folder / name).stat().st_size for name in MODEL_FILES[self.spec.format]
            ),
            "train_seconds": run_info.get("seconds"),
            "train_device": run_info.get("device_name"),
            "train_peak_memory_bytes": run_info.get("peak_memory_bytes"),
            "peak_memory_bytes": None,
            "flops": run_info.get("flops"),
            "latency_ms": float(median),
            "latency_low_ms": float(low),
            "latency_high_ms": float(high),
            "latency_device": f"{processor_name()}, {session.package}",
            "precision": self.precision,
            "image_size": size,
        }


def _scores_of(logits: np.ndarray) -> np.ndarray:
    """Sigmoid in float64, as `classification.loss.scores_of` for tensors.

    Example:
        >>> _scores_of(np.array([0.0, 800.0, -800.0], np.float32)).tolist()
        [0.5, 1.0, 0.0]
    """
    return sigmoid(logits.astype(np.float64))


def _read(source: PixelSource, groups: Iterable[Sequence[str]]) -> Iterator[np.ndarray]:
    for image_ids in groups:
        yield np.stack([source.image(image_id) for image_id in image_ids])[:, None]
