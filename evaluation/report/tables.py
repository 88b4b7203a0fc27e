"""Tables of a report: rows of values (`cells`), made of the tables of a result."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd

from cxr_compare.evaluation.groups.images import DIFFERENCE, UNCERTAIN
from cxr_compare.evaluation.groups.lesions import ALL_LESIONS, ERRORS
from cxr_compare.evaluation.image_blind import image_blind_name
from cxr_compare.evaluation.metrics import FROC, METRICS, metric_title, metrics_of
from cxr_compare.evaluation.policies import policy_text
from cxr_compare.evaluation.report.cells import PValue, Tested, wide
from cxr_compare.evaluation.shortcuts import BEYOND, SHORTCUT
from cxr_compare.evaluation.statistics.intervals import LEVEL, Interval
from cxr_compare.evaluation.verdict.claims import ROUNDING

if TYPE_CHECKING:
    from cxr_compare.evaluation.report.answer import Answer

MOST_INTERVALS = 4
"""Systems of whose figures in groups the page shows the intervals."""
MOST_SHOWN = 12
"""Systems, and differences, up to which the page shows all: `shown_systems`, `shown_claims`."""
_IN_PAPER = 6
"""Figures of a table for a paper, the most asked first: as many of these as stand there."""
_BOX_ERRORS = {
    "found_iou_50": ("Lesions found", "0.5 or more"),
    "poorly_boxed_iou_50": ("Lesions poorly boxed", "0.1 to 0.5"),
    "missed_iou_50": ("Lesions missed", "below 0.1"),
    "poor_box_iou_50": ("Poor boxes", "0.1 to 0.5"),
    "duplicate_iou_50": ("Duplicate boxes", "0.5 or more"),
    "background_iou_50": ("Background boxes", "below 0.1"),
}
"""Kinds of errors of boxes: their names for readers, and the IoU of a box and a lesion."""
_COSTS = (
    ("Parameters (million)", "parameters", 1e6),
    ("FLOPs per image (billion)", "flops", 1e9),
    ("Time per image (ms)", "latency_ms", 1.0),
)
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


def ordered(answer: Answer, figures: pd.DataFrame) -> list[str]:
    """Return the names of the systems in their order everywhere: the highest primary figure first.

    Systems without this figure come last.
    """
    highest = _primary(answer, figures).reindex([*answer.systems])
    return list(highest.sort_values(ascending=False, kind="stable").index)


def _primary(answer: Answer, figures: pd.DataFrame) -> pd.Series:
    """Return the primary figure of systems and baselines by name."""
    metric, policy = answer.primary
    of = (figures["metric"] == metric) & (figures["policy"] == policy) & (figures["second"] == "")
    return figures[of].set_index("first")["estimate"]


def shown_systems(answer: Answer, figures: pd.DataFrame) -> list[str]:
    """Return the systems that the page shows beside its main figures and their differences.

    Of many they are the reference, the joint system, and those of the highest primary figure.
    """
    order = ordered(answer, figures)
    always = [answer.systems[0], *filter(None, [answer.joint])]
    chosen = list(dict.fromkeys([*always, *order]))[:MOST_SHOWN]
    return [name for name in order if name in chosen]


def known_figures(answer: Answer, figures: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """Return the known figures of systems or baselines, without and at the shown threshold.

    The joint system has no figures of places, as it has the boxes of one of its members.
    """
    metric, at = answer.primary
    alone = figures[(figures["second"] == "") & figures["first"].isin(names)]
    alone = alone[alone["estimate"].notna()]
    of = alone["policy"].isin(["", answer.policy]).where(alone["metric"] != metric, False)
    of |= (alone["metric"] == metric) & (alone["policy"] == at)
    boxed = alone["metric"].map(lambda name: METRICS[name].boxed).astype(bool)
    return alone[of & ~((alone["first"] == answer.joint) & boxed)]


def figure_table(
    answer: Answer, figures: pd.DataFrame, names: list[str], metrics: list[str]
) -> pd.DataFrame:
    """Return figures of systems or baselines that some of them have: a row for each."""
    rows = known_figures(answer, figures, names)
    table = wide(rows[rows["metric"].isin(metrics)], "first", "metric")
    table = table.reindex(index=names, columns=metrics).dropna(axis="columns", how="all")
    return table.rename(columns=metric_title).rename_axis("System").rename_axis(columns=None)


def metrics_in(answer: Answer, table: Literal["main", "paper"]) -> list[str]:
    """Return the figures of a table, the primary ones first.

    COCO's AP stands beside AP50 where this is a primary figure. Those of boxes come next if all
    systems are detectors, and then the figures that the records say to lead.
    """
    first = answer.primary_metrics
    beside = [name for name, metric in METRICS.items() if metric.beside in first]
    usual = [name for name in metrics_of(table) if not METRICS[name].beside]
    if answer.box_figures:
        usual.sort(key=lambda name: not getattr(METRICS[name], f"leads_{table}"))
    return list(dict.fromkeys([*first, *beside, *answer.box_figures, *usual]))


def paper_metrics(answer: Answer, figures: pd.DataFrame) -> list[str]:
    """Return the figures of the tables for a paper that any system has, the most asked first."""
    known = set(known_figures(answer, figures, answer.systems)["metric"])
    return [name for name in metrics_in(answer, "paper") if name in known][:_IN_PAPER]


def main_table(answer: Answer, figures: pd.DataFrame) -> pd.DataFrame:
    """Return the usual figures and the threshold: a row for each system, in their order.

    Of three systems or more the range of ranks stands first.
    """
    table = figure_table(answer, figures, ordered(answer, figures), metrics_in(answer, "main"))
    if answer.ranks:
        ranges = [answer.ranks.get(name) for name in table.index]
        shown = [each and " to ".join(dict.fromkeys(map(str, each))) for each in ranges]
        table.insert(0, "Rank", shown)
    chosen = {name: of.get(answer.policy) for name, of in answer.thresholds.items()}
    if any(value is not None for value in chosen.values()):
        table["Score threshold"] = [chosen[name] for name in table.index]
    return table


def image_blind_table(answer: Answer, figures: pd.DataFrame) -> pd.DataFrame:
    """Return the figures of places of the image-blind baselines: a row for each."""
    names = {image_blind_name(n): n for n in ordered(answer, figures) if n != answer.joint}
    known = [name for name in names if name in set(figures["first"])]
    return figure_table(answer, figures, known, metrics_in(answer, "main")).rename(index=names)


def cost_table(answer: Answer, order: Sequence[str]) -> pd.DataFrame:
    """Return parameters, FLOPs and times of the systems of which they are known."""
    rows: dict[str, dict[str, Any]] = {}
    for name in order:
        cost = answer.costs[name]
        known = {title: cost[key] / unit for title, key, unit in _COSTS if cost.get(key)}
        rows[name] = {title: f"{value:,.3g}" for title, value in known.items()}
        rows[name]["Timed on"] = cost.get("latency_device") or None
    columns = [*(title for title, _, _ in _COSTS), "Timed on"]
    table = pd.DataFrame.from_dict(rows, orient="index", columns=columns)
    return table.dropna(how="all").dropna(axis="columns", how="all").rename_axis("System")


def shown_claims(answer: Answer, figures: pd.DataFrame) -> list[Mapping[str, Any]]:
    """Return the tested differences, each of the higher system minus the lower one, largest first.

    Higher is the one that stands first by the primary figure. The joint system always stands
    before its members, and a system before its baseline. Of many differences, those of the answer
    from the highest system are returned. Those of the answer are left out where no system has the
    primary figure.
    """
    order = [name for name in ordered(answer, figures) if name != answer.joint]
    claims = [_falling(claim, order) for claim in answer.claims]
    kinds = list(dict.fromkeys(map(_kind, claims)))
    claims.sort(key=lambda claim: (kinds.index(_kind(claim)), -(claim["estimate"] or 0)))
    if _primary(answer, figures).reindex(order).isna().all():
        return [claim for claim in claims if claim["family"] not in ("answer", "joint")]
    if sum(claim["family"] == "answer" for claim in claims) <= MOST_SHOWN:
        return claims
    return [
        claim
        for claim in claims
        if claim["family"] == "joint"
        or (claim["family"] == "answer" and claim["first"] == order[0])
    ]


def _kind(claim: Mapping[str, Any]) -> tuple[Any, ...]:
    return claim["family"], claim["metric"], claim["policy"]


def _falling(claim: Mapping[str, Any], order: Sequence[str]) -> Mapping[str, Any]:
    """Return a difference of two systems with the first one of an order first."""
    first, second = claim["first"], claim["second"]
    if not {first, second} <= {*order} or order.index(first) < order.index(second):
        return claim
    turned = Interval.from_row(claim).reversed().to_dict()
    return {**claim, "first": second, "second": first, **turned}


def outcome(claim: Mapping[str, Any], every: Sequence[Mapping[str, Any]]) -> Outcome:
    """Return what a difference shows after correction; `every` has all claims of the answer.

    A joint system is shown to be higher only if it is so against each of its members. A difference
    without a p-value is not tested, unless both figures are equal.
    """
    if claim["higher"]:
        joint = [each["higher"] == each["first"] for each in every if each["family"] == "joint"]
        is_part = claim["family"] == "joint" and claim["higher"] == claim["first"]
        return "shown" if all(joint) or not is_part else "partly"
    estimate = claim["estimate"]
    equal = estimate is not None and abs(estimate) < ROUNDING
    return "open" if equal or claim["p_value"] is not None else "untested"


Outcome = Literal["shown", "partly", "open", "untested"]


def claim_table(
    claims: Sequence[Mapping[str, Any]], every: Sequence[Mapping[str, Any]]
) -> pd.DataFrame:
    """Return differences that the answer tests, with what was shown after correction."""
    rows = []
    for claim in claims:
        metric, policy = claim["metric"], claim["policy"]
        shown = {
            "shown": claim["higher"],
            "partly": f"than {claim['second']} alone",
            "open": "not shown",
            "untested": "not tested",
        }
        rows.append(
            {
                "Figure": metric_title(metric) + (f", {policy_text(policy)}" if policy else ""),
                "Difference": difference_name(claim),
                "Value (95 % interval)": Interval.from_row(claim),
                "p": PValue(claim["p_value"]),
                "p, corrected": PValue(claim["p_holm"]),
                "Shown to be higher": shown[outcome(claim, every)],
            }
        )
    table = pd.DataFrame(rows)
    if rows and (table["p"] == table["p, corrected"]).all():
        table = table.drop(columns="p, corrected")
    return table.set_index("Figure") if rows else table


def difference_name(claim: Mapping[str, Any]) -> str:
    """Return the name of a difference for readers."""
    first, second = claim["first"], claim["second"]
    return f"{first} − {'always the same place' if second == image_blind_name(first) else second}"


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


def outcome_table(
    matrices: Mapping[str, Mapping[str, int]], decisions: pd.DataFrame, policy: str, units: str
) -> pd.DataFrame:
    """Return what came of the positive images by system, and the false alarms.

    The first columns sum to the number of positive images, by which the index is named. `matrices`
    are those of `confusion`.
    """
    rows: dict[str, dict[str, int]] = {}
    for name, of in matrices.items():
        own = decisions[(decisions["system"] == name) & (decisions["label"] >= 1)]
        called = own[own[f"decision_{policy}"].fillna(False).astype(bool)]["localised"]
        places = called.dropna().astype(bool)
        counts = {
            "Called, on the lesion": int(places.sum()),
            "Called, beside it": int((~places).sum()),
            "Called, place unknown": of["tp"] - len(places),
        }
        counts = counts if len(places) else {"Called": of["tp"]}
        rows[name] = {**counts, "Not called": of["fn"], "False alarms": of["fp"]}
    table = pd.DataFrame.from_dict(rows, orient="index", dtype=object)
    if table.empty:
        return table
    of = next(iter(matrices.values()))
    wanted = [*_CALLED, "Not called", "False alarms"]
    table = table[[name for name in wanted if name in table and (table[name] != 0).any()]]
    negative = f"False alarms of {of['fp'] + of['tn']:,} negative"
    table = table.rename(columns={"False alarms": negative})
    return table.rename_axis(f"Of {of['tp'] + of['fn']:,} positive {units}")


_CALLED = ("Called", "Called, on the lesion", "Called, beside it", "Called, place unknown")


def lesion_table(answer: Answer, lesions: pd.DataFrame, systems: Sequence[str]) -> pd.DataFrame:
    """Return the lesions that each system finds, as a primary figure of boxes counts them.

    AP counts false boxes, too: all that match no lesion. Empty for another figure.
    """
    metric = answer.primary[0]
    rows = lesions[lesions["topic"].isin([ERRORS, ALL_LESIONS]) & lesions["system"].isin(systems)]
    if METRICS[metric].needs != "boxes" or rows.empty:
        return pd.DataFrame()
    counts = rows.pivot(index="system", columns="metric", values="count").reindex([*systems])
    counts = counts.dropna(how="all").astype(int)
    n_lesions = int(rows.loc[rows["topic"] == ALL_LESIONS, "of"].iloc[0])
    iou = "0.2" if metric in FROC else "0.5"
    found = counts["lesion_recall" if metric in FROC else "found_iou_50"]
    table = pd.DataFrame({"Found": found, "Not found": n_lesions - found}, dtype=object)
    if metric not in FROC:
        false = ["poor_box_iou_50", "duplicate_iou_50", "background_iou_50"]
        table["False boxes"] = counts[false].sum(axis=1).astype(object)
    return table.rename_axis(f"Of {n_lesions:,} lesions (IoU {iou})")


def box_error_table(lesions: pd.DataFrame, systems: Sequence[str]) -> pd.DataFrame:
    """Return how many lesions and boxes of each kind a system has: a row a kind."""
    rows = lesions[lesions["topic"].isin([ERRORS, ALL_LESIONS]) & lesions["system"].isin(systems)]
    counts = rows.pivot(index="metric", columns="system", values="count")
    names = [name for name in systems if name in counts]
    if not {*_BOX_ERRORS} <= {*counts.index} or not names:
        return pd.DataFrame()
    table = counts.loc[[*_BOX_ERRORS], names].astype(int).astype(object)
    table = table.set_axis([name for name, _ in _BOX_ERRORS.values()])
    table.insert(0, "IoU", [iou for _, iou in _BOX_ERRORS.values()])
    all_of = rows[rows["topic"] == ALL_LESIONS].set_index("system")
    missed = (all_of["of"] - all_of["count"]).reindex(names).astype(int)
    table.loc["Lesions missed, as FROC counts them"] = ["below 0.2", *missed]
    return table.rename_axis("Kind").rename_axis(columns=None)


def correction_table(decisions: pd.DataFrame, systems: Sequence[str], policy: str) -> pd.DataFrame:
    """Return how many errors of each system (row) each other one (column) decides rightly."""
    column = f"decision_{policy}"
    if column not in decisions or len(systems) < 2:
        return pd.DataFrame()
    rows = decisions.dropna(subset=["label", column])
    rows = rows.assign(right=(rows["label"] >= 1) == rows[column].astype(bool))
    right = rows.pivot(index="image_id", columns="system", values="right")
    right = right[[name for name in systems if name in right]]
    errors = right.eq(False).astype(int)
    table = (errors.T @ right.eq(True).astype(int)).astype(object).rename_axis(columns=None)
    for name in table:
        table.loc[name, name] = ""
    table.insert(0, "All errors", errors.sum().astype(object))
    return table.rename_axis("Errors of") if len(right) else pd.DataFrame()


def group_table(rows: pd.DataFrame, systems: Sequence[str]) -> pd.DataFrame:
    """Return one figure in groups of images or lesions: a row a group, a column a system."""
    rows = rows[rows["system"].isin(systems)]
    if rows.empty:
        return pd.DataFrame()
    table = wide(rows, ["topic", "group"], "system").reindex(columns=[*systems])
    if len(systems) > MOST_INTERVALS:
        table = table.map(lambda cell: Interval(cell.estimate) if pd.notna(cell) else cell)
    number_of = rows.drop_duplicates(["topic", "group"]).set_index(["topic", "group"])["of"]
    table.insert(0, "Number", number_of.astype("Int64").astype(object))
    names = [": ".join(filter(None, [_topic(topic), group])) for topic, group in table.index]
    return table.set_axis(names).rename_axis("Group")


def _topic(topic: str) -> str:
    return _TOPICS.get(topic, topic.replace("_", " "))


def difference_table(groups: pd.DataFrame, systems: Sequence[str]) -> pd.DataFrame:
    """Return differences of the AUROC between groups: a row a group, a column a system."""
    aurocs = groups[(groups["metric"] == "auroc") & groups["system"].isin(systems)]
    cells: dict[str, dict[str, Tested]] = {}
    for row in aurocs.dropna(subset="p_holm").to_dict("records"):
        gap = Interval(*(row[name] for name in DIFFERENCE[:3]))
        shown = gap.excludes_zero and row["p_holm"] < 1 - LEVEL
        name = f"{_topic(row['topic'])}: {row['group']} − {row['against']}"
        cells.setdefault(name, {})[row["system"]] = Tested(gap, row["p_holm"], shown)
    table = pd.DataFrame.from_dict(cells, orient="index", columns=[*systems])
    return table.rename_axis("Difference")


def group_tables(
    groups: pd.DataFrame, lesions: pd.DataFrame, systems: Sequence[str]
) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield the titles of the tables of groups with the tables, without those that are empty."""
    topics = groups["topic"]
    of_images = groups[~topics.isin([SHORTCUT, BEYOND, UNCERTAIN, "prevalence"])]
    parts = [(name, of_images[of_images["metric"] == name]) for name in metrics_of("group")]
    parts.append(("lesion_recall", lesions[lesions["topic"] != ERRORS]))
    parts += [(name, groups[groups["metric"] == name]) for name in ("ppv", "npv")]
    for metric, rows in parts:
        if len(table := group_table(rows, systems)):
            yield metric_title(metric), table


def uncertain_table(groups: pd.DataFrame, systems: Sequence[str]) -> pd.DataFrame:
    """Return figures with uncertain labels read in both ways: a row a system and reading."""
    rows = groups[(groups["topic"] == UNCERTAIN) & groups["system"].isin(systems)]
    if rows.empty:
        return pd.DataFrame()
    rows = rows.assign(name=rows["system"] + ": " + rows["group"])
    shown = [name for name in METRICS if METRICS[name].group is not None]
    table = wide(rows, "name", "metric").reindex(columns=shown).dropna(axis="columns", how="all")
    return table.rename(columns=metric_title).rename_axis("Uncertain labels")


def shortcut_table(groups: pd.DataFrame, systems: Sequence[str]) -> pd.DataFrame:
    """Return the AUROC of predictions without the lungs, and of systems minus the strongest."""
    of_systems = (groups["topic"] == BEYOND) & groups["system"].isin(systems)
    rows = groups[(groups["topic"] == SHORTCUT) | of_systems]
    if rows.empty:
        return pd.DataFrame()
    is_system = rows["topic"] == BEYOND
    names = (rows["system"] + " − " + rows["group"]).where(is_system, rows["group"])
    titles = is_system.map({False: "AUROC", True: "Difference of the AUROC"})
    table = wide(rows.assign(name=names, title=titles), "name", "title")
    return table.rename_axis("Predicted from")


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
