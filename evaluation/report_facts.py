"""What is known of each system beside its figures: its cost, and what validation chose for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from evaluation.report_tables import Cell, Row
from evaluation.wording import number

if TYPE_CHECKING:
    from evaluation.compare import Comparison


def cost_rows(comparison: Comparison) -> list[Row]:
    """Return parameters, FLOPs and latency, one cell per system; "unknown" where not given."""
    wanted = (
        ("Parameters", lambda cost: _scaled(cost.get("parameters"), 1e6, "million", 1)),
        ("FLOPs an image", lambda cost: _scaled(cost.get("flops"), 1e9, "billion", 1)),
        ("Time an image", lambda cost: _scaled(cost.get("latency_ms"), 1.0, "ms", 1)),
        ("Timed on", _timed_on),
    )
    costs = [comparison.costs.get(name) or {} for name in comparison.systems]
    return [Row(title, tuple(Cell(words(cost)) for cost in costs)) for title, words in wanted]


def _scaled(value: Any, unit: float, word: str, digits: int) -> str:
    if value is None or value != value:
        return "unknown"
    return f"{float(value) / unit:,.{digits}f} {word}"


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
        ("Score of an image", _reduction),
        ("Chosen on", _chosen_on),
        ("Settings tried", lambda decision: str(decision.get("settings_tried", "unknown"))),
        ("Full scale of maps", _map_scale),
        ("Boxes cut from maps", _map_boxes),
        ("Probability", _probability),
    )
    return [Row(title, tuple(Cell(words(each)) for each in decisions)) for title, words in wanted]


def _reduction(decision: dict[str, Any]) -> str:
    rule = decision.get("reduction")
    if not rule:
        return "as the system gives it"
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
    level = decision.get("map_box_level")
    return "no maps" if level is None else f"at {level:.0%} of the full scale".replace("%", " %")


def _probability(decision: dict[str, Any]) -> str:
    platt = decision.get("calibration")
    if not platt:
        return "none"
    return f"Platt scaling: slope {number(platt['slope'], 2)}, intercept " + number(
        platt["intercept"], 2
    )
