"""The folders of a rehearsal: some training images stand in for those of the challenge.

    python -m tools.full_size.rehearsal_folders SOURCE FOLDER --share 0.15 --seed 0

``FOLDER/kaggle`` has the other images in Kaggle's layout. ``FOLDER/release`` has all images in the
layout of RSNA's own release, with Kaggle's list of test images, as the full-size study needs it.
The images are drawn one by one, without regard to their patients. Images are linked, not copied.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cxr_compare.data_prep.formats.rsna import CLASS_INFO, LABELS, TRAIN_IMAGES
from cxr_compare.data_prep.formats.rsna_mapping import MAPPING, MAPPINGS_JSON, PHANTOM
from cxr_compare.data_prep.formats.rsna_release import KAGGLE_TEST

_ANNOTATIONS = "pneumonia-challenge-annotations-adjudicated-kaggle_2018.json"
_CLASSES = ("Lung Opacity", "Normal", "No Lung Opacity / Not Normal")


def write_rehearsal(source: Path, folder: Path, share: float, seed: int) -> int:
    """Write both folders of a rehearsal.

    Args:
        source: Folder in Kaggle's layout, with ``rsna_to_nih.csv``.
        folder: Folder of both folders.
        share: Share of the images that stand in for the challenge's test images.
        seed: Random seed of their draw.

    Returns:
        Number of the images that stand in.
    """
    labels = pd.read_csv(source / LABELS)
    classes = pd.read_csv(source / CLASS_INFO).drop_duplicates("patientId")
    files = {path.stem: path for path in sorted((source / TRAIN_IMAGES).iterdir())}
    ids = [image_id for image_id in labels["patientId"].drop_duplicates() if image_id in files]
    drawn = np.random.default_rng(seed).choice(ids, round(share * len(ids)), replace=False)
    challenge = set(drawn.tolist())
    kaggle = folder / "kaggle"
    (kaggle / TRAIN_IMAGES).mkdir(parents=True, exist_ok=True)
    for image_id in ids:
        if image_id not in challenge:
            _link(files[image_id], kaggle / TRAIN_IMAGES / files[image_id].name)
    for name in (LABELS, CLASS_INFO, MAPPING):
        table = pd.read_csv(source / name)
        table[~table["patientId"].isin(challenge)].to_csv(kaggle / name, index=False)
    if (source / PHANTOM).exists():
        _link(source / PHANTOM, kaggle / PHANTOM)
    mapping = pd.read_csv(source / MAPPING).set_index("patientId")["nih_image"]
    _write_release(folder / "release", labels, classes, mapping, files, ids, sorted(challenge))
    return len(challenge)


def _write_release(
    release: Path,
    labels: pd.DataFrame,
    classes: pd.DataFrame,
    mapping: pd.Series,
    files: dict[str, Path],
    ids: list[str],
    challenge: list[str],
) -> None:
    """Write all images in the layout of RSNA's own release."""
    release.mkdir(parents=True, exist_ok=True)
    class_of = dict(zip(classes["patientId"], classes["class"], strict=True))
    boxes = dict(iter(labels.groupby("patientId", sort=False)))
    annotations: list[dict[str, Any]] = []
    records = []
    for number, image_id in enumerate(ids):
        study, series, sop = (f"1.2.3.{kind}.{number}" for kind in (1, 2, 3))
        target = release / "images" / study / series / f"{sop}.dcm"
        target.parent.mkdir(parents=True, exist_ok=True)
        _link(files[image_id], target)
        record = {"StudyInstanceUID": study, "SeriesInstanceUID": series, "SOPInstanceUID": sop}
        label = f"L_{_CLASSES.index(class_of[image_id])}"
        for row in boxes[image_id].to_dict("records"):
            box = None
            if row["Target"] == 1:
                box = {side: float(row[side]) for side in ("x", "y", "width", "height")}
            annotations.append({**record, "labelId": label, "data": box})
        if image_id in mapping.index:
            records.append({**record, "subset_img_id": image_id, "img_id": mapping[image_id]})
    names = [{"id": f"L_{number}", "name": name} for number, name in enumerate(_CLASSES)]
    project = {
        "labelGroups": [{"id": "G_0", "name": "Calculated", "labels": names}],
        "datasets": [{"id": "D_0", "annotations": annotations}],
    }
    (release / _ANNOTATIONS).write_text(json.dumps(project), encoding="utf-8")
    (release / MAPPINGS_JSON).write_text(json.dumps(records), encoding="utf-8")
    pd.DataFrame({"patientId": challenge, "PredictionString": ""}).to_csv(
        release / KAGGLE_TEST, index=False
    )


def _link(source: Path, target: Path) -> None:
    if not target.is_symlink():
        target.symlink_to(source.resolve())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--share", type=float, required=True)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    count = write_rehearsal(arguments.source, arguments.folder, arguments.share, arguments.seed)
    print(f"{arguments.folder}: {count} images stand in for those of the challenge")


if __name__ == "__main__":
    main()
