"""Recognition of files of labels by their content, without reading them whole into memory."""

from __future__ import annotations

from pathlib import Path

from cxr_compare.data_prep.contracts.table_files import is_table_file, read_header
from cxr_compare.data_prep.formats.folder_scan import contains, files_below

LABELME_MARKS = (rb'"shapes"\s*:', rb'"imagePath"\s*:')
"""Keys by which a JSON of labelme is recognised."""
VIA_MARKS = (rb'"filename"\s*:', rb'"regions"\s*:', rb'"file_attributes"\s*:')
"""Keys by which a JSON of the VGG Image Annotator 2 is recognised."""
LABEL_STUDIO_MARKS = (rb'"data"\s*:', rb'"annotations"\s*:', rb'"result"\s*:')
"""Keys by which a JSON of Label Studio is recognised."""
COCO_MARKS = (rb'"images"\s*:\s*\[', rb'"(?:annotations|categories)"\s*:\s*\[')
"""Keys by which a COCO annotation file is recognised."""
# The marks of one format may all be in the files of another that stands before it.
_JSON_KINDS = {
    "labelme": LABELME_MARKS,
    "via": VIA_MARKS,
    "label-studio": LABEL_STUDIO_MARKS,
    "coco": COCO_MARKS,
}
_OTHER_TOOLS = {
    "Supervisely": (rb'"classTitle"\s*:', rb'"geometryType"\s*:'),
    "VIA 3": (rb'"vid_list"\s*:',),
    "VoTT": (rb'"asset"\s*:', rb'"boundingBox"\s*:'),
    "Labelbox": (rb'"(?:data_row|Labeled Data)"\s*:',),
    "V7 Darwin": (rb'"bounding_box"\s*:', rb'"item"\s*:'),
    "CreateML": (rb'"annotations"\s*:', rb'"coordinates"\s*:'),
    "SageMaker Ground Truth": (rb'"source-ref"\s*:',),
}
_VIA_COLUMNS = {"filename", "region_shape_attributes", "region_attributes"}
_FILES_OPENED = 20


def label_file_kind(path: Path) -> str | None:
    """Return the format of a file of labels by its content; None if it is of no known format.

    Args:
        path: A file, or any other path.

    Returns:
        Name as in ``--format``: ``table`` for a file whose name is that of a table, ``cvat``,
        ``via``, ``labelme``, ``label-studio`` or ``coco``.

    Example:
        >>> label_file_kind(Path("labels.xlsx")), label_file_kind(Path("out/rsna"))
        ('table', None)
    """
    suffix = path.suffix.lower()
    if is_table_file(path):
        return "via" if is_via_table(path) else "table"
    if suffix == ".xml":
        return "cvat"
    if suffix != ".json" or not path.is_file():
        return None
    return next((kind for kind, marks in _JSON_KINDS.items() if contains(path, marks)), None)


def is_via_table(path: Path) -> bool:
    """Return True if a file is a CSV of the VGG Image Annotator."""
    return {name.lstrip("#") for name in read_header(path)} >= _VIA_COLUMNS


def unread_tool(folder: Path) -> str | None:
    """Return the name of a tool whose files a folder holds, and which no format reads.

    Args:
        folder: Folder of images and labels.

    Returns:
        The name, such as ``Supervisely``; None if no such tool is recognised.
    """
    for path in files_below(folder, (".json", ".manifest"))[:_FILES_OPENED]:
        tool = tool_of_file(folder / path)
        if tool is not None:
            return tool
    return None


def tool_of_file(path: Path) -> str | None:
    """Return the name of the tool, which no format reads, that wrote a JSON; None if unknown."""
    return next((tool for tool, marks in _OTHER_TOOLS.items() if contains(path, marks)), None)
