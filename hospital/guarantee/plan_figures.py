"""The files and the chart of a planned guarantee."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cxr_compare.data_prep.contracts.json_files import write_json
from cxr_compare.data_prep.contracts.output_folders import require_only_files
from cxr_compare.data_prep.contracts.provenance import provenance
from cxr_compare.evaluation.report.study_page import Axis, Chart, Curve, save_chart
from cxr_compare.hospital.guarantee.guarantee_plan import GuaranteePlan
from cxr_compare.hospital.guarantee.guarantee_size import MOST_SIMULATED

_STORED = "plan.json"
_FIGURES = "figures"


def write_plan(plan: GuaranteePlan, out: Path) -> tuple[Path, ...]:
    """Draw the chart of a planned guarantee into a folder, and write ``plan.json`` last.

    Returns:
        Paths of the charts as PNG files, in the subfolder ``figures``.

    Raises:
        InputError: The folder contains files that do not belong to a plan.
    """
    require_only_files(out, {_STORED, _FIGURES}, "plan")
    figures = out / _FIGURES
    figures.mkdir(parents=True, exist_ok=True)
    drawn = save_chart(_chart(plan), figures / "guarantee.png")
    write_json(out / _STORED, "plan", {**plan.to_dict(), "provenance": provenance()})
    return tuple(path for path in drawn if path.suffix == ".png")


def _chart(plan: GuaranteePlan) -> Chart:
    needed = [row["patients"] for row in plan.rows if row["patients"]] or [MOST_SIMULATED]
    low = max(min(needed) / 4, 8)
    high = max(needed) * 2
    patients = np.unique(np.geomspace(low, high, 16).astype(int))
    curves = []
    for position, (name, share) in enumerate(plan.shares.items()):
        chances = np.array([share.chance(int(n)) for n in patients])
        curves.append(Curve(name, position, patients.astype(float), chances))
    return Chart(
        key="guarantee",
        title="How often the guarantee gets a threshold",
        x=Axis.log("Validation patients", low, high),
        y=Axis("Chance"),
        curves=tuple(curves),
        guides=(((low, high), (plan.power, plan.power)),),
        guide_label=f"{plan.power:.0%}",
        description="; ".join(plan.sentences()),
    )
