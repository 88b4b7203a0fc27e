"""Tables of a report: rows of values (`cells`), made of the tables of a result."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd

from cxr_compare.data_prep.base.recipe import Recipe
from cxr_compare.evaluation.groups.lesions import ALL_LESIONS, ERRORS
from cxr_compare.evaluation.image_blind import image_blind_name
from cxr_compare.evaluation.metrics import FROC, METRICS, metric_title
from cxr_compare.evaluation.output import IMAGE_SCORES
from cxr_compare.evaluation.policies import policy_text
from cxr_compare.evaluation.report.cells import PValue, wide
from cxr_compare.evaluation.statistics.intervals import Interval

if TYPE_CHECKING:
    from cxr_compare.evaluation.report.answer import ReportAnswer
    from cxr_compare.evaluation.report.result import Result
    from cxr_compare.evaluation.verdict.claims import Claim

MOST_INTERVALS = 4
"""Systems of whose figures in groups the page shows the intervals."""
MOST_SHOWN = 12
"""Differences up to which the page shows all: `shown_claims`."""
_LEADING = ("auroc", "accuracy", "precision", "recall", "f1")
"""Figures of every table: behind the primary ones in those for a paper, and before the other
figures of images where all systems have boxes."""
_IN_MAIN = (
    *("auroc", "accuracy", "precision", "recall", "specificity", "f1", "localised_sensitivity"),
    *("box_f1_50", "box_precision_50", "box_recall_50", "mean_iou", "ap50", "average_precision"),
    *("froc_mean", "pointing_accuracy"),
)
"""Figures of the main table, in their order; those of the answer stand before them."""
_MOST_IN_PAPER = 6
"""Figures of a table for a paper."""
_BOX_ERRORS = {
    "found_iou_50": ("Lesions found", "0.5 or more"),
    "poorly_boxed_iou_50": ("Lesions poorly boxed", "0.1 to 0.5"),
    "missed_iou_50": ("Lesions missed", "others"),
    "poor_box_iou_50": ("Poor boxes", "0.1 to 0.5"),
    "duplicate_iou_50": ("Duplicate boxes", "0.5 or more"),
    "background_iou_50": ("Background boxes", "below 0.1"),
}
"""Kinds of errors of boxes: their names for readers, and the IoU of a box and a lesion."""
_COSTS = (
    ("Parameters (million)", "parameters", 1e6),
    ("Trainable (million)", "trainable_parameters", 1e6),
    ("Training (s)", "train_seconds", 1.0),
    ("FLOPs per image (billion)", "flops", 1e9),
    ("Time per image (ms)", "latency_ms", 1.0),
)


def known_figures(result: Result, names: Sequence[str]) -> pd.DataFrame:
    """Return the known figures of systems or baselines, without and at the shown threshold.

    The joint system has no figures of places, as it has the boxes of one of its members.
    """
    answer, rows = result.answer, result.of_systems.dropna(subset="estimate")
    rows = rows[rows["first"].isin(names)]
    metric, at = answer.primary
    is_shown = rows["policy"].isin(["", answer.policy])
    is_shown = is_shown.where(rows["metric"] != metric, rows["policy"] == at)
    boxed = rows["metric"].map(lambda name: METRICS[name].boxed).astype(bool)
    return rows[is_shown & ~((rows["first"] == answer.joint) & boxed)]


def figure_cells(result: Result, names: list[str], metrics: list[str]) -> pd.DataFrame:
    """Return figures of systems or baselines that some of them have: a row for each."""
    rows = known_figures(result, names)
    table = wide(rows[rows["metric"].isin(metrics)], "first", "metric")
    table = table.reindex(index=names, columns=metrics).dropna(axis="columns", how="all")
    return table.rename(columns=metric_title).rename_axis("System").rename_axis(columns=None)


def metrics_in(answer: ReportAnswer, table: Literal["main", "paper"]) -> list[str]:
    """Return the figures of a table, the primary ones first.

    COCO's AP stands beside AP50 where this is a primary figure. Those of boxes come next if all
    systems are detectors. AUROC, accuracy, precision, recall and F1 are in every table.
    """
    first = answer.primary_metrics
    of_boxes = [*(["ap"] if "ap50" in first else []), *answer.box_figures]
    names = [*first, *of_boxes, *(_LEADING if answer.box_figures else ()), *_IN_MAIN]
    if table == "paper":
        names = [*first, *_LEADING, *of_boxes, "ap50", "specificity"]
    return list(dict.fromkeys(names))


def paper_metrics(result: Result) -> list[str]:
    """Return the figures of the tables for a paper that any system has, the most asked first."""
    known = set(known_figures(result, result.systems)["metric"])
    return [name for name in metrics_in(result.answer, "paper") if name in known][:_MOST_IN_PAPER]


def main_table(result: Result) -> pd.DataFrame:
    """Return the usual figures and the threshold: a row for each system, in their order.

    Of three systems or more the range of ranks stands first.
    """
    answer = result.answer
    table = figure_cells(result, result.ordered, metrics_in(answer, "main"))
    if answer.ranks:
        ranges = [answer.ranks.get(name) for name in table.index]
        shown = [each and " to ".join(dict.fromkeys(map(str, each))) for each in ranges]
        table.insert(0, "Rank", shown)
    thresholds = [answer.thresholds[name].get(answer.policy) for name in table.index]
    if any(value is not None for value in thresholds):
        table["Score threshold"] = thresholds
    return table


def image_blind_table(result: Result) -> pd.DataFrame:
    """Return the figures of places of the image-blind baselines: a row for each."""
    names = {image_blind_name(n): n for n in result.ordered if n != result.answer.joint}
    known = [name for name in names if name in set(result.figures["first"])]
    return figure_cells(result, known, metrics_in(result.answer, "main")).rename(index=names)


def image_score_table(result: Result) -> pd.DataFrame:
    """Return the primary figure of each detector by each rule that makes the score of an image."""
    values = result.answer.by_image_score
    table = pd.DataFrame.from_dict(values, orient="index", columns=[*IMAGE_SCORES])
    return table.astype(object).map(Interval, na_action="ignore").rename_axis("System")


def cost_table(result: Result) -> pd.DataFrame:
    """Return parameters, FLOPs and times of training and of an image, of what is known."""
    rows: dict[str, dict[str, Any]] = {}
    for name in result.shown:
        cost = result.answer.provenance.systems[name].get("cost") or {}
        known = {title: cost[key] / unit for title, key, unit in _COSTS if cost.get(key)}
        rows[name] = {title: f"{value:,.3g}" for title, value in known.items()}
        rows[name]["Timed on"] = cost.get("latency_device") or None
    columns = [*(title for title, _, _ in _COSTS), "Timed on"]
    table = pd.DataFrame.from_dict(rows, orient="index", columns=columns)
    return table.dropna(how="all").dropna(axis="columns", how="all").rename_axis("System")


def training_settings(records: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """Return the settings in which trained systems differ: a row a setting, a column a system.

    `records` are those of the systems, of which some may have no recipe.
    """
    settings = {}
    for name, record in records.items():
        if recipe := Recipe.of(record):
            config = recipe.config.items()
            sections = {key: section for key, section in config if isinstance(section, Mapping)}
            settings[name] = pd.json_normalize(sections).astype(object).iloc[0]
    table = pd.DataFrame(settings, dtype=object).fillna("").map(str)
    return table[table.nunique(axis=1) > 1].rename_axis("Setting")


def shown_claims(result: Result) -> list[Claim]:
    """Return the tested differences, each of the higher system minus the lower one, largest first.

    Higher is the one that stands first by the primary figure. The joint system always stands
    before its members, and a system before its baseline. Of many differences, those of the answer
    from the highest system are returned. Those of the answer are left out where no system has the
    primary figure.
    """
    order = [name for name in result.ordered if name != result.answer.joint]
    claims = [_falling(claim, order) for claim in result.answer.claims]
    kinds = list(dict.fromkeys(map(_kind, claims)))
    claims.sort(
        key=lambda claim: (kinds.index(_kind(claim)), -(claim.estimate if claim.known else 0))
    )
    if result.primary_rows["estimate"].isna().all():
        return [claim for claim in claims if claim.family not in ("answer", "joint")]
    if sum(claim.family == "answer" for claim in claims) <= MOST_SHOWN:
        return claims
    highest = {"joint": result.answer.joint, "answer": order[0]}
    return [claim for claim in claims if claim.first == highest.get(claim.family)]


def _kind(claim: Claim) -> tuple[str, ...]:
    return claim.family, claim.metric, claim.policy


def _falling(claim: Claim, order: Sequence[str]) -> Claim:
    """Return a difference of two systems with the first one of an order first."""
    first, second = claim.first, claim.second
    is_turned = {first, second} <= {*order} and order.index(first) > order.index(second)
    return claim.reversed() if is_turned else claim


def outcome(claim: Claim, answer: ReportAnswer) -> Outcome:
    """Return what a difference shows after correction.

    A joint system is shown to be higher only if it is so against each of its members. A difference
    without a p-value is not tested, unless both figures are equal.
    """
    if claim.higher:
        is_part = claim.family == "joint" and claim.higher == claim.first
        return "partly" if is_part and not answer.joint_is_higher else "shown"
    return "open" if claim.equal or claim.tested else "untested"


Outcome = Literal["shown", "partly", "open", "untested"]


def claim_table(claims: Sequence[Claim], answer: ReportAnswer) -> pd.DataFrame:
    """Return differences that the answer tests, with what was shown after correction."""
    rows = []
    for claim in claims:
        metric, policy = claim.metric, claim.policy
        shown = {
            "shown": claim.higher,
            "partly": f"{claim.first}, of these two",
            "open": "not shown",
            "untested": "not tested",
        }
        rows.append(
            {
                "Figure": metric_title(metric) + (f", {policy_text(policy)}" if policy else ""),
                "Difference": difference_name(claim),
                "Value (95 % interval)": claim,
                "p": PValue(claim.p_value),
                "p, corrected": PValue(claim.p_holm),
                "Shown to be higher": shown[outcome(claim, answer)],
            }
        )
    table = pd.DataFrame(rows)
    if rows and not any(claim.corrected for claim in claims):
        table = table.drop(columns="p, corrected")
    return table.set_index("Figure") if rows else table


def difference_name(claim: Claim) -> str:
    """Return the name of a difference for readers."""
    first, second = claim.first, claim.second
    if second == image_blind_name(first):
        second = "always the same place"
    elif claim.family == "joint":
        first = f"({first})"
    return f"{first} − {second}"


def outcome_table(result: Result) -> pd.DataFrame:
    """Return what came of the positive images by system, and the false alarms.

    The first columns sum to the number of positive images, by which the index is named.
    """
    answer, single = result.answer, result.shown_single
    matrices = {name: cells for name, cells in result.confusion.items() if name in single}
    if not matrices:
        return pd.DataFrame()
    rows = result.decisions
    is_called = (rows["label"] >= 1) & rows[f"decision_{answer.policy}"].fillna(False).astype(bool)
    places = rows[is_called].groupby("system")["localised"].agg(["sum", "count"])
    table: dict[str, dict[str, int]] = {}
    for name, of in matrices.items():
        hits, known = places["sum"].get(name, 0), places["count"].get(name, 0)
        counts = {
            "Called, on the lesion": int(hits),
            "Called, off it": int(known - hits),
            "Called, place unknown": int(of["tp"] - known),
        }
        counts = counts if known else {"Called": of["tp"]}
        table[name] = {**counts, "Not called": of["fn"], _ALARMS: of["fp"]}
    of = next(iter(matrices.values()))
    outcomes = pd.DataFrame.from_dict(table, orient="index").astype("Int64").astype(object)
    outcomes = outcomes.reindex(columns=[*_CALLED, "Not called", _ALARMS])
    outcomes = outcomes.loc[:, (outcomes.fillna(0) != 0).any()]
    negative = f"{_ALARMS} of {of['fp'] + of['tn']:,} negative"
    outcomes = outcomes.rename(columns={_ALARMS: negative})
    return outcomes.rename_axis(f"Of {of['tp'] + of['fn']:,} positive {answer.units}")


_CALLED = ("Called", "Called, on the lesion", "Called, off it", "Called, place unknown")
_ALARMS = "False alarms"


def _lesion_counts(result: Result) -> pd.DataFrame:
    """Return found lesions and kinds of errors with boxes: a row a system, a column a metric."""
    rows, single = result.lesions, result.shown_single
    rows = rows[rows["topic"].isin([ERRORS, ALL_LESIONS]) & rows["system"].isin(single)]
    counts = rows.pivot(index="system", columns="metric", values="count").astype(int)
    counts = counts.loc[[name for name in single if name in counts.index]].astype(object)
    is_all = rows["topic"] == ALL_LESIONS
    return counts.assign(lesions=int(rows.loc[is_all, "of"].max()) if len(counts) else 0)


def lesion_cells(result: Result) -> pd.DataFrame:
    """Return the lesions that each system finds, as a primary figure of boxes counts them.

    All but FROC count false boxes, too: all that match no lesion.
    """
    metric, counts = result.answer.primary[0], _lesion_counts(result)
    if counts.empty:
        return pd.DataFrame()
    found = counts["lesion_recall" if metric in FROC else "found_iou_50"]
    table = pd.DataFrame({"Found": found, "Not found": counts["lesions"] - found})
    if metric not in FROC:
        false = ["poor_box_iou_50", "duplicate_iou_50", "background_iou_50"]
        table["False boxes"] = counts[false].sum(axis=1)
    iou = "0.2" if metric in FROC else "0.5"
    return table.rename_axis(f"Of {counts['lesions'].iloc[0]:,} lesions (IoU {iou})")


def box_error_table(result: Result) -> pd.DataFrame:
    """Return how many lesions and boxes of each kind a system has: a row a kind."""
    counts = _lesion_counts(result)
    if counts.empty:
        return pd.DataFrame()
    table = counts[[*_BOX_ERRORS]].T.set_axis([name for name, _ in _BOX_ERRORS.values()])
    table.insert(0, "IoU", [iou for _, iou in _BOX_ERRORS.values()])
    return table.rename_axis("Kind").rename_axis(columns=None)


def correction_table(result: Result) -> pd.DataFrame:
    """Return how many errors of each system (row) each other one (column) decides rightly."""
    of = result.outcomes(result.shown)
    right = of.called.eq(of.label, axis="index")
    if right.shape[1] < 2 or right.empty:
        return pd.DataFrame()
    table = ((~right).astype(int).T @ right.astype(int)).astype(object).rename_axis(columns=None)
    for name in table:
        table.loc[name, name] = ""
    table = table.add_suffix(" right")
    table.insert(0, "All errors", (~right).sum().astype(object))
    return table.rename_axis("Errors of")


def group_cells(result: Result, rows: pd.DataFrame) -> pd.DataFrame:
    """Return one figure in groups of images or lesions: a row a group, a column a system."""
    systems = result.shown_single
    rows = rows[rows["system"].isin(systems)]
    if rows.empty:
        return pd.DataFrame()
    table = wide(rows, ["topic", "group"], "system").reindex(columns=systems)
    if len(systems) > MOST_INTERVALS:
        table = table.map(lambda cell: Interval(cell.estimate) if pd.notna(cell) else cell)
    number_of = rows.drop_duplicates(["topic", "group"]).set_index(["topic", "group"])["of"]
    table.insert(0, "Number", number_of.astype("Int64").astype(object))
    topics = {topic: topic.replace("_", " ") for topic in rows["topic"]} | {"age_band": "age"}
    names = [": ".join(filter(None, [topics[topic], group])) for topic, group in table.index]
    return table.set_axis(names).rename_axis("Group")


def group_tables(result: Result) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield the titles of the tables of groups with the tables, without those that are empty."""
    groups, lesions = result.groups, result.lesions
    names = ("recall", "specificity", "auroc")
    parts = [(name, groups[groups["metric"] == name]) for name in names]
    parts.append(("lesion_recall", lesions[lesions["topic"] != ERRORS]))
    for metric, rows in parts:
        if len(table := group_cells(result, rows)):
            yield metric_title(metric), table
