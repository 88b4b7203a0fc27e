"""Writing of `audit.html`, a page that begins with the verdict and the most serious problems.

The page needs no other file. ``audit_cases.csv`` beside it lists every image or file of each
problem, and ``exclude.csv`` lists the images that the audit suggests to leave out.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pydicom.uid import UID_dictionary

from cxr_compare.data_prep.audit.audit import AUDIT, AUDIT_PAGE, EXCLUDE, Audit
from cxr_compare.data_prep.audit.burned_in_text import TEXT_CHECK
from cxr_compare.data_prep.audit.counts import MISSING
from cxr_compare.data_prep.audit.page_images import (
    PageImages,
    excluded_boxes,
    label_texts,
    roles_by_image,
)
from cxr_compare.data_prep.audit.problem import SEVERITIES, Problem
from cxr_compare.data_prep.audit.shortcut_checks import SHORTCUT_AUROC
from cxr_compare.data_prep.contracts.atomic_files import write_text
from cxr_compare.data_prep.contracts.boxes import EDGES
from cxr_compare.data_prep.contracts.csv_files import write_csv
from cxr_compare.data_prep.contracts.errors import counted
from cxr_compare.data_prep.contracts.page_templates import template_environment
from cxr_compare.data_prep.contracts.provenance import provenance
from cxr_compare.data_prep.contracts.text import TEXT
from cxr_compare.data_prep.duplicates.fingerprint_pairs import CERTAIN_DISTANCE
from cxr_compare.data_prep.duplicates.near_duplicates import NEAR_CORRELATION, TRUSTED_DISTANCE
from cxr_compare.data_prep.images.burned_in_text import TEXT_LINE_CHARACTERS
from cxr_compare.data_prep.store.dataset import DataSet

_MEANINGS = {
    "error": ("invalidates results", "invalidate results"),
    "warning": ("may affect results", "may affect results"),
    "info": ("worth knowing", "worth knowing"),
}
_LIMITS = {
    "certain_bits": CERTAIN_DISTANCE,
    "trusted_bits": TRUSTED_DISTANCE,
    "correlation": f"{NEAR_CORRELATION:g}",
    "characters": TEXT_LINE_CHARACTERS,
}


def verdict(counts: dict[str, int]) -> str:
    """Return one sentence on whether a data set can be used, from its numbers of problems.

    Args:
        counts: Number of problems that ``cxr check`` found, for each severity: ``error`` (results
            are wrong), ``warning`` (results may be wrong) and ``info``.
    """
    errors = counts["error"]
    warnings = counted(counts["warning"], "warning")
    if errors:
        more = f"; {warnings} may affect them" if counts["warning"] else ""
        verb = _MEANINGS["error"][errors > 1]
        return f"{counted(errors, 'error')} {verb} on this data set{more}."
    if counts["warning"]:
        return f"No error was found; {warnings} may affect results."
    return "No error was found that invalidates results."


def first_step(problems: Iterable[Problem]) -> str:
    """Return a sentence that says what the owner of the data set should do first.

    Args:
        problems: Problems that ``cxr check`` found, the most serious first.
    """
    worst = next(iter(problems), None)
    if worst is None or worst.severity == "info":
        return "Read the shortcuts below before you read results."
    step = "Correct first" if worst.severity == "error" else "Look first at"
    return f"{step}: {worst.message}."


def severity_counts(counts: dict[str, int]) -> list[tuple[str, str]]:
    """Return, for each severity of which there are problems, a text with their number and meaning.

    Args:
        counts: Number of problems that ``cxr check`` found, for each severity: ``error``,
            ``warning`` and ``info``.

    Returns:
        Pairs of the severity and the text, the most serious first.
    """
    return [(s, f"{counts[s]} {_MEANINGS[s][counts[s] > 1]}") for s in SEVERITIES if counts[s]]


def _image_rows(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """List sizes, spacing, storage and copies of the images as titles and texts."""
    images = facts.get("images", {})
    copies = facts.get("copies")
    rows = []
    if sizes := images.get("sizes"):
        text = (
            f"{sizes['smallest']} to {sizes['largest']}; {sizes['different']:,} different; "
            f"{sizes['commonest_share']:.0%} are {sizes['commonest']}"
        )
        rows.append(("Size, px (width × height)", text.replace(" x ", " × ")))
    if field := images.get("field_width_mm"):
        low, middle, high = field["quartiles"]
        text = f"{middle:.0f} mm (quartiles {low:.0f} to {high:.0f}), known of {field['n_known']:,}"
        rows.append(("Field width", text))
    for name, counts in images.get("files", {}).items():
        if set(counts) != {MISSING}:
            to_text = _syntax if name == "transfer_syntax" else str
            listed = ", ".join(f"{to_text(value)}: {n:,}" for value, n in counts.items())
            rows.append((name.replace("_", " ").capitalize(), listed))
    if copies:
        text = f"{counted(copies['equal'], 'image')} equal to another, {copies['near']:,} nearly"
        rows.append(("Copies", text if any(copies.values()) else "none found"))
    return rows


def _syntax(value: str) -> str:
    """Return the name of a transfer syntax in the DICOM standard."""
    return str(UID_dictionary.get(value, (value,))[0])


_CASES_NAME = "audit_cases.csv"
_AXIS = (0.4, 1.0)  # limits of the axis of the bars
_CONTENTS = (
    ("findings", "What was found"),
    ("shortcuts", "Shortcuts"),
    ("people", "Patients and prevalence"),
    ("images", "Images and files"),
    ("methods", "How this was done"),
)


def write_audit(dataset: DataSet, audit: Audit, folder: Path, *, pixels: bool = True) -> Path:
    """Write the result of ``cxr check``: a JSON file, two CSV files and an HTML page.

    They are ``audit.json``, ``audit_cases.csv`` (images with a problem), ``exclude.csv`` (images to
    leave out) and ``audit.html``. An existing ``exclude.csv`` is not changed.

    Args:
        dataset: A prepared data set.
        audit: Problems and figures of the data set.
        folder: Folder to write into.
        pixels: True shows images on the page.

    Returns:
        Path of the HTML page.
    """
    audit.write(folder / AUDIT)
    write_csv(_all_cases(dataset, audit), folder / _CASES_NAME)
    exclusions = audit.exclusions
    if len(exclusions) and not (folder / EXCLUDE).exists():
        write_csv(exclusions, folder / EXCLUDE)
    return write_text(folder / AUDIT_PAGE, render_audit(dataset, audit, pixels=pixels))


_CASE_COLUMNS = [
    "check",
    "severity",
    "split",
    "group",
    "image_id",
    "partner",
    "patient_id",
    "path",
    "label",
    "role",
]


def _all_cases(dataset: DataSet, audit: Audit) -> pd.DataFrame:
    """List each case of each problem, with the position of burned-in text or the wrong box."""
    parts = [pd.DataFrame(columns=_CASE_COLUMNS, dtype=TEXT)]
    for problem in audit.problems:
        part = problem.cases.reindex(columns=["group", "image_id", "path", *EDGES])
        groups = part.groupby("group", sort=False)["image_id"]
        first = groups.transform("first")
        last = groups.transform("last")
        part["partner"] = first.where(first != part["image_id"], last)
        part["group"] = groups.ngroup().where(part["group"].notna()) + 1
        facts = {"check": problem.check, "severity": problem.severity, "split": problem.split}
        parts.append(part.assign(**facts))
    cases = pd.concat(parts, ignore_index=True).astype({"group": "Int64", "path": TEXT})
    images = dataset.images.set_index("image_id").assign(label=label_texts(dataset))
    image_facts = images.reindex(cases["image_id"]).set_axis(cases.index)
    cases["path"] = image_facts["path"].fillna(cases["path"])
    cases[["patient_id", "label"]] = image_facts[["patient_id", "label"]]
    for split in cases["split"].unique():
        roles = cases["image_id"].map(roles_by_image(dataset, split))
        cases["role"] = roles.where(cases["split"] == split, cases["role"])
    boxes = excluded_boxes(dataset)[EDGES].dropna(how="all")
    is_file = cases["image_id"].isna()
    wrong = boxes.reindex(cases["path"].where(is_file)).set_axis(cases.index)
    edges = cases.reindex(columns=EDGES).astype("float64")
    cases[EDGES] = edges.fillna(wrong).round(1)
    return cases


def render_audit(dataset: DataSet, audit: Audit, *, pixels: bool = True) -> str:
    """Return the HTML page about the problems of a data set.

    Args:
        dataset: A prepared data set.
        audit: Problems and figures of the data set.
        pixels: True shows images on the page.
    """
    titles = {name: target.display_name for name, target in dataset.targets.items()}
    album = PageImages(dataset, pixels, audit.problems)
    problems = [(problem, album.cases(problem)) for problem in audit.problems]
    facts = audit.facts
    chosen = {} if any(cases for _, cases in problems) else facts.get("images", {})
    examples = {
        name: album.cases(Problem.from_cases(name, "info", "", np.array(ids), shown=ids))
        for name, ids in chosen.get("examples", {}).items()
    }
    page = template_environment(Path(__file__).parent).get_template("audit.jinja")
    return page.render(
        name=dataset.name,
        scope=audit.scope,
        verdict=verdict(audit.counts),
        explanation=first_step(audit.problems),
        tally=severity_counts(audit.counts),
        contents=[entry for entry in _CONTENTS if entry[0] != "findings" or problems],
        problems=problems,
        examples=examples,
        n_exclusions=len(audit.exclusions),
        exclude_name=EXCLUDE,
        cases_name=_CASES_NAME,
        text_check=TEXT_CHECK,
        charts=_charts(facts.get("shortcuts", []), titles),
        unknown=_unknown(facts.get("prevalence", [])),
        prevalences=_prevalences(facts.get("prevalence", []), titles),
        images=_image_rows(facts),
        limits=_LIMITS,
        version=provenance()["versions"].get("cxr-compare", ""),
    )


def _charts(rows: list[dict[str, Any]], titles: dict[str, str]) -> list[tuple[str, list[Any]]]:
    """Build the rows of a bar chart for each target."""
    charts = []
    for target, group in groupby(rows, key=lambda row: str(row["target"])):
        entries = list(group)
        note = (
            f"{counted(entries[0]['n_images'], 'image')}, {entries[0]['n_positive']:,} positive. "
            f"The axis runs from {_AXIS[0]} to {_AXIS[1]:.0f}; the dashed line is chance, and "
            "whiskers are 95 % intervals."
        )
        bars = [{**_bar(row), "note": note} for row in entries]
        charts.append((titles.get(target, target), bars))
    return charts


def _bar(row: dict[str, Any]) -> dict[str, Any]:
    ends = [row["ci_low"], row["ci_high"]]
    known = None not in ends
    is_partial = row["n_known"] < row["n_images"]
    interval = "no interval, since the classes are separated completely"
    if known:
        interval = f"{ends[0]:.3f} to {ends[1]:.3f}"
    fact = row["fact"]
    if is_partial:
        fact += f" ({counted(row['n_known'], 'image')})"
    return {
        "fact": fact,
        "text": f"{row['auroc']:.3f}",
        "ends": interval,
        "strong": row["auroc"] >= SHORTCUT_AUROC,
        "chance": _on_axis(0.5),
        "end": _on_axis(row["auroc"]),
        "low": _on_axis(ends[0]) if known else None,
        "high": _on_axis(ends[1]) if known else None,
    }


def _on_axis(auroc: float) -> float:
    low, high = _AXIS
    return round(100 * min(max((auroc - low) / (high - low), 0.0), 1.0), 2)


def _prevalences(rows: list[dict[str, Any]], titles: dict[str, str]) -> list[tuple[str, list[Any]]]:
    """Build a table in groups for each target; groupings with a single value are left out."""
    tables = []
    for target, group in groupby(rows, key=lambda row: str(row["target"])):
        groups = [(by, list(part)) for by, part in groupby(group, key=lambda row: row["by"])]
        stated = [(by, part) for by, part in groups if by == "all" or len(part) > 1]
        tables.append((titles.get(target, target), stated))
    return tables


def _unknown(rows: list[dict[str, Any]]) -> str:
    """Return the groupings whose value is known for no image, as text."""
    known = {row["by"] for row in rows if row["value"] != MISSING}
    return ", ".join(dict.fromkeys(row["by"] for row in rows if row["by"] not in known))
