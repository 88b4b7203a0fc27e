"""Classes that exclude each other: the decision for the class of the highest score.

Counts of images, true class by called class, are kept by patient. Figures of all classes are
functions of these counts, with intervals by patient as in `statistics.clustered_counts`; their
differences rest on the contributions of the patients. The AUROC of a class is that of its scores
against all other classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from cxr_compare.data_prep.base.errors import InputError
from cxr_compare.evaluation.compare import common_images
from cxr_compare.evaluation.figures import (
    corrected,
    counted_interval,
    interval_of_counts,
)
from cxr_compare.evaluation.findings import (
    COLUMNS,
    contributed_gaps,
    mean_aurocs,
)
from cxr_compare.evaluation.metrics import rates
from cxr_compare.evaluation.notes import Note
from cxr_compare.evaluation.output import Output
from cxr_compare.evaluation.statistics.arrays import Floats, Integers
from cxr_compare.evaluation.statistics.clustered_auroc import (
    OBUCHOWSKI,
    AurocParts,
    auroc_parts,
    freedom_of_classes,
)
from cxr_compare.evaluation.statistics.clustered_counts import (
    CLUSTERED_COUNTS,
    ShareParts,
    jackknife,
    joined_interval,
    mean_interval,
)
from cxr_compare.evaluation.statistics.intervals import Interval
from cxr_compare.evaluation.truth import Truth

NO_CLASS = "no class"
"""Called class of an image whose highest score is that of several classes."""
DECIDES = "balanced_accuracy"
"""Figure of all classes that decides."""
_OF_ONE_CLASS = ("recall", "precision", "specificity", "f1")
_ONE_PATIENT = "no interval: a class has fewer than two patients"


def counts_by_patient(
    y_true: Integers, called: Integers, patients: Integers, n_patients: int, n_classes: int
) -> Floats:
    """Count images by patient, true class and called class, ``(P, K, K + 1)``.

    The last column has the images without a called class, `n_classes`.

    Examples:
        >>> counts_by_patient(np.array([0, 1]), np.array([0, 2]), np.array([0, 0]), 1, 2).tolist()
        [[[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]]
    """
    cells = (patients * n_classes + y_true) * (n_classes + 1) + called
    shape = (n_patients, n_classes, n_classes + 1)
    return np.bincount(cells, minlength=int(np.prod(shape))).reshape(shape).astype(np.float64)


def called_classes(scores: Floats) -> Integers:
    """Return the class of the highest score of each image, of scores ``(N, K)``.

    Images that share it among classes have none, K: to take the first of them would favour a class
    by its position.
    """
    highest = scores == scores.max(axis=1, keepdims=True)
    return np.where(highest.sum(axis=1) == 1, highest.argmax(axis=1), scores.shape[1])


def _right(counts: Floats) -> Floats:
    return np.diagonal(counts, axis1=-2, axis2=-1)


def accuracy(counts: Floats) -> Floats:
    """Return the share of images that are called rightly, of counts ``(..., K, K + 1)``."""
    return np.asarray(_right(counts).sum(axis=-1) / counts.sum(axis=(-2, -1)))


def balanced_accuracy(counts: Floats) -> Floats:
    """Return the mean over classes of the share of its images that are called it."""
    return np.asarray((_right(counts) / counts.sum(axis=-1)).mean(axis=-1))


def macro_f1(counts: Floats) -> Floats:
    """Return the mean over classes of the F1 of one class against the others."""
    called = counts.sum(axis=-2)[..., :-1]
    return np.asarray((2 * _right(counts) / (counts.sum(axis=-1) + called)).mean(axis=-1))


FIGURES: dict[str, Callable[[Floats], Floats]] = {
    DECIDES: balanced_accuracy,
    "accuracy": accuracy,
    "f1": macro_f1,
}
"""Figures of all classes, by the name of the metric."""


@dataclass(frozen=True, eq=False)
class ClassComparison:
    """Systems that say of which of several classes each test image is.

    Attributes:
        truth: The test images; their labels are those of the first class.
        names: The classes.
        y_true: Position of the class of each image.
        called: Position of the class that each system calls, K for none; without systems that lack
            the scores of a class.
        figures: Figures of all classes (``class`` is empty) and of each, of systems and of pairs.
        decides: Metric of the figure of all classes that decides.
        outputs: What each system says of the last class, with its record.
        notes: Remarks on the images and the outputs.
    """

    truth: Truth
    names: Sequence[str]
    y_true: Integers
    called: Mapping[str, Integers]
    figures: pd.DataFrame
    decides: str
    outputs: Mapping[str, Output]
    notes: Sequence[Note]


def compare_classes(
    questions: Sequence[tuple[Mapping[str, Output], Truth]],
    metric: str | None = None,
    *,
    common: bool = False,
) -> ClassComparison:
    """Compare systems on all classes, of the outputs for each class with its truth.

    All give an output for the last class. A system that lacks that of another calls no class; the
    mean AUROC over the classes that all have decides then.
    """
    names = [truth.finding_title for _, truth in questions]
    last = questions[-1][0]
    scores: dict[str, pd.DataFrame] = {}
    for system in last:
        of_classes = [outputs[system].scores for outputs, _ in questions if system in outputs]
        titles = [truth.finding_title for outputs, truth in questions if system in outputs]
        scores[system] = pd.concat(of_classes, axis=1, keys=titles)
    # Their sum is known where a system ran for each class; no figure is of it.
    ran = {name: Output(table.sum(axis=1, skipna=False)) for name, table in scores.items()}
    test, notes = common_images(questions[0][1], ran, common=common)
    y_true = np.argmax([truth.select(test.ids).positive for _, truth in questions], axis=0)
    scores = {name: table.loc[test.ids] for name, table in scores.items()}
    called = {
        name: called_classes(table.to_numpy())
        for name, table in scores.items()
        if len(table.columns) == len(names)
    }
    able = [*FIGURES, "auroc"] if len(called) == len(scores) else ["auroc"]
    decides = metric or able[0]
    if decides not in able:
        raise InputError(f"metric: of these classes and systems {decides} is none of {able}")
    ranking = [name for name, output in last.items() if output.ranks]
    notes += [note for outputs, _ in questions for each in outputs.values() for note in each.notes]
    return ClassComparison(
        test,
        names,
        y_true,
        called,
        class_figures(y_true, scores, called, names, test.patients, ranking, decides),
        decides,
        last,
        list(dict.fromkeys([*notes, *questions[-1][1].notes])),
    )


def class_figures(
    y_true: Integers,
    scores: Mapping[str, pd.DataFrame],
    called: Mapping[str, Integers],
    names: Sequence[str],
    patients: Integers,
    ranking: Sequence[str],
    decides: str = DECIDES,
) -> pd.DataFrame:
    """Return figures of all classes and of each, of systems and of pairs of systems.

    `ranking` are the systems with AUROCs. ``p_holm`` is corrected over the pairs in each figure of
    all classes, and at least that of the one that `decides`; of single AUROCs it is corrected over
    the pairs and classes, and at least that of the mean AUROC.
    """
    size = (patients, int(patients.max()) + 1)
    counts = {
        system: counts_by_patient(y_true, calls, *size, len(names))
        for system, calls in called.items()
    }
    of_all = [
        pd.DataFrame(_of_calls(each, names)).assign(first=name) for name, each in counts.items()
    ]
    of_all += call_gaps(counts) if counts else []
    aurocs = {
        name: {
            system: parts
            for system in ranking
            if (parts := auroc_parts(y_true == position, scores[system][name], *size))
        }
        for position, name in enumerate(names)
        if ranking and all(name in scores[system] for system in ranking)
    }
    # An AUROC of exactly 0 or 1 has no contributions of patients, of which the mean's are made.
    known = {
        name: parts
        for name, parts in aurocs.items()
        if all(each.estimate().has_interval and 0 < each.value < 1 for each in parts.values())
    }
    if len(known) > 1:
        of_which = f"over {len(known)} of {len(names)} classes ({', '.join(known)})"
        note = "" if len(known) == len(names) else of_which
        means = mean_aurocs([*known.values()], ranking)
        of_all += [table.assign(metric="auroc", note=note) for table in means]
    tables = _corrected([pd.concat([pd.DataFrame(), *of_all])], decides)
    singles = [_of_aurocs(parts).assign(**{"class": name}) for name, parts in aurocs.items()]
    pairs = ["first", "second"]
    for table in _corrected(singles, "auroc") if singles else []:  # calls alone have none
        waits_for = tables[0][tables[0]["metric"] == "auroc"].set_index(pairs)["p_holm"]
        least = waits_for.reindex(table.set_index(pairs).index).array
        tables.append(table.assign(p_holm=np.maximum(table["p_holm"], least)))
    order = ["", *names].index
    return pd.concat(tables).sort_values(
        "class", key=lambda column: column.map(order), kind="stable", ignore_index=True
    )


def _corrected(tables: Sequence[pd.DataFrame], decides: str) -> list[pd.DataFrame]:
    """Return tables with all columns, and with p-values that are corrected and wait."""
    made = []
    for table in tables:
        columns = table.reindex(columns=["class", *COLUMNS[:-1], "policy"])
        texts = ["class", "second", "method", "note", "policy"]
        made.append(columns.assign(**columns[texts].astype(object).fillna("")))
    tables = corrected(made, primary=[(decides, "")])
    return [table.drop(columns="policy") for table in tables]


def _of_aurocs(parts: Mapping[str, AurocParts]) -> pd.DataFrame:
    """Return the AUROC of each system for one class, and the differences of all pairs."""
    made = [(system, "", each) for system, each in parts.items()]
    made += [(one, other, parts[one] - parts[other]) for one, other in combinations(parts, 2)]
    rows = [
        {"first": first, "second": second, "estimate": each.value, **each.estimate().to_row()}
        for first, second, each in made
    ]
    return pd.DataFrame(rows).assign(metric="auroc", method=OBUCHOWSKI)


def call_gaps(counts: Mapping[str, Floats]) -> list[pd.DataFrame]:
    """Return the differences of all pairs of systems in each figure of all classes.

    `counts` are those of `counts_by_patient`; a difference rests on the contributions of patients.
    """
    tables = []
    images = next(iter(counts.values())).sum(axis=2)  # (P, K)
    for metric, formula in FIGURES.items():
        values = np.array([formula(of_system.sum(axis=0)) for of_system in counts.values()])
        of_patients = np.stack([_CONTRIBUTIONS[metric](each) for each in counts.values()])
        has_one = bool(np.isnan(of_patients).any())  # a class of one patient
        # The recall of a rare class may have no spread among its few patients.
        most = freedom_of_classes(images) if metric == DECIDES and not has_one else np.inf
        gaps = contributed_gaps(values, of_patients, list(counts), most)
        note = _ONE_PATIENT if has_one else ""
        tables.append(gaps.assign(metric=metric, method=CLUSTERED_COUNTS, note=note))
    return tables


def _recalls(counts: Floats) -> list[ShareParts]:
    """Return the share of the images of each class that are called it."""
    pairs = zip(_right(counts).T, counts.sum(axis=2).T, strict=True)
    return [ShareParts.from_sums(*pair) for pair in pairs]


def _share(counts: Floats) -> ShareParts:
    """Return the share of all images that are called rightly."""
    return ShareParts.from_sums(_right(counts).sum(axis=-1), counts.sum(axis=(1, 2)))


def _f1_parts(counts: Floats) -> Floats:
    """Return the contributions of patients to the F1 of each class, ``(K, P)``."""
    formula = partial(_of_outcomes, "f1")
    return np.stack([jackknife(formula, _of_class(counts, k)) for k in range(counts.shape[1])])


_CONTRIBUTIONS: dict[str, Callable[[Floats], Floats]] = {
    DECIDES: lambda counts: np.mean([each.contributions for each in _recalls(counts)], axis=0),
    "accuracy": lambda counts: _share(counts).contributions,
    "f1": lambda counts: np.asarray(_f1_parts(counts).mean(axis=0)),
}
"""Contributions of patients to the error of each of the `FIGURES`, of counts by patient."""


def _of_calls(counts: Floats, names: Sequence[str]) -> list[dict[str, Any]]:
    """Return the figures of one system: of all classes, and of each against the others."""
    rows: list[dict[str, Any]] = []
    for position, name in enumerate(names):
        of_class = _of_class(counts, position)
        for metric in _OF_ONE_CLASS:
            value = float(_of_outcomes(metric, of_class.sum(axis=0)))
            ends: dict[str, Any] = {"note": "no image is called it"}
            if not np.isnan(value):
                ends = interval_of_counts(of_class, metric, value)
            rows.append({"class": name, "metric": metric, "estimate": value} | ends)
    f1 = pd.DataFrame([row for row in rows if row["metric"] == "f1"])
    f1 = f1.reindex(columns=["estimate", "ci_low", "ci_high"]).astype(np.float64)
    f1_values, low, high = f1.to_numpy().T
    share = _share(counts)
    intervals = {
        DECIDES: _ends(mean_interval(_recalls(counts))),
        "accuracy": counted_interval(share.estimate(), share.value),
        "f1": _ends(joined_interval(f1_values, low, high, _f1_parts(counts))),
    }
    of_all = [
        {"metric": metric, "estimate": float(formula(counts.sum(axis=0)))} | intervals[metric]
        for metric, formula in FIGURES.items()
    ]
    return [*of_all, *rows]


def _of_class(counts: Floats, position: int) -> Floats:
    """Count ``tp``, ``fp``, ``tn`` and ``fn`` of one class against the others, ``(P, 4)``."""
    tp = counts[:, position, position]
    fp = counts[:, :, position].sum(axis=1) - tp
    fn = counts[:, position].sum(axis=1) - tp
    return np.column_stack([tp, fp, counts.sum(axis=(1, 2)) - tp - fp - fn, fn])


def _of_outcomes(metric: str, outcomes: Floats) -> Floats:
    """Return a metric of counts ``tp``, ``fp``, ``tn`` and ``fn``, ``(..., 4)``."""
    sums = dict(zip(("tp", "fp", "tn", "fn"), np.moveaxis(outcomes, -1, 0), strict=True))
    return rates(sums)[metric]


def _ends(mean: Interval) -> dict[str, Any]:
    if not mean.bounded:
        return {"note": mean.note or "no interval: a class has none"}
    return {"ci_low": mean.ci_low, "ci_high": mean.ci_high, "method": CLUSTERED_COUNTS}
