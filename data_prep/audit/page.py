"""Write `audit.html`: one self-contained page that opens with the verdict, then shows the worst.

Beside it ``audit_cases.csv`` names every image or file that a problem is of, and ``exclude.csv``
the images that the audit suggests to leave out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pydicom.uid import UID_dictionary

from cxr_compare.data_prep.audit.audit import AUDIT, AUDIT_PAGE, EXCLUDE, Audit
from cxr_compare.data_prep.audit.checks import SEVERITIES, SHORTCUT_AUROC, Problem
from cxr_compare.data_prep.audit.copies import (
    ILLEGIBLE_PX,
    THUMBNAIL_PX,
    open_images,
    text_suspects,
    thumbnail,
)
from cxr_compare.data_prep.audit.counts import BURNED_IN_TEXT, MISSING, VIEW_AND_TEXT
from cxr_compare.data_prep.contracts.atomic_files import write_text
from cxr_compare.data_prep.contracts.boxes import EDGES
from cxr_compare.data_prep.contracts.errors import InputError, counted
from cxr_compare.data_prep.contracts.pages import template_environment
from cxr_compare.data_prep.contracts.provenance import provenance
from cxr_compare.data_prep.contracts.tables import write_csv
from cxr_compare.data_prep.contracts.text import TEXT
from cxr_compare.data_prep.duplicates.near_duplicates import (
    CERTAIN_DISTANCE,
    NEAR_CORRELATION,
    TRUSTED_DISTANCE,
)
from cxr_compare.data_prep.duplicates.set_copies import ImageReader
from cxr_compare.data_prep.images.image_facts import TEXT_LINE_CHARACTERS, TEXT_PLACE
from cxr_compare.data_prep.store.dataset import DataSet, read_displayed

_WORDS = {
    "error": ("invalidates results", "invalidate results"),
    "warning": ("may affect results", "may affect results"),
    "info": ("worth knowing", "worth knowing"),
}
_LIMITS = {
    "certain_bits": CERTAIN_DISTANCE,
    "trusted_bits": TRUSTED_DISTANCE,
    "correlation": f"{NEAR_CORRELATION:g}",
    "characters": TEXT_LINE_CHARACTERS,
}


def _verdict(counts: dict[str, int]) -> str:
    """One sentence."""
    errors = counts["error"]
    warnings = counted(counts["warning"], "warning")
    if errors:
        more = f"; {warnings} may affect them" if counts["warning"] else ""
        command = _WORDS["error"][errors > 1]
        return f"{counted(errors, 'error')} {command} on this data set{more}."
    if counts["warning"]:
        return f"No error was found; {warnings} may affect results."
    return "No error was found that invalidates results."


def _explain(problems: Iterable[Problem]) -> str:
    """What to do first."""
    worst = next(iter(problems), None)
    if worst is None or worst.severity == "info":
        return "Read the shortcuts below before you read results."
    word = "Fix first" if worst.severity == "error" else "Look first at"
    return f"{word}: {worst.message}."


def _tally(counts: dict[str, int]) -> list[tuple[str, str]]:
    """Counts by severity, those that are not 0."""
    return [(s, f"{counts[s]} {_WORDS[s][counts[s] > 1]}") for s in SEVERITIES if counts[s]]


def _image_rows(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """Sizes, spacing, storage and copies as titles and words."""
    images = facts.get("pictures", {})
    copies = facts.get("copies")
    rows = []
    if sizes := images.get("sizes"):
        text = (
            f"{sizes['smallest']} to {sizes['largest']}; {sizes['different']:,} different; "
            f"{sizes['commonest_share']:.0%} are {sizes['commonest']}"
        )
        rows.append(("Size, px (width × height)", text.replace(" x ", " × ")))
    if field := images.get("field_width_mm"):
        low, middle, high = field["quartiles"]
        text = f"{middle:.0f} mm (quartiles {low:.0f} to {high:.0f}), known of {field['n_known']:,}"
        rows.append(("Field width", text))
    for name, counts in images.get("files", {}).items():
        if set(counts) != {MISSING}:
            words = _syntax if name == "transfer_syntax" else str
            listed = ", ".join(f"{words(value)}: {n:,}" for value, n in counts.items())
            rows.append((name.replace("_", " ").capitalize(), listed))
    if copies:
        text = f"{counted(copies['equal'], 'image')} equal to another, {copies['near']:,} nearly"
        rows.append(("Copies", text if any(copies.values()) else "none found"))
    return rows


def _syntax(value: str) -> str:
    """The name of a transfer syntax, as the DICOM standard gives it."""
    return str(UID_dictionary.get(value, (value,))[0])


_CASES_NAME = "audit_cases.csv"
_MAX_IMAGES = 60  # beside those with burned-in text
_TEXT_CHECK = "burned_in_text"
_CROP_PX = 220  # longest side of a crop around a line of text
_CROP_HEIGHTS = 1.5  # of the line, on each side of it
_LEAST_MARGIN = 12  # px
_AXIS = (0.4, 1.0)  # of the bars
_CONTENTS = (
    ("findings", "What was found"),
    ("shortcuts", "Shortcuts"),
    ("people", "Who is in the set"),
    ("images", "Images and files"),
    ("methods", "How this was done"),
)


@dataclass(frozen=True)
class _Shown:
    """An image on the page; sizes and boxes are in px of the original."""

    image_id: str  # empty where another image beside it has it
    label: str  # for those who do not see it
    source: str  # a ``data:`` address
    longest: int  # side on the page, px
    width: float
    height: float
    boxes: list[tuple[float, float, float, float]]  # x, y, width, height
    words: Sequence[str] = ()  # lines below the id: patient, role and labels, path

    @property
    def shown_size(self) -> tuple[int, int]:
        """Width and height on the page."""
        scale = self.longest / max(self.width, self.height)
        return max(round(self.width * scale), 1), max(round(self.height * scale), 1)


def write_audit(dataset: DataSet, found: Audit, folder: Path, *, pixels: bool = True) -> Path:
    """Write ``audit.json`` and the two lists and, last, ``audit.html``; return the page."""
    found.write(folder / AUDIT)
    write_csv(_all_cases(dataset, found), folder / _CASES_NAME)
    if len(exclusions := found.exclusions) and not (folder / EXCLUDE).exists():
        write_csv(exclusions, folder / EXCLUDE)
    return write_text(folder / AUDIT_PAGE, _render_audit(dataset, found, pixels=pixels))


_CASE_COLUMNS = [
    "check",
    "severity",
    "split",
    "group",
    "image_id",
    "partner",
    "patient_id",
    "path",
    "label",
    "role",
]


def _all_cases(dataset: DataSet, found: Audit) -> pd.DataFrame:
    """One row a problem and image or file; with the place of burned-in text, or the wrong box."""
    parts = [pd.DataFrame(columns=_CASE_COLUMNS, dtype=TEXT)]
    for problem in found.problems:
        part = problem.cases.reindex(columns=["group", "image_id", "path"])
        groups = part.groupby("group", sort=False)["image_id"]
        first = groups.transform("first")
        last = groups.transform("last")
        part["partner"] = first.where(first != part["image_id"], last)
        part["group"] = groups.ngroup().where(part["group"].notna()) + 1
        said = {"check": problem.check, "severity": problem.severity, "split": problem.split}
        parts.append(part.assign(**said))
    cases = pd.concat(parts, ignore_index=True).astype({"group": "Int64", "path": TEXT})
    images = dataset.images.set_index("image_id").assign(label=_label_words(dataset))
    about = images.reindex(cases["image_id"]).set_axis(cases.index)
    cases["path"] = about["path"].fillna(cases["path"])
    cases[["patient_id", "label"]] = about[["patient_id", "label"]]
    for split in cases["split"].unique():
        roles = cases["image_id"].map(_roles(dataset, split))
        cases["role"] = roles.where(cases["split"] == split, cases["role"])
    texts = _text_corners(dataset.optional_table("decode")).set_axis(EDGES, axis=1)
    boxes = _left_out(dataset)[EDGES].dropna(how="all")
    is_file = cases["image_id"].isna()
    place = cases["image_id"].where(cases["check"] == _TEXT_CHECK, cases["path"].where(is_file))
    cases[EDGES] = pd.concat([texts, boxes]).reindex(place).round(1).to_numpy()
    return cases


def _label_words(dataset: DataSet) -> pd.Series:
    """By image id the targets that it is positive for; else that it is negative, or unlabelled."""
    labels = {t.display_name: dataset.labels(t) for t in dataset.targets.values()}
    ids = pd.Index(dataset.images["image_id"])
    words = pd.Series("", ids)
    for title, label in labels.items():
        words += np.where(label == 1, f", {title}", "")
    known = pd.DataFrame(labels, index=ids).notna().any(axis=1)
    otherwise = known.map({True: "negative", False: "unlabelled"})
    return words.str.removeprefix(", ").where(words != "", otherwise)


def _roles(dataset: DataSet, split: str) -> pd.Series:
    """Role by image id in a split, in the default one where none is named; empty without it."""
    with suppress(InputError):  # a set may have other splits only
        return dataset.split(split or "default").set_index("image_id")["role"]
    return pd.Series(dtype=TEXT)


def _left_out(dataset: DataSet) -> pd.DataFrame:
    """The wrong box of each image that one rules out, and the digest of its file, by path."""
    table = dataset.optional_table("excluded").drop_duplicates("path").set_index("path")
    return table.reindex(columns=["file_sha256", *EDGES])


def _text_corners(decode: pd.DataFrame) -> pd.DataFrame:
    """Where text is suspected, by image id; empty where the set was prepared before that."""
    return decode.set_index("image_id").reindex(columns=list(TEXT_PLACE)).astype("float64").dropna()


def _render_audit(dataset: DataSet, found: Audit, *, pixels: bool = True) -> str:
    """Return the page as HTML."""
    titles = {name: target.display_name for name, target in dataset.targets.items()}
    album = _Album(dataset, pixels)
    problems = [(problem, album.cases(problem)) for problem in found.problems]
    facts = found.facts
    chosen = {} if any(cases for _, cases in problems) else facts.get("pictures", {})
    examples = {
        name: album.cases(Problem.of(name, "info", "", np.array(ids), shown=ids))
        for name, ids in chosen.get("examples", {}).items()
    }
    page = template_environment(Path(__file__).parent).get_template("audit.jinja")
    return page.render(
        name=dataset.name,
        scope=found.scope,
        verdict=_verdict(found.counts),
        explanation=_explain(found.problems),
        tally=_tally(found.counts),
        contents=[entry for entry in _CONTENTS if entry[0] != "findings" or problems],
        problems=problems,
        examples=examples,
        n_exclusions=len(found.exclusions),
        exclude_name=EXCLUDE,
        has_review=(dataset.folder / "label_review.html").is_file(),
        text_groups=(BURNED_IN_TEXT, VIEW_AND_TEXT),
        cases_name=_CASES_NAME,
        text_check=_TEXT_CHECK,
        charts=_charts(facts.get("shortcuts", []), titles),
        unknown=_unknown(facts.get("prevalence", [])),
        prevalences=_prevalences(facts.get("prevalence", []), titles),
        images=_image_rows(facts),
        limits=_LIMITS,
        version=provenance()["versions"].get("cxr-compare", ""),
    )


class _Album:
    """Fetches the images that the page shows, and stops at a number."""

    def __init__(self, dataset: DataSet, pixels: bool) -> None:
        self.read: ImageReader | None = open_images(dataset)[0] if pixels else None
        self.left = _MAX_IMAGES
        self.dataset = dataset
        if self.read is None:
            return
        decode = dataset.optional_table("decode")
        self.texts = _text_corners(decode)
        self.illegible = set(text_suspects(decode))
        self.rows = pd.Index(dataset.images["image_id"])
        self.sizes = dataset.images[["width", "height"]].astype("float64").to_numpy()
        self.boxes = dataset.boxes
        self.paths = dataset.images[["patient_id", "path"]]
        self.labels = _label_words(dataset)
        self.left_out = _left_out(dataset)
        self.roles_of = cache(partial(_roles, dataset))

    def cases(self, problem: Problem) -> list[list[_Shown]]:
        """The images of a problem, one list a case; none where there are no pixels."""
        if self.read is None:
            return []
        self.roles = self.roles_of(problem.split)
        of_text = problem.check == _TEXT_CHECK
        of_file = problem.unit == "file"
        if of_text:
            self.left += 2 * len(problem.pictures)
        show = self._show_left_out if of_file else self._show
        cases = [
            self._show_text(case[0]) if of_text else [show(name) for name in case]
            for case in problem.pictures
        ]
        shown = [[image for image in case if image is not None] for case in cases]
        return [case for case in shown if case]

    def _show_left_out(self, path: str) -> _Shown | None:
        """An image that a wrong box rules out, with that box as far as it can be drawn."""
        sha256, *edges = self.left_out.loc[[path]].to_numpy()[0].tolist()
        try:
            file = self.dataset.source_root / path
            pixels = read_displayed(file, self.dataset.window, str(sha256))
        except InputError:
            return None  # moved, or hidden behind a hash
        height, width = pixels.shape
        x1, y1, x2, y2 = edges
        least = max(width, height) / 100  # a box of zero size would not be seen
        box = (x1, y1, max(x2 - x1, least), max(y2 - y1, least))
        numbers = ", ".join(f"{name} {edge:g}" for name, edge in zip(EDGES, edges, strict=True))
        return _Shown(
            path,
            f"Image {path}, left out",
            thumbnail(pixels),
            THUMBNAIL_PX,
            width,
            height,
            [box] if np.isfinite(edges).all() else [],
            [numbers.replace("nan", "missing"), f"of {width} × {height} px"],
        )

    def _show_text(self, image_id: str) -> list[_Shown | None]:
        """The whole image, too small to be read, with a frame; and a crop around the text."""
        image = self._show(image_id)
        if image is None or image_id not in self.texts.index:  # only the header speaks of text
            return [image]
        try:  # a small store has lost the text
            pixels = self.dataset.read_original(image_id)
        except InputError:
            return [image]  # the audit has said that images are gone
        x1, y1, x2, y2 = corners = tuple(self.texts.loc[image_id])
        framed = replace(image, boxes=[(x1, y1, x2 - x1, y2 - y1)])
        return [framed, _crop(image_id, pixels, corners)]

    def _show(self, image_id: str) -> _Shown | None:
        if self.read is None or self.left <= 0 or image_id not in self.rows:
            return None
        try:
            pixels = self.read(image_id)
        except InputError:
            return None  # the audit has said that images are gone
        self.left -= 1
        longest = ILLEGIBLE_PX if image_id in self.illegible else THUMBNAIL_PX
        width, height = self.sizes[self.rows.get_loc(image_id)].tolist()
        if np.isnan(width) or np.isnan(height):
            height, width = (float(side) for side in pixels.shape)
        return _Shown(
            image_id,
            f"Image {image_id}",
            thumbnail(pixels, longest),
            longest,
            width,
            height,
            self._boxes_of(image_id),
            self._words(image_id),
        )

    def _boxes_of(self, image_id: str) -> list[tuple[float, float, float, float]]:
        rows = self.boxes[self.boxes["image_id"] == image_id]
        edges = rows[EDGES].to_numpy(dtype="float64")
        edges = edges[np.isfinite(edges).all(axis=1)].round(1)
        return [(x1, y1, x2 - x1, y2 - y1) for x1, y1, x2, y2 in edges.tolist()]

    def _words(self, image_id: str) -> list[str]:
        patient, path = self.paths.iloc[self.rows.get_loc(image_id)]
        role = self.roles.get(image_id)
        label = self.labels[image_id]
        return [f"patient {patient}", f"{role}: {label}" if isinstance(role, str) else label, path]


def _crop(image_id: str, pixels: np.ndarray, corners: tuple[float, ...]) -> _Shown:
    """What lies around a line of text, with a frame around the line."""
    x1, y1, x2, y2 = corners
    margin = max(_CROP_HEIGHTS * (y2 - y1), _LEAST_MARGIN)
    left = int(max(x1 - margin, 0))
    top = int(max(y1 - margin, 0))
    crop = pixels[top : int(y2 + margin), left : int(x2 + margin)]
    height, width = crop.shape
    frame = (x1 - left - 2, y1 - top - 2, x2 - x1 + 4, y2 - y1 + 4)
    label = f"Suspected text of image {image_id}"
    source = thumbnail(crop, _CROP_PX)
    return _Shown("", label, source, _CROP_PX, width, height, [frame])


def _charts(rows: list[dict[str, Any]], titles: dict[str, str]) -> list[tuple[str, list[Any]]]:
    """One bar chart a target."""
    charts = []
    for target, group in groupby(rows, key=lambda row: str(row["target"])):
        entries = list(group)
        note = (
            f"{counted(entries[0]['n_images'], 'image')}, {entries[0]['n_positive']:,} positive. "
            f"Axis from {_AXIS[0]} to {_AXIS[1]:.0f}, dashed: chance. Whiskers: 95 % interval."
        )
        bars = [{**_bar(row), "note": note} for row in entries]
        charts.append((titles.get(target, target), bars))
    return charts


def _bar(row: dict[str, Any]) -> dict[str, Any]:
    ends = [row["ci_low"], row["ci_high"]]
    known = None not in ends
    part = row["n_known"] < row["n_images"]
    words = f"{ends[0]:.3f} to {ends[1]:.3f}" if known else "no interval: wholly apart"
    return {
        "fact": row["fact"] + (f" ({counted(row['n_known'], 'image')})" if part else ""),
        "text": f"{row['auroc']:.3f}",
        "ends": words,
        "strong": row["auroc"] >= SHORTCUT_AUROC,
        "chance": _on_axis(0.5),
        "end": _on_axis(row["auroc"]),
        "low": _on_axis(ends[0]) if known else None,
        "high": _on_axis(ends[1]) if known else None,
    }


def _on_axis(auroc: float) -> float:
    low, high = _AXIS
    return round(100 * min(max((auroc - low) / (high - low), 0.0), 1.0), 2)


def _prevalences(rows: list[dict[str, Any]], titles: dict[str, str]) -> list[tuple[str, list[Any]]]:
    """One table a target, in groups; a group of one value says no more than the whole."""
    tables = []
    for target, group in groupby(rows, key=lambda row: str(row["target"])):
        groups = [(by, list(part)) for by, part in groupby(group, key=lambda row: row["by"])]
        stated = [(by, part) for by, part in groups if by == "all" or len(part) > 1]
        tables.append((titles.get(target, target), stated))
    return tables


def _unknown(rows: list[dict[str, Any]]) -> str:
    """What is known of no image."""
    known = {row["by"] for row in rows if row["value"] != MISSING}
    return ", ".join(dict.fromkeys(row["by"] for row in rows if row["by"] not in known))
