"""What validation chose for each system."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from evaluation.boxes.box_rule import BoxRule
from evaluation.boxes.map_boxes import MapBoxRule
from evaluation.decisions.learned_reduction import words_of
from evaluation.metrics.registry import number
from evaluation.report.tables import Cell, Row

if TYPE_CHECKING:
    from evaluation.compare.comparison import Comparison


_NOTHING = {
    "Boxes": "it gives none",
    "Search": "not searched",
    "Referred to a reader": "none",
}


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
        ("Settings tried", tried_words),
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


def tried_words(decision: dict[str, Any]) -> str:
    """Say among how many settings validation chose, or that there was nothing to choose.

    Args:
        decision: As provenance holds it.

    Example:
        >>> tried_words({"settings_tried": 12})
        '12'
        >>> tried_words({"settings_tried": 0, "chosen_on": {"n_images": 40}})
        'nothing to choose: its scores are taken as they are'
    """
    tried = decision.get("settings_tried")
    if tried is None:
        return "unknown"
    if tried:
        return str(tried)
    if not (decision.get("chosen_on") or {}).get("n_images"):
        return "nothing chosen: no validation images"
    return "nothing to choose: its scores are taken as they are"


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
