"""Tables that the page folds: a stated prevalence, shortcuts, seen images."""

from __future__ import annotations

import pandas as pd

from cxr_compare.evaluation.comparison import Comparison
from cxr_compare.evaluation.groups.exposure import ExposureResult, UnseenFigure
from cxr_compare.evaluation.groups.shortcuts import BEYOND_SHORTCUT
from cxr_compare.evaluation.report.table import Table, figure_text, text_table
from cxr_compare.evaluation.statistics.clustered_estimate import ClusteredEstimate
from cxr_compare.evaluation.statistics.figure_text import DASH, number, range_text
from cxr_compare.evaluation.statistics.intervals import Interval
from cxr_compare.evaluation.verdict.unequal_recipes import training_conditions

_PREDICTIVE = {"ppv": "Positive predictive value", "npv": "Negative predictive value"}


def folded_tables(comparison: Comparison) -> list[Table]:
    """Return the tables for which the comparison has figures."""
    failures = comparison.groups
    tables: list[Table | None] = []
    if len(failures):
        tables = [
            _at_prevalence(comparison),
            _shortcuts(comparison),
        ]
    tables.append(_trainings(comparison))
    exposures = [_unseen(result) for result in comparison.exposures if result.n_seen]
    return [*(table for table in tables if table is not None), *exposures]


def _trainings(comparison: Comparison) -> Table | None:
    """Return what each system had in training; None without a system of this program."""
    conditions = training_conditions(
        {name: comparison.records[name] for name in comparison.names if name in comparison.records}
    )
    names = [name for name in comparison.names if any(name in each for each in conditions.values())]
    if not names:
        return None
    rows = [
        (f"{condition[:1].upper()}{condition[1:]}", *(values.get(name, DASH) for name in names))
        for condition, values in conditions.items()
    ]
    return text_table("What each training had", ("Condition", *names), rows)


def _first(rows: pd.DataFrame) -> Interval:
    """Return value and interval of the first row; an undefined value if there is none."""
    return Interval() if rows.empty else Interval.from_row(rows.iloc[0])


def _at_prevalence(comparison: Comparison) -> Table | None:
    """Return predictive values at the prevalence that the user stated; None without one."""
    failures = comparison.groups[comparison.groups["topic"] == "prevalence"]
    if failures.empty:
        return None
    first, *others = comparison.names
    columns = {name: name for name in comparison.names}
    columns |= {f"{first} - {other}": f"{first} − {other}" for other in others}
    rows = []
    for metric, title in _PREDICTIVE.items():
        of_metric = failures[failures["metric"] == metric]
        if len(of_metric):
            figures = (_first(of_metric[of_metric["system"] == name]) for name in columns)
            rows.append((title, *map(figure_text, figures)))
    prevalence = str(failures["group"].iloc[0])  # such as 0.05:0.03-0.08
    value = prevalence.replace(":", ", 95 % interval ").replace("-", " to ")
    certainty = "The prevalence is taken as known exactly."
    if ":" in prevalence or "/" in prevalence:
        certainty = "The intervals include the uncertainty of the prevalence."
    lead = f"At a prevalence of {value}, if sensitivity and specificity are the same there."
    heads = ("Figure", *columns.values())
    return text_table("At the given prevalence", heads, rows, f"{lead} {certainty}")


def _shortcuts(comparison: Comparison) -> Table | None:
    """Return the AUROC of predictions that never see the lungs, beside those of the systems."""
    failures = comparison.groups
    shortcuts = failures[failures["topic"] == "shortcut"]
    if shortcuts.empty:
        return None
    rows = [
        (
            f"Predicted from {str(row['group']).replace('_', ' ')}",
            figure_text(Interval.from_row(row)),
            "",
        )
        for row in shortcuts.to_dict("records")
    ]
    beyond = failures[failures["topic"] == BEYOND_SHORTCUT]
    for name in comparison.names:
        auroc = figure_text(comparison.figures.get(name, "auroc"))
        rows.append((name, auroc, figure_text(_first(beyond[beyond["system"] == name]))))
    strongest = "the strongest prediction"
    if len(beyond):
        strongest = f"the prediction from {beyond['group'].iloc[0]}"
    lead = (
        "How well metadata and image borders alone predict the label (5-fold cross-validation by "
        "patient). Those from all metadata leave out mean brightness and file size, which "
        "disease changes, too. A system that does not exceed these figures has not shown that it "
        "reads the lungs. For the difference from the strongest prediction, both AUROCs compare "
        "only images of the same fold, so it need not equal the difference of the AUROCs in this "
        "table. Its interval accounts for the shared training images of the five folds (Nadeau "
        "and Bengio 2003)."
    )
    columns = ("Prediction or system", "AUROC", f"System minus {strongest}")
    return text_table("Shortcuts", columns, rows, lead)


def _unseen(result: ExposureResult) -> Table:
    """Return the AUROCs with and without the test images that a system or its encoder has seen."""
    exposure = result.exposure
    subject = f"the encoder {exposure.encoder}" if exposure.encoder else exposure.system
    rows = [
        (
            figure.system,
            _estimate_text(figure.on_all),
            _estimate_text(figure.on_unseen) or f"undefined: {figure.reason}",
            _difference_text(figure),
        )
        for figure in result.figures
    ]
    lead = (
        f"{result.note.text} The difference is by patient, on "
        f"{result.n_images - result.n_seen:,} unseen images against all. If other systems change "
        f"as {exposure.system} does, the unseen images are easier or harder; a change of "
        f"{exposure.system} alone speaks for memory."
    )
    columns = ("System", "All images", "Without the seen ones", "Difference")
    return text_table(f"AUROC without the images that {subject} has seen", columns, rows, lead)


def _difference_text(figure: UnseenFigure) -> str:
    """Return a difference with its interval, and with what makes the interval unsure."""
    gap = figure.difference
    is_unsure = gap is not None and gap.has_interval and figure.reason
    return _estimate_text(gap) + (f"; {figure.reason}" if is_unsure else "")


def _estimate_text(estimate: ClusteredEstimate | None) -> str:
    """Return a figure with its interval, or with the reason why there is none."""
    if estimate is None:
        return ""
    if not estimate.has_interval:
        return f"{number(estimate.estimate)} ({estimate.note or 'no interval'})"
    return f"{number(estimate.estimate)} ({range_text(estimate.ci_low, estimate.ci_high)})"
