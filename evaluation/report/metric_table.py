"""Figures of a comparison as texts of tables: values, differences, thresholds and counts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import pandas as pd

from cxr_compare.data_prep.contracts.errors import counted
from cxr_compare.evaluation.comparison import Comparison
from cxr_compare.evaluation.figures import Figures, image_blind_name
from cxr_compare.evaluation.metrics.metric import MetricKey
from cxr_compare.evaluation.metrics.missing_sentences import beside_count, boxed_positives
from cxr_compare.evaluation.metrics.policy_text import policy_text
from cxr_compare.evaluation.metrics.registry import metric_title
from cxr_compare.evaluation.protocol import EXPLORATORY
from cxr_compare.evaluation.report.table import notes_text, value_text
from cxr_compare.evaluation.statistics.figure_text import p_equation
from cxr_compare.evaluation.statistics.intervals import note_without_counts
from cxr_compare.evaluation.system_result import SystemResult
from cxr_compare.evaluation.verdict.verdict_parts import JointSystem

MARKS = (
    "● Shown to differ after correction for the number of comparisons. ○ Tested and not shown, "
    "which is not the same as equal. No sign: not tested, whatever its interval and p."
)


def image_count(figures: Figures) -> str:
    """Return the numbers of test images and patients behind the metrics as text; may be empty."""
    for name in figures.systems:
        figure = figures.get(name, EXPLORATORY.metric)
        if figure.n_images:
            images = counted(figure.n_images, "test image")
            patients = counted(figure.n_patients, "patient")
            return f"{images} of {patients}, {figure.n_positive:,} positive"
    return ""


def evaluated_by_unit(comparison: Comparison) -> Comparison | None:
    """Return the comparison whose figures are by study or patient; None if they are by image."""
    figures = comparison.by_unit
    if figures is None:
        return None
    systems: dict[str, SystemResult] = {}
    for name, result in comparison.systems.items():
        thresholds: dict[str, float | None] = {
            key.policy: figure.estimate
            for key, figure in figures.of(name).items()
            if key.metric == "threshold"
        }
        systems[name] = replace(result, thresholds=thresholds, cost={})
    return replace(comparison, figures=figures, systems=systems)


def policy_heading(policy: str) -> str:
    """Return the heading of the figures at one threshold, or of those that need none."""
    return f"At the threshold for {policy_text(policy)}" if policy else policy_text(policy)


def figure_frame(comparison: Comparison, keys: Sequence[MetricKey]) -> pd.DataFrame:
    """Return figures and differences as texts, with the image-blind baselines below their figures.

    The table has one row for each figure, indexed by heading (the rule for the threshold) and
    title, and one column for each system and for each difference of the first system from another.
    Rows at the same threshold are put together.
    """
    names = comparison.names
    pairs = [(names[0], other) for other in names[1:]]
    policies = list(dict.fromkeys(key.policy for key in keys))
    rows: dict[tuple[str, str], list[str]] = {}
    for key in sorted(keys, key=lambda key: policies.index(key.policy)):
        heading, title = policy_heading(key.policy), metric_title(key.metric)
        values = [value_text(comparison.figures.get(name, *figure_of(key))) for name in names]
        differences = [difference_text(comparison, pair, figure_of(key)) for pair in pairs]
        rows[heading, title] = values + differences
        for of, texts in _image_blind(comparison, key).items():
            rows[heading, f"{title}, {of}"] = texts + [""] * len(pairs)
    return pd.DataFrame(
        list(rows.values()),
        index=pd.MultiIndex.from_tuples(list(rows)),
        columns=[*names, *(f"{first} − {second}" for first, second in pairs)],
    )


def figure_of(key: MetricKey) -> tuple[str, str]:
    """Return metric and rule for the threshold of a figure on all images."""
    return key.metric, key.policy


def _image_blind(comparison: Comparison, key: MetricKey) -> dict[str, list[str]]:
    """Return the systems' image-blind baselines of a figure, and the differences from them."""
    figures = comparison.figures
    pairs = [(name, image_blind_name(name)) for name in comparison.names]
    baselines = [figures.get(baseline, *figure_of(key)) for _, baseline in pairs]
    if not any(baseline.known for baseline in baselines):
        return {}
    gaps = [difference_text(comparison, pair, figure_of(key)) for pair in pairs]
    return {"image-blind": list(map(value_text, baselines)), "minus image-blind": gaps}


def difference_text(comparison: Comparison, pair: tuple[str, str], figure: tuple[str, str]) -> str:
    """Return a difference with its interval and p-value, marked by what the answer says of it.

    The answer corrects for the number of comparisons. ● marks a difference that it shows, ○ one
    that it tests and does not show, and † a difference whose own interval excludes 0, but which
    this correction withdraws. A difference that the answer does not test, or that has no interval,
    has no mark. `pair` has the names of the two systems; `figure` the metric and the rule for its
    threshold (empty for none).
    """
    gap = comparison.figures.difference(*pair, *figure)
    p_text = "" if gap.p_value is None else f"; {p_equation(gap.p_value)}"
    text = value_text(gap)
    if not gap.bounded or comparison.figures is not comparison.answer_figures:
        return text + p_text
    decided = is_decided(comparison, pair, figure)
    if decided is None:
        return text + p_text
    if decided:
        return f"● {text}{p_text}"
    return f"○ {text}{' †' if gap.excludes_zero else ''}{p_text}"


def is_decided(
    comparison: Comparison, pair: tuple[str, str], figure: tuple[str, str]
) -> bool | None:
    """Return True if the answer shows a difference, False if not, None if it does not mention it.

    A difference whose own interval excludes 0, but which is not shown, was withdrawn by the
    correction for the number of comparisons.
    """
    decides = comparison.answer.decides(*pair, *figure)
    return comparison.answer.decides(*pair[::-1], *figure) if decides is None else decides


def figure_notes(
    comparison: Comparison,
    keys: Sequence[MetricKey],
    differences: Iterable[tuple[tuple[str, str], tuple[str, str]]],
) -> str:
    """Return why figures and differences are undefined or have no interval, each reason once.

    A difference is a pair of systems, and a metric with the rule for its threshold. It is left out
    where a note on one of the figures of this metric says enough.
    """
    figures = comparison.figures
    notes: list[tuple[str, str, str]] = []
    for key in keys:
        title = metric_title(key.metric)
        for name in comparison.names:
            value = figures.get(name, *figure_of(key))
            notes.append((title, name, note_without_counts(value.note)))
            boxed = figures.boxed_positives(name, key)
            if value.known and boxed is not None:
                notes.append((title, name, boxed_positives(*boxed)))
    explained = {title for title, _, note in notes if note}
    for (first, second), figure in differences:
        title = metric_title(figure[0])
        if title not in explained:
            gap = figures.difference(first, second, *figure)
            notes.append((title, f"{first} − {second}", note_without_counts(gap.note)))
    return notes_text(notes)


def withdrawn_text(joint: JointSystem | None) -> str:
    """Say what † means: a difference that is not shown, although its own interval excludes 0."""
    if joint is None:
        return "† Not shown once all comparisons of the answer are corrected for (Holm)."
    corrected = ""
    if len(joint.members) > 2:
        corrected = ", and all other differences are corrected for their number (Holm)"
    return (
        f"† Not shown, although this interval excludes 0: {joint.name} must exceed each of its "
        f"members{corrected}."
    )


def marks_note(texts: Sequence[str], joint: JointSystem | None = None) -> str:
    """Explain the marks of differences in the texts of a table, and their p-values.

    The result is empty if there is no difference.
    """
    if not any(text.startswith(("●", "○")) for text in texts):
        return ""
    withdrawn = f" {withdrawn_text(joint)}" if any("†" in text for text in texts) else ""
    return (
        f"{MARKS}{_joint_mark(joint)}{withdrawn} p is two-sided and not adjusted for the other "
        "comparisons; its test is in tests.csv."
    )


def _joint_mark(joint: JointSystem | None) -> str:
    """Say what ● means beside a difference of a joint system from a member."""
    if joint is None:
        return ""
    return f" Of {joint.name}, ● stands where it was shown to exceed each of its members."


def counts_text(comparison: Comparison, keys: Sequence[MetricKey]) -> str:
    """Return the number of images (or patients) behind figures, as a sentence; may be empty."""
    figures = comparison.figures
    all_figures = [figures.get(name, *figure_of(key)) for key in keys for name in figures.systems]
    counted_figure = next((figure for figure in all_figures if figure.n_images), None)
    if counted_figure is None:
        return ""
    missing = beside_count(comparison.notes) if figures.unit == "image" else ""
    units = f"{counted_figure.n_images:,} {figures.plural_unit}"
    text = f"{units}, {counted_figure.n_positive:,} positive"
    return f"{text}; {missing}." if missing else f"{text}."


def shown_contrasts(comparison: Comparison) -> list[tuple[str, str]]:
    """Return the pairs of systems whose differences the page shows: one system with each other.

    Of three or more systems it is the one with the highest primary figure, which the answer names.
    Of two, or if a protocol was given, it is the first system, the reference.
    """
    names = comparison.names
    first = names[0]
    protocol = comparison.protocol
    if len(names) > 2 and not protocol.declared and not protocol.partner:
        scores = {name: comparison.answer_figures.get(name, *protocol.keys[0]) for name in names}
        known = [name for name in names if scores[name].known]
        first = max(known, key=lambda name: scores[name].estimate, default=first)
    return [(first, name) for name in names if name != first]
