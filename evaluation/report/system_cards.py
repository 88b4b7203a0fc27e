"""Model cards of the systems of a comparison, with their figures on the test images."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from cxr_compare.data_prep.contracts.atomic_files import write_text
from cxr_compare.data_prep.contracts.disk_space import make_folder
from cxr_compare.evaluation.comparison import Comparison
from cxr_compare.evaluation.metrics.metric import ALL
from cxr_compare.evaluation.metrics.prose import inside_sentence
from cxr_compare.evaluation.output import made_here
from cxr_compare.evaluation.report import files
from cxr_compare.evaluation.report.failure_tables import error_kinds_table, group_tables
from cxr_compare.evaluation.report.interval_facts import is_calibrated
from cxr_compare.evaluation.report.metric_table import figure_frame
from cxr_compare.evaluation.report.model_card import (
    CardEvaluation,
    ModelCard,
    hub_figure,
)
from cxr_compare.evaluation.report.summary_table import summary_keys
from cxr_compare.evaluation.report.table import Table, text_table
from cxr_compare.evaluation.report.unknown_patients import image_wording
from cxr_compare.evaluation.statistics.figure_text import DASH

_HUB_FIGURES = ("auroc", "average_precision", "recall", "specificity", "precision", "f1", "ap50")


def cards_of_comparison(comparison: Comparison) -> dict[str, ModelCard]:
    """Return the model card of each compared system by name, with its figures on test images."""
    figures = figure_frame(comparison, summary_keys(comparison))
    groups = group_tables(comparison)
    return {name: _card(comparison, name, figures[name], groups) for name in comparison.names}


def _card(
    comparison: Comparison, name: str, figures: pd.Series, groups: Sequence[Table]
) -> ModelCard:
    result = comparison.systems[name]
    record = comparison.records.get(name) or {}
    thresholds = result.thresholds.items() if result.has_scores else ()
    return ModelCard(
        name=name,
        kind=str(record.get("kind") or ("boxes" if result.boxes is not None else "scores")),
        finding=inside_sentence(comparison.display_name),
        findings=tuple(comparison.findings),
        record=record,
        thresholds={policy: value for policy, value in thresholds if value is not None},
        main_policy=comparison.main_policy,
        calibrated=is_calibrated(record),
        evaluation=_evaluation(comparison, name, figures, groups),
        cautions=[caution.text for caution in comparison.answer.cautions],
    )


def _evaluation(
    comparison: Comparison, name: str, texts: pd.Series, tables: Sequence[Table]
) -> CardEvaluation:
    figures = comparison.figures
    sections = []
    for heading, of_heading in texts.groupby(level=0, sort=False):
        known = of_heading.droplevel(0)
        known = known[known != DASH]
        if known.empty:
            continue
        heads = ("Figure", "Value (95 % interval)")
        sections.append(text_table(str(heading), heads, known.items()))
    groups = []
    for table in tables:
        frame = table.frame[[name, table.frame.columns[-1]]]
        if (frame[name] != DASH).any():
            groups.append(table._replace(frame=frame))
    primary = figures.get(name, comparison.protocol.metric, comparison.protocol.policy)
    main = comparison.main_policy
    hub = []
    for metric in _HUB_FIGURES:
        for policy in dict.fromkeys(("", main)):
            figure = figures.get(name, metric, policy, subgroup=ALL)
            if figure.known:
                hub.append(hub_figure(metric, float(figure.estimate), policy))
    return CardEvaluation(
        images="test",
        data_set=str((comparison.provenance.get("data_set") or {}).get("name") or "not named"),
        split=comparison.split,
        counts={
            "n_images": primary.n_images,
            "n_patients": primary.n_patients if comparison.patients_known else None,
            "n_positive": primary.n_positive,
        },
        figures=sections,
        groups=groups,
        errors=_errors(comparison, name),
        hub=hub,
        synthetic=comparison.synthetic,
    )


def _errors(comparison: Comparison, name: str) -> Table | None:
    """Return the kinds of error of one system; None if none is known."""
    table = error_kinds_table(comparison)
    if table is None:
        return None
    counts = [(kind, text) for kind, text in table.frame.loc[name].items() if text != DASH]
    return text_table(table.title, ("Error", "Count"), counts, table.lead) if counts else None


def card_files(names: Iterable[str]) -> dict[str, str]:
    """Return a file name for the model card of each system, relative to the report folder.

    No two are equal, even if case is ignored.

    Example:
        >>> card_files(["A b", "a/b"])
        {'A b': 'cards/A-b.md', 'a/b': 'cards/a-b-2.md'}
    """
    taken: set[str] = set()
    chosen = {}
    for number, name in enumerate(names, start=1):
        stem = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or f"system-{number}"
        if stem.lower() in taken:
            stem = f"{stem}-{number}"
        taken.add(stem.lower())
        chosen[name] = f"{files.CARDS}/{stem}.md"
    return chosen


def carded_systems(names: Iterable[str], records: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the systems that have a card: of an imported one the report has nothing to add."""
    return [name for name in names if made_here(records.get(name) or {})]


def write_cards(comparison: Comparison, out: Path) -> None:
    """Write the model card of each system that was made here as Markdown into ``cards``.

    `out` is the folder of the report. Without such a system there is no folder. Cards of an earlier
    report in it are removed.
    """
    for stale in (out / files.CARDS).glob("*.md"):
        stale.unlink()
    carded = carded_systems(comparison.names, comparison.records)
    if not carded:
        return
    make_folder(out / files.CARDS)
    cards = cards_of_comparison(comparison)
    for name, file in card_files(carded).items():
        text = cards[name].to_markdown()
        write_text(
            out / file, text if comparison.patients_known else image_wording(text, comparison.names)
        )
