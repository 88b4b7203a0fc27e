"""Writing of `audit.html`, a page that begins with the verdict and the most serious problems.

The page needs no other file. ``audit_cases.csv`` beside it lists every image or file of each
problem, and ``exclude.csv`` lists the images that the audit suggests to leave out.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import Markup

from cxr_compare.data_prep.audit.audit import AUDIT, AUDIT_PAGE, EXCLUDE, Audit
from cxr_compare.data_prep.audit.images import TEXT_CHECK
from cxr_compare.data_prep.audit.pictures import Pictures, label_texts, roles_by_image
from cxr_compare.data_prep.contracts.atomic_files import write_text
from cxr_compare.data_prep.contracts.boxes import EDGES
from cxr_compare.data_prep.contracts.csv_files import write_csv
from cxr_compare.data_prep.contracts.errors import counted
from cxr_compare.data_prep.contracts.page_templates import template_environment
from cxr_compare.data_prep.contracts.provenance import provenance
from cxr_compare.data_prep.contracts.text import TEXT
from cxr_compare.data_prep.dataset import DataSet
from cxr_compare.data_prep.duplicates.fingerprint_pairs import CERTAIN_DISTANCE
from cxr_compare.data_prep.duplicates.near_duplicates import NEAR_CORRELATION, TRUSTED_DISTANCE
from cxr_compare.data_prep.images.burned_in_text import TEXT_LINE_CHARACTERS

_CASES_NAME = "audit_cases.csv"
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


def write_audit(dataset: DataSet, audit: Audit, folder: Path, *, pixels: bool = True) -> Path:
    """Write the result of ``cxr check``: a JSON file, two CSV files and an HTML page.

    They are ``audit.json``, ``audit_cases.csv`` (images with a problem), ``exclude.csv`` (images to
    leave out) and ``audit.html``. An existing ``exclude.csv`` is not changed. The page shows images
    if `pixels` is True. Its path is returned.
    """
    audit.write(folder / AUDIT)
    write_csv(_all_cases(dataset, audit), folder / _CASES_NAME)
    exclusions = audit.exclusions
    if len(exclusions) and not (folder / EXCLUDE).exists():
        write_csv(exclusions, folder / EXCLUDE)
    return write_text(folder / AUDIT_PAGE, render_audit(dataset, audit, pixels=pixels))


def render_audit(dataset: DataSet, audit: Audit, *, pixels: bool = True) -> str:
    """Return the HTML page about the problems of a data set, with images if `pixels` is True."""
    pictures = Pictures(dataset, audit.problems, pixels=pixels)
    page = template_environment(Path(__file__).parent).get_template("audit.jinja")
    return page.render(
        name=dataset.name,
        scope=audit.scope,
        verdict=verdict(audit.counts),
        first_step=_first_step(audit),
        counts=[(s, f"{n} {_MEANINGS[s][n > 1]}") for s, n in audit.counts.items() if n],
        problems=[(problem, pictures.cases(problem)) for problem in audit.problems],
        text_check=TEXT_CHECK,
        n_exclusions=len(audit.exclusions),
        exclude_name=EXCLUDE,
        cases_name=_CASES_NAME,
        shortcuts=_shortcut_tables(dataset, audit.facts.get("shortcuts", [])),
        prevalence=_prevalence_tables(dataset, audit.facts.get("prevalence", [])),
        limits=_LIMITS,
        version=provenance()["versions"].get("cxr-compare", ""),
    )


def verdict(counts: dict[str, int]) -> str:
    """Return one sentence on whether a data set can be used, from its problems by severity."""
    errors = counts["error"]
    warnings = counted(counts["warning"], "warning")
    if errors:
        more = f"; {warnings} may affect them" if counts["warning"] else ""
        verb = _MEANINGS["error"][errors > 1]
        return f"{counted(errors, 'error')} {verb} on this data set{more}."
    if counts["warning"]:
        return f"No error was found; {warnings} may affect results."
    return "No error was found that invalidates results."


def _first_step(audit: Audit) -> str:
    """Return a sentence that says what the owner of the data set should do first."""
    worst = audit.problems[0] if audit.problems else None
    if worst is None or worst.severity == "info":
        return "Read the shortcuts below before you read results."
    step = "Correct first" if worst.severity == "error" else "Look first at"
    return f"{step}: {worst.message}."


def _all_cases(dataset: DataSet, audit: Audit) -> pd.DataFrame:
    """List each case of each problem, with the position of burned-in text."""
    columns = ["check", "severity", "split", "group", "image_id", "patient_id", "path", "label"]
    parts = [pd.DataFrame(columns=[*columns, "role", *EDGES], dtype=TEXT)]
    for problem in audit.problems:
        part = problem.cases.reindex(columns=["group", "image_id", "path", *EDGES])
        number = part.groupby("group", sort=False).ngroup() + 1
        facts = {"check": problem.check, "severity": problem.severity, "split": problem.split}
        roles = roles_by_image(dataset, problem.split)
        part["role"] = part["image_id"].map(roles)
        parts.append(part.assign(group=number.where(part["group"].notna()), **facts))
    cases = pd.concat(parts, ignore_index=True)
    images = dataset.images.set_index("image_id").assign(label=label_texts(dataset))
    of_images = images.reindex(cases["image_id"]).set_axis(cases.index)
    cases["path"] = of_images["path"].fillna(cases["path"])
    cases[["patient_id", "label"]] = of_images[["patient_id", "label"]]
    cases[EDGES] = cases[EDGES].astype("float64").round(1)
    return cases.astype({"group": "Int64"})


def _titles(dataset: DataSet) -> dict[str, str]:
    return {name: target.display_name for name, target in dataset.targets.items()}


def _shortcut_tables(dataset: DataSet, rows: list[dict[str, Any]]) -> dict[str, Markup]:
    """Build a table for each target: facts, with the AUROC with which they predict the label."""
    table = pd.DataFrame(rows)
    tables = {}
    for target, part in table.groupby("target", sort=False) if rows else ():
        part = part.astype({"ci_low": "float64", "ci_high": "float64"})
        ends = part["ci_low"].map("{:.3f}".format) + " to " + part["ci_high"].map("{:.3f}".format)
        shown = pd.DataFrame(
            {
                "Fact": part["fact"],
                "AUROC": part["auroc"].map("{:.3f}".format),
                "95 % interval": ends.where(part["ci_low"].notna()),
                "images": part["n_known"].map("{:,}".format),
                "positive": part["n_positive"].map("{:,}".format),
            }
        )
        tables[_titles(dataset).get(str(target), str(target))] = _html(shown)
    return tables


def _prevalence_tables(dataset: DataSet, rows: list[dict[str, Any]]) -> dict[str, Markup]:
    """Build a table for each target; groupings with a single value are left out."""
    table = pd.DataFrame(rows)
    tables = {}
    for target, of_target in table.groupby("target", sort=False) if rows else ():
        n_values = of_target.groupby("by")["value"].transform("size")
        part = of_target[(n_values > 1) | (of_target["by"] == "all")]
        percent = "{:.1%}".format
        ends = part["ci_low"].map(percent) + " to " + part["ci_high"].map(percent)
        shown = pd.DataFrame(
            {
                "Group": part["by"].where(part["by"] != "all", ""),
                "Value": part["value"],
                "images": part["n_images"].map("{:,}".format),
                "patients": part["n_patients"].map("{:,}".format),
                "labelled": part["n_known"].map("{:,}".format),
                "positive": part["n_positive"].map("{:,}".format),
                "share": part["prevalence"].map(percent).where(part["n_known"] > 0),
                "95 % interval": ends.where(part["n_known"] > 0),
            }
        )
        shown["Group"] = shown["Group"].where(~shown["Group"].duplicated(), "")
        tables[_titles(dataset).get(str(target), str(target))] = _html(shown)
    return tables


def _html(table: pd.DataFrame) -> Markup:
    """Return a table as HTML, in which special characters are escaped."""
    with pd.option_context("display.max_colwidth", None):
        text = table.to_html(index=False, border=0, classes="plain", justify="left", na_rep="–")
    return Markup(text)  # noqa: S704  (pandas escapes the values)
