"""Size and time of each system."""

from __future__ import annotations

from typing import Any

import pandas as pd

from cxr_compare.evaluation.comparison import Comparison
from cxr_compare.evaluation.report.table import Row

UNKNOWN = "unknown"


COST_KEYS = (
    "made_of",
    "parameters",
    "trainable_parameters",
    "flops",
    "size_bytes",
    "train_seconds",
    "train_device",
    "train_peak_memory_bytes",
    "latency_ms",
    "latency_low_ms",
    "latency_high_ms",
    "latency_device",
    "peak_memory_bytes",
    "batch_size",
    "precision",
    "image_size",
)
"""Keys of the costs that ``cxr predict`` records of a system; an unknown cost is null."""


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
    """Return size, memory and time of each system as rows of a table.

    A value that was not recorded is "unknown". The cost of an ensemble is the sum over its members,
    and the memory is the largest of them.

    Args:
        comparison: Result of comparing systems (detectors or classifiers): metrics with intervals,
            tests, and the decision of each system on each test image.

    Returns:
        One row for each quantity: its title, such as "Training time", then one text for each
        system, such as "12.5 min".
    """
    costs = [system.cost for system in comparison.systems.values()]
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
    return [(title, *texts) for title, texts in rows]


def cost_frame(comparison: Comparison) -> pd.DataFrame:
    """Return the content of ``costs.csv``: main metrics and computing costs of each system.

    Args:
        comparison: Result of comparing systems (detectors or classifiers): metrics with intervals,
            tests, and the decision of each system on each test image.

    Returns:
        One row for each system: ``system``, ``policy`` (rule for the threshold), AUROC, accuracy,
        sensitivity, specificity, precision and F1 with the ends of their intervals (such as
        ``auroc``, ``auroc_low`` and ``auroc_high``), and costs such as ``parameters``, ``flops``
        and ``latency_ms``. A value is NaN or None where it is unknown.
    """
    policy = comparison.main_policy
    rows = []
    for name, result in comparison.systems.items():
        row: dict[str, Any] = {"system": name, "policy": policy}
        for metric, at in (("auroc", ""), *((metric, policy) for metric in _AT_THRESHOLD)):
            figure = comparison.figures.get(name, metric, at)
            row[metric] = figure.estimate
            row |= {f"{metric}_low": figure.ci_low, f"{metric}_high": figure.ci_high}
        cost = result.cost
        rows.append(row | {key: cost.get(key) for key in COST_KEYS})
    return pd.DataFrame(rows)


def _scaled(value: Any, unit: float, word: str, first: Any = None) -> str:
    """Return a quantity with its unit and with its ratio to the first system's quantity."""
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
