"""Page of a report, ``report.html``: one self-contained file that begins with the answer."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd

from cxr_compare.data_prep.base.errors import InputError
from cxr_compare.data_prep.base.files import atomic_path, make_folder, write_text
from cxr_compare.evaluation.overlays.sheet import marks_on
from cxr_compare.evaluation.report import files
from cxr_compare.evaluation.report.cells import cell_parts
from cxr_compare.evaluation.report.charts import MOST_COLOURED, chart_names, chart_svg
from cxr_compare.evaluation.report.faces import write_paper
from cxr_compare.evaluation.report.methods import counts_text
from cxr_compare.evaluation.report.overlay_page import (
    Overlay,
    overlay_of,
    picture_source,
    write_overlay_page,
)
from cxr_compare.evaluation.report.page_templates import template_environment
from cxr_compare.evaluation.report.sections import paper_sections, sections
from cxr_compare.evaluation.statistics.figure_text import score_text

if TYPE_CHECKING:
    from cxr_compare.evaluation.overlays.sheet import Panel
    from cxr_compare.evaluation.report.answer import ReportAnswer
    from cxr_compare.evaluation.report.result import Result

_SIDE = 360
"""Longer side of a panel on the page, px."""
_QUALITY = 82
_EXAMPLES = 3
_ONE_LINE = 110
"""Characters of a caution that stand in one line; of a longer one all but the begin is folded."""


class Case(NamedTuple):
    """A drawn test image on the page: its panels, and all systems over one another."""

    kind: str
    total: str
    panels: list[dict[str, Any]]
    together: dict[str, Any]


def write_page(result: Result, out: Path) -> dict[str, str]:
    """Write the page, its charts, its table for a paper and the drawings of its cases.

    The result has the file of each drawing by image id.
    """
    make_folder(out / files.FIGURES)
    for stale in (*(out / files.OVERLAYS).glob("*"), *(out / files.FIGURES).glob("*")):
        stale.unlink()
    charts = {}
    for name in chart_names(result):
        file, charts[name] = chart_svg(result, name)
        (out / files.FIGURES / f"{name}.svg").write_bytes(file)
    cases, legend, drawings = _draw_cases(result, out)
    kinds: dict[str, list[Case]] = {}
    for case in cases:
        kinds.setdefault(case.kind, []).append(case)
    answer, single = result.answer, result.shown_single
    missed = [kind.title for kind in result.kinds if kind.key == "missed"]
    examples = _examples(kinds, missed)
    write_paper(paper_sections(result), out)
    page = render(
        "report.html.jinja",
        answer=answer,
        systems=answer.systems,
        counts=counts_text(answer),
        lines=[*filter(None, [answer.both_line(single)]), *answer.findings],
        sections=sections(result),
        forest=charts.pop("forest", ""),
        charts=charts,
        has_grey=len(result.shown) > MOST_COLOURED,
        examples=examples,
        legend=legend,
        cases=kinds,
        matrices=result.confusion,
        has_drawings=bool(drawings),
        images=_image_list(result, drawings),
        overlay_line=_overlay_line(result.answer),
    )
    write_text(out / files.PAGE, page)
    return drawings


def render(template: str, **values: Any) -> str:
    """Fill in a template (Jinja) as an HTML page, in which special characters are escaped."""
    environment = template_environment()
    environment.filters.update(parts=cell_parts, unbroken=_unbroken, halves=_halves)
    return environment.get_template(template).render(**values)


def _unbroken(text: str) -> str:
    """Return a text whose p-values and per cents stand on one line each."""
    return re.sub(r"(\bp )?[=<] (?=\d)|(?<=\d) %", lambda p: p[0].replace(" ", "\u00a0"), text)


def _halves(text: str) -> tuple[str, str]:
    """Divide a text after its first sentence or colon, so that the rest can be folded."""
    match = re.match(r"(.+?[:.]) (.+)", text)
    if match is None or len(text) <= _ONE_LINE:
        return text, ""
    return match[1], match[2]


def _draw_cases(result: Result, out: Path) -> tuple[list[Case], str, dict[str, str]]:
    """Draw cases and other errors as PNG files, and the cases for the page.

    Returned are the cases, what the marks on them mean, and files by the id of the image. An image
    without a file is left out.
    """
    if result.images is None or not result.answer.policy:
        return [], "", {}
    make_folder(out / files.OVERLAYS)
    chosen = {row["image_id"]: row for row in result.cases().to_dict("records")}
    cases: list[Case] = []
    marks: set[str] = set()
    overlays: list[Overlay] = []
    for place, image_id in enumerate(result.drawn_ids(), start=1):
        try:
            panels = result.images.panels(image_id, systems=result.shown)
        except InputError:
            continue
        file = f"{place:02d}.png"
        with atomic_path(out / files.OVERLAYS / file) as path:
            result.images.sheet(panels).save(path, "png")
        overlays.append(overlay_of(image_id, image_id, file, panels))
        if row := chosen.get(image_id):
            together = result.images.together(image_id, 2 * _SIDE, result.shown)
            marks |= marks_on([together, *panels])
            shown = [_shown(panel) for panel in panels]
            cases.append(Case(row["kind"], _total(row), shown, _shown(together)))
    if overlays:
        write_overlay_page(
            out / files.OVERLAYS,
            result.answer.title,
            overlays,
            result.kinds,
            total=result.answer.counts["images"],
            report=out / files.PAGE,
            remark="Cases and errors of the report; cxr overlay draws all others.",
        )
    return cases, result.images.legend(marks), {each.image: each.file for each in overlays}


def _total(row: Mapping[Any, Any]) -> str:
    """Return how many test images are of the kind of a case, and how many are on the lesion."""
    total = f"{row['of']:,} of {row['among']}"
    if n_boxed := row["n_boxed"]:
        n_right = {0: "none", n_boxed: "all"}.get(row["on_lesion"], f"{row['on_lesion']:,}")
        of_boxed = "" if n_boxed == row["of"] else f" of the {n_boxed:,} with boxes"
        total += f", {n_right}{of_boxed} on the lesion"
    return total


def _overlay_line(answer: ReportAnswer) -> str:
    """Return the command that draws all images; SYSTEMS, as given here, are for the user."""
    given = {each.get("given_as"): each["name"] for each in answer.provenance.files}
    data = shlex.quote(given["data"].partition("/")[0]) if "data" in given else ""
    source = f"--data {data}" if data else "--truth TRUTH --images IMAGES"
    return f"cxr overlay SYSTEMS {source} --out drawings --limit {answer.counts['images']}"


def _image_list(result: Result, drawn: Mapping[str, str]) -> dict[str, Any]:
    """Return the test images for the list of the page.

    Each has its name, its label, whether it is drawn, and of each system score (a text), decision,
    and whether its point lies on a lesion (None where unknown).
    """
    answer, names = result.answer, result.shown
    rows = result.decisions.rename(columns={f"decision_{answer.policy}": "decision"})
    if "localised" in rows:  # the joint system has the point of a member
        rows["localised"] = rows["localised"].mask(rows["system"] == answer.joint)
    wide = [
        rows.pivot(index="image_id", columns="system", values=name)[names].astype("Float64")
        for name in ("score", "decision", "localised")
        if name in rows
    ]
    wide[0] = wide[0].map(score_text, na_action="ignore")
    answers = [part.astype(object).where(part.notna(), None) for part in wide]
    labels = rows.drop_duplicates("image_id").set_index("image_id")["label"]
    images = []
    by_image = zip(wide[0].index, *(part.to_numpy().tolist() for part in answers), strict=True)
    for image, *of_image in by_image:
        label = None if pd.isna(labels[image]) else int(labels[image] >= 1)
        images.append([image, label, int(image in drawn), *of_image])
    return {"systems": names, "single": result.shown_single, "images": images}


def _examples(kinds: Mapping[str, Sequence[Case]], missed: Sequence[str]) -> list[Case]:
    """Return the first case of three kinds: what one system finds alone, and what all miss."""
    names = list(kinds)
    chosen = [*names[: _EXAMPLES - 1], *(name for name in names if name in missed), *names]
    return [kinds[name][0] for name in list(dict.fromkeys(chosen))[:_EXAMPLES]]


def _shown(panel: Panel) -> dict[str, Any]:
    """Return a panel for the page: its name, its lines, and the ``src`` of its picture."""
    source = picture_source(panel.pixels, _SIDE, _QUALITY)
    lines = [line for line in panel.lines if line]
    return {"name": panel.name, "lines": lines, "src": source}
