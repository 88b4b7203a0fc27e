"""What the tests of several formats ask of a source's tables."""

from data_prep.formats.source import SourceTables


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
