"""The page of a data set, ``data.html``: pictures by rule, what was read, faults."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any

import numpy as np
import pandas as pd
from PIL.ImageColor import getrgb

from cxr_compare.data_prep.audit import Audit, Problem
from cxr_compare.data_prep.base.boxes import EDGES
from cxr_compare.data_prep.base.errors import InputError, counted
from cxr_compare.data_prep.base.files import write_text
from cxr_compare.data_prep.base.ids import is_member
from cxr_compare.data_prep.dataset import DATA_PAGE, DataSet
from cxr_compare.data_prep.sources.record import shown_lines, titled_facts
from cxr_compare.evaluation.overlays.colours import system_mark
from cxr_compare.evaluation.overlays.draw import Pixels, draw_boxes
from cxr_compare.evaluation.report.overlay_page import picture_source
from cxr_compare.evaluation.report.page_templates import template_environment

Picture = dict[str, Any]
_SIDE, _QUALITY = 224, 76
_MOST_BYTES = 900_000  # of all pictures but the outlines
_LETTERS = 13  # that a line below a picture has room for
_SEED = 0
_IN_ROW, _MOST_POSITIVES, _MOST_FINDINGS = 8, 32, 16
_MOST_CASES, _CASES_SHOWN, _IMAGES_SHOWN = 16, 3, 3  # of all faults, and of each
_MOST_OUTLINES = 400
_ADULT = 18.0
_KINDS = ["source", "x_set", "view", "child"]
_BARS = 32
_PATIENTS = {
    "mapped": "from a table of patients",
    "mapped_unverified": "from a table of patients that was not checked",
    "assumed_image": "unknown, each image one of its own",
}
"""Words for where a patient comes from."""


class _Album:
    """Small pictures of a data set, each with its boxes and a line of facts.

    Attributes:
        boxes: All boxes, in shares of the sides of their image.
        colours: Colour of each boxed finding.
        squares: What was drawn, without boxes, as squares.
    """

    def __init__(self, dataset: DataSet, roles: pd.Series, *, shown: bool) -> None:
        facts = dataset.images.set_index("image_id")
        self.facts = facts.reindex(columns=["view", "age_years", "sex"]).assign(role=roles)
        self.facts["age_years"] = self.facts["age_years"].map("{:g} y".format, na_action="ignore")
        sides = facts[["width", "height"]].reindex(dataset.boxes["image_id"]).astype("float64")
        self.boxes = dataset.boxes[["image_id", "finding"]].copy()
        self.boxes[EDGES] = dataset.boxes[EDGES].to_numpy() / np.tile(sides.to_numpy(), 2)
        findings = self.boxes["finding"].value_counts().index
        self.colours = {
            finding: system_mark(position).colour for position, finding in enumerate(findings)
        }
        self._label_of = _labels(dataset.images["image_id"])
        self._rows = self.boxes.groupby("image_id").indices
        self.squares: list[Any] = []
        self._read = _reader(dataset)
        self._shown, self._room = shown, _MOST_BYTES

    def pictures(self, ids: Iterable[str], *reasons: str) -> list[Picture]:
        """Return a picture of each image that can be read, with the reasons for choosing them."""
        import cv2

        pictures = []
        for position, image_id in enumerate(ids if self._shown else ()):
            if self._room < 0:
                break
            with suppress(InputError):
                pixels = self._read(image_id)
                self.squares.append(cv2.resize(pixels, (_SIDE, _SIDE)))
                image_boxes = self.boxes.iloc[self._rows.get(image_id, [])]
                marks: dict[tuple[float, ...], str] = {}
                for _, finding, *edges in image_boxes.itertuples(index=False):
                    # A finding that joins others has their boxes.
                    marks.setdefault(tuple(edges), self.colours[finding])
                boxes = ((colour, np.array(edges)) for edges, colour in marks.items())
                drawn = draw_boxes(pixels, _SIDE, boxes)
                facts = [text for text in self.facts.loc[image_id] if isinstance(text, str)]
                source = picture_source(drawn, _SIDE, _QUALITY)
                self._room -= len(source)
                pictures.append(
                    {
                        "src": source,
                        "name": image_id,
                        "label": self._label_of[image_id],
                        "why": "".join(reasons[position : position + 1]),
                        "findings": image_boxes["finding"].unique(),
                        "facts": " · ".join(facts),
                    }
                )
        return pictures

    def positions(self, finding: str) -> str:
        """Return the outlines of the boxes of a finding over the mean of the pictures."""
        import cv2

        boxes = self.boxes.loc[self.boxes["finding"] == finding, EDGES].dropna()
        drawn = (_SIDE - 1) * boxes.sample(frac=1, random_state=_SEED)[:_MOST_OUTLINES].to_numpy()
        density = np.zeros((_SIDE, _SIDE))
        for x1, y1, x2, y2 in np.rint(drawn).astype(int).tolist():
            density += cv2.rectangle(np.zeros_like(density), (x1, y1), (x2, y2), 1.0)
        share = np.sqrt(density / max(density.max(), 1))[:, :, None]
        mean = np.mean(self.squares or [density], axis=0)[:, :, None]
        coloured = mean * (1 - share) + np.array(getrgb(self.colours[finding])) * share
        return picture_source(coloured.astype(np.uint8), _SIDE, _QUALITY)


def _labels(ids: pd.Series) -> pd.Series:
    """Return what tells an image from others below its picture, which has no room for a long id.

    That is the end, as of a UID, or where ends are alike what follows the beginning of all.
    """
    short = ids.str[-_LETTERS:]
    if not short.is_unique:
        pairs = enumerate(zip(ids.min(), ids.max(), strict=False))  # first and last by sorting
        short = ids.str[next((position for position, (a, b) in pairs if a != b), 0) :]
    return ids.mask(ids.str.len() > _LETTERS, "…" + short).set_axis(ids)


def _reader(dataset: DataSet) -> Callable[[str], Pixels]:
    """Return how an image is read: its largest square, if that is large or paths are hidden."""
    sizes = [size for size in dataset.sizes if size >= _SIDE or dataset.info.id_key]
    return dataset.store(sizes[-1]).image_without_border if sizes else dataset.read_original


def write_data_page(dataset: DataSet, audit: Audit, *, pictures: bool = True) -> None:
    """Write the page that shows people what was read of a data set, and what is wrong with it.

    It shows no image without `pictures`, nor if the set was prepared so.
    """
    pictures = pictures and dataset.info.pictures
    album = _Album(dataset, dataset.split().set_index("image_id")["role"], shown=pictures)
    read = dataset.reading
    environment = template_environment()
    environment.filters["counted"] = counted
    page = environment.get_template("data.html.jinja").render(
        dataset=dataset,
        audit=audit,
        counts=dataset.label_counts,
        groups=dict(_groups(dataset, album)) if pictures else {},
        pictures=pictures,
        positions={
            finding: album.positions(finding) for finding in [*album.colours][:_MOST_FINDINGS]
        },
        colours=album.colours,
        n_boxes=dataset.boxes["finding"].value_counts().to_dict(),
        charts=[*_charts(dataset, album.boxes)],
        facts=_facts(dataset, titled_facts(read)),
        lines=[*shown_lines(read), *dataset.info.notes],
        faults=[*_faults(audit, album)],
        shortcuts=audit.facts.get("shortcuts", []),
    )
    write_text(dataset.folder / DATA_PAGE, page)


def _groups(dataset: DataSet, album: _Album) -> Iterator[tuple[str, list[Picture]]]:
    """Choose pictures by rule and seed: positives, negatives, unknown ones, and extremes."""
    images = dataset.images.set_index("image_id", drop=False)
    labels = dataset.target_labels
    targets = [*dataset.targets.items()][:_MOST_FINDINGS]
    most = min(_IN_ROW, max(2, _MOST_POSITIVES // max(len(targets), 1)))
    for name, target in targets:
        positive = images[labels[name] == 1]
        boxes = album.boxes[is_member(album.boxes["finding"], target.any_of)]
        is_boxed = is_member(positive["image_id"], boxes["image_id"])
        bare = _pick(positive[~is_boxed], most)
        boxed = _pick(positive[is_boxed], most - min(len(bare), (most + 3) // 4))
        title = f"{name}: {len(positive):,} positive, {is_boxed.sum():,} with boxes"
        yield title, album.pictures([*boxed, *bare][:most])
    scope_text = " for all findings that are labelled" if len(targets) > 1 else ""
    is_positive = (labels == 1).any(axis=1)
    is_negative = (labels == 0).any(axis=1) & ~is_positive
    for kind, flags in {"negative": is_negative, "unknown": labels.isna().all(axis=1)}.items():
        yield f"{flags.sum():,} {kind}{scope_text}", album.pictures(_pick(images[flags], _IN_ROW))
    distinct_boxes = album.boxes.drop_duplicates(["image_id", *EDGES])
    extremes = _extremes(dataset, distinct_boxes.set_index("image_id"))
    yield "Extremes", album.pictures(extremes.values(), *extremes)


def _pick(images: pd.DataFrame, count: int) -> list[str]:
    """Draw images of different patients; each source, view and age group has its turn."""
    drawn = images.sample(frac=1, random_state=_SEED).drop_duplicates("patient_id")
    drawn["child"] = drawn.get("age_years", pd.Series(dtype=float)) < _ADULT
    turn = drawn.groupby([kind for kind in _KINDS if kind in drawn], dropna=False).cumcount()
    return drawn["image_id"].iloc[turn.argsort(kind="stable")].tolist()[:count]


def _extremes(dataset: DataSet, boxes: pd.DataFrame) -> dict[str, str]:
    """Return the images that show misreadings, by what is extreme in them."""
    images, decode = (table.set_index("image_id") for table in (dataset.images, dataset.decode))
    x1, y1, x2, y2 = (boxes[edge] for edge in EDGES)
    area = 100 * (x2 - x1) * (y2 - y1)
    measured = {
        "smallest box: % of the image": area,
        "largest box: % of the image": -area,
        "box nearest to a border: %": 100 * pd.concat([x1, y1, 1 - x2, 1 - y2], axis=1).min(axis=1),
        "most boxes:": -boxes["finding"].groupby(level=0).count(),
        "darkest: mean grey": decode["mean_grey"],
        "brightest: mean grey": -decode["mean_grey"],
        "narrowest: px": images["width"].astype("float64"),
        "youngest: years": images.get("age_years", pd.Series(dtype=float)),
    }
    defined_values = {what: values.dropna() for what, values in measured.items()}
    return {
        what.replace(":", f": {abs(values.min()):,.4g}"): str(values.idxmin())
        for what, values in defined_values.items()
        if values.nunique() > 1
    }


def _charts(dataset: DataSet, boxes: pd.DataFrame) -> Iterator[tuple[str, list[float], list[str]]]:
    """Yield histograms: the title, heights of bars, and the lowest, median and highest value."""
    images = dataset.images
    x1, y1, x2, y2 = (boxes[edge] for edge in EDGES)
    measured = {
        "Boxes: share of the image, % (log)": 100 * (x2 - x1) * (y2 - y1),
        "Boxes: width / height (log)": (x2 - x1) / (y2 - y1),
        "Images: width, px": images["width"],
        "Images: height, px": images["height"],
        "Images: width of the field, mm": images["spacing_col_mm"] * images["width"],
        "Images: mean grey": dataset.decode["mean_grey"],
        "Age, years": images.get("age_years", pd.Series(dtype=float)),
    }
    for title, values in measured.items():
        defined_values = values.dropna().astype("float64")
        if defined_values.nunique() > 1:
            spaced = np.geomspace if title.endswith("(log)") else np.linspace
            heights = np.histogram(
                defined_values, spaced(defined_values.min(), defined_values.max(), _BARS + 1)
            )[0]
            axis_texts = [
                f"{value:.4g}"
                for value in (defined_values.min(), defined_values.median(), defined_values.max())
            ]
            yield title, (heights / max(heights.max(), 1)).tolist(), axis_texts


def _facts(dataset: DataSet, read: dict[str, str]) -> dict[str, str]:
    """Add to facts of reading the origin of patients and ids, the sizes of images, the split."""
    images = dataset.images
    sides = images[["width", "height"]].dropna().astype(str)
    sizes = sides["width"] + " × " + sides["height"] + " px"
    origin_texts = {**_PATIENTS, "given": read.get("patients", "stated")}
    origins = images["patient_id_source"].replace(origin_texts)
    facts = {}
    for title, values in {"patients": origins, "sizes": sizes}.items():
        counts = values.value_counts()
        texts = [f"{value} ({counted(n, 'image')})" for value, n in counts[:_IN_ROW].items()]
        more = [f"{len(counts) - _IN_ROW:,} others"] if len(counts) > _IN_ROW else []
        facts[title] = ", ".join([*texts, *more])
    facts["ids"] = "hashed with a key" if dataset.info.id_key else "as in the files"
    stated_facts = {title: text for title, text in facts.items() if text}
    return {**read, **stated_facts, "parts": dataset.split_origin("default").method}


def _faults(audit: Audit, album: _Album) -> Iterator[tuple[Problem, list[list[Picture]]]]:
    """Yield each problem with pictures of its first cases, as long as there is room."""
    n_left = _MOST_CASES
    for problem in audit.problems:
        cases = problem.cases[: min(n_left, _CASES_SHOWN)] if problem.severity != "info" else ()
        n_left -= len(cases)
        yield problem, [album.pictures(case[:_IMAGES_SHOWN]) for case in cases]
