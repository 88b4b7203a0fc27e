"""What each system costs beside how well it does: the report's table, and `costs.csv`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from evaluation.compare.failure_analysis import main_policy
from evaluation.metrics.registry import highlighted, metric_title
from evaluation.metrics.words import DASH, ends_words, number, policy_words
from evaluation.report.charts import policies_of
from evaluation.report.table import Row

if TYPE_CHECKING:
    from evaluation.compare.comparison import Comparison

UNKNOWN = "unknown"
COST_KEYS = (
    "made_of", "parameters", "trainable_parameters", "flops", "size_bytes", "train_seconds",
    "train_device", "train_peak_memory_bytes", "latency_ms", "latency_low_ms", "latency_high_ms",
    "latency_device", "peak_memory_bytes", "batch_size", "precision", "image_size",
)  # fmt: skip
"""What `cxr predict` records of a system; what it does not know is null."""

_AT_THRESHOLD = ("accuracy", "recall", "specificity", "precision", "f1")
_QUANTITIES = (
    ("Parameters", "parameters", 1e6, "million"),
    ("Trainable parameters", "trainable_parameters", 1e6, "million"),
    ("FLOPs per image", "flops", 1e9, "billion"),
    ("Size of the weights", "size_bytes", 1e6, "MB"),
    ("Training time", "train_seconds", 60.0, "min"),
    ("Peak training memory", "train_peak_memory_bytes", 1e6, "MB"),
    ("Time per image", "latency_ms", 1.0, "ms"),
    ("Peak memory per image", "peak_memory_bytes", 1e6, "MB"),
)


def cost_rows(comparison: Comparison) -> list[Row]:
    """Return figures, size and time, one cell per system; "unknown" where not given.

    Where a system is made of others, their cost is summed, and what each system gains over the
    first stands beside it.
    """
    costs = [each.cost for each in comparison.systems.values()]
    joined = any(cost.get("made_of") for cost in costs)
    first = costs[0] if joined and costs else {}
    rows = [
        (title, [_scaled(cost.get(key), unit, word, first.get(key)) for cost in costs])
        for title, key, unit, word in _QUANTITIES
    ]
    rows.append(("Trained on", [str(cost.get("train_device") or UNKNOWN) for cost in costs]))
    rows.append(("Timed on", [_timed_on(cost) for cost in costs]))
    if joined:
        rows.insert(0, ("Made of", [str(cost.get("made_of") or "one model") for cost in costs]))
        rows += _gains(comparison)
    return [(title, *texts) for title, texts in _figures(comparison) + rows]


def cost_table(comparison: Comparison) -> pd.DataFrame:
    """Return the same for programs."""
    policy, rows = _policy(comparison), []
    for name, result in comparison.systems.items():
        row: dict[str, Any] = {"system": name, "policy": policy}
        for metric, at in _chosen(policy):
            found = comparison.estimates.of(name, metric, at)
            row |= {
                metric: found.estimate,
                f"{metric}_low": found.low,
                f"{metric}_high": found.high,
            }
        cost = result.cost
        rows.append(row | {key: cost.get(key) for key in COST_KEYS})
    return pd.DataFrame(rows)


def _policy(comparison: Comparison) -> str:
    return main_policy(policies_of(comparison), comparison.protocol.policy)


def _chosen(policy: str) -> list[tuple[str, str]]:
    return [("auroc", ""), *((metric, policy) for metric in _AT_THRESHOLD)]


def _figures(comparison: Comparison) -> list[tuple[str, list[str]]]:
    """How well each does, without intervals: those stand in the tables above."""
    policy, rows = _policy(comparison), []
    for metric, at in _chosen(policy):
        found = [comparison.estimates.of(name, metric, at) for name in comparison.systems]
        if any(each.known for each in found):
            title = metric_title(metric) + (f", {policy_words(at)}" if at else "")
            rows.append((title, [number(each.estimate) for each in found]))
    return rows


def _gains(comparison: Comparison) -> list[tuple[str, list[str]]]:
    """What each system gains over the first, with its interval, metric by metric."""
    first, *others = comparison.systems
    rows = []
    for metric in highlighted("gain"):
        gaps = [comparison.estimates.difference(name, first, metric) for name in others]
        if any(gap.known for gap in gaps):
            texts = [f"{number(gap.estimate)} ({ends_words(gap) or 'no interval'})" for gap in gaps]
            rows.append((f"{metric_title(metric)} gain over {first}", [DASH, *texts]))
    return rows


def _scaled(value: Any, unit: float, word: str, first: Any = None) -> str:
    """A quantity in words, and how many times that of the first system it is."""
    if value is None or value != value:
        return UNKNOWN
    scaled = float(value) / unit
    text = f"{scaled:,.1f} {word}" if scaled >= 1 or not scaled else f"{scaled:.2g} {word}"
    return f"{text} ({value / first:.1f} times)" if first and value != first else text


def _timed_on(cost: dict[str, Any]) -> str:
    device = cost.get("latency_device")
    if not device:
        return UNKNOWN
    batch = cost.get("batch_size")
    return f"{device}, batch {batch}" if batch else str(device)
