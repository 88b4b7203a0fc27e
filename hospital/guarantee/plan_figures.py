"""The files and the chart of a planned guarantee."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cxr_compare.data_prep.contracts.output_folders import require_only_files
from cxr_compare.data_prep.contracts.provenance import provenance
from cxr_compare.data_prep.contracts.records import write_json
from cxr_compare.evaluation.report.study_page import (
    GUIDE,
    add_legend,
    draw_line,
    line_style,
    log_axis,
    new_chart,
    save_chart,
    share_axis,
)
from cxr_compare.hospital.guarantee.guarantee_plan import GuaranteePlan
from cxr_compare.hospital.guarantee.guarantee_size import MOST_SIMULATED

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_STORED = "plan.json"
_FIGURES = "figures"


def write_plan(plan: GuaranteePlan, out: Path) -> tuple[Path, ...]:
    """Draw the chart of a planned guarantee into a folder, and write ``plan.json`` last.

    The paths of the charts as SVG files, in the subfolder ``figures``, are returned; each is also a
    PDF file. A folder with files that do not belong to a plan is refused.
    """
    require_only_files(out, {_STORED, _FIGURES}, "plan")
    figures = out / _FIGURES
    figures.mkdir(parents=True, exist_ok=True)
    drawn = save_chart(_chart(plan), figures / "guarantee.svg")
    write_json(out / _STORED, "plan", {**plan.to_dict(), "provenance": provenance()})
    return tuple(path for path in drawn if path.suffix == ".svg")


def _chart(plan: GuaranteePlan) -> Figure:
    needed = [row["patients"] for row in plan.rows if row["patients"]] or [MOST_SIMULATED]
    low = max(min(needed) / 4, 8)
    high = max(needed) * 2
    patients = np.unique(np.geomspace(low, high, 16).astype(int))
    title = "How often the guarantee gets a threshold"
    figure, axes = new_chart(title, "Validation patients", "Chance")
    for position, (name, share) in enumerate(plan.shares.items()):
        chances = [share.chance(int(n)) for n in patients]
        draw_line(axes, patients, chances, **line_style(position), label=name)
    axes.plot([low, high], [plan.power, plan.power], **GUIDE, label=f"{plan.power:.0%}")
    log_axis(axes, "x", low, high)
    share_axis(axes, "y")
    add_legend(axes)
    return figure
