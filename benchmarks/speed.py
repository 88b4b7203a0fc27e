"""Speed of the five pieces of work that users wait for, beside the plain program for each.

    python -m benchmarks.speed

Both sides of a pair take turns seven times, in one process with one thread; the ratio is formed
within a turn, so that a machine that changes its speed changes both. Above 1 cxr-compare is faster.
"""

import contextlib
import io
import os
import platform
import re
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pandas as pd
import pydicom
import torch
import torchvision
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score
from threadpoolctl import threadpool_limits

import cxr_compare

TURNS = 7
IMAGES = 120
SIZE = 128
EDGES = ["x1", "y1", "x2", "y2"]


class Pair(NamedTuple):
    """A piece of work, done by this program and by a plain one."""

    work: str
    ours: Callable[[], object]
    plain: Callable[[], object]


def measure(pair: Pair) -> str:
    """Return medians in seconds and the ratio with its lowest and highest turn."""
    turns = []
    for turn in range(TURNS + 1):  # the first turn loads what later ones have
        seconds = {}
        for side in (pair.ours, pair.plain) if turn % 2 else (pair.plain, pair.ours):
            begun = time.perf_counter()
            with contextlib.redirect_stderr(io.StringIO()):
                side()
            seconds[side] = time.perf_counter() - begun
        turns.append((seconds[pair.ours], seconds[pair.plain]))
    ours, plain = (statistics.median(column) for column in zip(*turns[1:], strict=True))
    ratios = [other / own for own, other in turns[1:]]
    ends = f"{min(ratios):.2f} to {max(ratios):.2f}"
    ratio = statistics.median(ratios)
    return f"| {pair.work} | {ours:.3f} s | {plain:.3f} s | {ratio:.2f} ({ends}) |"


def prepare_pair(xrays: Path, scratch: Path) -> Pair:
    """From DICOM files to squares."""
    files = sorted(xrays.rglob("*.dcm"))

    def ours() -> None:
        shutil.rmtree(scratch / "data", ignore_errors=True)
        cxr_compare.prepare(xrays, scratch / "data", format="rsna", size=[SIZE], workers=0)

    def plain() -> None:
        squares = np.zeros((len(files), SIZE, SIZE), np.uint8)
        for row, file in enumerate(files):
            pixels = pydicom.dcmread(file).pixel_array
            squares[row] = cv2.resize(pixels, (SIZE, SIZE), interpolation=cv2.INTER_AREA)
        np.save(scratch / "squares.npy", squares)

    return Pair(f"prepare {len(files)} DICOM files", ours, plain)


def epoch_pair(data: Path, scratch: Path) -> Pair:
    """One epoch of CheXNet, with its validation and its run folder, beside a bare loop."""
    squares = np.load(scratch / "squares.npy")
    labels = torch.from_numpy(np.arange(len(squares)) % 2).float()

    def ours() -> None:
        shutil.rmtree(scratch / "run", ignore_errors=True)
        keys = [f"data.image_size={SIZE}", "training.epochs=1", "training.workers=0"]
        cxr_compare.train("chexnet_quickstart", data=data, out=scratch / "run", set_=keys)

    def plain() -> None:
        model = torchvision.models.densenet121(num_classes=1)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        n_training = int(0.65 * len(squares))
        for start in range(0, n_training, 16):
            rows = slice(start, min(start + 16, n_training))
            batch = torch.from_numpy(squares[rows]).float().div(255)[:, None].expand(-1, 3, -1, -1)
            loss = torch.nn.functional.binary_cross_entropy_with_logits(
                model(batch)[:, 0], labels[rows]
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return Pair(f"one epoch of CheXNet at {SIZE} px", ours, plain)


def compare_pair(n_images: int = 27_000, replicates: int = 200) -> Pair:
    """A detector's boxes and a classifier with intervals, beside resamples by scikit-learn."""
    rng = np.random.default_rng(0)
    ids = np.arange(n_images).astype(str)
    label = (rng.random(n_images) < 0.25).astype(int)
    truth = pd.DataFrame({"image_id": ids, "label": label})
    truth["patient_id"] = rng.integers(0, n_images // 2, n_images).astype(str)
    truth["role"] = np.where(truth["patient_id"].astype(int) % 6 == 0, "val", "test")

    def boxes(images: np.ndarray) -> pd.DataFrame:
        corner = rng.uniform(0, 700, (len(images), 2))
        table = pd.DataFrame(np.hstack([corner, corner + rng.uniform(60, 300, corner.shape)]))
        table.columns = EDGES
        return table.assign(image_id=ids[images])

    lesions = boxes(np.flatnonzero(label))
    found = boxes(rng.integers(0, n_images, 2 * n_images)).assign(score=rng.random(2 * n_images))
    hits = lesions.assign(score=0.4 + 0.6 * rng.random(len(lesions)))
    found = pd.concat([found, hits], ignore_index=True)
    scores = np.round(rng.random(n_images) * 0.6 + 0.3 * label, 3)
    best = found.groupby("image_id")["score"].max().reindex(ids).fillna(0).to_numpy()
    test = np.flatnonzero(truth["role"] == "test")

    def ours() -> None:
        systems = {"Boxes": found, "Scores": scores}
        cxr_compare.compare(systems, truth=truth, boxes=lesions, replicates=replicates)

    def plain() -> None:
        for _ in range(replicates):
            drawn = rng.choice(test, len(test))
            for score in (best, scores):
                y, s = label[drawn], score[drawn]
                roc_auc_score(y, s), average_precision_score(y, s), f1_score(y, s >= 0.5)

    return Pair(
        f"compare boxes and scores on {n_images} images, {replicates} resamples", ours, plain
    )


def boxes_pair(n_images: int = 2000, n_boxes: int = 20) -> Pair:
    """AP50 and AP of a detector beside pycocotools."""
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 800, (n_images * n_boxes, 2))
    table = pd.DataFrame(np.hstack([corners, corners + rng.uniform(40, 200, corners.shape)]))
    table.columns = EDGES
    table.insert(0, "image_id", np.repeat(np.arange(n_images), n_boxes).astype(str))
    table["score"] = rng.random(len(table))
    truth = table.iloc[::n_boxes, :5]
    ids = [str(number) for number in range(n_images)]

    def entries(rows: pd.DataFrame) -> list[dict[str, object]]:
        images = rows["image_id"].astype(int).tolist()
        scores = rows["score"].tolist() if "score" in rows else [0.0] * len(rows)
        made: list[dict[str, object]] = []
        for image, edges, score in zip(images, rows[EDGES].to_numpy(), scores, strict=True):
            width, height = edges[2:] - edges[:2]
            made.append(
                {
                    "id": len(made) + 1,
                    "image_id": image + 1,
                    "category_id": 1,
                    "bbox": [edges[0], edges[1], width, height],
                    "area": width * height,
                    "iscrowd": 0,
                    "score": score,
                }
            )
        return made

    def ours() -> None:
        cxr_compare.metrics.box_average_precision(table, truth, ids)

    def plain() -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            coco = COCO()
            coco.dataset = {
                "images": [{"id": number + 1} for number in range(n_images)],
                "categories": [{"id": 1}],
                "annotations": entries(truth),
            }
            coco.createIndex()
            evaluator = COCOeval(coco, coco.loadRes(entries(table)), "bbox")
            evaluator.evaluate()
            evaluator.accumulate()

    return Pair(f"AP50 and AP of {n_images} images with {n_boxes} boxes", ours, plain)


def predict_pair(xrays: Path, run: Path) -> Pair:
    """The answer of a run for one DICOM file beside the bare network."""
    file = min(xrays.rglob("*.dcm"))
    model = torchvision.models.densenet121(num_classes=1).eval()
    opened = cxr_compare.Run.open(run)

    def ours() -> None:
        opened.predict(file)

    def plain() -> None:
        pixels = cv2.resize(pydicom.dcmread(file).pixel_array, (SIZE, SIZE))
        with torch.inference_mode():
            model(torch.from_numpy(pixels).float().div(255)[None, None].expand(-1, 3, -1, -1))

    return Pair("answer for one image", ours, plain)


def machine() -> str:
    """Name the processor, and the versions that the times depend on."""
    about = Path("/proc/cpuinfo")
    models = re.findall(r"model name\s*: (.*)", about.read_text()) if about.exists() else []
    name = models[0] if models else platform.processor() or platform.machine()
    return (
        f"{name}, {os.cpu_count()} cores, one thread; torch {torch.__version__}, "
        f"Python {platform.python_version()}"
    )


def main() -> None:
    """Print the machine and a row of each pair."""
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    with threadpool_limits(1), tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        with contextlib.redirect_stderr(io.StringIO()):
            cxr_compare.synth(scratch / "xrays", images=IMAGES, size=256, seed=0)
        print(f"{machine()}\n\n| work | cxr-compare | plain program | ratio |\n|---|---|---|---|")
        print(measure(prepare_pair(scratch / "xrays", scratch)), flush=True)
        print(measure(epoch_pair(scratch / "data", scratch)), flush=True)
        print(measure(compare_pair()), flush=True)
        print(measure(boxes_pair()), flush=True)
        print(measure(predict_pair(scratch / "xrays", scratch / "run")), flush=True)


if __name__ == "__main__":
    main()
