"""Sensitivity analysis: images that were not counted, counted against and for each system."""

from __future__ import annotations

from cxr_compare.evaluation.compare.comparison import Comparison
from cxr_compare.evaluation.compare.estimates import AGAINST, FOR
from cxr_compare.evaluation.metrics.metric import ALL
from cxr_compare.evaluation.metrics.registry import METRICS
from cxr_compare.evaluation.report.table import Table, figure_words
from cxr_compare.evaluation.report.templates import sentence


def uncounted_table(comparison: Comparison, policy: str) -> Table | None:
    """The main figures as analysed, and with all images that are not counted otherwise."""
    figures = comparison.estimates
    rows = []
    for name in comparison.names:
        for metric in ("auroc", "recall", "specificity", "accuracy"):
            at = policy if "threshold" in METRICS[metric].needs else ""
            cells = [figures.get(name, metric, at, subgroup=s) for s in (ALL, AGAINST, FOR)]
            if cells[1].known:
                words = [f"{figure_words(each)}, {each.counts.n_images:,} images" for each in cells]
                rows.append((f"{name}: {METRICS[metric].inside}", *words))
    heads = ("Figure", "As analysed", "All counted against", "All counted for")
    left_out = " ".join(note.text for note in comparison.notes if note.kind == "left_out")
    lead = sentence("uncounted", left_out)
    title = "Uncertain, unlabelled and failed images, counted against and for each system"
    return Table.of(title, lead, heads, rows) if rows else None
