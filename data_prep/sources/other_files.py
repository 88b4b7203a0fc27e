"""Files of labels that no format reads: the tool that wrote them, or what is in them."""

from __future__ import annotations

from pathlib import Path

from cxr_compare.data_prep.sources.image_files import contains, files_below

_EXPORT = "export its labels as COCO, Pascal VOC or YOLO"
_TOOLS = {
    "Supervisely": (rb'"classTitle"\s*:', rb'"geometryType"\s*:'),
    "VIA 3": (rb'"vid_list"\s*:',),
    "VoTT": (rb'"asset"\s*:', rb'"boundingBox"\s*:'),
    "Labelbox": (rb'"(?:data_row|Labeled Data)"\s*:',),
    "V7 Darwin": (rb'"bounding_box"\s*:', rb'"item"\s*:'),
    "CreateML": (rb'"annotations"\s*:', rb'"coordinates"\s*:'),
    "SageMaker Ground Truth": (rb'"source-ref"\s*:',),
    "MD.ai": (rb'"labelGroups"\s*:', rb'"datasets"\s*:'),
    "ChestX-Det": (rb'"file_name"\s*:', rb'"syms"\s*:', rb'"boxes"\s*:'),
}
_SUFFIXES = (
    ".json", ".jsonl", ".ndjson", ".xml", ".csv", ".tsv", ".xlsx", ".manifest", ".parquet", ".pkl",
)  # fmt: skip
_FILES_OPENED = 20
_SHOWN = 3


def tool_of_file(path: Path) -> str | None:
    """Return the name of the tool, which no format reads, that wrote a file; None if unknown."""
    return next((tool for tool, marks in _TOOLS.items() if contains(path, marks)), None)


def describe_label_files(folder: Path) -> str | None:
    """Return what the files of a folder are that look like labels and that no format reads.

    Returns:
        Part of a sentence with the names of the files and what to do; None without such files.
    """
    paths = files_below(folder, _SUFFIXES)[:_FILES_OPENED]
    tables = (".csv", ".tsv", ".xlsx")
    paths = [path for path in paths if "/" in path or not path.lower().endswith(tables)]
    if not paths:
        return None
    for path in paths:
        tool = tool_of_file(folder / path)
        if tool is not None:
            return f"it holds files of {tool}, such as {path}, which are not read; {_EXPORT}"
    named = ", ".join(paths[:_SHOWN])
    more = f" and {len(paths) - _SHOWN} more" if len(paths) > _SHOWN else ""
    return f"it holds files of no format that is read: {named}{more}; {_EXPORT}"
