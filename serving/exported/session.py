"""An exported network at work: ONNX Runtime or OpenVINO behind one interface."""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from data_prep.contracts.errors import InputError
from serving.exported.spec import INPUT, MODEL_FILES, OUTPUTS, ExportSpec

if TYPE_CHECKING:
    import openvino

Arrays = dict[str, np.ndarray]


def without_telemetry() -> None:
    """Keep the runtimes from reporting to their makers; called before one is imported.

    OpenVINO and NNCF send an event over the network at every import, conversion and quantisation,
    and write a user's number into the home folder. They do so through a package of its own, without
    which they go on as usual: it is not found from here on. ONNX Runtime keeps events and a
    machine's number in the home folder and sends them; it asks the environment first.
    """
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]


def computes_bf16() -> bool:
    """Whether OpenVINO computes in bf16 on this processor, which then takes half the time."""
    return "BF16" in _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


@cache
def _core() -> openvino.Core:
    """OpenVINO's one way to the processor, for as long as this process runs.

    Each loads the processor's plugin, which sets the stack that signals are handled on, keeps what
    was set before and frees its own when it goes. Of two, the first to come must not go first: the
    stack then set is one that is freed, and Ctrl-C or SIGTERM ends Python by a segmentation fault.
    """
    without_telemetry()
    import openvino

    return openvino.Core()


class Session(Protocol):
    """A network that is loaded and ready."""

    package: str  # the runtime and its version, such as ``openvino 2026.4.1``
    device: str

    def run(self, images: np.ndarray) -> Arrays:
        """Outputs for a batch, uint8 ``(B, 1, S, S)``; see `serving.exported.spec.OUTPUTS`."""

    def stream(self, batches: Iterable[np.ndarray]) -> Iterator[Arrays]:
        """Outputs for batches in their order; the network works while the next ones are read."""


def open_session(
    folder: Path | str,
    spec: ExportSpec,
    *,
    many: bool = False,
    shares: bool = False,
    batch_size: int | None = None,
) -> Session:
    """Load an exported network.

    Args:
        folder: The export.
        spec: What it says of itself.
        many: Whether several batches are under way at once, as in `Session.stream`: more images
            a second, but each alone takes longer.
        shares: Whether others need the processor at the same time, such as who decodes images.
        batch_size: Images in each batch, where that is known: the network is then made for a
            fixed number of them, which is faster. None: any.

    Raises:
        InputError: The runtime is not installed, a file is missing or damaged.
    """
    folder = Path(folder)
    for name in MODEL_FILES[spec.format]:
        if not (folder / name).is_file():
            raise InputError(f"{folder / name}: is missing; export the run again")
    kind = _OnnxSession if spec.format == "onnx" else _OpenVinoSession
    try:
        return kind(folder / MODEL_FILES[spec.format][0], spec, many, shares, batch_size)
    except ImportError as error:
        package = {"onnx": "onnxruntime", "openvino": "openvino"}[spec.format]
        raise InputError(
            f"{folder}: needs {package}, which is not installed ({error}): pip install {package}"
        ) from None
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[0][:200]
        raise InputError(f"{folder}: cannot be loaded ({reason}); export the run again") from None


def _threads() -> int:
    """How many the user, or the engine that shares the processors, has set; 0 for none."""
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
        known = onnxruntime.get_available_providers()
        wanted = [name for name in ("CUDAExecutionProvider", "CPUExecutionProvider")
                  if name in known]  # fmt: skip
        from onnxruntime.capi import onnxruntime_pybind11_state as errors

        broken = (errors.Fail, errors.InvalidGraph, errors.InvalidProtobuf, errors.NotImplemented)
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=wanted)
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
        halved = spec.precision == "int8" and computes_bf16()
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
        counts: deque[int] = deque()  # of the parts of each batch

        def parts() -> Iterator[np.ndarray]:
            for images in batches:
                at_once = self._at_once or len(images)
                starts = range(0, len(images), at_once)
                counts.append(len(starts))
                yield from (images[start : start + at_once] for start in starts)

        held: list[Arrays] = []
        for output in self._stream_parts(parts()):
            held.append(output)
            if len(held) == counts[0]:
                counts.popleft()
                yield {name: np.concatenate([part[name] for part in held]) for name in output}
                held = []

    def _stream_parts(self, parts: Iterable[np.ndarray]) -> Iterator[Arrays]:
        most = int(self._compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))
        idle = [self._compiled.create_infer_request() for _ in range(most)]
        working: deque[tuple[Any, np.ndarray, int]] = deque()
        for images in parts:
            if not idle:
                yield self._finish(working, idle)
            request, filled = idle.pop(), self._filled(images)
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
