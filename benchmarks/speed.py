"""Speed of the work that users wait for, beside the programs that somebody would write or take.

    python -m benchmarks.speed
    python -m benchmarks.speed detector boxes --seconds 10

All sides of a piece of work take turns in one process on one core. Above 1 cxr-compare is
faster. Where both sides compute the same, the outputs of the first turn are compared.
"""

import argparse
import contextlib
import io
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pydicom
import torch
import torchvision
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score
from threadpoolctl import threadpool_limits

import cxr_compare
from benchmarks.box_precision import peers, precision_work
from benchmarks.detector import decode_work, loss_work, predict_work, step_work
from benchmarks.drawn_tables import draw_tables
from benchmarks.turns import HEADER, Work, machine, rows, use_one_core
from cxr_compare.serving.network import open_network

SIZE = 128
Images = tuple[Path, cxr_compare.DataSet]
"""A folder of synthetic X-rays, and the data set that is made of them."""


def _images(scratch: Path, n_images: int, side: int, size: int, val: float = 0.15) -> Images:
    """Draw X-rays, and prepare them."""
    xrays = scratch / f"{n_images} X-rays"
    cxr_compare.synth(xrays, images=n_images, size=side, seed=1)
    out = scratch / f"{n_images} images"
    made = cxr_compare.prepare(xrays, out, format="rsna", size=[size], workers=0, val=val)
    return xrays, made


def prepare_works(scratch: Path, n_images: int = 24, side: int = 2048) -> Iterator[Work]:
    """From files of real size to squares of 512 px: DICOM with JPEG inside, JPEG and PNG."""
    xrays = scratch / "large"
    cxr_compare.synth(xrays, images=n_images, size=side, seed=0)
    sources = sorted(xrays.rglob("*.dcm"))
    yield _prepare_work("DICOM", sources, pydicom_pixels, scratch, [xrays], format="rsna")
    for suffix in ("jpg", "png"):
        folder = scratch / suffix
        folder.mkdir()
        files = [folder / f"{number:03d}.{suffix}" for number in range(len(sources))]
        for source, file in zip(sources, files, strict=True):
            cv2.imwrite(str(file), pydicom_pixels(source))
        labels = scratch / f"{suffix}.csv"
        table = pd.DataFrame({"image_id": [file.name for file in files]})
        table["patient_id"] = table.index
        table.assign(label=table.index % 2).to_csv(labels, index=False)
        yield _prepare_work(suffix.upper(), files, opencv_pixels, scratch, [labels, folder])


def pydicom_pixels(file: Path) -> np.ndarray:
    """Decode a DICOM file."""
    return pydicom.dcmread(file).pixel_array


def opencv_pixels(file: Path) -> np.ndarray:
    """Decode a JPEG or PNG file."""
    return np.asarray(cv2.imread(str(file), cv2.IMREAD_GRAYSCALE))


def _prepare_work(
    kind: str,
    files: list[Path],
    decode: Callable[[Path], np.ndarray],
    scratch: Path,
    paths: list[Path],
    **options: Any,
) -> Work:
    size = 512
    out = scratch / f"prepared {kind}"
    side = len(decode(files[0]))

    def ours() -> np.ndarray:
        shutil.rmtree(out, ignore_errors=True)
        cxr_compare.prepare(*paths, out, size=[size], workers=0, **options)
        return np.load(out / "pixels" / f"{size}.npy", mmap_mode="r")

    def other() -> np.ndarray:
        squares = np.zeros((len(files), size, size), np.uint8)
        for row, file in enumerate(files):
            squares[row] = cv2.resize(decode(file), (size, size), interpolation=cv2.INTER_AREA)
        np.save(scratch / "squares.npy", squares)
        return squares

    def check(own: np.ndarray, squares: np.ndarray) -> None:
        by_sum = [each[np.argsort(each.sum(axis=(1, 2)))] for each in (own, squares)]
        np.testing.assert_array_equal(by_sum[0], by_sum[1])

    beside = "pydicom and OpenCV" if kind == "DICOM" else "OpenCV"
    name = f"prepare {kind} files of {side:,} px"
    return Work(name, ours, {beside: other}, check, len(files))


def epoch_work(data: cxr_compare.DataSet, scratch: Path) -> Work:
    """One epoch of CheXNet, with its validation and its run folder, beside a bare loop."""
    squares = np.load(data.folder / "pixels" / f"{SIZE}.npy")
    labels = torch.from_numpy(np.arange(len(squares)) % 2).float()

    def ours() -> None:
        shutil.rmtree(scratch / "run", ignore_errors=True)
        keys = [f"data.image_size={SIZE}", "training.epochs=1", "training.workers=0"]
        cxr_compare.train("chexnet_quickstart", data=data, out=scratch / "run", set_=keys)

    def other() -> None:
        model = torchvision.models.densenet121(num_classes=1)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        n_training = int(0.65 * len(squares))
        for start in range(0, n_training, 16):
            chosen = slice(start, min(start + 16, n_training))
            grey = torch.from_numpy(squares[chosen]).float().div(255)
            loss = torch.nn.functional.binary_cross_entropy_with_logits(
                model(grey[:, None].expand(-1, 3, -1, -1))[:, 0], labels[chosen]
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    name = f"one epoch of CheXNet, {len(squares)} images of {SIZE} px"
    return Work(name, ours, {"torchvision": other})


def scores_work(data: cxr_compare.DataSet, scratch: Path) -> Work:
    """Predictions of a data set by a small classifier, beside a bare loop with its network."""
    run, out = scratch / "small", scratch / "scores"
    size = data.sizes[0]
    keys = [f"data.image_size={size}", "training.epochs=1", "training.workers=0"]
    cxr_compare.train("small_cnn", data=data, out=run, set_=keys)
    opened: Any = cxr_compare.Run.open(run)
    model = opened.network.model.eval()

    def ours() -> pd.Series:
        shutil.rmtree(out, ignore_errors=True)
        cxr_compare.predict(run, data=data, out=out)
        return cxr_compare.Predictions.open(out).scores.set_index("image_id")["score"]

    ids = ours().index
    store = data.store(size)
    np.save(scratch / "squares.npy", np.stack([store.image(image_id) for image_id in ids]))

    def other() -> np.ndarray:
        squares = torch.from_numpy(np.load(scratch / "squares.npy"))[:, None]
        with torch.inference_mode():
            logits = [model(batch)[0] for batch in squares.split(8)]
        return torch.cat(logits).double().sigmoid()[:, 0].numpy()

    def check(own: pd.Series, scores: np.ndarray) -> None:
        np.testing.assert_allclose(own.to_numpy(), scores, atol=1e-6)

    name = f"predict {len(ids)} images of a data set, small CNN at {size} px"
    return Work(name, ours, {"PyTorch": other}, check, len(ids))


def export_work(data: cxr_compare.DataSet, run: Path, scratch: Path) -> Work:
    """The export of a run, as `cxr predict` computes it, beside the run."""
    cxr_compare.export(run, scratch / "export", format="onnx")
    exported, network = open_network(scratch / "export", "cpu"), open_network(run, "cpu")
    squares = np.load(data.folder / "pixels" / f"{SIZE}.npy")[:8, None]

    def check(own: Any, other: Any) -> None:
        np.testing.assert_allclose(own[0], other[0], atol=0.001)

    name = f"CheXNet at {SIZE} px, export in {exported.backend}"
    others = {"the run in PyTorch fp32": lambda: network(squares)}
    return Work(name, lambda: exported(squares), others, check, len(squares), "within 0.001")


def answer_work(xrays: Path, run: Path) -> Work:
    """The answer of a run for one DICOM file beside the bare network."""
    file = min(xrays.rglob("*.dcm"))
    model = torchvision.models.densenet121(num_classes=1).eval()
    opened = cxr_compare.Run.open(run)

    def ours() -> None:
        opened.predict(file)

    def other() -> None:
        pixels = cv2.resize(pydicom.dcmread(file).pixel_array, (SIZE, SIZE))
        with torch.inference_mode():
            model(torch.from_numpy(pixels).float().div(255)[None, None].expand(-1, 3, -1, -1))

    return Work(f"answer of CheXNet at {SIZE} px for one DICOM file", ours, {"torchvision": other})


def compare_work(n_images: int = 26_684, replicates: int = 200) -> Work:
    """A detector's boxes and a classifier with intervals, beside resamples by scikit-learn."""
    truth, lesions, found, answers = draw_tables(n_images)
    label, scores = truth["label"].to_numpy(), answers["score"].to_numpy()
    best = found.groupby("image_id")["score"].max().reindex(truth["image_id"]).fillna(0).to_numpy()
    test = np.flatnonzero(truth["role"] == "test")
    rng = np.random.default_rng(0)

    def ours() -> None:
        systems = {"Boxes": found, "Scores": answers}
        cxr_compare.compare(systems, truth=truth, boxes=lesions, replicates=replicates)

    def other() -> None:
        for _ in range(replicates):
            drawn = rng.choice(test, len(test))
            for score in (best, scores):
                y, s = label[drawn], score[drawn]
                roc_auc_score(y, s), average_precision_score(y, s), f1_score(y, s >= 0.5)

    name = f"compare boxes and scores on {n_images:,} images, {replicates} resamples"
    return Work(name, ours, {"scikit-learn": other})


def works(chosen: list[str], scratch: Path) -> Iterator[Work]:
    """Yield the work of the chosen parts; a part is made ready when its turn comes."""
    if "prepare" in chosen:
        yield from prepare_works(scratch)
    if "training" in chosen:
        xrays, data = _images(scratch, 60, 256, SIZE)
        yield epoch_work(data, scratch)
        yield answer_work(xrays, scratch / "run")
        yield export_work(data, scratch / "run", scratch)
    if "predict" in chosen:
        yield scores_work(_images(scratch, 400, 224, 224)[1], scratch)
    if "detector" in chosen:
        yield predict_work(_images(scratch, 16, 512, 512, val=0.4)[1], scratch)
        yield decode_work(1)
        yield decode_work(14)
        yield loss_work()
        yield step_work()
    if "boxes" in chosen:
        installed = list(peers())
        yield precision_work(installed, 2_000, 20)
        yield precision_work(installed, 26_684, 5)
    if "compare" in chosen:
        yield compare_work()


PARTS = ["prepare", "training", "predict", "detector", "boxes", "compare"]


def main() -> None:
    """Print the machine and a row of each piece of work."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed", description=__doc__)
    parser.add_argument("parts", nargs="*", default=PARTS, help=", ".join(PARTS))
    parser.add_argument("--seconds", type=float, default=30.0, help="after which no turn begins")
    given = parser.parse_args()
    use_one_core()
    print(f"{machine()}\n\n{HEADER}", flush=True)
    quiet = contextlib.redirect_stderr(io.StringIO())
    with quiet, threadpool_limits(1), tempfile.TemporaryDirectory() as folder:
        for work in works(given.parts, Path(folder)):
            for row in rows(work, given.seconds):
                print(row, flush=True)


if __name__ == "__main__":
    main()
