"""Groups of lesions, constant positions and predictions without the lungs, of plain tables."""

import numpy as np
import pandas as pd

from cxr_compare.evaluation.boxes.matching import pair_boxes
from cxr_compare.evaluation.groups.lesions import lesion_groups
from cxr_compare.evaluation.image_blind import learn_places
from cxr_compare.evaluation.inputs.file_facts import measure_shortcuts
from cxr_compare.evaluation.truth import Truth

__all__ = ["constant_places", "groups_of_lesions", "guesses", "points_again"]


def groups_of_lesions(truth, images):
    """Return the group of each true box by topic; `images` are by image id."""
    pairs = pair_boxes(truth.assign(score=0.5), truth, images.index)
    return {topic: groups.tolist() for topic, groups in lesion_groups(pairs, images).items()}


def constant_places(boxes, roles, side=400.0):
    """Return point, boxes and claim of the positions that images of these roles teach, in px."""
    found = _learned(boxes, roles, side)
    if found is None:
        return None
    unit = side if side == side else 1.0
    return {
        "point": (found.candidates[found.best] * unit).tolist(),
        "boxes": (found.boxes * unit).tolist(),
        "n_boxes": found.n_boxes,
        "claims": not found.no_claim,
    }


def points_again(boxes, roles, n_replicates, seed):
    """Return the constant point and that of each resample of the patients, in px."""
    found = _learned(boxes, roles, np.nan)
    return found.candidates[found.best_again(n_replicates, seed).astype(int)]


def _learned(boxes, roles, side):
    images = pd.DataFrame({"label": 1.0, "patient_id": roles.index, "role": roles})
    images["width"] = images["height"] = side
    return learn_places(Truth(images.sort_index(), boxes))


def guesses(images, decode, labels):
    """Return the AUROC and its ends of each prediction without the lungs, by its name."""
    rows = measure_shortcuts(images, decode, labels.to_frame("finding"))
    return {row["fact"]: (row["auroc"], row["ci_low"], row["ci_high"]) for row in rows}


def people(n=240, seed=4):
    """Images of people of whom sex, age, ward and class are known, with scores of one system."""
    rng = np.random.default_rng(seed)
    table = pd.DataFrame({"image_id": [f"i{number:03d}" for number in range(n)]})
    table["patient_id"] = [f"p{number // 2:03d}" for number in range(n)]
    table["label"] = rng.integers(0, 2, n)
    table["sex"] = rng.choice(["F", "M"], n // 2).repeat(2)
    table["age"] = rng.uniform(20, 90, n).round()
    table["Ward"] = np.where(np.arange(n) < 4, "small", rng.choice(["a", "b"], n))
    table["class"] = np.where(table["label"] == 1, "lesion", rng.choice(["normal", "other"], n))
    scores = rng.normal(table["label"], 1.0)
    return table, pd.Series(1 / (1 + np.exp(-scores)), table["image_id"], name="score")
