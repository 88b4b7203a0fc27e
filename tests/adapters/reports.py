"""Tables, charts, cases and drawings behind a report."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from cxr_compare import DataSet, Predictions, Result
from cxr_compare.evaluation.boxes.map_boxes import MapLevels
from cxr_compare.evaluation.drawn import DrawnSystem
from cxr_compare.evaluation.inputs.folders import output_of, truth_of
from cxr_compare.evaluation.overlays.colours import SystemMark, system_mark
from cxr_compare.evaluation.overlays.draw import draw_panel as _draw_panel
from cxr_compare.evaluation.overlays.image_prediction import HeatMap, ImagePrediction, ImageTruth
from cxr_compare.evaluation.overlays.sheet import draw_sheet, legend, panels_of
from cxr_compare.evaluation.report import (
    case_selection,
    charts,
    files,
    page,
    sections,
    tables,
)
from cxr_compare.evaluation.report.case_selection import Outcomes
from cxr_compare.evaluation.report.cells import shown_text
from cxr_compare.evaluation.report.charts import chart_names
from cxr_compare.evaluation.report.folds import summarise_folds
from cxr_compare.evaluation.verdict.claims import Claim

__all__ = [
    "DrawnSystem",
    "HeatMap",
    "ImagePrediction",
    "ImageTruth",
    "MapLevels",
    "SystemMark",
    "chart_names",
    "draw_panel",
    "draw_sheet",
    "legend",
    "panels_of",
    "image_kinds",
    "select_cases",
    "summarise_folds",
    "system_mark",
]


def draw_panel(*given: Any) -> Any:
    """Pixels of one X-ray with what is drawn over it."""
    return _draw_panel(*given).pixels


def leave_charts_out(patch: Any) -> None:
    """Let pages have empty charts, which are half of the work of a report."""
    patch.setattr(charts, "svg_text", lambda *_: "<svg></svg>")


def save_tables(result: Result, folder: Path) -> None:
    """Write the answer and the tables of a report, without its page."""
    folder.mkdir()
    for name in files.TABLES:
        files.write_report_table(getattr(result, name), folder / f"{name}.parquet")
    digests = files.digests_of(folder)
    result.answer.with_values(files=digests).write(folder / files.ANSWER)


def first_screen(result: Result) -> list[tuple[pd.DataFrame, Sequence[str]]]:
    """Tables of the first screen, each with the sentences below it."""
    made = sections.sections(result)
    return [(each.rows, each.notes) for each in made if each.chapter == "first"]


def errors_of(result: Result) -> dict[str, Any]:
    """Tables of what came of the images, of errors that others decide rightly, and the matrices."""
    return {
        "outcomes": tables.outcome_table(result),
        "corrected": tables.correction_table(result),
        "confusion": result.confusion,
        "boxes": tables.box_error_table(result),
    }


class Kind(NamedTuple):
    """A kind of cases, its images, and the numbers of all of them."""

    kind: str
    image_ids: tuple[str, ...]
    total: int
    n_boxed: int
    on_lesion: int
    among: str


def image_kinds(decisions: pd.DataFrame, systems: Sequence[str], policy: str) -> list[Any]:
    """The kinds of images, each with all of its images."""
    return case_selection.image_kinds(Outcomes.of(decisions, systems, f"decision_{policy}"))


def select_cases(
    decisions: pd.DataFrame, systems: Sequence[str], policy: str, per_kind: int = 4
) -> list[Any]:
    """The kinds of cases, each with its images in ``image_ids`` and numbers of all of them."""
    kinds = image_kinds(decisions, systems, policy)
    outcomes = Outcomes.of(decisions, systems, f"decision_{policy}")
    rows = case_selection.select_cases(outcomes, kinds, per_kind)
    return [
        Kind(kind, (*of["image_id"],), *of[["of", "n_boxed", "on_lesion", "among"]].iloc[0])
        for kind, of in rows.groupby("kind", sort=False)
    ]


def claim_table(result: Result) -> pd.DataFrame:
    """The tested differences as a page has them, in the order of the answer."""
    return tables.claim_table(result.answer.claims, result.answer)


def total_text(of: int, among: str, n_boxed: int, on_lesion: int) -> str:
    """The line on the number of all images of a kind of cases."""
    return page._total({"of": of, "among": among, "n_boxed": n_boxed, "on_lesion": on_lesion})


def costs(result: Result) -> pd.DataFrame:
    """The table of what each system costs."""
    return tables.cost_table(result)


def training_settings(records: Mapping[str, Mapping[str, Any]]) -> dict[Any, Any]:
    """The settings in which trainings differ: that of each system, by setting."""
    return tables.training_settings(records).to_dict("index")


def shown_claims(result: Result) -> list[Claim]:
    """The differences that the page shows."""
    return tables.shown_claims(result)


def groups_of(result: Result) -> dict[str, pd.DataFrame]:
    """The tables of groups of images and lesions, by title."""
    made = tables.group_tables(result)
    return {title: table.map(shown_text) for title, table in made}


def outcomes_of(systems: Mapping[str, Path], data: Path, policy: str) -> dict[str, pd.DataFrame]:
    """Decisions and places of predictions, as `cxr overlay` draws them."""
    dataset = DataSet.open(data)
    target = dataset.target()
    truth = truth_of(dataset, target)
    outputs = {
        name: output_of(Predictions.open(folder), truth, target) for name, folder in systems.items()
    }
    return {
        name: DrawnSystem.of(name, output, truth, policy).decisions
        for name, output in outputs.items()
    }
