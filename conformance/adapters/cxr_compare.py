"""This program, by its functions of arrays; the pointing game and a difference by a comparison."""

from functools import partial

import numpy as np
import pandas as pd

import cxr_compare
from conformance.adapters import of_arrays
from conformance.cases import RATES, Case
from cxr_compare import metrics

PACKAGE = "cxr-compare"
CORNERS = ["image_id", "x1", "y1", "x2", "y2"]


def tables(case: Case, kind: str) -> tuple[pd.DataFrame, pd.DataFrame, list[str]]:
    """Return predicted and true boxes of a class, and the images."""
    boxes = pd.DataFrame([r[:6] for r in case.boxes if r[6] == kind], columns=[*CORNERS, "score"])
    truth = [(*r[:5], r[6]) for r in case.truth if r[5] == kind]
    return boxes, pd.DataFrame(truth, columns=[*CORNERS, "crowd"]), case.images


def of_boxes(figure, case: Case) -> float | None:
    """Return a figure of boxes, the mean over the classes that have it."""
    found = [figure(*tables(case, kind)) for kind in case.classes]
    known = [value for value in found if value is not None]
    return float(np.mean(known)) if known else None


def froc(rates: list[float], *given) -> float | None:
    """Return the mean over rates of the highest sensitivity within each."""
    curve = metrics.froc(*given)
    rate, found = curve.false_positives_per_image, curve.sensitivity
    return float(np.mean([found[rate <= most].max() for most in rates])) if len(found) else None


def pointing(case: Case) -> float | None:
    """Return the pointing accuracy of a comparison, None without one."""
    boxes, truth, images = tables(case, "")
    labels = pd.Series(case.labels, images)
    result = cxr_compare.compare({"D": boxes}, truth=labels, boxes=truth.drop(columns="crowd"))
    return result.to_frame().set_index("metric")["estimate"].get("pointing_accuracy")


def of_images(metric: str, field: str, case: Case) -> float:
    """Return a figure of labels and scores, or an end of its interval."""
    at = {} if np.isnan(case.threshold) else {"threshold": case.threshold}
    by = {} if case.patients is None else {"patients": pd.Series(case.patients, case.images)}
    labels, scores = (pd.Series(v, case.images) for v in (case.labels, case.scores))
    return getattr(metrics.estimate(metric, labels, scores, **by, **at), field)


def auroc_difference(field: str, case: Case) -> float | None:
    """Return a field of the test of two AUROCs, None without one."""
    test = metrics.auroc_difference(case.labels, case.scores, case.others, case.patients)
    if test is None or (field.startswith("ci_") and not test.has_interval):
        return None
    return getattr(test, field)


def error_by_image(case: Case) -> float:
    """Return the standard error of the difference with images taken as independent."""
    return metrics.auroc_difference(case.labels, case.scores, case.others).error


def precision_difference(field: str, case: Case) -> float:
    """Return a field of the difference of average precision of a comparison."""
    labels, first, second, patients = (
        pd.Series(v, case.images) for v in (case.labels, case.scores, case.others, case.patients)
    )
    rows = cxr_compare.compare(
        {"A": first, "B": second}, truth=labels, patients=patients
    ).to_frame()
    return rows.query("metric == 'average_precision' and second != ''").iloc[0][field]


def auroc(case: Case) -> float | None:
    """Return the AUROC of scores."""
    return metrics.auroc(case.labels, case.scores)


def macro_auroc(case: Case) -> float:
    """Return the mean AUROC over the classes that have one, of a comparison."""
    labels, scores = (
        pd.DataFrame(v, columns=case.classes).assign(image_id=case.images)
        for v in (case.labels, case.scores)
    )
    may = {"classes": "together"}
    macro = cxr_compare.compare({"A": scores}, truth=labels, target="all", columns=may).macro
    return macro.set_index("metric")["estimate"]["auroc"]


def ap(key: str, case: Case) -> float | None:
    """Return AP50 or AP, the mean over classes."""
    return of_boxes(lambda *given: metrics.box_average_precision(*given)[key], case)


FIELDS = {"": "estimate", "_low": "ci_low", "_high": "ci_high"}
OF_IMAGES = ("recall", "specificity", "precision", "npv", "accuracy", "balanced_accuracy")
FIGURES = {"ap50": partial(ap, "ap50"), "ap": partial(ap, "ap"), "pointing_accuracy": pointing}
FIGURES |= {
    f"froc_at_{name}": partial(of_boxes, partial(froc, [rate])) for name, rate in RATES.items()
}
FIGURES["froc_mean"] = partial(of_boxes, partial(froc, list(RATES.values())))
FIGURES["rsna_score"] = lambda case: metrics.rsna_score(*tables(case, ""), threshold=case.threshold)
FIGURES |= {m: partial(of_images, m, "estimate") for m in (*OF_IMAGES, "f1", "mcc")}
for end, field in FIELDS.items():
    FIGURES[f"average_precision{end}"] = partial(of_images, "average_precision", field)
    FIGURES[f"average_precision_difference{end}"] = partial(precision_difference, field)
    FIGURES[f"auroc_difference{end}"] = partial(auroc_difference, field)
FIGURES["auroc_difference_se_by_image"] = error_by_image
FIGURES["auroc_difference_se"] = partial(auroc_difference, "error")
FIGURES["auroc_difference_p"] = partial(auroc_difference, "p_value")
FIGURES |= {f"auroc{e}": partial(of_images, "auroc", FIELDS[e]) for e in ("_low", "_high")}
FIGURES |= {"auroc": auroc, "macro_auroc": macro_auroc}
FIGURES = of_arrays(FIGURES)
