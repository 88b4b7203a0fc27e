"""Tables, charts, cases and drawings behind a report."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import pandas as pd

from cxr_compare import DataSet, Predictions, Result
from cxr_compare.evaluation.boxes.map_boxes import MapLevels
from cxr_compare.evaluation.drawn import DrawnSystem
from cxr_compare.evaluation.inputs.folders import output_of, truth_of
from cxr_compare.evaluation.overlays.colours import SystemMark, system_mark
from cxr_compare.evaluation.overlays.draw import draw_panel
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
from cxr_compare.evaluation.report.cases import CaseSource
from cxr_compare.evaluation.report.cells import cell_text
from cxr_compare.evaluation.report.charts import chart_names
from cxr_compare.evaluation.report.drawn_systems import decided_system
from cxr_compare.evaluation.report.folds import summarise_folds
from cxr_compare.evaluation.truth import Truth
from tests.adapters.sets import put_table

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


def leave_charts_out(patch: Any) -> None:
    """Let pages have empty charts, which are half of the work of a report."""
    patch.setattr(charts, "svg_text", lambda *_: "<svg></svg>")


def save_tables(result: Result, folder: Path) -> None:
    """Write the answer and the tables of a report, without its page."""
    folder.mkdir()
    digests = {}
    for name in files.TABLES:
        path = folder / f"{name}.parquet"
        digests[path.name] = files.write_table(getattr(result, name), path)
    result.answer.with_values(files=digests).write(folder / files.ANSWER)


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


def image_kinds(*tables_of: Any) -> list[Any]:
    """Kinds of images by label, and by tables of calls, scores and places."""
    return case_selection.image_kinds(Outcomes.of_tables(*tables_of))


def select_cases(
    decisions: pd.DataFrame, systems: Sequence[str], policy: str, **options: Any
) -> list[Any]:
    """The kinds of cases, each with its images in ``image_ids`` and numbers of all of them."""
    rows = case_selection.select_cases(Outcomes.of(decisions, systems, policy), **options)
    return [
        Kind(kind, (*of["image_id"],), *of[["of", "n_boxed", "on_lesion", "among"]].iloc[0])
        for kind, of in rows.groupby("kind", sort=False)
    ]


def claims_of(claims: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """The table of tested differences as texts."""
    return tables.claim_table(claims, claims).map(cell_text)


def costs(result: Result) -> pd.DataFrame:
    """The table of what each system costs."""
    return tables.cost_table(result)


def shown_claims(result: Result) -> list[Mapping[str, Any]]:
    """The differences that the page shows."""
    return tables.shown_claims(result)


def examples_of(kinds: dict[str, list[Any]], missed: str) -> list[Any]:
    """The cases of these kinds that the page shows first; `missed` are those that all miss."""
    return page._examples(kinds, missed)


def untested_places(result: Result) -> list[str]:
    """The lines of the page on systems whose pointing is not tested."""
    return sections.untested_places(result.figures, result.answer.single)


def groups_of(result: Result) -> dict[str, pd.DataFrame]:
    """The tables of groups of images and lesions, by title."""
    made = tables.group_tables(result)
    return {title: table.map(cell_text) for title, table in made}


def add_readers(folder: Path, image: str, move: float) -> None:
    """Add to a data set what two readers drew on an image: one its boxes, one these moved."""
    for name in ("findings", "boxes"):
        path = folder / f"{name}.parquet"
        table = pd.read_parquet(path)
        own = table[table["image_id"] == image]
        moved = own.assign(reader="R2")
        if name == "boxes":
            moved = moved.assign(x1=moved["x1"] - move)
        put_table(pd.concat([table, own.assign(reader="R1"), moved]), path, name)


def outcomes_of(systems: Mapping[str, Path], data: Path, policy: str) -> dict[str, pd.DataFrame]:
    """Decisions and places of predictions, as `cxr overlay` draws them."""
    dataset = DataSet.open(data)
    target = dataset.target()
    truth = truth_of(dataset, target)
    outputs = {
        name: output_of(name, Predictions.open(folder), truth, target)
        for name, folder in systems.items()
    }
    return {
        name: decided_system(name, output, truth, policy).decisions
        for name, output in outputs.items()
    }


def panels_of_readings(
    pixels: np.ndarray, readings: pd.DataFrame, true: Sequence[float]
) -> list[Any]:
    """The panels of a positive image "a" with one true box and boxes of single readers."""
    row = {"label": 1.0, "role": "test", "patient_id": "p"}
    images = pd.DataFrame([row], index=pd.Index(["a"], name="image_id"))
    edges = dict(zip(("x1", "y1", "x2", "y2"), true, strict=True))
    boxes = pd.DataFrame([{"image_id": "a", **edges}])
    truth = Truth(images, boxes, pd.Index(["a"]), finding="mass")
    system = DrawnSystem("A", pd.DataFrame({"score": [0.9], "decision": [True]}, ["a"]))
    source = CaseSource(truth, lambda _: pixels, (system,), readings)
    return source.in_order(["A"]).panels("a", side=64)


def draw_new_chart(result, rows, **fields):
    """Axes of a chart that the program does not have, of its rows in the table of curves."""
    curves = pd.concat([result.curves, rows.assign(chart="new")], ignore_index=True)
    known = {name: getattr(result, name) for name in ("of_systems", "policies", "shown", "systems")}
    with mock.patch.dict(charts._CHARTS, new=charts._Chart("New", "x", "y", **fields)):
        return charts.draw("new", SimpleNamespace(curves=curves, **known)).axes[0]
