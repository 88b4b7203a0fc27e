"""An export that predicts without torch, and gives the same tables as its run.

ONNX Runtime or OpenVINO computes; both have the same interface here.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, cast

import numpy as np

from cxr_compare.classification.frames import scores_frames
from cxr_compare.data_prep.contracts.boxes import Boxes
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.processors import processor_name
from cxr_compare.data_prep.store.placement import Frame, Placement
from cxr_compare.data_prep.store.prediction_writer import Part
from cxr_compare.data_prep.store.preprocess import Preprocess
from cxr_compare.data_prep.work.background_threads import read_ahead
from cxr_compare.detection.frames import boxes_frames, decode_boxes
from cxr_compare.evaluation.statistics.logistic_regression import sigmoid
from cxr_compare.serving.export_spec import (
    ANCHORS_FILE,
    INPUT,
    MODEL_FILES,
    OUTPUTS,
    PACKAGES,
    PREPROCESS_FILE,
    ExportSpec,
    digest_files,
    require_names,
)
from cxr_compare.serving.known_limits import run_of_export
from cxr_compare.training.run_info import RunInfo

if TYPE_CHECKING:
    import openvino
    import pandas as pd

    from cxr_compare.data_prep.contracts.finding_names import Target
    from cxr_compare.data_prep.store.pixel_store import PixelSource

_WARM_UP = 3
_REPEATS = 20
# Images that are predicted at a time, as in cxr_compare.serving.trained_model.
_MOST_IMAGES = 8
_BATCH_PIXELS = 8 * 224**2
Arrays = dict[str, np.ndarray]


def without_telemetry() -> None:
    """Stop the runtimes from sending usage data. Call it before the first import of a runtime.

    OpenVINO and NNCF send an event at every import, conversion and quantisation, and write a user
    id into the home folder. They do so with the package ``openvino_telemetry``, and work without
    it, so this function prevents the import of that package in this process. An environment
    variable turns off the telemetry of ONNX Runtime.
    """
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]


def openvino_computes_bf16() -> bool:
    """Return True if OpenVINO computes in bf16 on this processor, which halves the time."""
    return "BF16" in _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


@cache
def _core() -> openvino.Core:
    """Return the OpenVINO core of this process; there is one.

    Each loads the processor's plugin, which sets the stack that signals are handled on, keeps what
    was set before and frees its own when it goes. Of two, the first to come must not go first: the
    stack then set is one that is freed, and Ctrl-C or SIGTERM ends Python by a segmentation fault.
    """
    without_telemetry()
    import openvino

    return openvino.Core()


class Session(Protocol):
    """A network that is loaded and ready to compute, by a runtime such as ``openvino 2026.4.1``."""

    package: str
    device: str

    def run(self, images: np.ndarray) -> Arrays:
        """Return the outputs by name, float32, for a batch of images, uint8 ``(B, 1, S, S)``.

        For K findings a detector with A anchors has ``logits`` ``(B, A, K)`` and ``offsets`` ``(B,
        A, 4)``; a classifier has ``logits`` ``(B, K)`` and ``maps`` ``(B, K, h, w)``, the
        activation maps.
        """

    def stream(self, batches: Iterable[np.ndarray]) -> Iterator[Arrays]:
        """Yield the outputs of batches in order; one is computed while the next one is read."""


def open_session(
    folder: Path | str,
    spec: ExportSpec,
    *,
    many: bool = False,  # several batches are under way: more images a second, each takes longer
    shares: bool = False,  # True leaves processors to other work, such as decoding images
    # If it is fixed, the network is compiled for it, which is faster.
    batch_size: int | None = None,
) -> Session:
    """Load an exported network.

    `many` computes several batches at the same time: more images a second, but each batch takes
    longer. `shares` leaves some processors free for other work, such as decoding images. A fixed
    `batch_size` makes the network faster. Raises InputError if the file is missing or cannot be
    loaded.
    """
    folder = Path(folder)
    path, *_ = [spec.file(folder, name) for name in MODEL_FILES[spec.format]]
    kind = _OnnxSession if spec.format == "onnx" else _OpenVinoSession
    try:
        return kind(path, spec, many, shares, batch_size)
    except ImportError as error:
        package = PACKAGES[spec.format]
        raise InputError(
            f"{folder}: needs {package}, which is not installed ({error}): pip install {package}"
        ) from None
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[0][:200]
        raise InputError(f"{folder}: cannot be loaded ({reason}); export the run again") from None


def _threads() -> int:
    """Return the number of threads that the user or the engine has set; 0 for none."""
    text = os.environ.get("OMP_NUM_THREADS", "")
    return int(text) if text.isdigit() else 0


class _OnnxSession:
    """ONNX Runtime, on a GPU where its package has one."""

    def __init__(
        self, path: Path, spec: ExportSpec, many: bool, shares: bool, batch_size: int | None
    ) -> None:
        without_telemetry()
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        # Threads that spin while they wait take the processor from whoever reads and writes.
        spins = "0" if many or shares else "1"
        options.add_session_config_entry("session.intra_op.allow_spinning", spins)
        options.intra_op_num_threads = _threads()
        available = onnxruntime.get_available_providers()
        providers = [
            name for name in ("CUDAExecutionProvider", "CPUExecutionProvider") if name in available
        ]
        from onnxruntime.capi import onnxruntime_pybind11_state as errors

        broken = (errors.Fail, errors.InvalidGraph, errors.InvalidProtobuf, errors.NotImplemented)
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=providers)
        except broken as error:
            raise RuntimeError(str(error)) from None
        self._outputs = list(OUTPUTS[spec.kind])
        self.package = f"onnxruntime {onnxruntime.__version__}"
        self.device = "cuda" if "CUDA" in self._session.get_providers()[0] else "cpu"

    def run(self, images: np.ndarray) -> Arrays:
        values = self._session.run(self._outputs, {INPUT: images})
        return dict(zip(self._outputs, values, strict=True))

    def stream(self, batches: Iterable[np.ndarray]) -> Iterator[Arrays]:
        return map(self.run, batches)


class _OpenVinoSession:
    """OpenVINO on the processor: it chooses threads, and how many requests are under way.

    A batch is computed two images at a time. Two cores, 224 px, against eight at a time: ResNet50
    1.12 times as fast in bf16 and 1.07 in int8, MobileNetV2 1.11 and 0.99, VGG16 1.09 and 1.06,
    EfficientNet-B0 1.10 and 1.03, DenseNet121 1.00 and 1.01.
    """

    _AT_ONCE = 2

    def __init__(
        self, path: Path, spec: ExportSpec, many: bool, shares: bool, batch_size: int | None
    ) -> None:
        without_telemetry()
        import openvino

        core = _core()
        model = core.read_model(path)
        self._at_once = None if batch_size is None else min(batch_size, self._AT_ONCE)
        if self._at_once is not None:
            model.reshape([self._at_once, 1, spec.size, spec.size])
        # Of an int8 network depthwise convolutions and activations are not computed in integers: in
        # bf16 they take half the time.
        halved = spec.precision == "int8" and openvino_computes_bf16()
        settings: dict[str, Any] = {
            "PERFORMANCE_HINT": "THROUGHPUT" if many else "LATENCY",
            "INFERENCE_PRECISION_HINT": "bf16" if halved or spec.precision == "bf16" else "f32",
        }
        if threads := _threads():
            settings["INFERENCE_NUM_THREADS"] = threads
        self._compiled: openvino.CompiledModel = core.compile_model(model, "CPU", settings)
        self._request = self._compiled.create_infer_request()
        self._outputs = OUTPUTS[spec.kind]
        self.package = f"openvino {openvino.__version__.split('-')[0]}"
        self.device = "cpu"

    def run(self, images: np.ndarray) -> Arrays:
        self._request.infer({INPUT: self._filled(images)}, share_inputs=True)
        return self._read(self._request, len(images))

    def stream(self, batches: Iterable[np.ndarray]) -> Iterator[Arrays]:
        counts: deque[int] = deque()  # number of parts of each batch

        def parts() -> Iterator[np.ndarray]:
            for images in batches:
                at_once = self._at_once or len(images)
                starts = range(0, len(images), at_once)
                counts.append(len(starts))
                yield from (images[start : start + at_once] for start in starts)

        outputs: list[Arrays] = []
        for output in self._stream_parts(parts()):
            outputs.append(output)
            if len(outputs) == counts[0]:
                counts.popleft()
                yield {name: np.concatenate([part[name] for part in outputs]) for name in output}
                outputs = []

    def _stream_parts(self, parts: Iterable[np.ndarray]) -> Iterator[Arrays]:
        most = int(self._compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))
        idle = [self._compiled.create_infer_request() for _ in range(most)]
        working: deque[tuple[Any, np.ndarray, int]] = deque()
        for images in parts:
            if not idle:
                yield self._finish(working, idle)
            request = idle.pop()
            filled = self._filled(images)
            request.start_async({INPUT: filled}, share_inputs=True)
            working.append((request, filled, len(images)))  # holds the pixels until they are read
        while working:
            yield self._finish(working, idle)

    def _finish(self, working: deque[tuple[Any, np.ndarray, int]], idle: list[Any]) -> Arrays:
        request, _, count = working.popleft()
        request.wait()
        idle.append(request)
        return self._read(request, count)

    def _filled(self, images: np.ndarray) -> np.ndarray:
        if self._at_once is None or len(images) == self._at_once:
            return np.ascontiguousarray(images)
        missing = self._at_once - len(images)
        return np.concatenate([images, np.zeros((missing, *images.shape[1:]), np.uint8)])

    def _read(self, request: Any, count: int) -> Arrays:
        # Copied: the next batch is computed into the same memory.
        return {name: request.get_tensor(name).data[:count].copy() for name in self._outputs}


@dataclass(frozen=True)
class ExportedModel:
    """A network that was exported to ONNX or OpenVINO, with the preprocessing of its input.

    The network itself normalises the pixels. An export has no test-time augmentation, and computes
    on the processor.

    Attributes:
        names: Name of a finding in the predictions, by the name that the network learned. Findings
            that are not among the keys are left out; None keeps all, under their learned names.
    """

    tta: ClassVar[None] = None
    maps: ClassVar = "cam"
    device: ClassVar = "cpu"

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
        """Open a complete exported network; its weights are read at the first prediction."""
        folder = Path(folder)
        spec = ExportSpec.open(folder)
        return cls(folder, spec, Preprocess.read(folder / PREPROCESS_FILE))

    def with_names(self, names: Mapping[str, str]) -> ExportedModel:
        """Return this model with only the findings of `names`, under the names of a data set.

        `names` gives the name in the data set by the learned name, as ``{"opacity":
        "lung_opacity"}``. See `require_names` for its errors.
        """
        require_names(names, self.learnt, self.folder)
        return replace(self, names=names)

    @property
    def kind(self) -> Literal["boxes", "scores"]:
        """``boxes`` for a detector, ``scores`` for a classifier."""
        return self.spec.kind

    @property
    def learnt(self) -> tuple[str, ...]:
        """Findings that the model learned, in the order of its outputs."""
        return self.spec.findings

    @property
    def findings(self) -> tuple[str, ...]:
        """Findings that the model predicts, under the names of `names` if it is given."""
        return self.learnt if self.names is None else tuple(self.names.values())

    @property
    def precision(self) -> str:
        """Number format of the computation: ``fp32``, ``bf16`` or ``int8``."""
        return self.spec.precision

    @property
    def backend(self) -> str:
        """Runtime that computes: ``onnx`` or ``openvino``."""
        return self.spec.format

    @property
    def batch_size(self) -> int:
        """Number of images to predict at a time, which follows from the image size."""
        return max(1, min(_MOST_IMAGES, _BATCH_PIXELS // self.spec.size**2))

    @property
    def info(self) -> RunInfo:
        """Content of ``run.json``, the facts about the training that was exported."""
        return self.spec.run

    @property
    def run_folder(self) -> Path | None:
        """Folder of the run that was exported; None if it is not at hand."""
        return run_of_export(self.folder, self.info)

    @property
    def target(self) -> Target:
        """Finding, or group of findings, that decides whether an image is positive."""
        return self.spec.target

    @property
    def synthetic(self) -> bool:
        """True if the run is known to have learned from synthetic images only."""
        return self.info.synthetic

    def chose(self, inference_id: str | None) -> bool:
        """Return True: an export holds the thresholds of its run, against which it was checked."""
        return True

    def inference_id(self) -> str:
        """Return a digest of everything on which the predictions depend, besides the image.

        It covers the network, the preprocessing, the precision and the names of the findings.
        """
        digest = digest_files(self.folder, (*MODEL_FILES[self.spec.format], PREPROCESS_FILE))
        digest.update(f"{self.spec.backend} cpu".encode())
        if self.names is not None:
            digest.update(f"names {json.dumps(dict(self.names), sort_keys=True)}".encode())
        return digest.hexdigest()[:16]

    def training_id(self) -> str:
        """Return the digest that identifies the training from which the network was exported."""
        return str(self.info.inference_id)

    @cached_property
    def session(self) -> Session:
        """The loaded network for single batches of any size."""
        return open_session(self.folder, self.spec, shares=True)

    def streaming(self, batch_size: int) -> Session:
        """Return the network for this batch size, loaded once; it computes several at a time."""
        if batch_size not in self._streaming:
            self._streaming[batch_size] = open_session(
                self.folder, self.spec, many=True, batch_size=batch_size
            )
        return self._streaming[batch_size]

    @cached_property
    def anchors(self) -> np.ndarray:
        """Anchors of a detector, float32 ``(A, 4)`` xyxy in px of the network's square input."""
        path = self.spec.file(self.folder, ANCHORS_FILE)
        anchors: np.ndarray = np.load(path, allow_pickle=False)
        return anchors

    def decode(self, outputs: Arrays) -> list[Boxes | None]:
        """Compute the boxes of each image from a detector's outputs, in px of the square input.

        `outputs` are those of `Session.run`. An image whose output is not finite has None.
        """
        logits = outputs["logits"]
        offsets = outputs["offsets"]
        spec = self.spec
        return decode_boxes(logits, offsets, self.anchors, spec.level_sizes, spec.size)

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
        groups = [
            [str(image_id) for image_id in image_ids[start : start + batch_size]]
            for start in range(0, len(image_ids), batch_size)
        ]
        many = len(groups) > 1 if many is None else many
        session = self.streaming(batch_size) if many else self.session
        by_image = sizes.set_index("image_id")
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
        if self.kind == "boxes":
            boxes = self.decode(output)
            part = boxes_frames(image_ids, boxes, self.learnt, placement, sizes)
            return part.with_findings(self.names)
        frame = cast(Frame, self.spec.map_frame)
        frames = [placement(image_id).frame_to_original(frame) for image_id in image_ids]
        shares = sigmoid(output["logits"].astype(np.float64))  # in float64, as a run computes them
        part = scores_frames(image_ids, shares, output["maps"], "cam", self.learnt, frames)
        return part.with_findings(self.names)

    def cost(self, sample_images: np.ndarray | None = None) -> dict[str, Any]:
        """Measure the time for one image; return it with the export's size and training facts.

        `sample_images` are uint8 ``(N, S, S)``; None takes noise. Real images matter for a
        detector, because decoding takes longer if there are more boxes. ``latency_ms`` is the
        median time of a batch of one image in ms. None stands for an unknown figure.
        """
        size = self.spec.size
        if sample_images is None:
            noise = np.random.default_rng(0).integers(256, size=(1, size, size))
            sample_images = noise.astype(np.uint8)
        session = open_session(self.folder, self.spec)
        times = []
        for run in range(_WARM_UP + _REPEATS):
            image = sample_images[run % len(sample_images)][None, None]
            start = time.perf_counter()
            output = session.run(image)
            if self.kind == "boxes":
                self.decode(output)
            times.append(time.perf_counter() - start)
        low, median, high = np.percentile(1000 * np.array(times[_WARM_UP:]), [10, 50, 90])
        files = [self.folder / name for name in MODEL_FILES[self.spec.format]]
        trained = self.info
        return {
            "parameters": trained.parameters,
            "trainable_parameters": trained.trainable_parameters,
            "size_bytes": sum(file.stat().st_size for file in files),
            "train_seconds": trained.seconds,
            "train_device": trained.device_name,
            "peak_memory_bytes": None,
            "flops": trained.flops,
            "latency_ms": float(median),
            "latency_low_ms": float(low),
            "latency_high_ms": float(high),
            "latency_device": f"{processor_name()}, {session.package}",
            "precision": self.precision,
            "image_size": size,
        }


def _read(source: PixelSource, groups: Iterable[Sequence[str]]) -> Iterator[np.ndarray]:
    for image_ids in groups:
        yield np.stack([source.image(image_id) for image_id in image_ids])[:, None]
