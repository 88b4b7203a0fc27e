"""`cxr wrong-labels`: how wrong the labels of a finished comparison may be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np

from cxr_compare import InputError
from cxr_compare.evaluation.metrics.image_metrics import auroc
from cxr_compare.evaluation.statistics.arrays import Floats
from cxr_compare.evaluation.statistics.clustered_estimate import ClusteredEstimate
from cxr_compare.evaluation.statistics.figure_text import number
from cxr_compare.scripts.command_frame import AnyPath, Argument, Outcome, as_path, command
from cxr_compare.studies.wrong_labels import wrong_label_sentences
from cxr_compare.studies.wrong_labels.reference_error import (
    ReferenceAccuracy,
    corrected_auroc,
    corrected_auroc_difference,
    corrected_rates,
)

if TYPE_CHECKING:
    from cxr_compare import Result
    from cxr_compare.studies.wrong_labels.overturning_labels import WrongLabels

_ONE_CLASS = "none: a class is absent"


def _read_report(value: Any) -> Any:
    """Return a report in memory as it is; take all else as the folder of one."""
    return value if hasattr(value, "decisions") else as_path(value)


@command
def wrong_labels(
    report: Annotated[Any, Argument(read=_read_report, metavar="REPORT")],
    *,
    error: Annotated[str | None, Argument(read=str)] = None,
    chart: AnyPath | None = None,
) -> Outcome:
    """Say how many wrong labels would overturn an answer.

    If the answer shows a difference in AUROC, the command finds the fewest test labels that must be
    wrong until it is no longer shown, and the share at which this happens if labels are wrong at
    random. Of several differences it takes that of the leading system whose interval is nearest to
    0. With --error it also computes AUROC, sensitivity and specificity against the true disease.

    Args:
        report: Report folder of cxr compare; from Python also the report itself.
        error: Error of the labels that served as the reference: 0.05 for the share of wrong labels
            in each class, or sensitivity=0.95,specificity=0.98 of the labels.
        chart: Image file to write (.png, .svg or .pdf). It shows the AUROC of both systems against
            the share of labels that are wrong at random.

    Returns:
        The answer in words; as a dictionary, it also has the images whose labels matter most, the
        figures at each share, and the corrected figures.

    Raises:
        InputError: The folder holds no report, a system has several training seeds, the answer is
            not by image, or the error cannot be read.

    Example:
        cxr wrong-labels out/report --error 0.05
    """
    from cxr_compare import Result
    from cxr_compare.data_prep.contracts.disk_space import make_folder
    from cxr_compare.studies.wrong_labels.label_error_chart import label_error_chart

    accuracy = None if error is None else ReferenceAccuracy.from_text(error)
    chart = as_path(chart)
    if chart is not None and chart.suffix not in (".png", ".svg", ".pdf"):
        raise InputError(f"--chart {chart}: end the name with .png, .svg or .pdf")
    opened = Result.open(report) if isinstance(report, Path) else report
    labelled = _LabelledScores.from_result(opened)
    overturned = _overturned(opened, labelled)
    if overturned is None:
        lines = [wrong_label_sentences.NOTHING_SHOWN]
        if chart is not None:
            raise InputError(f"--chart {chart}: {lines[0]}")
        payload: dict[str, Any] = {"overturned": None}
    else:
        claim, found = overturned
        text = wrong_label_sentences.overturned(
            [claim["first"], claim["second"]],
            found.n_images,
            found.fewest,
            found.fewest_share,
            found.at_random,
            max(errors.share for errors in found.curve),
        )
        lines = [text]
        payload = {"overturned": {**_record(claim, found, labelled), "text": text}}
        if chart is not None:
            names = [claim["first"], claim["second"]]
            make_folder(chart.parent)
            label_error_chart(names, labelled.aurocs, found.curve).savefig(chart, dpi=150)
    payload |= {"error": None, "corrected": []}
    if accuracy is not None:
        rows = _corrected_rows(labelled, accuracy)
        payload |= {"error": asdict(accuracy), "corrected": rows}
        lines.append(
            wrong_label_sentences.corrected_lead(accuracy.sensitivity, accuracy.specificity)
        )
        lines += [_line(row) for row in rows]
    return Outcome("\n".join(lines), payload, page=chart)


@dataclass(frozen=True)
class _LabelledScores:
    """Labels of the test images of a report, and what each system says of them."""

    names: list[str]  # (N,), image ids
    y_true: np.ndarray  # (N,), bool
    patients: np.ndarray | None  # (N,), patient ids; None where patients are unknown
    scores: dict[str, Floats]  # each (N,)
    calls: dict[tuple[str, str], np.ndarray]  # by system and policy, each (N,), bool

    @classmethod
    def from_result(cls, result: Result) -> _LabelledScores:
        """Take the labels, scores and decisions from a report's table of decisions."""
        content = result.answer
        for system, seeds in content.provenance.seeds.items():
            if isinstance(seeds, list):
                raise InputError(
                    f"wrong-labels: {system} has {len(seeds)} training seeds, and a report has the "
                    "scores of the first alone; compare one seed of each system"
                )
        if (unit := content.provenance.protocol["unit"]) not in (None, "image"):
            raise InputError(
                f"wrong-labels: the answer of this report is by {unit}, and labels are of images; "
                "compare by image"
            )
        decisions = result.decisions
        decisions = decisions[decisions["label"].notna()]
        by_system = {name: decisions[decisions["system"] == name] for name in result.systems}
        images = by_system[result.systems[0]].set_index("image_id")
        scores = {}
        calls = {}
        for name, rows in by_system.items():
            rows = rows.set_index("image_id").reindex(images.index)
            scores[name] = rows["score"].to_numpy(np.float64)
            for column in rows.columns[rows.columns.str.startswith("decision_")]:
                if rows[column].notna().all():
                    policy = column.removeprefix("decision_")
                    calls[name, policy] = rows[column].to_numpy(bool)
        return cls(
            [str(name) for name in images.index],
            images["label"].to_numpy() >= 1,
            images["patient_id"].to_numpy() if "patient_id" in images else None,
            scores,
            calls,
        )

    @cached_property
    def aurocs(self) -> dict[str, float]:
        """AUROC of each system by the labels as they are."""
        aurocs = {}
        for name, scores in self.scores.items():
            area = auroc(self.y_true, scores)
            aurocs[name] = np.nan if area is None else area
        return aurocs


def _overturned(
    result: Result, labelled: _LabelledScores
) -> tuple[dict[str, Any], WrongLabels] | None:
    """Return the difference that is overturned first, and by which labels; None without one."""
    from cxr_compare.studies.wrong_labels.overturning_labels import overturning_labels

    claim = _weakest_claim(result.answer.claims, labelled.aurocs)
    if claim is None:
        return None
    found = overturning_labels(
        labelled.y_true,
        labelled.scores[claim["first"]],
        labelled.scores[claim["second"]],
        labelled.patients,
        level=claim["level"],
    )
    if found is None or not found.shown or not found.curve:
        return None
    return claim, found


def _weakest_claim(
    claims: Sequence[dict[str, Any]], aurocs: dict[str, float]
) -> dict[str, Any] | None:
    """Return the shown difference of a leading system whose interval is nearest to 0."""
    if not claims or any(claim["metric"] != "auroc" for claim in claims):
        return None
    highest = max(max(aurocs[claim["first"]], aurocs[claim["second"]]) for claim in claims)
    shown = [
        claim
        for claim in claims
        if claim["higher"] is not None and aurocs[claim["higher"]] == highest
    ]
    return min(
        shown, key=lambda claim: min(abs(claim["ci_low"]), abs(claim["ci_high"])), default=None
    )


def _record(claim: dict[str, Any], found: WrongLabels, labelled: _LabelledScores) -> dict[str, Any]:
    """Return how a difference is overturned, for programs."""
    rows = found.most_harmful
    return {
        "first": claim["first"],
        "second": claim["second"],
        "level": claim["level"],
        "n_labels": found.n_images,
        "fewest": found.fewest,
        "fewest_share": found.fewest_share,
        "most_harmful": None if rows is None else [labelled.names[row] for row in rows],
        "share_at_random": found.at_random,
        "at_random": [
            {
                "share": errors.share,
                "first": errors.first[0],
                "second": errors.second[0],
                "overturned": errors.overturned,
            }
            for errors in found.curve
        ],
    }


def _corrected_rows(labelled: _LabelledScores, accuracy: ReferenceAccuracy) -> list[dict[str, Any]]:
    """Return the figures of systems and the differences in AUROC against the true disease."""
    truth, patients = labelled.y_true, labelled.patients
    rows = []
    for name, scores in labelled.scores.items():
        auroc = corrected_auroc(truth, scores, accuracy, patients)
        rows.append(_corrected_row(name, "", "auroc", auroc))
        for (system, policy), called in labelled.calls.items():
            if system == name:
                rates = corrected_rates(truth, called, accuracy, patients)
                rows += [_corrected_row(name, policy, key, rate) for key, rate in rates.items()]
    for first, second in combinations(labelled.scores, 2):
        difference = corrected_auroc_difference(
            truth, labelled.scores[first], labelled.scores[second], accuracy, patients
        )
        rows.append(_corrected_row(f"{first} - {second}", "", "auroc", difference))
    return rows


def _corrected_row(
    system: str, policy: str, metric: str, figure: ClusteredEstimate | None
) -> dict[str, Any]:
    """Return a corrected figure as a row; None and a note where there is none."""
    row: dict[str, Any] = {"system": system, "policy": policy, "metric": metric}
    unknown = {"estimate": None, "ci_low": None, "ci_high": None}
    if figure is None:
        return {**row, **unknown, "note": _ONE_CLASS}
    if np.isnan(figure.estimate):
        return {**row, **unknown, "note": figure.note}
    limits = (0.0, 1.0) if figure.bounded else (-1.0, 1.0)
    if not limits[0] <= figure.estimate <= limits[1]:
        note = wrong_label_sentences.corrected_outside(figure.estimate)
        return {**row, **unknown, "note": note}
    low, high = (figure.ci_low, figure.ci_high) if figure.has_interval else (None, None)
    return {**row, "estimate": figure.estimate, "ci_low": low, "ci_high": high, "note": figure.note}


def _line(row: dict[str, Any]) -> str:
    """Return a corrected figure as a line of text."""
    name = {"auroc": "AUROC", "recall": "sensitivity", "specificity": "specificity"}[row["metric"]]
    at = f" ({row['policy']})" if row["policy"] else ""
    if row["estimate"] is None:
        value = row["note"]
    elif row["ci_low"] is None:
        value = f"{number(row['estimate'])}, no interval: {row['note']}"
    else:
        ends = f"{number(row['ci_low'])} to {number(row['ci_high'])}"
        value = f"{number(row['estimate'])} ({ends})"
    return f"{row['system']}: {name}{at} {value}"
