"""What is known of each system beside its figures: its cost, and what validation chose for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from evaluation.box_rule import BoxRule
from evaluation.intervals import find_difference
from evaluation.learned_reduction import words_of
from evaluation.map_boxes import MapBoxRule
from evaluation.report_tables import Cell, Row
from evaluation.wording import UNDEFINED, metric_words, number

if TYPE_CHECKING:
    from evaluation.compare import Comparison


_GAINS = ("auroc", "ap50", "froc_mean", "rsna_score")
_NOTHING = {
    "Boxes": "it gives none",
    "Search": "not searched",
    "Referred to a reader": "none",
}


def cost_rows(comparison: Comparison) -> list[Row]:
    """Return size and time, one cell per system; "unknown" where not given.

    Where a system is made of others, their cost is summed, and what each system gains over the
    first stands beside it.
    """
    costs = [comparison.costs.get(name) or {} for name in comparison.systems]
    joined = any(cost.get("made_of") for cost in costs)
    first = costs[0] if joined and costs else {}
    wanted = (
        ("Parameters", "parameters", 1e6, "million"),
        ("FLOPs an image", "flops", 1e9, "billion"),
        ("Time an image", "latency_ms", 1.0, "ms"),
    )
    rows = [
        (title, [_scaled(cost.get(key), unit, word, first.get(key)) for cost in costs])
        for title, key, unit, word in wanted
    ]
    rows.append(("Timed on", [_timed_on(cost) for cost in costs]))
    if joined:
        rows.insert(0, ("Made of", [str(cost.get("made_of") or "one model") for cost in costs]))
        rows += _gains(comparison)
    return [Row(title, tuple(map(Cell, told))) for title, told in rows]


def _gains(comparison: Comparison) -> list[tuple[str, list[str]]]:
    """What each system gains over the first, with its interval, metric by metric."""
    first, *others = comparison.systems
    rows = []
    for metric in _GAINS:
        gaps = [find_difference(comparison.metrics, name, first, metric) for name in others]
        if any(gap.known for gap in gaps):
            told = [f"{number(gap.estimate)} ({gap.ends or 'no interval'})" for gap in gaps]
            rows.append((f"{metric_words(metric).title} gained over {first}", [UNDEFINED, *told]))
    return rows


def _scaled(value: Any, unit: float, word: str, first: Any = None) -> str:
    """A quantity in words, and how many times that of the first system it is."""
    if value is None or value != value:
        return "unknown"
    told = f"{float(value) / unit:,.1f} {word}"
    return f"{told} ({value / first:.1f} times)" if first and value != first else told


def _timed_on(cost: dict[str, Any]) -> str:
    device = cost.get("latency_device")
    if not device:
        return "unknown"
    batch = cost.get("batch_size")
    return f"{device}, batch {batch}" if batch else str(device)


def decision_rows(comparison: Comparison) -> list[Row]:
    """Return what validation chose for each system; no rows where none was tuned."""
    systems = comparison.provenance.get("systems", {})
    decisions = [systems.get(name, {}).get("decision") or {} for name in comparison.systems]
    if not any(decisions):
        return []
    wanted = (
        ("Boxes", _boxes),
        ("Score of an image", _reduction),
        ("Chosen on", _chosen_on),
        ("Settings tried", lambda decision: str(decision.get("settings_tried", "unknown"))),
        ("Rules for boxes", _rules),
        ("Search", _search),
        ("Full scale of maps", _map_scale),
        ("Boxes cut from maps", _map_boxes),
        ("Probability", _probability),
        ("Referred to a reader", _referral),
    )
    rows = [(title, [words(each) for each in decisions]) for title, words in wanted]
    return [
        Row(title, tuple(Cell(words or _NOTHING.get(title, "–")) for words in told))
        for title, told in rows
        if any(told)
    ]


def _boxes(decision: dict[str, Any]) -> str:
    """How boxes were fused and scaled, and from which score the RSNA score calls them."""
    cut = decision.get("box_cut")
    if cut is None and not decision.get("search"):
        return ""
    called = f"; called from score {cut:g} in the RSNA score" if cut is not None else ""
    if decision.get("map_box_level") is not None:
        return "read from its maps" + called
    return BoxRule.from_json(decision.get("box_fusion")).words + called


def _search(decision: dict[str, Any]) -> str:
    """What the search promised on validation, and what is left of it on folds it did not see."""
    search = decision.get("search")
    if not search:
        return ""
    stored = (search.get("boxes_as_stored") or {}).get("folds")
    plain = "a level alone" if decision.get("map_boxes") else "boxes as stored"
    return (
        f"for {search['objective']}: mean over {search['folds']} folds of patients "
        f"{number(search['chosen']['folds'])} ({plain} {number(stored)}; held out from "
        f"its own choice {number(search['held_out'])})"
    )


def _reduction(decision: dict[str, Any]) -> str:
    rule = decision.get("reduction")
    if not rule:
        return "as the system gives it"
    if rule["rule"] == "learned":
        return f"logistic regression learned on validation: {words_of(tuple(rule['weights']))}"
    words = {
        "max": "most confident box",
        "noisy_or": "noisy-or of the boxes",
        "top_k": "mean of the three most confident boxes",
    }.get(rule["rule"], rule["rule"])
    floor = rule.get("min_score")
    return f"{words} scoring at least {floor:g}" if floor else words


def _chosen_on(decision: dict[str, Any]) -> str:
    facts = decision.get("chosen_on") or {}
    if not facts.get("n_images"):
        return "nothing: no validation images"
    return (
        f"{facts['n_images']:,} validation images of {facts['n_patients']:,} patients, "
        f"{facts['n_positive']:,} positive"
    )


def _map_scale(decision: dict[str, Any]) -> str:
    scale = decision.get("map_scale")
    return f"{number(scale[0], 2)} to {number(scale[1], 2)}" if scale else "no maps"


def _map_boxes(decision: dict[str, Any]) -> str:
    rule = MapBoxRule.from_json(decision.get("map_boxes"), decision.get("map_box_level"))
    return "no maps" if rule is None else rule.words


def _rules(decision: dict[str, Any]) -> str:
    """Among how many rules from boxes to a score folds of patients decided, and how well."""
    record = (decision.get("choices") or {}).get("reduction")
    if not record:
        return ""
    return (
        f"{record['settings_tried']} tried, by AUROC: mean over {record['folds']} folds of "
        f"patients {number(record['mean_over_folds'])} (held out from its own choice "
        f"{number(record['held_out'])})"
    )


def _probability(decision: dict[str, Any]) -> str:
    """How a score becomes a probability, and by which log losses that was chosen."""
    facts = decision.get("calibration")
    if not facts:
        return "none"
    method = facts.get("method", "platt")
    if method == "none":
        words = "the score as it is"
    elif method == "temperature":
        words = f"temperature {number(facts['temperature'], 2)}"
    elif method == "isotonic":
        words = (
            f"isotonic: {facts['levels']} levels, straight lines between; order is kept, scores "
            "on one level are tied"
        )
    else:
        words = f"Platt scaling: slope {number(facts['slope'], 2)}, intercept " + number(
            facts["intercept"], 2
        )
    losses = (decision.get("choices") or {}).get("calibration")
    if not losses:
        return words
    told = ", ".join(f"{name.replace('_', ' ')} {number(loss)}" for name, loss in losses.items())
    return f"{words}; held-out log loss: {told}"


def _referral(decision: dict[str, Any]) -> str:
    """What share was asked for, and by what doubt."""
    chosen = list((decision.get("referral") or {}).values())
    if not chosen:
        return ""
    doubt = {"spread": "spread of its scores", "nearness": "nearness to the threshold"}
    return (
        f"the most doubtful {chosen[0]['share']:.0%} of validation at most".replace("%", " %")
        + f", by {doubt[chosen[0]['by']]}; cuts chosen on validation"
    )
