"""Tables on where each system fails: errors, lesions, groups of images, disagreements."""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping
from typing import Any

import pandas as pd

from cxr_compare.data_prep.contracts.errors import counted
from cxr_compare.evaluation.comparison import Comparison
from cxr_compare.evaluation.groups.shares import FEW_LESIONS, LESION_TOPIC, TOO_FEW
from cxr_compare.evaluation.groups.shortcuts import BEYOND_SHORTCUT, SHORTCUT
from cxr_compare.evaluation.metrics.prose import listing
from cxr_compare.evaluation.metrics.registry import METRICS, metric_title
from cxr_compare.evaluation.report.case_selection import disagreement
from cxr_compare.evaluation.report.table import Table, text_table, value_text
from cxr_compare.evaluation.statistics.figure_text import DASH, number, score_text
from cxr_compare.evaluation.statistics.intervals import Interval
from cxr_compare.evaluation.verdict.sentences import at_threshold

_BOX_ERRORS = {
    "missed": "Lesions missed",
    "poor_box": "Boxes poorly placed",
    "duplicate": "Duplicate boxes",
    "background": "Boxes on background",
}
_OTHER_TOPICS = frozenset(
    {
        "errors",
        "right_wrong",
        "prevalence",
        SHORTCUT,
        BEYOND_SHORTCUT,
    }
)
"""Topics of the table of failures that are not groupings of images."""
MOST_DISAGREEMENTS = 10
"""Largest number of images in the table of disagreements."""
_GROUP_METRICS = ("recall", "specificity")
"""Metrics that are shown by group; without a threshold it is AUROC."""
_GROUP_COLUMNS = {"view": "view", "sex": "sex", "age_years": "age"}
"""Columns by which images are grouped unless a protocol names others, and their titles."""
_COUNTED = {"positive": "Positive images", "negative": "Negative images"}

_Rows = dict[tuple[str, str, str], Mapping[Hashable, Any]]


def error_kinds_table(comparison: Comparison) -> Table | None:
    """Return counts of misses, false alarms, wrong places and errors of boxes of each system.

    None if no system has a threshold and none has boxes.
    """
    policy = comparison.main_policy
    boxes = comparison.groups
    boxes = boxes[boxes["topic"] == "errors"] if len(boxes) else boxes
    kinds = [kind for kind in _BOX_ERRORS if len(boxes) and (boxes["metric"] == kind).any()]
    if not policy and not kinds:
        return None
    misplaced = _misplaced(comparison, policy)
    rows = []
    for name, result in comparison.systems.items():
        row = [name]
        counts = result.confusion.get(policy)
        if counts:
            row.append(_share(counts["fn"], counts["fn"] + counts["tp"]))
            row.append(_share(counts["fp"], counts["fp"] + counts["tn"]))
        else:
            row += [DASH, DASH]
        if misplaced:
            row.append(_share(*misplaced[name]) if name in misplaced else DASH)
        for kind in kinds:
            of_kind = boxes[(boxes["system"] == name) & (boxes["metric"] == kind)]
            row.append(DASH if of_kind.empty else _box_error(of_kind.iloc[0]))
        rows.append(row)
    columns = [
        "System",
        "Missed positive images",
        "False alarms",
        *(["Called positive, wrong place"] if misplaced else []),
        *(_BOX_ERRORS[kind] for kind in kinds),
    ]
    lead = f"Counts of test images{at_threshold(policy)}." if policy else ""
    if kinds:
        lead += (
            " Boxes: with 95 % intervals, after TIDE (Bolya et al. 2020); poorly placed is an IoU "
            "with a lesion from 0.1 to 0.5."
        )
    if any((result.seeds or 1) > 1 for result in comparison.systems.values()):
        lead += (
            " Of several training seeds, counts of images are those of the first, and counts of "
            "boxes are means."
        )
    return text_table("Kinds of error", columns, rows, lead.strip())


def _share(count: int, of: int) -> str:
    return f"{count:,} of {of:,} ({100 * count / of:.0f} %)" if of else f"{count:,}"


def _box_error(row: pd.Series) -> str:
    count, low, high = (
        f"{row['of'] * row[column]:.0f}" for column in ("estimate", "ci_low", "ci_high")
    )
    return count if pd.isna(row["ci_low"]) else f"{count} ({low} to {high})"


def _misplaced(comparison: Comparison, policy: str) -> dict[str, tuple[int, int]]:
    """Return the called positive images whose point is off every lesion, and their number."""
    decisions = comparison.decisions
    column = f"decision_{policy}"
    if column not in decisions or "localised" not in decisions:
        return {}
    called = decisions[(decisions["label"] >= 1) & decisions[column].eq(True).fillna(False)]
    called = called[called["localised"].notna()]
    return {
        str(name): (int((~rows["localised"].astype(bool)).sum()), len(rows))
        for name, rows in called.groupby("system", sort=False)
    }


def lesion_table(comparison: Comparison) -> Table | None:
    """Return the share of lesions that each system finds, by kind such as size; None without."""
    failures = comparison.groups
    if failures.empty:
        return None
    failures = failures[failures["topic"].str.startswith(LESION_TOPIC)]
    size, size_mm = f"{LESION_TOPIC}lesion_size", f"{LESION_TOPIC}lesion_size_mm"
    left_out = {f"{LESION_TOPIC}lesion_count"}
    if size_mm in set(failures["topic"]):
        left_out.add(size)
    failures = failures[~failures["topic"].isin(left_out) & (failures["of"] >= FEW_LESIONS)]
    if failures.empty:
        return None
    joint = comparison.joint
    names = [name for name in comparison.names if joint is None or name != joint.name]
    found = _by_system(failures)
    rows = []
    for topic, group in _groups_in_order(failures):
        cells = [_group_text(found.get((topic, group, name))) for name in names]
        title = _group_title(topic.removeprefix(LESION_TOPIC), group)
        rows.append((title, *cells, _denominator(failures, topic, group)))
    lead = (
        "Share of lesions that a called box overlaps with an intersection over union (IoU) of at "
        f"least 0.2. Groups of fewer than {FEW_LESIONS} lesions are in groups.csv."
    )
    if size not in left_out:
        lead += " Sizes are thirds of the lesions by area."
    return text_table("Lesions found", ("Lesion", *names, "Lesions"), rows, lead)


def no_groups_text(images: pd.DataFrame) -> str:
    """Return why there are no groups of images: what is not known of them, or does not vary."""
    unknown, constant = [], []
    for column, title in _GROUP_COLUMNS.items():
        values = images[column].dropna() if column in images else pd.Series(dtype=object)
        if values.empty:
            unknown.append(title)
        elif values.nunique() == 1:
            constant.append(title)
    parts = []
    if unknown:
        parts.append(f"{listing(unknown)} {'is' if len(unknown) == 1 else 'are'} not known here")
    if constant:
        parts.append(f"{listing(constant)} {'does' if len(constant) == 1 else 'do'} not vary")
    if len(unknown) + len(constant) < len(_GROUP_COLUMNS):
        parts.append("the others give no figure")
    return f"No groups of images: {', and '.join(parts)}."


def group_tables(comparison: Comparison) -> list[Table]:
    """Return sensitivity and specificity, or else AUROC, of each system in groups of images.

    Groups are those of view, sex or age, among others. A dot marks a group that is shown to differ
    from all other images; the differences themselves are in ``groups.csv``.
    """
    failures = comparison.groups
    if failures.empty:
        return []
    is_group = ~failures["topic"].isin(_OTHER_TOPICS)
    is_group &= ~failures["topic"].str.startswith(LESION_TOPIC)
    # Only the complement of a group is left out, because a group itself may be called "not
    # recorded".
    is_group &= ~failures["group"].isin("not " + failures["group"])
    of_groups = failures[is_group]
    metrics = _GROUP_METRICS if comparison.main_policy else ("auroc",)
    return [
        _group_table(comparison, of_groups[of_groups["metric"] == metric], metric)
        for metric in metrics
        if (of_groups["metric"] == metric).any()
    ]


def _group_table(comparison: Comparison, failures: pd.DataFrame, metric: str) -> Table:
    figures = failures[~failures["group"].isin(failures["group"] + " - rest")]
    found = _by_system(failures)
    pairs = _groups_in_order(figures)
    rows = []
    for topic, group in pairs:
        # If there are two groups, their difference is recorded with one of them.
        groups = [pair for pair in pairs if pair[0] == topic]
        searched = groups if len(groups) == 2 else [(topic, group)]
        cells = []
        for name in comparison.names:
            gaps = [found.get((topic, f"{each} - rest", name)) for _, each in searched]
            mark = "● " if any(map(_is_shown, gaps)) else ""
            cells.append(mark + _group_text(found.get((topic, group, name))))
        title = _group_title(topic.removeprefix("x_"), group)
        rows.append((title, *cells, _denominator(figures, topic, group)))
    policy = str(failures["policy"].iloc[0])
    counted = _COUNTED.get(METRICS[metric].share_of or "", "Images")
    return text_table(
        f"{metric_title(metric)} by group{at_threshold(policy)}",
        ("Group", *comparison.names, counted),
        rows,
    )


def _by_system(failures: pd.DataFrame) -> _Rows:
    """Return rows by topic, group and system; to filter the table for every cell is slow."""
    first = failures.drop_duplicates(["topic", "group", "system"])
    return {(row["topic"], row["group"], row["system"]): row for row in first.to_dict("records")}


def _group_text(row: Mapping[Hashable, Any] | None) -> str:
    """Return the figure of a group, or only its counts if these are few."""
    if row is None:
        return DASH
    if row["note"] == TOO_FEW:
        if pd.isna(row["of"]):
            return DASH
        share = "positive of" if row["metric"] == "auroc" else "of"
        return f"{row['count']:.4g} {share} {row['of']:.0f}"
    return value_text(Interval.from_row(row))


def _is_shown(row: Mapping[Hashable, Any] | None) -> bool:
    """Return True if interval and p-value, after Holm's correction, show a difference."""
    if row is None or pd.isna(row["p_holm"]):
        return False
    return Interval.from_row(row).excludes_zero and row["p_holm"] < 0.05


def _group_title(topic: str, group: str) -> str:
    """Return the title of a group, such as ``Age and sex: under 18, F``."""
    text = topic.replace("age_band", "age").removesuffix("_mm")  # the groups name the unit
    text = text.replace("_", " ").replace("*", " and ")
    return f"{text[:1].upper()}{text[1:]}: {group}"


def _groups_in_order(rows: pd.DataFrame) -> list[tuple[str, str]]:
    """Return pairs of topic and group, each once, from the lowest to the highest group."""
    pairs = rows[["topic", "group"]].drop_duplicates()
    topics = list(dict.fromkeys(pairs["topic"]))

    def rank(pair: tuple[str, str]) -> tuple[int, int]:
        topic, group = pair
        is_lowest = group.startswith(("up to", "under"))
        is_highest = group.startswith("over")
        return topics.index(topic), int(is_highest) - int(is_lowest)

    return sorted(pairs.itertuples(index=False, name=None), key=rank)


def _denominator(failures: pd.DataFrame, topic: str, group: str) -> str:
    """Return the number of images or lesions of a group as text; a dash if it is unknown."""
    members = failures[(failures["topic"] == topic) & (failures["group"] == group)]
    counts = members["of"].dropna()
    return f"{int(counts.iloc[0]):,}" if len(counts) else number(None)


def groups_lead(comparison: Comparison) -> str:
    """Return the text above the tables of groups, in whole sentences."""
    failures = comparison.groups
    tests = failures[failures["p_holm"].notna()] if "p_holm" in failures else failures.iloc[:0]
    text = "With 95 % intervals."
    if len(tests):
        which = "the only test" if len(tests) == 1 else f"all {len(tests):,} tests"
        text += (
            " ● is shown to differ from all other images: the interval of the difference excludes "
            f"0 and p, adjusted by Holm's method over {which} of groups, is below 0.05. With fewer "
            "than 30 patients of a class on either side there is no test."
        )
    return f"{text} Differences are in groups.csv."


def corrections_table(comparison: Comparison) -> Table | None:
    """Return how many images that one system decides wrongly each other system decides rightly.

    None for one system, or if fewer than two have decisions by the main rule.
    """
    column = f"decision_{comparison.main_policy}"
    if column not in comparison.decisions:
        return None
    decided = comparison.decisions.dropna(subset=["label", column])
    right = (decided[column].astype(bool) == (decided["label"] >= 1)).astype(object)
    wide = decided.assign(right=right).pivot_table(
        index=["image_id", "label"], columns="system", values="right", aggfunc="first"
    )
    names = [name for name in comparison.names if name in wide]
    if len(names) < 2:
        return None
    rows = []
    for wrong in comparison.names:
        if wrong not in names:
            rows.append((wrong, DASH, *(DASH for _ in comparison.names)))
            continue
        errors = wide[wide[wrong].eq(False)]
        cells = dict.fromkeys(comparison.names, DASH) | {wrong: ""}
        for other in names:
            if other != wrong:
                cells[other] = _corrected_text(errors[errors[other].eq(True)], len(names) < 4)
        rows.append((wrong, f"{len(errors):,}", *cells.values()))
    return text_table(
        "Which system corrects whom",
        ("Wrong", "Errors", *comparison.names),
        rows,
        f"Images that the system of the row decides wrongly{at_threshold(comparison.main_policy)}, "
        "and how many of them the system of the column decides rightly. The location is ignored.",
    )


def _corrected_text(corrected: pd.DataFrame, has_parts: bool) -> str:
    """Return the number of corrected images, and of which kind the errors were."""
    if not has_parts:
        return f"{len(corrected):,}"
    n_missed = int((corrected.index.get_level_values("label") >= 1).sum())
    alarms = counted(len(corrected) - n_missed, "false alarm")
    return f"{len(corrected):,} ({n_missed:,} missed, {alarms})"


def disagreement_table(comparison: Comparison) -> Table | None:
    """Return the images that the systems rank most differently; None if no two have scores."""
    single = [name for name in comparison.names if name not in comparison.made_of_others]
    decisions = comparison.decisions
    gaps = disagreement(decisions, single)
    largest = sorted(gaps, key=lambda image_id: (-gaps[image_id], image_id))[:MOST_DISAGREEMENTS]
    shown = [image_id for image_id in largest if gaps[image_id] > 0]
    if not shown:
        return None
    scores = decisions.pivot_table("score", "image_id", "system", aggfunc="first")
    labels = decisions.drop_duplicates("image_id").set_index("image_id")["label"]
    rows = [
        (
            image_id,
            _TRUTHS.get(labels[image_id], "unknown"),
            *(_score_cell(scores, image_id, name) for name in single),
        )
        for image_id in shown
    ]
    return text_table(
        "Largest disagreements",
        ("Image", "Truth", *single),
        rows,
        "No image is drawn. The systems rank these most differently by score."
        + (_NUMBERED if all(re.fullmatch(r"image-\d+", str(each)) for each in shown) else ""),
    )


_NUMBERED = " Images that were given without ids are numbered from 1 in the order of the labels."
_TRUTHS = {1.0: "positive", 0.0: "negative"}


def _score_cell(scores: pd.DataFrame, image_id: str, name: str) -> str:
    score = scores[name].get(image_id) if name in scores else None
    return DASH if score is None or pd.isna(score) else score_text(score)
