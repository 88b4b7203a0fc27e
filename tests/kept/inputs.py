"""Inputs of the kept comparisons, drawn by code or read from tables; nothing of the product.

A comparison is the keyword arguments of `cxr_compare.compare`.
"""

from pathlib import Path

import numpy as np
import pandas as pd

HERE = Path(__file__).resolve().parent
EDGES = ["x1", "y1", "x2", "y2"]
FINDINGS = (
    *("atelectasis", "cardiomegaly", "consolidation", "edema", "effusion", "emphysema"),
    *("fibrosis", "hernia", "infiltration", "mass", "nodule", "pleural_thickening", "pneumonia"),
    "pneumothorax",
)
SIDE = 900  # px of the drawn images
CELLS = 8  # of a side of the drawn activation maps


def drawn(seed, n):
    """Truth of `n` images of n // 3 patients, and scores of A, B and C with ties between images."""
    rng = np.random.default_rng(seed)
    patient = rng.integers(0, n // 3, n)
    sick = rng.random(n // 3) < 0.3
    label = (sick[patient] & (rng.random(n) < 0.8)).astype(int)
    effect = rng.normal(0, 0.7, n // 3)[patient]
    ids = pd.Index([f"i{number:04d}" for number in range(n)])
    truth = pd.DataFrame(
        {
            "image_id": ids,
            "label": label,
            "patient_id": [f"p{number:04d}" for number in patient],
            "role": np.where(patient % 2 == 0, "val", "test"),
        }
    )
    scores = {}
    for name, gain in (("A", 1.8), ("B", 1.1), ("C", 1.0)):
        logits = np.round(gain * label + effect + rng.normal(0, 1, n), 2)
        scores[name] = pd.Series(1 / (1 + np.exp(-logits)), ids)
    return truth, scores


def lesions(seed, truth):
    """One true box in px for each positive image."""
    rng = np.random.default_rng(seed)
    positive = truth[truth.label == 1].image_id
    x, y = rng.uniform(50, 600, (2, len(positive)))
    boxes = {"image_id": positive.to_numpy(), "x1": x, "y1": y}
    boxes["x2"] = x + rng.uniform(80, 300, len(x))
    boxes["y2"] = y + rng.uniform(80, 300, len(x))
    return pd.DataFrame(boxes)


def detector(seed, ids, true, quality):
    """Boxes of a detector: a share of the lesions with jitter, duplicates, false boxes, ties."""
    rng = np.random.default_rng(seed)
    rows = []
    for lesion in true.itertuples():
        if rng.random() < quality:
            dx1, dy1, dx2, dy2 = rng.normal(0, 12, 4)
            for copy in range(1 + (rng.random() < 0.2)):
                corners = (
                    lesion.x1 + dx1 + copy,
                    lesion.y1 + dy1,
                    lesion.x2 + dx2,
                    lesion.y2 + dy2,
                )
                rows.append((lesion.image_id, *corners, round(rng.beta(4, 2), 2)))
    for image in ids:
        for _ in range(rng.poisson(0.7)):
            x, y = rng.uniform(0, 700, 2)
            corners = (x, y, x + rng.uniform(60, 300), y + rng.uniform(60, 300))
            rows.append((image, *corners, round(rng.beta(2, 5), 2)))
    return pd.DataFrame(rows, columns=["image_id", *EDGES, "score"])


def quickstart():
    """The quickstart's images with RetinaNet's boxes and CheXNet's scores."""
    folder = HERE / "quickstart"
    truth = pd.read_csv(folder / "truth.csv.gz", dtype={"image_id": str, "patient_id": str})
    scores = pd.read_csv(folder / "chexnet_scores.csv.gz", dtype={"image_id": str})
    # Stored as float32, as the network gives them.
    found = pd.read_parquet(folder / "retinanet_boxes.parquet")
    return {
        "systems": {
            "RetinaNet": found.astype(dict.fromkeys([*EDGES, "score"], float)),
            "CheXNet": scores.set_index("image_id").score,
        },
        "truth": truth,
        "boxes": pd.read_csv(folder / "true_boxes.csv.gz", dtype={"image_id": str}),
    }


def three_systems(seed, n):
    """Three classifiers on drawn images."""
    truth, scores = drawn(seed, n)
    return {"systems": scores, "truth": truth}


def boxes():
    """Two detectors and a classifier on drawn images with one lesion each."""
    truth, scores = drawn(4, 600)
    true = lesions(4, truth)
    ids = pd.Index(truth.image_id)
    systems = {"D1": detector(5, ids, true, 0.8), "D2": detector(6, ids, true, 0.65)}
    return {"systems": {**systems, "C": scores["A"]}, "truth": truth, "boxes": true}


def chexnet(data):
    """Three outputs of a public CheXNet on the RSNA images among NIH's; `data` is shared/data."""
    folder = data / "chexnet_scores"
    real = pd.read_csv(folder / "truth_rsna.csv").rename(columns={"Image Index": "image_id"})
    outputs = pd.read_csv(folder / "preds.csv").set_index("Image Index")
    patients = real.image_id.str[:8]
    truth = pd.DataFrame(
        {
            "image_id": real.image_id,
            "label": real.Target,
            "patient_id": patients,
            "role": np.where(patients.astype(int) % 3 == 0, "val", "test"),
        }
    )
    names = ("Pneumonia", "Consolidation", "Infiltration")
    systems = {name: outputs[f"prob_{name}"].reindex(real.image_id) for name in names}
    return {"systems": systems, "truth": truth}


def two_systems(seed, n):
    """A and B on drawn images."""
    truth, scores = drawn(seed, n)
    return {"systems": {name: scores[name] for name in "AB"}, "truth": truth}


def findings(seed, n, names):
    """A and B on several findings of the same drawn images and patients."""
    rng = np.random.default_rng(seed)
    patient = rng.integers(0, n // 3, n)
    ids = [f"i{number:04d}" for number in range(n)]
    truth = {"image_id": ids, "patient_id": [f"p{number:04d}" for number in patient]}
    truth["role"] = np.where(patient % 2 == 0, "val", "test")
    systems = {"A": {"image_id": ids}, "B": {"image_id": ids}}
    for name in names:
        sick = rng.random(n // 3) < rng.uniform(0.2, 0.5)
        truth[name] = (sick[patient] & (rng.random(n) < 0.8)).astype(int)
        effect = rng.normal(0, 0.7, n // 3)[patient]
        for system, gain in (("A", 1.8), ("B", 1.0)):
            logits = np.round(gain * truth[name] + effect + rng.normal(0, 1, n), 2)
            systems[system][name] = 1 / (1 + np.exp(-logits))
    frames = {name: pd.DataFrame(columns) for name, columns in systems.items()}
    return {"systems": frames, "truth": pd.DataFrame(truth), "target": ["all"]}


def with_groups(seed, n):
    """A and B on drawn images with the sex of each patient."""
    found = two_systems(seed, n)
    truth = found["truth"]
    is_even = truth.patient_id.str[-2].astype(int) % 2 == 0
    return {**found, "truth": truth.assign(sex=np.where(is_even, "F", "M"))}


def detector_and_classifier(seed, n):
    """A detector and a classifier on drawn images with one lesion each."""
    truth, scores = drawn(seed, n)
    true = lesions(seed, truth)
    found = detector(seed + 1, pd.Index(truth.image_id), true, 0.8)
    return {"systems": {"D": found, "C": scores["A"]}, "truth": truth, "boxes": true}


def activation_maps(seed, truth, true):
    """A map of cells for each image, ``(N, 8, 8)``: high on most lesions, and at false places."""
    rng = np.random.default_rng(seed)
    maps = rng.normal(0, 1, (len(truth), CELLS, CELLS)).astype(np.float32)
    row = {image: number for number, image in enumerate(truth.image_id)}
    for lesion in true.itertuples():
        if rng.random() < 0.8:
            maps[row[lesion.image_id]] += bump(rng, lesion.x1, lesion.y1, lesion.x2, lesion.y2)
    for of_image in maps:
        if rng.random() < 0.4:
            x, y = rng.uniform(0, 600, 2)
            of_image += bump(rng, x, y, x + rng.uniform(80, 300), y + rng.uniform(80, 300))
    return maps


def bump(rng, x1, y1, x2, y2):
    """A map that is high in the cells whose centres lie in a box, or nearly."""
    centre = (np.arange(CELLS) + 0.5) * SIDE / CELLS
    near = SIDE / CELLS / 4
    in_x = (x1 - near < centre) & (centre < x2 + near)
    in_y = (y1 - near < centre) & (centre < y2 + near)
    return np.outer(in_y, in_x) * np.float32(rng.uniform(2, 6))


def folds(seed, n, n_folds=5):
    """Arguments of the comparison of each fold: its patients are test images in no other fold."""
    truth, scores = drawn(seed, n)
    fold = truth.patient_id.str[1:].astype(int) % n_folds
    rng = np.random.default_rng(seed)
    found = []
    for number in range(n_folds):
        is_test = fold == number
        is_val = fold == (number + 1) % n_folds
        kept = truth.assign(role=np.where(is_test, "test", "val"))[is_test | is_val]
        of_fold = scores["A"][kept.image_id]
        # Each fold has models of its own.
        noise = np.round(rng.normal(0, 0.3, len(kept)), 2)
        weaker = 1 / (1 + np.exp(-np.log(of_fold / (1 - of_fold)) - noise))
        systems = {"A": of_fold, "B": scores["B"][kept.image_id], "A2": weaker}
        found.append({"systems": systems, "truth": kept})
    return found
