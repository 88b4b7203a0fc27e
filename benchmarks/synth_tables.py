"""Data sets of any size as tables only, to measure work that must scale.

The proportions are like those of the public sets (3.3 images for each patient, one positive of
five, correlated view and disease, some repeated images); the content is random.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from cxr_compare.data_prep.contracts.disk_space import make_folder
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.json_files import write_json
from cxr_compare.data_prep.contracts.provenance import provenance
from cxr_compare.data_prep.contracts.schemas import REFERENCE_READER
from cxr_compare.data_prep.contracts.tables import empty_table, write_table
from cxr_compare.data_prep.contracts.text import TEXT
from cxr_compare.data_prep.formats.targets import targets_from_findings
from cxr_compare.data_prep.images.fingerprint import HASH_BITS
from cxr_compare.data_prep.splits.write_split import write_split
from cxr_compare.data_prep.store.dataset import DataSet

FINDINGS = {"effusion": 0.12, "lung_opacity": 0.2, "nodule": 0.06}
"""Share of the images on which each finding is present."""
_BOXED = "lung_opacity"
# a patient of NIH ChestX-ray14 has 184 images
_MEAN_IMAGES = 3.3
_MOST_IMAGES = 184
_SIDES_PX = (1024, 2048, 2500, 3000)
_REPEATED = 0.002  # share of the images that are copies of another, half of them edited


def synth_tables(folder: Path, n_images: int, seed: int = 0) -> DataSet:
    """Write a complete data set folder without pixels; equal arguments give equal tables.

    Args:
        folder: New or empty folder.
        n_images: Number of images, at least 1.
        seed: Random seed, at least 0.

    Returns:
        The data set.

    Raises:
        InputError: An argument is out of its range, or the folder is not empty.
    """
    if n_images < 1 or seed < 0:
        raise InputError(f"synth_tables: n_images={n_images}, seed={seed}: at least 1 and 0")
    if folder.exists() and any(folder.iterdir()):
        raise InputError(f"{folder}: not empty; choose a new folder")
    rng = np.random.default_rng(seed)
    images = _images(n_images, rng)
    findings = _findings(images, rng)
    boxes, coverage = _boxes(images, findings, rng)
    tables = {"images": images, "findings": findings, "boxes": boxes, "box_coverage": coverage}
    ids = DataSet.digests(*tables.values())
    tables |= {"decode": _decode(images, rng), "excluded": empty_table("excluded")}
    make_folder(folder)
    for name, table in tables.items():
        write_table(table, folder / f"{name}.parquet", name)
    split_id = write_split(folder, "default", _split(images, rng), {"method": "random patients"})
    info = {
        "name": f"tables-{n_images}",
        "source_format": "synth_tables",
        "source_root": str(folder.resolve()),
        "targets": targets_from_findings(FINDINGS),
        "ids": {**ids, "split_ids": {"default": split_id}},
        "settings": {"n_images": n_images, "seed": seed},
        "notes": ["Random tables without images: for measuring, not for learning."],
        **provenance(),
    }
    write_json(folder / "dataset.json", "dataset", info)
    return DataSet.open(folder)


def _images(n_images: int, rng: np.random.Generator) -> pd.DataFrame:
    """Draw the ``images`` table: patients in random order, with the number of each image."""
    sizes = rng.geometric(1 / _MEAN_IMAGES, n_images).clip(max=_MOST_IMAGES)
    patient = np.repeat(np.arange(n_images), sizes)[:n_images]
    n_patients = int(patient[-1]) + 1
    number = np.arange(n_images) - np.searchsorted(patient, np.arange(n_patients))[patient]
    name = _padded(patient, 8)
    age = rng.normal(50, 18, n_patients).clip(1, 95)[patient] + number // 4
    pixels = rng.choice(_SIDES_PX, n_images, p=(0.7, 0.1, 0.1, 0.1))
    # Very ill patients lie in bed, so the view depends on the patient and on the findings.
    in_bed = (rng.random(n_patients)[patient] < 0.4) ^ (rng.random(n_images) < 0.1)
    columns = {
        "image_id": name + "_" + _padded(number, 3),
        "patient_id": "synth:" + name,
        "patient_id_source": "given",
        "study_id": name + "-" + _padded(number // 2, 3),
        "source": _chosen(patient % 3, ["ward", "clinic", "emergency"]),
        "path": None,
        "file_sha256": _hex(_random_bytes(rng, n_images, 32)),
        "height": pixels,
        "width": pixels,
        "spacing_row_mm": 420.0 / pixels,
        "spacing_col_mm": 420.0 / pixels,
        "view": _chosen(in_bed.astype(int), ["PA", "AP"]),
        "sex": _chosen((rng.random(n_patients) < 0.45).astype(int)[patient], ["M", "F"]),
        "age_years": age.round(),
    }
    return pd.DataFrame(columns)


def _findings(images: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """Draw the ``findings`` table, sorted by image: 2 % unknown (no row), 1 % uncertain."""
    factor = np.where(images["view"] == "AP", 1.6, 0.6)[:, None]
    ill = rng.random((len(images), len(FINDINGS))) < factor * np.array(list(FINDINGS.values()))
    chance = rng.random(ill.shape)
    state = np.where(chance < 0.01, 2, ill)
    image, finding = np.nonzero(chance < 0.98)
    columns = {
        "image_id": images["image_id"].take(image).reset_index(drop=True),
        "finding": _chosen(finding, [*FINDINGS]),
        "reader": REFERENCE_READER,
        "state": _chosen(state[image, finding], ["absent", "present", "uncertain"]),
        "origin": "consensus",
    }
    return pd.DataFrame(columns)


def _boxes(
    images: pd.DataFrame, findings: pd.DataFrame, rng: np.random.Generator
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Draw one to four boxes on each positive image of one finding, and the box coverage."""
    labels = findings[findings["finding"] == _BOXED]
    keys = ["image_id", "finding", "reader"]
    coverage = labels.loc[labels["state"] != "uncertain", keys].assign(coverage="all")
    present = labels.index[labels["state"] == "present"]
    boxes = labels.loc[np.repeat(present, rng.integers(1, 5, len(present))), keys]
    side = images.set_index("image_id")["width"].reindex(boxes["image_id"]).to_numpy("float64")
    extent = side[:, None] * rng.uniform(0.05, 0.45, (len(boxes), 2))
    corner = (side[:, None] - extent) * rng.random((len(boxes), 2))
    boxes[["x1", "y1", "x2", "y2"]] = np.hstack([corner, corner + extent])
    return boxes, coverage


def _decode(images: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """Draw the ``decode`` table, in which a few images are repeated."""
    n_images = len(images)
    original = np.arange(n_images)
    copied = rng.choice(n_images, int(_REPEATED * n_images), replace=False)
    anywhere = rng.integers(0, n_images, len(copied))
    beside = rng.random(len(copied)) < 0.5
    original[copied] = np.where(beside, np.maximum(copied - 1, 0), anywhere)
    edited = copied[rng.random(len(copied)) < 0.5]  # similar to the original, but not equal
    same_bytes = original.copy()
    same_bytes[edited] = edited
    columns = {
        "image_id": images["image_id"],
        "transfer_syntax": "1.2.840.10008.1.2.4.50",
        "decoder": "pillow",
        "bits": 8,
        "photometric": "MONOCHROME2",
        **dict.fromkeys(("modality_transform", "voi", "window_center", "window_width")),
        "inverted": False,
        "orientation": "L\\F",
        "pixel_sha256": _hex(_random_bytes(rng, n_images, 32)[same_bytes]),
        "warnings": None,
        "file_bytes": rng.integers(90_000, 400_000, n_images),
        "mean_grey": rng.normal(125, 20, n_images).clip(0, 255),
        "perceptual_hash": _hex(_fingerprints(rng, original, edited)),
        "text_score": rng.exponential(0.01, n_images),
        "border_greys": _hex(_random_bytes(rng, n_images, 16)),
    }
    return pd.DataFrame(columns)


def _split(images: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    patient = pd.factorize(images["patient_id"])[0]
    role = rng.choice(3, patient.max() + 1, p=(0.65, 0.15, 0.2))[patient]
    fold = pd.Series(patient % 5, dtype="Int64").mask(role == 2)
    roles = _chosen(role, ["train", "val", "test"])
    return pd.DataFrame({"image_id": images["image_id"], "role": roles, "fold": fold})


def _fingerprints(rng: np.random.Generator, original: np.ndarray, edited: np.ndarray) -> np.ndarray:
    """Draw perceptual hashes, uint8 ``(N, 32)``.

    Of 256 bits, about 124 differ between two images, and up to 8 between an image and an edited
    copy.
    """
    lean = rng.exponential(16, HASH_BITS) * rng.choice([-1, 1], HASH_BITS)
    threshold = (128 + lean).clip(8, 248).astype(np.uint8)
    prints = np.packbits(_random_bytes(rng, len(original), HASH_BITS) < threshold, axis=1)[original]
    flips = rng.integers(1, 256, len(edited), dtype=np.uint8)
    prints[edited, rng.integers(0, prints.shape[1], len(edited))] ^= flips
    return prints


def _chosen(codes: np.ndarray, names: list[str]) -> pd.Series:
    """Return the name of each code."""
    return pd.Series(names, dtype=TEXT).take(codes).reset_index(drop=True)


def _padded(numbers: np.ndarray, width: int) -> pd.Series:
    return pd.Series(numbers).astype(TEXT).str.zfill(width)


def _random_bytes(rng: np.random.Generator, n: int, width: int) -> np.ndarray:
    return rng.integers(0, 256, (n, width), dtype=np.uint8)


def _hex(raw: np.ndarray) -> pd.Series:
    """Return rows of bytes as text, with two digits for each byte."""
    return pd.Series(
        np.frombuffer(raw.tobytes().hex().encode(), f"S{2 * raw.shape[1]}").astype(str)
    )
