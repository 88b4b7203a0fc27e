"""Figures of the cases of ``conformance/figures`` by independent programs.

Average precision of boxes is pycocotools', rankings of images are scikit-learn's, quantiles are
SciPy's; all else are loops as the definitions read. A case's data come as its JSON says.
"""

from collections import Counter

import numpy as np
import pandas as pd
from scipy import stats
from sklearn.metrics import average_precision_score, roc_auc_score

from tests.oracles import boxes, rebuild

RATES = {f"froc_at_{text}": k for k, text in enumerate(("1_8", "1_4", "1_2", 1, 2, 4, 8), start=1)}


def figure(name, data):
    """Return a figure of a case by its name; None where it is undefined."""
    name, _, threshold = name.partition("@")
    name, _, kind = name.partition("/")
    if "classes" in data:
        return _of_classes(name, kind or data["classes"], data)
    if name in _OF_BOXES:
        crowd = data.get("crowd", [False] * len(data["truth"]))
        lesions, crowds = (
            [row for row, flag in zip(data["truth"], crowd, strict=True) if flag == is_crowd]
            for is_crowd in (False, True)
        )
        return _OF_BOXES[name](data["boxes"], lesions, data["images"], crowds)
    if name == "rsna_score":
        return boxes.rsna(data["boxes"], data["truth"], data["images"], float(threshold))
    if name in RATES:
        return boxes.froc(data["boxes"], data["truth"], data["images"])[RATES[name]]
    if "draws" in data:
        return _of_draws(name, data)
    if "systems" in data:
        return _of_two(name, data)
    labels, scores = image_level(data)
    if name == "auroc":
        return _auroc(labels, scores)
    if name == "average_precision":
        return _precision_of_images(labels, scores)
    if name == "brier":
        return float(np.mean((np.array(scores) - labels) ** 2))
    if name in ("auroc_low", "auroc_high"):
        owners = data.get("patients", {})
        patients = [owners.get(image, image) for image in data["images"]]
        table = pd.DataFrame({"patient_id": patients, "label": labels, "score": scores})
        if _fewest_patients(labels, patients) < 2:
            return None
        return float(rebuild.auroc(table)[1 if name == "auroc_low" else 2])
    return _at_threshold(name, labels, scores, float(threshold))


_OF_BOXES = {
    "ap50": lambda *rows: boxes.average_precision(*rows)[0],
    "ap": lambda *rows: boxes.average_precision(*rows)[1],
    "froc_mean": lambda *rows: boxes.froc(*rows[:3])[0],
    "pointing_accuracy": lambda *rows: boxes.pointing(*rows[:3]),
}


def pycocotools(data):
    """Return the number of pycocotools, or the name of its exception, by figure of a case."""
    classes = data.get("classes", [""])
    crowd = data.get("crowd", [False] * len(data["truth"]))
    truth = [
        [*row[:5], _class_of(row, 5), int(flag)]
        for row, flag in zip(data["truth"], crowd, strict=True)
    ]
    results = [[*row[:5], _class_of(row, 6), row[5]] for row in data["boxes"]]
    names = [f"ap50/{kind}" for kind in classes] if "classes" in data else ["ap50"]
    try:
        *of_classes, of_all = boxes.coco_figures(truth, results, data["images"], classes)
    except Exception as error:  # noqa: BLE001 what it refuses is part of the record
        return dict.fromkeys([*names, "ap50", "ap"], type(error).__name__)
    by_class = {name: ap50 for name, (ap50, _) in zip(names, of_classes, strict=True)}
    return by_class | {"ap50": of_all[0], "ap": of_all[1]}


def _class_of(row, column):
    return row[column] if len(row) > column else ""


def image_level(data):
    """Labels and scores of images: as given, or by true boxes and the surest predicted box."""
    if "labels" in data:
        return [[data[key][image] for image in data["images"]] for key in ("labels", "scores")]
    sick = {row[0] for row in data["truth"]}
    labels = [int(image in sick) for image in data["images"]]
    scores = [
        max((row[5] for row in data["boxes"] if row[0] == image), default=0)
        for image in data["images"]
    ]
    return labels, scores


def _of_classes(name, kinds, data):
    known = []
    for kind in [kinds] if isinstance(kinds, str) else kinds:
        truth = [row for row in data["truth"] if row[5] == kind]
        own = [row for row in data["boxes"] if row[6] == kind]
        of_class = {"images": data["images"], "truth": truth, "boxes": own}
        known += [figure(name, of_class)]
    known = [value for value in known if value is not None]
    return float(np.mean(known)) if known else None


def _auroc(labels, scores):
    return float(roc_auc_score(labels, scores)) if len({*labels}) == 2 else None


def _precision_of_images(labels, scores):
    return float(average_precision_score(labels, scores)) if any(labels) else None


def _at_threshold(name, labels, scores, threshold):
    decisions = [score >= threshold for score in scores]
    count = Counter(zip(labels, decisions, strict=True))
    tp, fp, fn, tn = count[1, True], count[0, True], count[1, False], count[0, False]
    shares = {
        "recall": (tp, tp + fn),
        "specificity": (tn, tn + fp),
        "precision": (tp, tp + fp),
        "npv": (tn, tn + fn),
        "accuracy": (tp + tn, len(labels)),
        "f1": (2 * tp, 2 * tp + fp + fn),
        "balanced_accuracy": (tp * (tn + fp) + tn * (tp + fn), 2 * (tp + fn) * (tn + fp)),
        "mcc": (tp * tn - fp * fn, ((tp + fn) * (tn + fp) * (tp + fp) * (tn + fn)) ** 0.5),
    }
    part, whole = shares[name]
    return part / whole if whole else None


def _fewest_patients(labels, patients):
    """Number of patients with images of the class that has fewer of them."""
    owners = ({p for label, p in zip(labels, patients, strict=True) if label == k} for k in (0, 1))
    return min(map(len, owners))


def _of_two(name, data):
    labels = [data["labels"][image] for image in data["images"]]
    first, second = (
        [data["systems"][system][image] for image in data["images"]] for system in "AB"
    )
    if name in ("auroc_A", "auroc_B"):
        return _auroc(labels, first if name == "auroc_A" else second)
    areas = [_auroc(labels, scores) for scores in (first, second)]
    if None in areas:
        return None
    gap = areas[0] - areas[1]
    if name == "auroc_difference":
        return gap
    known = data.get("patients") if not name.endswith("_by_image") else None
    patients = [(known or {}).get(image, image) for image in data["images"]]
    if _fewest_patients(labels, patients) < 2:
        return None
    variance = obuchowski(labels, first, second, patients)
    if not variance:
        return None
    error = variance**0.5
    if "_se" in name:
        return error
    law = stats.t(_freedom(labels, patients)) if known else stats.norm()
    if name.endswith("_p"):
        return float(2 * law.sf(abs(gap) / error))
    reach = law.ppf(0.975) * error
    return float(gap - reach if name.endswith("_low") else gap + reach)


def _freedom(labels, patients):
    """Satterthwaite's degrees of freedom, if all patients of a class have as many images."""
    owned = [{p for label, p in zip(labels, patients, strict=True) if label == k} for k in (0, 1)]
    spread = sum(1 / (len(owners) ** 2 * (len(owners) - 1)) for owners in owned)
    return sum(1 / len(owners) for owners in owned) ** 2 / spread


def obuchowski(labels, first, second, patients):
    """Variance of the difference of two AUROCs by patient (Obuchowski 1997, equations of page 568).

    With one image a patient it is the variance of DeLong, DeLong and Clarke-Pearson 1988.
    """
    positives = [k for k, label in enumerate(labels) if label]
    negatives = [k for k, label in enumerate(labels) if not label]

    def wins(sick, healthy):
        gains = 0.0
        for sign, scores in ((1, first), (-1, second)):
            tie = scores[sick] == scores[healthy]
            gains += sign * (0.5 if tie else float(scores[sick] > scores[healthy]))
        return gains

    of_positive = {i: np.mean([wins(i, j) for j in negatives]) for i in positives}
    of_negative = {j: np.mean([wins(i, j) for i in positives]) for j in negatives}
    gap = np.mean([*of_positive.values()])
    owners = sorted({*patients})

    def sums(components):
        return np.array(
            [
                sum(value - gap for k, value in components.items() if patients[k] == owner)
                for owner in owners
            ]
        )

    x, y = sums(of_positive), sums(of_negative)
    m, n = len(positives), len(negatives)
    m_patients, n_patients = (len({patients[k] for k in rows}) for rows in (positives, negatives))
    s10 = m_patients / ((m_patients - 1) * m) * (x @ x)
    s01 = n_patients / ((n_patients - 1) * n) * (y @ y)
    s11 = len(owners) / (len(owners) - 1) * (x @ y)
    return float(s10 / m + s01 / n + 2 * s11 / (m * n))


def _of_draws(name, data):
    """A figure of the listed resamples: each drawn patient brings all images, as often as drawn."""
    if name.startswith("draws_of_"):
        wanted = {"draws_of_three_patients": 3, "draws_of_one_patient": 1}[name]
        return sum(len({*draw}) == wanted for draw in data["draws"]) / len(data["draws"])
    systems = list(data["systems"].values()) if "systems" in data else [data["scores"]]

    def on(images):
        labels = [data["labels"][image] for image in images]
        figures = [_precision_of_images(labels, [s[image] for image in images]) for s in systems]
        return figures[0] - figures[1] if len(figures) == 2 else figures[0]

    values = [
        on([i for patient in draw for i in data["images"] if data["patients"][i] == patient])
        for draw in data["draws"]
    ]
    if name.endswith("_mean_of_draws"):
        return float(np.mean(values))
    for end, share in (("_low", 0.025), ("_high", 0.975)):
        if name.endswith(end):
            return float(np.quantile(values, share, method="inverted_cdf"))
    return on(data["images"])
