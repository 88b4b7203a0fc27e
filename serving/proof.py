"""Proof that an export answers as its run; one that does not is not kept."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

from cxr_compare.data_prep.base.boxes import box_iou
from cxr_compare.data_prep.base.errors import InputError
from cxr_compare.data_prep.base.files import atomic_folder, file_digest, named_file
from cxr_compare.data_prep.base.provenance import provenance
from cxr_compare.data_prep.preprocess import letterbox
from cxr_compare.serving.network import Network, TorchNetwork
from cxr_compare.serving.onnx_file import (
    EXPORT_FILE,
    MODEL_FILE,
    ExportInfo,
    OnnxNetwork,
    write_onnx,
)

_IMAGES = 16
_SIDE = 256
_MOST_APART = 1e-3
_LEAST_SCORE, _SAME_BOX, _LEAST_SHARE = 0.05, 0.8, 0.95
_COMPANIONS = ("preprocess.json", "decision.json", "guard.npz")


def export_run(run: Path, out: Path) -> Path:
    """Write a run as an export: one ONNX file, and what its answers need; no patient's id."""
    network = TorchNetwork(run, "cpu")
    if network.views:
        raise InputError(
            f"{run}: joins views of an image, which an export cannot; train it without model.views"
        )
    with atomic_folder(out) as folder:
        facts = {
            "findings": network.info.findings,
            "size": network.preprocess.size,
            "mean": network.preprocess.mean,
            "std": network.preprocess.std,
            "input": "uint8 (B, 1, size, size), grey, larger is brighter; it is normalised inside",
        }
        of_classes = bool(network.info.classes)
        write_onnx(network.model, folder / MODEL_FILE, facts, exclusive=of_classes)
        for name in _COMPANIONS:
            stored = named_file(run, name, network.files)
            if stored is not None:
                shutil.copyfile(stored, folder / name)
        record = ExportInfo(
            gives=network.kind,
            run=network.info,
            map_frame=network.map_frame,
            files={path.name: file_digest(path) for path in sorted(folder.iterdir())},
            **provenance(),
        )
        record.write(folder / EXPORT_FILE)
        squares = drawn_squares(network.preprocess.size)
        proof = prove(network, OnnxNetwork(folder), squares)
        record.with_values(proof=proof).write(folder / EXPORT_FILE)
    return out


def drawn_squares(size: int) -> np.ndarray:
    """Draw synthetic chest X-rays, uint8 ``(B, 1, S, S)``."""
    from cxr_compare.data_prep.synth.rendering import draw_image, draw_patient

    patients = [draw_patient(0, number, 0.9) for number in range(_IMAGES)]
    images = [draw_image(patient, 0, max(size, _SIDE)).pixels for patient in patients]
    return np.stack([letterbox(pixels, size)[0] for pixels in images])[:, None]


def prove(run: Network, exported: Network, squares: np.ndarray) -> str:
    """Compare the outputs of two networks; raise InputError if they answer otherwise.

    Image scores and maps may differ by 0.001, and of the boxes of 0.05 and more 95 of 100 must be
    among the other's.
    """
    expected, got = run(squares), exported(squares)
    if isinstance(expected, list) and isinstance(got, list):
        highest = [[rows[:, 4].max(initial=0.0) for rows in each] for each in (expected, got)]
        apart = float(np.abs(np.subtract(highest[0], highest[1])).max())
        same = total = 0
        for ours, theirs in zip(expected, got, strict=True):
            ours, theirs = (rows[rows[:, 4] >= _LEAST_SCORE] for rows in (ours, theirs))
            near = box_iou(ours[:, None, :4], theirs[:, :4]) >= _SAME_BOX
            same += int(near.any(axis=0).sum() + near.any(axis=1).sum())
            total += sum(near.shape)
        share = same / total if total else 1.0
        text = f"boxes {100 * share:.1f} % the same"
    else:
        apart = float(np.abs(expected[0] - got[0]).max())
        maps = float(np.abs(expected[1] - got[1]).max() / max(1.0, np.abs(expected[1]).max()))
        share = float(maps <= _MOST_APART)
        text = f"maps differ by at most {maps:.2g}"
    line = f"on {len(squares)} synthetic images scores differ by at most {apart:.2g}, {text}"
    if not (apart <= _MOST_APART and share >= _LEAST_SHARE):  # nor where a figure is not finite
        raise InputError(f"export: answers otherwise than its run, and is not kept: {line}")
    return f"Answers as its run: {line}"
