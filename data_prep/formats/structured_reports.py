"""Format `sr`: DICOM images with labels in DICOM structured reports.

Source:
    DICOM PS3.16, templates TID 1500, 1410 and 1411.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pydicom

from cxr_compare.data_prep.contracts.errors import InputError, counted_phrase
from cxr_compare.data_prep.contracts.schemas import REFERENCE_READER
from cxr_compare.data_prep.contracts.text import TEXT
from cxr_compare.data_prep.formats.dicom_folder import DICOM
from cxr_compare.data_prep.formats.finding_names import finding_name
from cxr_compare.data_prep.formats.folder_scan import files_below
from cxr_compare.data_prep.formats.source import SourceBuilder
from cxr_compare.data_prep.images.dicom_header import has_preamble

_SIDES = ("xmin", "ymin", "xmax", "ymax")
# Codes of DICOM: a group of measurements, its finding and algorithm, and the observers.
_GROUP = "125007"
_FINDING = "121071"
_ALGORITHM = "111001"
_OBSERVERS = ("121008", "121013")
_DECIDED = {"10828004": "present", "260385009": "absent", "82334004": "uncertain"}


def _items(item: Any) -> Iterator[Any]:
    """Yield a content item of a report and all items below it, in the order of the report."""
    waiting = [item]
    while waiting:
        current = waiting.pop()
        yield current
        waiting += reversed(current.get("ContentSequence") or ())


def _code(item: Any, prefix: str, part: str = "CodeValue") -> str:
    return str((item.get(f"{prefix}CodeSequence") or [{}])[0].get(part, ""))


def _report_table(builder: SourceBuilder) -> dict[Path, pd.DataFrame]:
    """Build one label table of all reports below the folder."""
    root = builder.root
    counts = Counter[str]()
    rows = list[dict[str, str]]()
    for path in (root / name for name in files_below(root)):
        try:
            if has_preamble(path):
                report = pydicom.dcmread(
                    path, stop_before_pixels=True, specific_tags=["ContentSequence"]
                )
                rows += list(_rows_of_report(report, counts))
        except Exception:  # noqa: BLE001 - pydicom raises all kinds on broken files
            counts["files of DICOM cannot be read completely: reports in these are missing"] += 1
    if not rows:
        raise InputError(f"{root}: no structured report in it names a finding of an image")
    builder.notes += [counted_phrase(n, text) for text, n in counts.items() if n]
    columns = ["file", "reader", "label", "state", *_SIDES]
    return {root: pd.DataFrame(rows).reindex(columns=columns).fillna("").astype(TEXT)}


def _rows_of_report(report: Any, counts: Counter[str]) -> Iterator[dict[str, str]]:
    named = {_code(item, "ConceptName"): item for item in _items(report)}
    observers = [named[code] for code in _OBSERVERS if code in named]
    readers = [str(item.get("PersonName") or item.get("TextValue")) for item in observers]
    for group in (item for item in _items(report) if _code(item, "ConceptName") == _GROUP):
        inside = {_code(item, "ConceptName"): item for item in _items(group)}
        program = inside.get(_ALGORITHM, {}).get("TextValue")
        reader = str(program or next(iter(readers), REFERENCE_READER))
        label = {"reader": reader, "state": "present"}
        finding = _code(inside.get(_FINDING, {}), "Concept", "CodeMeaning")
        label["label"] = finding_name(finding) or "unnamed"
        for region in (item for item in _items(group) if item.get("ValueType") == "SCOORD"):
            drawn_by_program = (
                "regions were drawn by a program: these are read like those of a reader"
            )
            counts[drawn_by_program] += bool(program)
            points = np.reshape([float(number) for number in region.GraphicData], (-1, 2))
            is_area = region.GraphicType == "POLYLINE" and len(np.unique(points, axis=0)) > 2
            counts["regions have no area: these are read as findings without a box"] += not is_area
            edges = np.concatenate([points.min(axis=0), points.max(axis=0)]).astype(str)
            box = dict(zip(_SIDES, edges, strict=True)) if is_area else {}
            yield from ({"file": uid, **label, **box} for uid in _image_uids(region))
        state = _DECIDED.get(_code(inside.get("decision", {}), "Concept"))
        if "target" in inside and state:
            label["label"] = finding_name(_code(inside["target"], "Concept", "CodeMeaning"))
            yield from ({"file": uid, **label, "state": state} for uid in _image_uids(group))


def _image_uids(item: Any) -> list[str]:
    references = (ref for i in _items(item) for ref in i.get("ReferencedSOPSequence") or ())
    return [str(reference.ReferencedSOPInstanceUID) for reference in references]


SR = replace(
    DICOM,
    name="sr",
    title="DICOM files with structured reports",
    make_label_tables=_report_table,
    folder="DICOM images, and reports (TID 1500) that refer to them",
)
