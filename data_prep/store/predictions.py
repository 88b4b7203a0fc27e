"""A predictions folder: the output of one system on the images of one data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from cxr_compare.data_prep.contracts.errors import counted
from cxr_compare.data_prep.contracts.ids import is_member
from cxr_compare.data_prep.contracts.notebook import OpenedFromFolder, html_lines
from cxr_compare.data_prep.contracts.tables import (
    empty_table,
    read_table,
    require_members,
    stored_table,
    table_parts,
    typed_table,
)
from cxr_compare.data_prep.store.identify_folder import require_kind
from cxr_compare.data_prep.store.prediction_info import PredictionsInfo
from cxr_compare.data_prep.store.prediction_writer import PREDICTION_SCHEMAS, Part

SEEN_FILE = "seen.parquet"
"""File beside predictions: all images that were used to fit or select the system."""


@dataclass
class Predictions(OpenedFromFolder):
    """Complete predictions of one system (a model or a human reader) for the images of a data set.

    Each table is read from the folder when it is first used.

    Attributes:
        folder: Folder of the predictions; for predictions in memory, the path of the file that they
            were read from.
        info: Content of the file ``predictions.json`` in the folder.
        tables: For predictions without a folder: tables in memory by name, such as ``scores``.

    Example:
        >>> import cxr_compare
        >>> cxr_compare.Predictions.open("no-such-folder")
        Traceback (most recent call last):
        ...
        cxr_compare...InputError: no-such-folder: no such folder; ...
    """

    folder: Path
    info: PredictionsInfo
    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def open(cls, folder: str | Path) -> Predictions:
        """Open a folder of predictions that ``cxr predict`` made.

        Args:
            folder: Path of the folder.

        Raises:
            InputError: The folder holds no complete predictions.
        """
        folder = Path(folder)
        require_kind(folder, "predictions")
        return cls(folder, PredictionsInfo.read(folder / "predictions.json"))

    @classmethod
    def from_part(cls, info: PredictionsInfo, part: Part) -> Predictions:
        """Make an object for predictions in memory, without a folder.

        Args:
            info: Content that ``predictions.json`` would have.
            part: Tables with the predictions for all images of the data set.
        """
        known_tables = {"predicted_images": part.images, **part.tables}
        tables = {}
        for name, schema in PREDICTION_SCHEMAS.items():
            if name in known_tables:
                tables[name] = typed_table(known_tables[name], schema)
            else:
                tables[name] = empty_table(schema)
        return cls(Path(info.system), info, tables)

    def _repr_html_(self) -> str:
        return html_lines(str(self))

    def __repr__(self) -> str:
        images = counted(len(self.images), "image")
        return f"<Predictions of '{self.name}': {self.kind} on {images}, {self.folder}>"

    def __str__(self) -> str:
        rows = self.boxes if self.kind == "boxes" else self.scores
        counts = f"{len(rows):,} {self.kind}"
        images = counted(len(self.images_run), "image")
        return f"{self.name}: {counts} on {images}\nPredictions: {self.folder}"

    def to_dict(self) -> dict[str, Any]:
        """Return the content of ``predictions.json``, with the folder and the number of images.

        Images for which the system gave no output are not counted.
        """
        return {"folder": str(self.folder), "images": len(self.images_run), **self.info.to_json()}

    @property
    def name(self) -> str:
        """Name of the system for pages and sentences, such as ``RetinaNet``."""
        return self.info.system

    @property
    def kind(self) -> Literal["boxes", "scores"]:
        """``boxes`` of a detector, or ``scores`` of a classifier."""
        return self.info.kind

    images = stored_table("predicted_images.parquet", "predicted_images")
    """All images that the system was run on: ``image_id, status, reason``."""
    scores = stored_table("scores.parquet", "scores")
    """Image scores; empty for a detector."""
    boxes = stored_table("boxes.parquet", "predicted_boxes")
    """Predicted boxes, px of the original image; empty for a classifier."""
    maps = stored_table("maps.parquet", "maps")
    """Activation maps; empty if the system makes none."""

    @cached_property
    def seen(self) -> pd.DataFrame | None:
        """Table of the images that the system was trained or selected on, with their patients.

        None if the predictions do not record these images, as after an import from another program.
        """
        if self.tables:
            return None
        path = self.folder / SEEN_FILE
        if SEEN_FILE not in self.info.files and not path.exists():
            return None
        return read_table(path, "seen", files=self.info.files)

    def rows(self, name: str, findings: Sequence[str], image_ids: pd.Index) -> pd.DataFrame:
        """Return the rows of a table of predictions for some findings and images.

        The files of the table are read one after another, which saves memory.

        Args:
            name: Name of the table: ``scores``, ``boxes`` or ``maps`` (activation maps).
            findings: Names of the findings (diseases) to read.
            image_ids: Ids of the images to read.

        Returns:
            The rows of these findings and images, with all columns of the table.

        Raises:
            InputError: The table is damaged.
        """
        if self.tables:
            return _select_rows(self.tables[name], findings, image_ids).reset_index(drop=True)
        path = self.folder / f"{name}.parquet"
        parts = table_parts(path, self.info.files)
        selected = []
        all_ids = []
        for part in parts or [path]:  # a folder without parts reads as an empty table
            rows = read_table(part, PREDICTION_SCHEMAS[name], files=self.info.files)
            all_ids.append(rows["image_id"].drop_duplicates())
            selected.append(_select_rows(rows, findings, image_ids))
        require_members(pd.concat(all_ids), self.images, path)
        return pd.concat(selected, ignore_index=True)

    @property
    def images_run(self) -> pd.Index:
        """Ids of the images for which the system gave an output."""
        images = self.images
        return pd.Index(images.loc[images["status"] == "ok", "image_id"], name="image_id")


def _select_rows(table: pd.DataFrame, findings: Sequence[str], image_ids: pd.Index) -> pd.DataFrame:
    is_selected = is_member(table["image_id"], image_ids) & is_member(table["finding"], findings)
    return table[is_selected]
