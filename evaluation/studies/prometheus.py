"""The result of a monitor as metrics for Prometheus."""

from __future__ import annotations

import pandas as pd

from cxr_compare.evaluation.studies.monitor_result import Monitoring


def prometheus_text(monitoring: Monitoring) -> str:
    """Return the result of monitoring a model as metrics for Prometheus.

    The text has the format of node_exporter's textfile collector.

    Args:
        monitoring: Result of `evaluation.studies.monitoring.monitor_log`: the monitored figures of
            a log of a model's answers.

    Returns:
        Metrics with their help lines: for each monitored figure, whether it raises an alarm, the
        evidence of a change, and the evidence that an alarm needs; then the number of tested
        figures and the last day of the log.

    Example:
        >>> monitoring = Monitoring((), "2026-01-01", "2026-01-31", 28, 28, 0, 0)
        >>> "cxr_monitor_tested 0" in prometheus_text(monitoring)
        True
    """
    escapes = str.maketrans({"\\": r"\\", '"': r"\"", "\n": " "})
    watched = {
        f'{{row="{row.key.translate(escapes)}"}}': row for row in monitoring.rows if row.share
    }
    last = int(pd.Timestamp(monitoring.last_day, tz="UTC").timestamp())
    lines = []
    for name, help_text, samples in (
        (
            "alarm",
            "1 where the figure has changed.",
            {of: int(bool(row.change)) for of, row in watched.items()},
        ),
        (
            "evidence",
            "The highest e-value so far.",
            {of: f"{row.evidence:.6g}" for of, row in watched.items()},
        ),
        (
            "bound",
            "The e-value that raises an alarm.",
            {of: f"{row.bound:.6g}" for of, row in watched.items()},
        ),
        (
            "tested",
            "Figures that are tested; 0: nothing would be noticed.",
            {"": monitoring.n_tested},
        ),
        ("last_day_seconds", "Unix time of the last day of the log.", {"": last}),
    ):
        lines += [f"# HELP cxr_monitor_{name} {help_text}", f"# TYPE cxr_monitor_{name} gauge"]
        lines += [f"cxr_monitor_{name}{of} {value}" for of, value in samples.items()]
    return "\n".join([*lines, ""])
