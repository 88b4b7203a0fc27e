"""Exposure files: lists of the images that an encoder or a system has seen, with their source."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pandas as pd

from cxr_compare.data_prep.contracts.column_names import column_names, find_column
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.ids import is_member
from cxr_compare.data_prep.contracts.text import TEXT
from cxr_compare.data_prep.contracts.text_files import read_text_file
from cxr_compare.data_prep.sources.image_lists import image_name
from cxr_compare.data_prep.sources.patient_lookup import NIH_NAME, nih_patients, read_nih_names
from cxr_compare.evaluation.boxes.box_checks import near_ids
from cxr_compare.evaluation.groups.exposure import Exposure
from cxr_compare.evaluation.labelled_images import LabelledImages

_CELL_END = re.compile(r"[,;\t]")
_FACT = re.compile(r"#\s*(source|encoder|labels)\s*:\s*(.*)", re.IGNORECASE)
_NIH_COLUMNS = ("nihimage",)
_IMAGE_COLUMNS = ("imageid", *column_names("file"))


@dataclass(frozen=True)
class SeenList:
    """List of images that an encoder or a whole model has seen in training, read from a text file.

    An encoder is a network that computes features, on which a further model was trained.

    Attributes:
        names: Names of the images without folder and file suffix, each once.
        kind: ``image_id`` if the names are ids of the data set under evaluation, ``nih_image`` if
            they are file names of the NIH ChestX-ray14 data set.
        source: Text that says where the list comes from, such as "the authors' list".
        labels_seen: True if the labels of these images were used in training, too; False if only
            the pixels were.
        encoder: Name of the encoder that has seen the images, where it is only one part of the
            model; empty if the whole model has seen them.
    """

    names: pd.Series
    kind: Literal["image_id", "nih_image"]
    source: str
    labels_seen: bool
    encoder: str


def read_seen_list(path: Path) -> SeenList:
    r"""Read a text file that lists the images which an encoder or model has seen in training.

    It begins with the line ``# source: TEXT`` (where the list comes from), then with
    ``# labels: unseen`` or ``# labels: seen`` (whether training used the labels of the images) and,
    if only an encoder inside the model saw the images, ``# encoder: NAME``. The next line is
    ``image_id`` or ``nih_image``, and each further line names one image. An InputError is raised if
    the source, the labels, the column name or all images are missing.

    Example:
        >>> import tempfile
        >>> text = "# source: the authors' list\n# labels: unseen\nnih_image\n00000013_005.png\n"
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, "seen.csv").write_text(text)
        ...     read_seen_list(Path(folder, "seen.csv")).names.tolist()
        ['00000013_005']
    """
    if not path.is_file():
        reason = "is a folder; give the exposure file" if path.is_dir() else "no such file"
        raise InputError(f"{path}: {reason}")
    facts: dict[str, str] = {}
    rows: list[tuple[int, str]] = []
    for number, line in enumerate(read_text_file(path).splitlines(), start=1):
        text = line.strip().strip('"').strip()
        if not text:
            continue
        if text.startswith("#"):
            found = _FACT.fullmatch(text.rstrip(",; "))
            if found:
                facts[found[1].lower()] = found[2].strip()
            continue
        rows.append((number, text))
    for fact, example in (("source", "where the list comes from"), ("labels", "unseen")):
        if not facts.get(fact):
            raise InputError(f"{path}: does not state its {fact}; add a line '# {fact}: {example}'")
    labels = facts["labels"].lower()
    if labels not in ("seen", "unseen"):
        raise InputError(f"{path}: labels: {labels!r} is neither seen nor unseen")
    if not rows:
        raise InputError(f"{path}: lists no image")
    (number, header), *images = rows
    column = _first_cell(header)
    is_nih = find_column([column], _NIH_COLUMNS) is not None
    if not is_nih and find_column([column], _IMAGE_COLUMNS) is None:
        raise InputError(
            f"{path}: line {number}: {column!r} is no name of a column; write image_id or "
            "nih_image above the images"
        )
    names = [image_name(_first_cell(line)) for _, line in images]
    if not names:
        raise InputError(f"{path}: lists no image; write one a line below {column}")
    return SeenList(
        pd.Series(names, dtype=TEXT).drop_duplicates(ignore_index=True),
        "nih_image" if is_nih else "image_id",
        facts["source"],
        labels == "seen",
        facts.get("encoder", ""),
    )


def _first_cell(line: str) -> str:
    return _CELL_END.split(line)[0].strip().strip('"')


def read_exposure(
    system: str, path: Path, truth: LabelledImages, mapping: Path | None = None
) -> Exposure:
    """Find the evaluated images that a detector or classifier saw in training, from a list.

    The list (`read_seen_list`) is of the whole model, or of its encoder, the part that computes
    features. Images are found by their id and, if `mapping` is given, by their file name in the NIH
    data set, from which the RSNA images were taken: ``rsna_to_nih.csv``, or a folder that holds it.
    A patient counts as seen if any image of the patient in the data set, or any listed NIH image of
    the patient, was seen.

    An InputError is raised if the list of ids has none of the data set, or if it names NIH images,
    no image of the data set has such a name, and no `mapping` is given.
    """
    seen = read_seen_list(path)
    images = truth.images[["image_id", "patient_id"]]
    names = images["image_id"].map(image_name).astype(TEXT)
    is_seen = is_member(names, seen.names) | is_member(images["image_id"], seen.names)
    first = seen.names[0]
    if seen.kind == "nih_image" and not seen.names.str.fullmatch(NIH_NAME).any():
        raise InputError(
            f"{path}: {first!r} is no name of an NIH image, such as 00000013_005, and none of the "
            "others is; name the column image_id if they are ids of the data set"
        )
    if seen.kind == "image_id" and mapping is None and not is_seen.any():
        known = images["image_id"]
        near = near_ids([first], known)
        likely = f"is {first!r} the image '{near[first]}'?" if near else f"it begins with {first!r}"
        raise InputError(
            f"{path}: names no image of {truth.source}, whose ids are such as '{known.iloc[0]}' "
            f"({likely}); correct the names"
        )
    unknown = pd.Index([], dtype=object)
    if mapping is not None:
        to_nih = read_nih_names(mapping)
        nih_names = names.map(to_nih)
        listed_nih = pd.concat([seen.names, seen.names.map(to_nih).dropna()])
        is_seen = is_seen | is_member(nih_names, listed_nih)
        lacking = nih_names.isna().to_numpy() & ~is_seen & (seen.kind == "nih_image")
        lacking = lacking & ~names.str.fullmatch(NIH_NAME).to_numpy(dtype=bool)
        unknown = pd.Index(images.loc[lacking, "image_id"])
    elif seen.kind == "nih_image" and nih_patients(names).empty:
        raise InputError(
            f"{path}: lists images of NIH, and {truth.source} has other names; say which they "
            "are with --mapping rsna_to_nih.csv, or list image_id"
        )
    patients = set(images.loc[is_seen, "patient_id"])
    patients |= set(nih_patients(seen.names)["patient_id"]) & set(images["patient_id"])
    return Exposure(
        system,
        seen.source,
        seen.labels_seen,
        pd.Index(images.loc[is_seen, "image_id"]),
        frozenset(map(str, patients)),
        seen.encoder,
        unknown,
    )
