"""The documents that follow from the metric registry: run this module to write them again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from evaluation.metrics.metric import NEEDS, Direction, Metric, Share
from evaluation.metrics.registry import METRICS, in_reading_order

TABLE, SCHEMA = Path("docs/metrics.md"), Path("docs/metrics.schema.json")
_INTRODUCTION = """\
# Metrics

Every metric of a report, by its short name in `metrics.csv` and `metrics.json`. An undefined
figure is empty and its note says why; it is never 0. A threshold, a score cut and a calibration
are chosen on validation images. Only a metric where higher is better can be the primary one of a
protocol, and one half of an operating point only together with the other: {halves}.

`python -m evaluation.metrics.documents` writes this page and `metrics.schema.json` from
`evaluation/metrics/registry.py`.

| name | title | meaning | better | computed on | undefined when |
|---|---|---|---|---|---|
"""
_BETTER: dict[Direction, str] = {"higher": "higher", "lower": "lower", "none": "–"}
_IMAGES: dict[Share | None, str] = {
    None: "all images",
    "all": "all images",
    "positive": "positive images",
    "negative": "negative images",
    "called": "images called positive",
    "not_called": "images called negative",
}


def _metrics_page() -> str:
    """Return ``docs/metrics.md``: a row a metric."""
    rows = [
        (
            f"`{metric.name}`",
            metric.title,
            metric.meaning,
            _BETTER.get(metric.direction, f"ideal: {metric.ideal}"),
            _population(metric),
            "; ".join([metric.undefined, *(NEEDS[need] for need in metric.needs)]),
        )
        for metric in in_reading_order()
    ]
    lines = ["| " + " | ".join(cell.replace("|", r"\|") for cell in row) + " |" for row in rows]
    halves = "; ".join(
        f"`{metric.name}` with {' or '.join(f'`{each}`' for each in able)}"
        for metric in in_reading_order()
        if not metric.why_not_primary
        if (able := [each for each in metric.partners if not METRICS[each].why_not_primary])
    )
    return _INTRODUCTION.format(halves=halves) + "\n".join(lines) + "\n"


def _population(metric: Metric) -> str:
    images = _IMAGES[metric.share_of]
    return f"{images.removeprefix('all ')} whose lesions are all boxed" if metric.boxed else images


def _metrics_schema(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the JSON schema of ``metrics.json`` with the names of all metrics in it.

    Example:
        >>> row = {"items": {"properties": {"metric": {}}}}
        >>> found = _metrics_schema({"properties": {"metrics": row, "tests": row}})
        >>> found["properties"]["tests"]["items"]["properties"]["metric"]["enum"][:2]
        ['auroc', 'average_precision']
    """
    written: dict[str, Any] = json.loads(json.dumps(schema))
    for table in ("metrics", "tests"):
        written["properties"][table]["items"]["properties"]["metric"] = {
            "type": "string",
            "description": "Short name; docs/metrics.md says what each is.",
            "enum": list(METRICS),
        }
    return written


def main() -> None:
    """Write both documents of the checkout that this is run in."""
    TABLE.write_text(_metrics_page(), encoding="utf-8")
    schema = _metrics_schema(json.loads(SCHEMA.read_text(encoding="utf-8")))
    SCHEMA.write_text(json.dumps(schema, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
