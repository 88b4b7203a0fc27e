"""How well the label can be guessed without looking at the lungs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from data_prep.audit.audit_auroc import (
    Auroc,
    Fact,
    Truth,
    auroc_of_fact,
    auroc_of_facts,
    clustered_auroc,
    patient_folds,
)
from data_prep.audit.patients import OLDEST_YEARS, aligned
from data_prep.audit.problem import Problem, Severity
from data_prep.contracts.text_lookup import positions
from data_prep.images.picture_border import read_border_greys

# A system has to beat these to have learned more than what is beside the lungs.
SHORTCUT_AUROC = 0.65
_MIN_IMAGES = 20
_PERSON = {"view": "view", "sex": "sex", "age_years": "age"}
_FILE = {
    "pixels": "image size",
    "aspect": "aspect ratio",
    "source": "source",
    "transfer_syntax": "transfer syntax",
    "photometric": "photometric interpretation",
    "bits": "bits",
    "spacing_col_mm": "pixel spacing",
}
# Of the whole picture, which disease changes too: shown, but not taken for "beside the lungs".
_PICTURE = {"mean_grey": "mean brightness", "file_bytes": "file size"}
_BORDER = "outer tenth of the picture"
_NUMBERS = {"age_years", "pixels", "aspect", "spacing_col_mm", "file_bytes", "mean_grey"}
_ADVICE = {
    "person": "report systems on its subgroups too; a difference in who was ill is not skill",
    "file": "a system may learn the kind of file instead of the disease: judge within one kind",
    "picture": "look whether the two classes were exposed or processed differently",
    "border": "little lung lies there: a system may learn how films are framed and marked. Judge "
    "it on films from elsewhere, compare it with data.crop = 'lungs', and look where it looks",
    "siblings": "never split by image, and keep every figure of a patient in one role",
    "together": "read every result against this figure: it needs no look at the lungs",
}


def measure_shortcuts(
    images: pd.DataFrame, decode: pd.DataFrame, labels: pd.DataFrame, seed: int = 0
) -> list[dict[str, Any]]:
    """Measure how well single facts, and all together, predict each target.

    Each fact's model is fitted on four fifths of the patients and judged on the rest, in turn;
    the image pairs compared are of one fold. Sibling images (the mean label of the same patient's
    other images; the overall mean where there is none) need no model.

    Args:
        images: The images table.
        decode: The decode table; may be empty.
        labels: One column a target (1.0, 0.0, NaN), indexed by ``image_id``.
        seed: Of the folds.

    Returns:
        One row a target and fact, the strongest first: ``target, fact, kind, auroc, ci_low,
        ci_high, n_images, n_positive, n_known`` (images on which the fact is known). Facts that
        are the same everywhere are left out, as are targets with fewer than 20 images a class.

    Example:
        >>> images = pd.DataFrame({"image_id": [str(n) for n in range(400)],
        ...     "patient_id": [str(n) for n in range(400)], "view": ["AP", "PA"] * 200})
        >>> labels = pd.DataFrame({"mass": [1.0, 0.0] * 200}, index=images["image_id"])
        >>> [(row["fact"], row["auroc"]) for row in measure_shortcuts(
        ...     images, pd.DataFrame({"image_id": []}), labels)]
        [('view', 1.0)]
    """
    facts = _facts(images, decode)
    border = _border_facts(images, decode)
    fold = patient_folds(images["patient_id"], seed)
    patient = pd.factorize(images["patient_id"])[0]
    rows = []
    truths = aligned(labels, images["image_id"])
    for column, target in enumerate(labels.columns):
        truth = truths[:, column]
        known = np.flatnonzero(~np.isnan(truth))
        positive = truth[known] == 1
        if min(positive.sum(), (~positive).sum()) < _MIN_IMAGES:
            continue
        judged = Truth(positive, fold[known], patient[known])
        for kind, name, n_known, auroc in _judge(facts, border, known, judged, seed):
            if auroc is not None:
                rows.append(
                    {
                        "target": str(target),
                        "fact": name,
                        "kind": kind,
                        "auroc": auroc.value,
                        "ci_low": auroc.low,
                        "ci_high": auroc.high,
                        "n_images": len(known),
                        "n_positive": int(positive.sum()),
                        "n_known": n_known,
                    }
                )
    order = {str(target): place for place, target in enumerate(labels.columns)}
    return sorted(rows, key=lambda row: (order[row["target"]], -row["auroc"]))


def check_shortcuts(measured: list[dict[str, Any]]) -> list[Problem]:
    """Report facts that alone predict a target, of each kind of fact the strongest.

    Args:
        measured: As from `measure_shortcuts`.

    Returns:
        ``info`` for facts about the person, which may be medicine, and for what is not one fact;
        ``warning`` for facts about the file, which are not.
    """
    strong = [
        row
        for row in sorted(measured, key=lambda row: -row["auroc"])
        if row["auroc"] >= SHORTCUT_AUROC and (row["ci_low"] or 1.0) > 0.5
    ]
    kinds = [[row for row in strong if row["kind"] == kind] for kind in _ADVICE]
    return [_problem(rows[0], len(rows) - 1) for rows in kinds if rows]


def _problem(row: dict[str, Any], more: int) -> Problem:
    ends = f" ({row['ci_low']:.3f} to {row['ci_high']:.3f})" if row["ci_low"] else ""
    subject = {
        "together": "all that is known beside the lungs predicts",
        "siblings": "other images of the same patient predict",
    }.get(row["kind"], f"{row['fact']} alone predict{'' if '+' in row['fact'] else 's'}")
    text = f"{subject} '{row['target']}' with AUROC {row['auroc']:.3f}{ends}"
    if more:
        text += f", and {more} more facts or targets have 0.65 or above"
    severity: Severity = "warning" if row["kind"] == "file" else "info"
    check, advice = f"shortcut_{row['kind']}", _ADVICE[row["kind"]]
    return Problem(check, severity, text, row["n_known"], (), advice)


def _facts(images: pd.DataFrame, decode: pd.DataFrame) -> list[tuple[str, Fact]]:
    """The facts that differ between images, each with its kind."""
    decoded = [c for c in (*_FILE, *_PICTURE) if c in decode.columns]
    rows = positions(images["image_id"], decode["image_id"])
    table: dict[str, pd.Series] = {str(c): images[c] for c in (*_PERSON, *_FILE) if c in images}
    for column in decoded:
        taken = decode[column].array.take(rows, allow_fill=True)
        table[column] = pd.Series(taken, index=images.index)
    if "age_years" in table:
        ages = table["age_years"]
        table["age_years"] = ages.where(ages.between(0, OLDEST_YEARS))
    if {"width", "height"} <= set(images.columns):
        width, height = (images[c].astype("float64") for c in ("width", "height"))
        table |= {"pixels": width * height, "aspect": width / height}
    facts = []
    for kind, names in (("person", _PERSON), ("file", _FILE), ("picture", _PICTURE)):
        for column, name in names.items():
            values = table.get(column)
            if values is None:
                continue
            fact = Fact.of(name, values.astype("float64") if column in _NUMBERS else values)
            if fact is not None:
                facts.append((kind, fact))
    return facts


def _border_facts(images: pd.DataFrame, decode: pd.DataFrame) -> list[Fact]:
    """The greys around each picture, one fact a piece; none where they were not measured."""
    if "border_greys" not in decode.columns:
        return []
    rows = positions(images["image_id"], decode["image_id"])
    greys = read_border_greys(pd.Series(decode["border_greys"].array.take(rows, allow_fill=True)))
    pieces = [Fact.of(_BORDER, pd.Series(piece.astype("float64"))) for piece in greys.T]
    return [fact for fact in pieces if fact is not None]


def _of(fact: Fact, rows: np.ndarray) -> Fact:
    """A fact about some of the images."""
    return Fact(fact.name, fact.codes[rows], fact.table, fact.known[rows])


def _judge(
    facts: list[tuple[str, Fact]],
    border: list[Fact],
    known: np.ndarray,
    truth: Truth,
    seed: int,
) -> list[tuple[str, str, int, Auroc | None]]:
    """Kind, name, number of images on which it is known, and AUROC of each fact."""
    chosen = [(kind, _of(fact, known)) for kind, fact in facts]
    found = [
        (kind, fact.name, int(fact.known.sum()), auroc_of_fact(fact, truth))
        for kind, fact in chosen
    ]
    person = [fact for kind, fact in chosen if kind == "person"]
    every = [fact for kind, fact in chosen if kind != "picture"]
    n = len(known)
    if len(person) > 1:
        name = " + ".join(fact.name for fact in person)
        found.append(("person", name, n, auroc_of_facts(person, truth, seed)))
    kinds = len(every)
    measured = np.flatnonzero(border[0].known[known]) if border else np.array([], dtype=int)
    edge = _auroc_of_edge(border, known[measured], truth.of(measured), seed)
    if edge is not None:
        found.append(("border", _BORDER, len(measured), edge))
        if len(measured) == n:  # else what is missing would tell when a picture was prepared
            every += [_of(piece, known) for piece in border]
            kinds += 1
    if kinds > max(len(person), 1):
        name = "all beside the lungs"
        found.append(("together", name, n, auroc_of_facts(every, truth, seed)))
    siblings = _sibling_means(truth)
    if not np.isnan(siblings).all():
        scores = np.where(np.isnan(siblings), truth.positive.mean(), siblings)
        ranks = np.unique(scores.round(9), return_inverse=True)[1]
        one_fold = Truth(truth.positive, np.zeros_like(truth.fold), truth.patient)
        n_siblings = int((~np.isnan(siblings)).sum())
        auroc = clustered_auroc(ranks, one_fold)
        found.append(("siblings", "sibling images", n_siblings, auroc))
    return found


def _auroc_of_edge(border: list[Fact], rows: np.ndarray, truth: Truth, seed: int) -> Auroc | None:
    """AUROC of a label guessed from the greys around the pictures that were measured."""
    if min(truth.positive.sum(), (~truth.positive).sum()) < _MIN_IMAGES:
        return None
    return auroc_of_facts([_of(piece, rows) for piece in border], truth, seed)


def _sibling_means(truth: Truth) -> np.ndarray:
    """Mean label of the same patient's other images; NaN without any."""
    count = np.bincount(truth.patient)[truth.patient] - 1
    total = np.bincount(truth.patient, weights=truth.positive)[truth.patient] - truth.positive
    return np.divide(total, count, out=np.full(len(count), np.nan), where=count > 0)
