"""What the tests of several formats write, read and ask of a source's tables."""

from collections.abc import Callable, Mapping
from pathlib import Path

from cxr_compare.data_prep.sources.source_tables import ReadOptions, SourceTables

from cxr_compare.data_prep.sources.registry import read_source


def reader(format: str) -> Callable[..., SourceTables]:  # noqa: A002
    """A function that reads a folder in a format, with the format's options by name."""
    return lambda folder, **options: read_source(folder, format, ReadOptions(**options))


def write_files(folder: Path, files: Mapping[str, str | bytes]) -> Path:
    """Write files by name; an image may be empty where no reader opens it."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def edges(tables: SourceTables) -> list[list[float]]:
    """x1, y1, x2, y2 of each box."""
    return tables.boxes[["x1", "y1", "x2", "y2"]].to_numpy().tolist()


def states(tables: SourceTables, reader: str = "reference") -> dict[tuple[str, str], str]:
    """State by image and finding, of one reader."""
    rows = tables.findings[tables.findings["reader"] == reader]
    return dict(
        zip(zip(rows["image_id"], rows["finding"], strict=True), rows["state"], strict=True)
    )


def states_of(tables: SourceTables, image_id: str) -> dict[str, str]:
    """State by finding, of one image."""
    return {finding: state for (name, finding), state in states(tables).items() if name == image_id}


def reasons(tables: SourceTables) -> dict[str, str]:
    """Why each path was left out."""
    return dict(zip(tables.excluded["path"], tables.excluded["reason"], strict=True))


def roles(tables: SourceTables) -> dict[str, str]:
    """The publisher's role of each image."""
    return dict(zip(tables.official["image_id"], tables.official["role"], strict=True))
