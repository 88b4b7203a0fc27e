"""Groups, validation and shortcuts, with a truth in which nothing differs."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd

from cxr_compare.evaluation.groups.failure_analysis import add_groups, with_tests
from cxr_compare.evaluation.groups.shares import Shares
from cxr_compare.evaluation.groups.validation_to_test import validation_to_test
from cxr_compare.evaluation.sources.shortcuts import measure_shortcuts
from cxr_compare.evaluation.statistics.intervals import Interval
from tools.simulation.makers import Sample, draw, skill_of
from tools.simulation.product import evaluated_models

Found = dict[str, float]
Measure = Callable[[np.random.Generator], Found]

_POLICY = "max_f1"
_REPLICATES = 400
_VALIDATION = 150
_METRICS = ("auroc", "recall", "specificity")
_IN_GROUP = "in"
_OTHERS = "others"


def group_measure(
    n_patients: int,
    share: float,
    auroc: float,
    clusters: str = "one",
    *,
    by_image: bool = False,
    shift: float = 0.0,
) -> Measure:
    """Return a simulation of two equal systems and a group of patients that does not differ.

    Args:
        n_patients: Number of test patients.
        share: Share of the patients in the group, or of the images.
        auroc: True AUROC of both systems.
        clusters: Number of images of a patient, see `cluster_sizes`.
        by_image: True if images, not patients, are drawn into the group.
        shift: Number by which the log-odds of all scores of the group are higher. The AUROC of the
            group is then unchanged, but its sensitivity is higher and its specificity lower, so
            these two are not counted.

    Returns:
        A function of a random generator that simulates one test set and returns its wrong claims.
    """
    skills = [[skill_of(auroc)]] * 2

    def measure(rng: np.random.Generator) -> Found:
        validation = draw(rng, _VALIDATION, skills, clusters=clusters)
        test = draw(rng, n_patients, skills, clusters=clusters)
        inside = test.patients < round(share * n_patients)
        if by_image:
            inside = rng.random(len(test.y_true)) < share
        if shift:
            odds = np.log(test.scores / (1 - test.scores)) + shift * inside
            test = Sample(test.y_true, 1 / (1 + np.exp(-odds)), test.patients)
        models = evaluated_models(validation, test, [1, 1], [_POLICY])
        groups = {"group": np.where(inside, _IN_GROUP, _OTHERS).astype(object)}
        shares = Shares(test.n_patients, set(groups))
        add_groups(shares, models, groups, _POLICY)
        images = models["A"][0].images
        table = with_tests(shares.table(list(models)), images, groups)
        return _claims(table, ("auroc",) if shift else _METRICS)

    return measure


def _claims(table: pd.DataFrame, metrics: tuple[str, ...]) -> Found:
    gaps = table[(table["group"] == f"{_IN_GROUP} - rest") & table["metric"].isin(metrics)]
    found: Found = {}
    for row in gaps.to_dict("records"):
        interval = Interval.from_row(row)
        of = "interaction" if row["system"] == "A - B" else row["system"]
        if of == "B":
            continue
        known = not np.isnan(row["ci_low"])
        found[f"{row['metric']}|{of}|interval"] = float(interval.excludes_zero)
        found[f"{row['metric']}|{of}|none"] = float(not known)
        if known:
            found[f"{row['metric']}|{of}|test"] = float(row["p_value"] < 0.05)
    tested = gaps["p_holm"].dropna()
    found["any by Holm"] = float((tested < 0.05).any())
    return found


def guarantee_measure(
    n_validation: int, n_test: int, auroc: float, clusters: str = "one"
) -> Measure:
    """Return a simulation of a system's rates on validation and on test, from one population.

    Args:
        n_validation: Number of validation patients.
        n_test: Number of test patients.
        auroc: True AUROC of the system.
        clusters: Number of images of a patient, see `cluster_sizes`.

    Returns:
        A function of a random generator that returns, by policy and metric, 1 if the rate on test
        is said to differ from that on validation (which is wrong), else 0.
    """
    skills = [[skill_of(auroc)]]
    policies = (_POLICY, "sensitivity>=0.95", "specificity>=0.90")

    def measure(rng: np.random.Generator) -> Found:
        validation = draw(rng, n_validation, skills, clusters=clusters)
        test = draw(rng, n_test, skills, clusters=clusters)
        models = evaluated_models(validation, test, [1], policies)
        table = validation_to_test(models, int(rng.integers(2**31))).dropna(subset=["ci_low"])
        outside = ~table["estimate"].between(table["ci_low"], table["ci_high"])
        marks = outside.groupby([table["policy"], table["metric"]]).any()
        found = {f"{policy}|{metric}": float(mark) for (policy, metric), mark in marks.items()}
        marked = outside.groupby(table["policy"]).any()
        return found | {f"{policy}|any": float(mark) for policy, mark in marked.items()}

    return measure


def _patients(rng: np.random.Generator, images: list[str]) -> list[str]:
    """Return a patient for each image; folds follow from the random names."""
    return [f"p{rng.integers(2**40)}" for _ in images]


def shortcut_measure(n_images: int) -> Measure:
    """Return a simulation of labels that no fact predicts, guessed from view, sex and age.

    Args:
        n_images: Number of images.

    Returns:
        A function of a random generator that returns the shares of AUROCs whose interval lies above
        0.5, and below it.
    """

    def measure(rng: np.random.Generator) -> Found:
        names = [f"i{place}" for place in range(n_images)]
        images = pd.DataFrame(
            {
                "image_id": names,
                "patient_id": _patients(rng, names),
                "view": rng.choice(["AP", "PA"], n_images),
                "sex": rng.choice(["F", "M"], n_images),
                "age_years": rng.uniform(20, 90, n_images),
            }
        )
        labels = pd.DataFrame({"x": (rng.random(n_images) < 0.4) * 1.0}, index=names)
        rows = [
            row
            for row in measure_shortcuts(images, pd.DataFrame({"image_id": []}), labels)
            if row["ci_low"] is not None
        ]
        if not rows:
            return {}
        return {
            "above": float(np.mean([row["ci_low"] > 0.5 for row in rows])),
            "below": float(np.mean([row["ci_high"] < 0.5 for row in rows])),
        }

    return measure


def true_shortcut_measure(n_images: int, share: float) -> Measure:
    """Return a simulation of a view that predicts the label with a known AUROC.

    Args:
        n_images: Number of images.
        share: Share of positive images with view AP, and of negative images with view PA. This is
            also the AUROC.

    Returns:
        A function of a random generator that returns 1 if the interval contains the AUROC, else 0.
    """

    def measure(rng: np.random.Generator) -> Found:
        y_true = rng.random(n_images) < 0.4
        names = [f"i{place}" for place in range(n_images)]
        view = np.where((rng.random(n_images) < share) == y_true, "AP", "PA")
        images = pd.DataFrame(
            {"image_id": names, "view": view, "patient_id": _patients(rng, names)}
        )
        labels = pd.DataFrame({"x": y_true * 1.0}, index=names)
        row, *_ = measure_shortcuts(images, pd.DataFrame({"image_id": []}), labels)
        return {"covers": float(row["ci_low"] <= share <= row["ci_high"])}

    return measure


Named = tuple[str, Measure]


def groups() -> Iterator[Named]:
    """Yield the cases of a group that does not differ from the others, by the size of the group."""
    for auroc in (0.85, 0.95):
        yield f"5 % of 200 patients, AUROC {auroc:.2f}", group_measure(200, 0.05, auroc)
    yield "10 % of 200 patients, AUROC 0.85", group_measure(200, 0.1, 0.85)
    yield "5 % of 600 patients, AUROC 0.95", group_measure(600, 0.05, 0.95)
    # Some 31 patients with a negative image: only specificity is tested.
    yield "13 % of 400 patients, AUROC 0.85", group_measure(400, 0.13, 0.85)
    # Some 34 with a positive image: everything is tested.
    yield "14 % of 600 patients, AUROC 0.85", group_measure(600, 0.14, 0.85)
    name = "10 % of 200 patients, images as in RSNA/NIH"
    yield name, group_measure(200, 0.1, 0.85, "rsna")
    name = "15 % of the images of 200 patients, images as in RSNA/NIH"
    yield name, group_measure(200, 0.15, 0.85, "rsna", by_image=True)
    yield "30 % of 600 patients, AUROC 0.85", group_measure(600, 0.3, 0.85)
    name = "10 % of 400 patients, their scores higher by 1"
    yield name, group_measure(400, 0.1, 0.85, shift=1.0)


def guarantees() -> Iterator[Named]:
    """Yield the cases of rates at chosen thresholds on validation and test, of one population."""
    yield "101 / 305 patients, AUROC 0.93", guarantee_measure(101, 305, 0.93)
    yield "40 / 60 patients, AUROC 0.85", guarantee_measure(40, 60, 0.85)
    name = "150 / 200 patients, images as in RSNA/NIH"
    yield name, guarantee_measure(150, 200, 0.85, "rsna")
    yield "150 / 1,000 patients, AUROC 0.85", guarantee_measure(150, 1000, 0.85)


def shortcuts() -> Iterator[Named]:
    """Yield the cases of labels guessed from facts that do not predict them, or that do."""
    for n_images in (60, 142, 564):
        yield f"label is noise, {n_images} images", shortcut_measure(n_images)
    yield "view alone has AUROC 0.70, 564 images", true_shortcut_measure(564, 0.7)
