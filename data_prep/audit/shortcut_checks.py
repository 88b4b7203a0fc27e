"""Check for metadata or image borders that predict a target without the lungs (shortcuts)."""

from __future__ import annotations

from typing import Any

from cxr_compare.data_prep.audit.problem import Problem, Severity

# AUROC from which metadata or image borders are reported. A system whose AUROC is not above that of
# a shortcut may have learned nothing else.
SHORTCUT_AUROC = 0.65
_ADVICE = {
    "person": "report systems on its subgroups, too; a difference in who was ill is not skill",
    "file": "a system may learn the kind of file instead of the disease: evaluate within one kind",
    "picture": "check if the two classes were exposed or processed differently",
    "border": "borders show little lung, so a system may learn how images are framed and marked. "
    "Evaluate it on images from elsewhere, and look at maps of where it finds the disease",
    "siblings": "never split by image, and keep every figure of a patient in one role",
    "together": "compare every result with this figure, which needs no information from the lungs",
}


def check_shortcuts(measured: list[dict[str, Any]]) -> list[Problem]:
    """Report metadata and image borders that predict the label without the lungs (shortcuts).

    Of each kind of metadata only the strongest is reported.

    Args:
        measured: One dictionary for each kind of metadata (such as the view) and each label, with
            its AUROC and 95 % interval.

    Returns:
        One problem for each kind of fault that was found; an empty list if there is none.
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
        "together": "metadata and image borders together predict",
        "siblings": "other images of the same patient predict",
    }.get(row["kind"], f"{row['fact']} alone predict{'' if '+' in row['fact'] else 's'}")
    text = f"{subject} '{row['target']}' with AUROC {row['auroc']:.3f}{ends}"
    if more:
        text += f", and {more} more facts or targets have an AUROC of 0.65 or above"
    severity: Severity = "warning" if row["kind"] == "file" else "info"
    check = f"shortcut_{row['kind']}"
    advice = _ADVICE[row["kind"]]
    return Problem(check, severity, text, row["n_known"], (), advice)
