"""Tables of a report: DataFrames of texts, made of the tables of a result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd

from cxr_compare.evaluation.groups.images import DIFFERENCE, UNCERTAIN
from cxr_compare.evaluation.groups.lesions import ALL_LESIONS, ERRORS
from cxr_compare.evaluation.image_blind import image_blind_name
from cxr_compare.evaluation.metrics import METRICS, metric_title, metrics_of
from cxr_compare.evaluation.policies import policy_text
from cxr_compare.evaluation.shortcuts import BEYOND, SHORTCUT
from cxr_compare.evaluation.statistics.figure_text import (
    DASH,
    number,
    p_equation,
    p_value_text,
    score_text,
)
from cxr_compare.evaluation.statistics.intervals import LEVEL, Interval, interval_text
from cxr_compare.evaluation.verdict.claims import ROUNDING

if TYPE_CHECKING:
    from cxr_compare.evaluation.report.answer import Answer

MOST_COLUMNS = 8
"""Columns of the main table that stand on the page before a fold."""
MOST_INTERVALS = 4
"""Systems of whose figures in groups the page shows the intervals."""
LESIONS_MISSED = "Lesions missed (IoU below 0.2)"
"""Column of the errors of systems with boxes."""
_BOX_ERRORS = {
    "found_iou_50": ("Lesions found", "0.5 or more"),
    "poorly_boxed_iou_50": ("Lesions poorly boxed", "0.1 to 0.5"),
    "missed_iou_50": ("Lesions missed", "below 0.1"),
    "poor_box_iou_50": ("Poor boxes", "0.1 to 0.5"),
    "duplicate_iou_50": ("Duplicate boxes", "0.5 or more"),
    "background_iou_50": ("Background boxes", "below 0.1"),
}
"""Kinds of errors of boxes: their names for readers, and the IoU of a box and a lesion."""
_TERMINAL = 100
"""Characters of a line in a terminal."""
MOST_SHOWN = 12
"""Systems, and differences, up to which the page shows all: `shown_systems`, `shown_claims`."""
_COSTS = (
    ("Parameters (million)", "parameters", 1e6),
    ("FLOPs per image (billion)", "flops", 1e9),
    ("Time per image (ms)", "latency_ms", 1.0),
)
_BEYOND = "Difference of the AUROC"
_COUNTS = ("tp", "fn", "fp", "tn")
_OF_RUN = ("parameters", "n_train", "n_boxes", "n_labels", "epochs", "seconds_training")
"""Facts of a run that stand beside its configuration."""
_MAIN_SETTINGS = ("network", "size", "model.weights", "training.optimiser", "training.epochs")
"""Settings that are shown even where they are equal."""
_NO_CONDITIONS = ("training.seed", "model.compile", "kind")
_TOPICS = {
    "age_band": "age",
    SHORTCUT: "from metadata or borders alone",
    BEYOND: "minus that prediction",
    "prevalence": "at a share of positives of",
}


def value_text(figure: Interval) -> str:
    """Return a value with its interval as text, such as ``0.500 (0.400 to 0.600)``."""
    ends = interval_text(figure)
    return number(figure.estimate) + (f" ({ends})" if ends else "")


def texts(rows: pd.DataFrame, index: str | list[str], columns: str) -> pd.DataFrame:
    """Return the figures of rows as texts, in the order in which they stand in them."""
    cells = [value_text(Interval.from_row(row)) for row in rows.to_dict("records")]
    wide = rows.assign(text=cells).pivot_table("text", index, columns, aggfunc="first", sort=False)
    return wide.fillna(DASH)


def ordered(answer: Answer, figures: pd.DataFrame) -> list[str]:
    """Return the names of the systems in their order everywhere: the highest primary figure first.

    Systems without this figure come last.
    """
    metric, policy = answer.primary
    of = (figures["metric"] == metric) & (figures["policy"] == policy) & (figures["second"] == "")
    highest = figures[of].set_index("first")["estimate"].reindex([*answer.systems])
    return list(highest.sort_values(ascending=False, kind="stable").index)


def main_table(answer: Answer, figures: pd.DataFrame) -> pd.DataFrame:
    """Return the usual figures and the threshold: a row for each system, in their order.

    Of three systems or more the range of ranks stands first.
    The joint system has no figures of places, as it has the boxes of one of its members.
    """
    table = _usual(answer, figures, ordered(answer, figures))
    if answer.ranks:
        ranges = {name: _range(*ranks) for name, ranks in answer.ranks.items()}
        table.insert(0, "Rank", [ranges.get(name, DASH) for name in table.index])
    chosen = {name: of.get(answer.policy) for name, of in answer.thresholds.items()}
    if any(value is not None for value in chosen.values()):
        values = [chosen[name] for name in table.index]
        table["Score threshold"] = [DASH if v is None else score_text(v) for v in values]
    return table


def image_blind_table(answer: Answer, figures: pd.DataFrame) -> pd.DataFrame:
    """Return the figures of places of the image-blind baselines: a row for each."""
    names = [image_blind_name(name) for name in ordered(answer, figures) if name != answer.joint]
    known = set(figures["first"])
    return _usual(answer, figures, [name for name in names if name in known])


def cost_table(answer: Answer, order: Sequence[str]) -> pd.DataFrame:
    """Return parameters, FLOPs and times of the systems of which they are known."""
    rows: dict[str, dict[str, str]] = {}
    for name in order:
        cost = answer.costs[name]
        known = {title: cost[key] / unit for title, key, unit in _COSTS if cost.get(key)}
        rows[name] = {title: f"{value:,.3g}" for title, value in known.items()}
        rows[name]["Timed on"] = cost.get("latency_device") or DASH
    columns = [*(title for title, _, _ in _COSTS), "Timed on"]
    table = pd.DataFrame.from_dict(rows, orient="index", columns=columns).fillna(DASH)
    shown = table != DASH
    return table.loc[shown.any(axis="columns"), shown.any(axis="index")].rename_axis("System")


def _usual(answer: Answer, figures: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    """Return the usual figures of systems or baselines as texts, the primary ones first.

    Those of boxes come next if all systems are detectors. COCO's AP is there, too, where AP50 is a
    primary figure.
    """
    metric, at = answer.primary
    first = answer.primary_metrics
    first += [name for name in metrics_of("main") if METRICS[name].beside in first]
    first += [name for name in answer.box_figures if name not in first]
    usual = [name for name in metrics_of("main") if name not in first and not METRICS[name].beside]
    if answer.box_figures:  # with them the last of the usual figures is in the fold: not the F1
        usual.sort(key=lambda name: not METRICS[name].leads_main)
    wanted = [*first, *usual]
    alone = figures[(figures["second"] == "") & figures["estimate"].notna()]
    shown = (alone["metric"] == metric) & (alone["policy"] == at)
    shown |= (alone["metric"] != metric) & alone["policy"].isin(["", answer.policy])
    of_places = alone["metric"].map(lambda name: METRICS[name].boxed)
    shown &= ~((alone["first"] == answer.joint) & of_places)
    shown &= alone["metric"].isin(wanted) & alone["first"].isin(names)
    table = texts(alone[shown], "first", "metric").reindex(columns=wanted)
    table = table.reindex(names).dropna(axis="columns", how="all").fillna(DASH)
    return table.rename(columns=metric_title).rename_axis("System").rename_axis(columns=None)


def _range(low: int, high: int) -> str:
    return f"{low}" if low == high else f"{low} to {high}"


def plain_rows(table: pd.DataFrame) -> str:
    """Return the values of the main table for a terminal: a line a system, as many as fit."""
    columns = [["", "System", *table.index]]
    for title in table:
        text = str(title).removesuffix(" (recall)")
        spaces = [at for at, sign in enumerate(text) if sign == " "]
        middle = min(spaces, key=lambda at: abs(2 * at - len(text)), default=0)
        column = [text[:middle], text[middle:].strip(), *table[title].str.partition(" (")[0]]
        used = sum(max(map(len, each)) + 2 for each in columns)
        if len(columns) > 1 and used + max(map(len, column)) > _TERMINAL:
            break
        columns.append(column)
    wide = [max(map(len, column)) for column in columns]
    lines = [
        "  ".join(cell.ljust(size) for cell, size in zip(line, wide, strict=True)).rstrip()
        for line in zip(*columns, strict=True)
    ]
    return "\n".join(line for line in lines if line)


def shown_systems(answer: Answer, figures: pd.DataFrame) -> list[str]:
    """Return the systems that the page shows beside its main figures and their differences.

    Of many they are the reference, the joint system, and those of the highest primary figure.
    """
    order = ordered(answer, figures)
    always = [answer.systems[0], *filter(None, [answer.joint])]
    chosen = list(dict.fromkeys([*always, *order]))[:MOST_SHOWN]
    return [name for name in order if name in chosen]


def shown_claims(answer: Answer, figures: pd.DataFrame) -> list[Mapping[str, Any]]:
    """Return the tested differences, each of the higher system minus the lower one.

    Higher is the one that stands first by the primary figure. The joint system always stands
    before its members, and a system before its baseline. Of many differences, those of the answer
    from the highest system are returned. Those of the answer are left out where no system has the
    primary figure.
    """
    metric, policy = answer.primary
    of = (figures["metric"] == metric) & (figures["policy"] == policy) & (figures["second"] == "")
    order = [name for name in ordered(answer, figures) if name != answer.joint]
    claims = [_falling(claim, order) for claim in answer.claims]
    if figures.loc[of & figures["first"].isin(order), "estimate"].isna().all():
        return [claim for claim in claims if claim["family"] not in ("answer", "joint")]
    if sum(claim["family"] == "answer" for claim in claims) <= MOST_SHOWN:
        return claims
    top = order[0]
    return [
        claim
        for claim in claims
        if claim["family"] == "joint" or (claim["family"] == "answer" and claim["first"] == top)
    ]


def _falling(claim: Mapping[str, Any], order: Sequence[str]) -> Mapping[str, Any]:
    """Return a difference of two systems with the first one of an order first."""
    first, second = claim["first"], claim["second"]
    if not {first, second} <= {*order} or order.index(first) < order.index(second):
        return claim
    turned = Interval.from_row(claim).reversed().to_dict()
    return {**claim, "first": second, "second": first, **turned}


def outcome(claim: Mapping[str, Any]) -> Literal["shown", "open", "untested"]:
    """Return what a difference shows after correction.

    One without a p-value is not tested, unless both figures are equal.
    """
    if claim["higher"]:
        return "shown"
    estimate = claim["estimate"]
    equal = estimate is not None and abs(estimate) < ROUNDING
    return "open" if equal or claim["p_value"] is not None else "untested"


def claim_table(
    claims: Sequence[Mapping[str, Any]], every: Sequence[Mapping[str, Any]]
) -> pd.DataFrame:
    """Return differences that the answer tests, with what was shown after correction.

    `every` has all claims of the answer.
    """
    joint = [claim["higher"] == claim["first"] for claim in every if claim["family"] == "joint"]
    rows = []
    for claim in claims:
        first, second, metric, policy = (
            claim[name] for name in ("first", "second", "metric", "policy")
        )
        shown = claim["higher"] or "not shown"
        if claim["family"] == "joint" and claim["higher"] == first and not all(joint):
            shown = "higher than this one, not than each member"
        elif outcome(claim) == "untested":
            shown = "not tested"
        rows.append(
            {
                "Figure": metric_title(metric) + (f", {policy_text(policy)}" if policy else ""),
                "Difference": f"{first} − {second}",
                "Value (95 % interval)": value_text(Interval.from_row(claim)),
                "p": _p_text(claim["p_value"]),
                "p, corrected": _p_text(claim["p_holm"]),
                "Shown to be higher": shown,
            }
        )
    table = pd.DataFrame(rows)
    if rows and (table["p"] == table["p, corrected"]).all():
        table = table.drop(columns="p, corrected")
    return table.set_index("Figure") if rows else table


def _p_text(p_value: float | None) -> str:
    return p_value_text(p_value).replace(" ", "\u00a0")


def _outcomes(decisions: pd.DataFrame, policy: str) -> pd.DataFrame:
    """Return the rows with a known label and a decision, with both as True or False."""
    column = f"decision_{policy}"
    if column not in decisions:
        return decisions.iloc[:0].assign(positive=False, called=False)
    rows = decisions.dropna(subset=["label", column])
    return rows.assign(positive=rows["label"] >= 1, called=rows[column].astype(bool))


def confusion(
    figures: pd.DataFrame, systems: Sequence[str], policy: str
) -> dict[str, dict[str, int]]:
    """Return the numbers of true and false positives and negatives of each system."""
    of = figures["metric"].isin(_COUNTS) & (figures["policy"] == policy)
    rows = figures[of & (figures["second"] == "")].dropna(subset="estimate")
    counts = rows.pivot(index="first", columns="metric", values="estimate").astype(int)
    by_system = counts.to_dict("index")
    return {
        name: {cell: by_system[name][cell] for cell in _COUNTS}
        for name in systems
        if name in by_system
    }


def error_table(
    matrices: Mapping[str, Mapping[str, int]],
    decisions: pd.DataFrame,
    lesions: pd.DataFrame,
    systems: Sequence[str],
    policy: str,
    joint: str = "",
) -> pd.DataFrame:
    """Return the errors of each system, and the lesions it misses; the joint system has no boxes.

    `matrices` are those of `confusion`.
    """
    if not matrices:
        return pd.DataFrame()
    rows = _outcomes(decisions, policy)
    kinds = {"Positives missed": "fn", "False alarms": "fp"}
    counts = pd.DataFrame(
        {
            title: {name: str(of[cell]) for name, of in matrices.items()}
            for title, cell in kinds.items()
        }
    )
    with_boxes = rows[rows["localised"].notna() & (rows["system"] != joint)]
    if len(with_boxes):
        wrong = with_boxes["called"] & with_boxes["positive"]
        wrong &= ~with_boxes["localised"].astype(bool)
        number_of = wrong.groupby(with_boxes["system"]).sum().astype(str)
        counts["Called, points elsewhere"] = number_of
    found = lesions[lesions["topic"] == ALL_LESIONS].set_index("system")
    if len(found):
        counts[LESIONS_MISSED] = (found["of"] - found["count"]).map("{:,.0f}".format)
    return counts.reindex([*systems]).fillna(DASH).rename_axis("System")


def box_error_table(lesions: pd.DataFrame, systems: Sequence[str]) -> pd.DataFrame:
    """Return how many lesions and boxes of each kind a system has: a row a kind."""
    rows = lesions[(lesions["topic"] == ERRORS) & lesions["system"].isin(systems)]
    counts = rows.pivot(index="metric", columns="system", values="count")
    counts = counts.reindex(index=[*_BOX_ERRORS], columns=[n for n in systems if n in counts])
    if counts.empty or counts.columns.empty:
        return pd.DataFrame()
    table = counts.map("{:,.0f}".format).set_axis([name for name, _ in _BOX_ERRORS.values()])
    table.insert(0, "IoU", [iou for _, iou in _BOX_ERRORS.values()])
    return table.rename_axis("Kind").rename_axis(columns=None)


def correction_table(decisions: pd.DataFrame, systems: Sequence[str], policy: str) -> pd.DataFrame:
    """Return how many errors of each system (row) each other one (column) decides rightly."""
    rows = _outcomes(decisions, policy)
    if rows.empty or len(systems) < 2:
        return pd.DataFrame()
    rows = rows.assign(right=rows["positive"] == rows["called"])
    right = rows.pivot(index="image_id", columns="system", values="right")
    right = right[[name for name in systems if name in right]]
    errors = right.eq(False).astype(int)
    table = (errors.T @ right.eq(True).astype(int)).astype(str).rename_axis(columns=None)
    for name in table:
        table.loc[name, name] = ""
    table.insert(0, "All errors", errors.sum().astype(str))
    return table.rename_axis("Errors of")


def group_table(rows: pd.DataFrame, systems: Sequence[str]) -> pd.DataFrame:
    """Return one figure in groups of images or lesions: a row a group, a column a system."""
    rows = rows[rows["system"].isin(systems)]
    if rows.empty:
        return pd.DataFrame()
    table = texts(rows, ["topic", "group"], "system").reindex(columns=[*systems], fill_value=DASH)
    if len(systems) > MOST_INTERVALS:
        table = table.map(lambda text: text.partition(" ")[0])
    number_of = rows.drop_duplicates(["topic", "group"]).set_index(["topic", "group"])["of"]
    table.insert(0, "Number", number_of.map(lambda of: DASH if pd.isna(of) else f"{of:,.0f}"))
    names = [": ".join(filter(None, [_topic(topic), group])) for topic, group in table.index]
    return table.set_axis(names).rename_axis("Group")


def _topic(topic: str) -> str:
    return _TOPICS.get(topic, topic.replace("_", " "))


def difference_table(groups: pd.DataFrame, systems: Sequence[str]) -> pd.DataFrame:
    """Return differences of the AUROC between groups: a row a group, a column a system."""
    aurocs = groups[(groups["metric"] == "auroc") & groups["system"].isin(systems)]
    cells: dict[str, dict[str, str]] = {}
    for row in aurocs.dropna(subset="p_holm").to_dict("records"):
        gap = Interval(*(row[name] for name in DIFFERENCE[:3]))
        shown = ", shown" if gap.excludes_zero and row["p_holm"] < 1 - LEVEL else ""
        name = f"{_topic(row['topic'])}: {row['group']} − {row['against']}"
        text = f"{value_text(gap)}; {p_equation(row['p_holm'])}{shown}"
        cells.setdefault(name, {})[row["system"]] = text
    table = pd.DataFrame.from_dict(cells, orient="index", columns=[*systems])
    return table.fillna(DASH).rename_axis("Difference")


def group_tables(
    groups: pd.DataFrame, lesions: pd.DataFrame, systems: Sequence[str]
) -> dict[str, pd.DataFrame]:
    """Return the tables of groups by title, without those that are empty."""
    topics = groups["topic"]
    of_images = groups[~topics.isin([SHORTCUT, BEYOND, UNCERTAIN, "prevalence"])]
    tables = {
        metric_title(name): group_table(of_images[of_images["metric"] == name], systems)
        for name in metrics_of("group")
    }
    found = lesions[lesions["topic"] != ERRORS]
    tables[metric_title("lesion_recall")] = group_table(found, systems)
    for metric in ("ppv", "npv"):
        tables[metric_title(metric)] = group_table(groups[groups["metric"] == metric], systems)
    return {title: table for title, table in tables.items() if len(table)}


def uncertain_table(groups: pd.DataFrame, systems: Sequence[str]) -> pd.DataFrame:
    """Return figures with uncertain labels read in both ways: a row a system and reading."""
    rows = groups[(groups["topic"] == UNCERTAIN) & groups["system"].isin(systems)]
    if rows.empty:
        return pd.DataFrame()
    rows = rows.assign(name=rows["system"] + ": " + rows["group"])
    table = texts(rows, "name", "metric").reindex(
        columns=[name for name in METRICS if METRICS[name].group is not None]
    )
    table = table.dropna(axis="columns", how="all").rename(columns=metric_title)
    return table.rename_axis("Uncertain labels").rename_axis(columns=None)


def shortcut_table(groups: pd.DataFrame, systems: Sequence[str]) -> pd.DataFrame:
    """Return the AUROC of predictions without the lungs, and of systems minus the strongest."""
    of_systems = (groups["topic"] == BEYOND) & groups["system"].isin(systems)
    rows = groups[(groups["topic"] == SHORTCUT) | of_systems]
    cells: dict[str, dict[str, str]] = {}
    for row in rows.to_dict("records"):
        value = value_text(Interval.from_row(row))
        if row["topic"] == SHORTCUT:
            cells[row["group"]] = {"AUROC": value, _BEYOND: DASH}
        else:
            cells[f"{row['system']} − {row['group']}"] = {"AUROC": DASH, _BEYOND: value}
    table = pd.DataFrame.from_dict(cells, orient="index", columns=["AUROC", _BEYOND])
    return table.loc[:, (table != DASH).any()].rename_axis("Predicted from")


def training_settings(records: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """Return the main settings of trainings, then those that differ: a column a trained system.

    `records` are those of the systems. The settings are those of the configuration, by key, with
    the input size and counts of the run.
    """
    columns = {
        name: pd.Series(_settings(record["recipe"]), dtype=object)
        for name, record in records.items()
        if record.get("recipe")
    }
    table = pd.DataFrame(columns, dtype=object).fillna("").map(str)
    main = [name for name in _MAIN_SETTINGS if name in table.index]
    others = table.drop(index=main)
    shown = pd.concat([table.loc[main], others[others.nunique(axis=1) > 1]])
    return shown.rename_axis("Setting")


def _settings(recipe: Mapping[str, Any]) -> dict[str, Any]:
    settings = {"network": recipe.get("network"), **(recipe.get("preprocess") or {})}
    for section, values in (recipe.get("config") or {}).items():
        if isinstance(values, Mapping):
            settings |= {f"{section}.{key}": value for key, value in values.items()}
    settings |= {key: (recipe.get("run") or {}).get(key) for key in _OF_RUN}
    return {key: value for key, value in settings.items() if key not in _NO_CONDITIONS}
