"""Inference of both networks by back end and precision, and the whole of `cxr predict`.

Both sides have the same weights. They are random, with batch-norm statistics of real images. The
class bias lets about 1,700 anchors of an image pass a score of 0.05, as in a trained detector. The
accuracy of exports is not checked here, since random weights give no meaningful accuracy.
"""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from torch import nn

from benchmarks.bench import Row, Setting
from benchmarks.bench_data import plain_square
from benchmarks.bench_models import (
    Size,
    classifier_floats,
    classifier_twins,
    detector_floats,
    detector_twins,
    flops,
    precisions,
    sizes,
    stacked_images,
)
from benchmarks.bench_predict import exported_predictions, predict_command, torch_predictions
from benchmarks.worker import Candidate, Run
from cxr_compare.classification.model import ImageClassifier
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.finding_names import Target
from cxr_compare.data_prep.store.prediction_info import MadeOn
from cxr_compare.detection.retinanet import LesionRetinaNet
from cxr_compare.networks.model_files import load_model, save_model
from cxr_compare.scripts.runtime import choose_device
from cxr_compare.serving.export_graph import anchors_of, quantise, write_graph
from cxr_compare.serving.export_spec import EXPORT_FILE, PREPROCESS_FILE, ExportSpec
from cxr_compare.serving.trained_model import BUILDERS, TrainedModel
from cxr_compare.training.run_folder import RunFolder
from cxr_compare.training.run_info import StartedRun

_BATCH = {"detector": 1, "classifier": 8}  # each side's fastest
_IMAGES = {"detector": 8, "classifier": 64}  # for a sample
_FILES = {"detector": 24, "classifier": 60}
_CALIBRATED = 16  # images for the statistics of batch norm, and for int8
# anchors, their score, deviation of logits
_PASSING = 1_700
_PASS = 0.05
_SPREAD = 1.5
_NEVER = -20.0  # a logit
_QUICK_IMAGES = 2
_ROUNDS = 3
_FINDING = "lung_opacity"
_COMMAND_EXPORTS = ("openvino bf16", "openvino int8")


def network_rows(setting: Setting) -> Iterator[dict[str, Any]]:
    """Yield rows from pixels in memory to tables of predictions, against torchvision in eager."""
    device = choose_device()
    note = (
        "inference: ours is from store pixels to tables of boxes in the image's px, or of scores "
        "and activation maps; torchvision's from float32 images in memory to boxes or scores; "
        "the back ends onnx and openvino compute on the processor"
    )
    peer = "torchvision eager fp32"
    for kind, size in _sizes(setting).items():
        run = make_run(setting, kind, size)
        images = _images(setting, kind, size)
        arguments: dict[str, Any] = {"images": images, "batch": size.batch}
        own: dict[str, Any] = {"run": str(run), "device": device}
        loop = Candidate.from_setup(torchvision_loop, kind=kind, size=size, images=images, **own)
        candidates = {peer: loop}
        bounds = {}
        for name in precisions(device):
            ours = f"torch {name}"
            candidates[ours] = Candidate.from_setup(
                torch_predictions, tuned=True, precision=name, **arguments, **own
            )
            bounds[ours] = name
        failed = {}
        for ours, precision in _exports():
            try:
                made = make_export(setting, kind, size, ours)
            except (ImportError, InputError, RuntimeError) as error:
                failed[ours] = str(error)
            else:
                candidates[ours] = Candidate.from_setup(
                    exported_predictions, folder=str(made), **arguments
                )
            bounds[ours] = precision
        work = f"inference on {device}, {size}"
        cost = flops(kind, size)
        rows = [
            Row(work, "images/s", ours, peer, bound=(bounds[ours], cost), note=note)
            for ours in bounds
        ]
        lost = [row for row in rows if row.ours in failed]
        yield from setting.meter.measure(candidates, [row for row in rows if row not in lost])
        yield from (row.measured([], {}, failed=failed) for row in lost)


def _exports() -> list[tuple[str, str]]:
    """Return back ends with their precision, and the precision, that this machine supports."""
    known = [("onnx", "fp32"), *(("openvino", name) for name in (*precisions("cpu"), "int8"))]
    return [(f"{backend} {precision}", precision) for backend, precision in known]


def _sizes(setting: Setting) -> dict[str, Size]:
    return {kind: size._replace(batch=_BATCH[kind]) for kind, size in sizes(setting).items()}


def _images(setting: Setting, kind: str, size: Size) -> str:
    count = _QUICK_IMAGES if setting.quick else _IMAGES[kind]
    return stacked_images(setting, size._replace(batch=count))


def _calibration_images(setting: Setting, size: Size) -> str:
    count = _QUICK_IMAGES if setting.quick else _CALIBRATED
    return stacked_images(setting, size._replace(batch=count))


def make_run(setting: Setting, kind: str, size: Size) -> Path:
    """Make a run as `cxr train` leaves it, with random weights; an existing one is kept."""
    folder = setting.scratch / f"run-{kind}"
    if folder.exists():
        return folder
    twins = detector_twins if kind == "detector" else classifier_twins
    model: Any = twins(size, setting.seed, "cpu")[0]
    pixels = torch.from_numpy(np.load(_calibration_images(setting, size)))
    _measure_batch_norm(model, pixels)
    if isinstance(model, LesionRetinaNet):
        _set_class_bias(model, pixels)
    names = [f"i{number}" for number in range(len(pixels))]
    seen = pd.DataFrame({"image_id": names, "patient_id": names, "role": "train"})
    arguments = StartedRun(
        name=kind,
        model_kind="detector" if kind == "detector" else "classifier",
        target=_FINDING,
        findings=(_FINDING,),
        seed=setting.seed,
        data_set=MadeOn(name="benchmark", content_id="", split="default"),
    )
    run = RunFolder.create(folder, config="", seen=seen, started=arguments)
    save_model(model, folder)
    model.preprocess.write(folder / PREPROCESS_FILE)
    run.complete(epochs=0)
    return folder


def _measure_batch_norm(model: Any, pixels: torch.Tensor) -> None:
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = None  # the mean over all batches
    forward = model.run if isinstance(model, LesionRetinaNet) else model.features
    model.train()
    with torch.no_grad():
        for some in pixels.split(4):
            forward(some)
    model.eval()


def _set_class_bias(model: LesionRetinaNet, pixels: torch.Tensor) -> None:
    """Spread the logits, and move them until the wanted number of anchors passes the score."""
    layer = model.head.classification_head.cls_logits
    with torch.no_grad():
        logits = model.run(pixels[:4]).outputs["cls_logits"][..., 1]  # (B, A)
        bias = layer.bias.mean()
        grow = _SPREAD / logits.std()
        share = min(_PASSING / logits.shape[1], 0.5)
        top = (bias + grow * (logits - bias)).flatten().quantile(1 - share)
        layer.weight.mul_(grow)
        layer.bias.add_(float(np.log(_PASS / (1 - _PASS))) - top)
        layer.bias[::2] = _NEVER  # background, which is no class to learn


def make_export(setting: Setting, kind: str, size: Size, ours: str) -> Path:
    """Make an export as `cxr export` writes it, without a check; an existing one is kept.

    int8 is calibrated on images that the run has seen.
    """
    run = make_run(setting, kind, size)
    folder = run / "exports" / ours.replace(" ", "-")
    if (folder / EXPORT_FILE).exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    format, precision = cast("Any", ours.split())  # noqa: A001
    model = TrainedModel.open(run)
    boxes = isinstance(model.model, LesionRetinaNet)
    spec = ExportSpec(
        format=format,
        precision=precision,
        kind="boxes" if boxes else "scores",
        findings=model.findings,
        target=Target(_FINDING, (_FINDING,), _FINDING),
        size=size.side,
        level_sizes=anchors_of(cast("LesionRetinaNet", model.model))[1] if boxes else (),
        map_frame=None if boxes else (0.0, 0.0, float(size.side), float(size.side)),
        run=model.run.info.with_values(folder=str(run), inference_id=model.inference_id()),
    )
    write_graph(model.model, folder, format)
    shutil.copyfile(run / PREPROCESS_FILE, folder / PREPROCESS_FILE)
    if precision == "int8":
        pixels = np.load(_calibration_images(setting, size))[:, 0]
        quantise(folder, lambda name: pixels[int(name)], [str(n) for n in range(len(pixels))])
    spec.complete(folder)
    return folder


def torchvision_loop(kind: str, size: Sequence[Any], images: str, run: str, device: str) -> Run:
    """Set up torchvision's network in eager mode on float32 images in memory.

    `images` is their file, and `run` has the weights.
    """
    shape = Size(*size)
    pixels = torch.from_numpy(np.load(images))
    network, floats_of = torchvision_peer(kind, shape, run, device)
    batches = [floats_of(some) for some in pixels.split(shape.batch)]

    def loop() -> float:
        with torch.inference_mode():
            for batch in batches:
                network(batch)
        return float(len(pixels))

    return loop


def torchvision_peer(
    kind: str, size: Size, run: str, device: str
) -> tuple[Callable[[Any], object], Callable[[torch.Tensor], Any]]:
    """Return torchvision's network with the weights of a run, and what makes its input.

    The function makes the input from pixels of the store.
    """
    trained = load_model(Path(run), BUILDERS)
    if kind == "detector":
        detector = detector_twins(size, 0, device)[1].eval()
        detector.load_state_dict(trained.state_dict())

        def boxes(batch: list[torch.Tensor]) -> object:
            found = detector([image.to(device) for image in batch])
            return [image["boxes"].cpu() for image in found]

        return boxes, detector_floats
    ours = cast("ImageClassifier", trained)
    classifier = classifier_twins(size, 0, device)[1].eval()
    classifier.features.load_state_dict(ours.trunk.state_dict())
    classifier.classifier.load_state_dict(ours.classifier.state_dict())
    return (
        lambda batch: classifier(batch.to(device)).sigmoid().cpu(),
        partial(classifier_floats, ours),
    )


def command_rows(setting: Setting) -> Iterator[dict[str, Any]]:
    """Yield rows of `cxr predict` for files (decode, predict, write) against a plain loop."""
    note = (
        "cxr predict: from files to a CSV of answers, the network loaded anew each time; the loop "
        "decodes with pydicom and Pillow, resizes with cv2, runs torchvision and writes CSV; it "
        "has no window, no check of the image, and no map"
    )
    device = choose_device()
    peer = "a loop of pydicom and torchvision"
    for kind, size in _sizes(setting).items():
        run = make_run(setting, kind, size)
        files = [str(path) for path in setting.images[: 4 if setting.quick else _FILES[kind]]]
        listed = setting.scratch / f"predict-{kind}.txt"
        listed.write_text("\n".join(files), encoding="utf-8")
        arguments: dict[str, Any] = {"run": str(run), "files": str(listed)}
        candidates = {
            peer: Candidate.from_setup(
                torchvision_files, kind=kind, size=size, device=device, **arguments
            )
        }
        for name in precisions(device):
            options = ["--precision", name, "--device", device]
            candidates[f"torch {name}"] = Candidate.from_setup(
                predict_command, options=options, **arguments
            )
        for ours in (name for name, _ in _exports() if name in _COMMAND_EXPORTS):
            arguments["run"] = str(make_export(setting, kind, size, ours))
            candidates[ours] = Candidate.from_setup(predict_command, options=[], **arguments)
        work = f"cxr predict on {device}, {len(files)} files, {size}"
        rows = [Row(work, "images/s", ours, peer, note=note) for ours in candidates if ours != peer]
        yield from setting.meter.measure(candidates, rows, warm=True, most=_ROUNDS)


def torchvision_files(kind: str, size: Sequence[Any], run: str, files: str, device: str) -> Run:
    """Set up a plain loop that decodes files in batches, runs torchvision's network and writes CSV.

    `files` has the path of one image in each line, and `run` has the weights.
    """
    shape = Size(*size)
    named = [Path(line) for line in Path(files).read_text(encoding="utf-8").split("\n")]
    table = Path(files).with_suffix(".plain.csv")

    def loop() -> float:
        network, floats_of = torchvision_peer(kind, shape, run, device)
        with torch.inference_mode(), table.open("w", newline="") as out:
            rows = csv.writer(out)
            for start in range(0, len(named), shape.batch):
                some = named[start : start + shape.batch]
                squares = np.stack([plain_square(path, shape.side, pillow=True) for path in some])
                found: Any = network(floats_of(torch.from_numpy(squares)[:, None]))
                rows.writerows(zip(some, (each.tolist() for each in found), strict=True))
        return float(len(named))

    return loop


BLOCKS = {"inference": (network_rows,), "predict": (command_rows,)}
