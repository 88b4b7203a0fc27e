"""`cxr overlay`."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
from cyclopts import Parameter

from cxr_compare.data_prep.base.errors import InputError, counted
from cxr_compare.scripts import console
from cxr_compare.scripts.console import Shown
from cxr_compare.scripts.options import AnyPath, DataFolder, Policy, Texts, run_names

if TYPE_CHECKING:
    from cxr_compare.data_prep.dataset import DataSet

_SEED = 0
_PAGE = "index.html"
_STYLE = """html{scroll-snap-type:y mandatory}body{margin:0;font:16px/1.5 system-ui,sans-serif;
background:#111;color:#ddd}figure{margin:0;min-height:100vh;scroll-snap-align:start;display:flex;
flex-direction:column;justify-content:center;align-items:center}img{max-width:100%;
max-height:calc(100vh - 3rem)}figcaption{padding:.5rem;overflow-wrap:anywhere}"""


def overlay(
    *systems: Annotated[
        str, Parameter(help="Predictions of the data set by cxr predict; NAME=PATH renames.")
    ],
    data: DataFolder,
    out: AnyPath,
    target: str | None = None,
    image: Texts | None = None,
    split: str = "default",
    limit: int = 20,
    policy: Policy = None,
) -> Shown:
    """Draw image, truth and each system side by side: one PNG an image, and a page of all.

    Args:
        out: Folder of the overlays.
        target: Finding whose truth is drawn, where the data set has several.
        image: Id of an image to draw; may be repeated. Without it test images are drawn at random.
        split: Split whose test images are drawn.
        limit: Number of test images that are drawn at random.
    """
    from cxr_compare.data_prep.base.files import atomic_path, make_folder, write_text
    from cxr_compare.data_prep.dataset import DataSet
    from cxr_compare.data_prep.predictions import Predictions
    from cxr_compare.evaluation.inputs.folders import output_of, truth_of
    from cxr_compare.evaluation.policies import USUAL_POLICY, parse
    from cxr_compare.evaluation.report.cases import cases_of_images
    from cxr_compare.evaluation.report.pixels import readings_of

    if not systems:
        raise InputError("overlay: give a predictions folder")
    if limit < 1:
        raise InputError(f"limit: {limit}; give 1 or more")
    dataset, out = DataSet.open(Path(data)), Path(out)
    if not dataset.has_pixels:
        raise InputError(f"{dataset.folder}: has no pixels to draw on")
    chosen = _chosen(dataset, [image] if isinstance(image, str) else image, split, limit)
    opened: dict[str, Predictions] = {}
    for given, path in run_names(systems):
        predictions = Predictions.open(path)
        name = given or predictions.name
        if name in opened:
            raise InputError(f"overlay: two systems are called '{name}'; write NAME=PATH")
        made_on = predictions.info.data_set
        is_same = made_on is not None and made_on.content_id == dataset.ids.content_id
        if made_on is not None and is_same and made_on.split not in (None, split):
            raise InputError(f"{path}: is of split '{made_on.split}'; give split {made_on.split}")
        opened[name] = predictions
    wanted = policy or USUAL_POLICY
    parse(wanted)
    finding = dataset.target(target)
    truth = truth_of(dataset, finding, split)
    outputs = {name: output_of(name, each, truth, finding) for name, each in opened.items()}
    readings = readings_of(dataset, finding.any_of)
    cases = cases_of_images(outputs, truth, dataset.read_original, chosen, wanted, readings)
    files = [out / _file_name(image_id) for image_id in chosen]
    make_folder(out)
    with console.track("Drawing", len(chosen)) as advance:
        for image_id, file in zip(chosen, files, strict=True):
            with atomic_path(file) as temporary:
                cases.draw(image_id).save(temporary, "png")
            advance()
    write_text(out / _PAGE, _page(chosen, files))
    line = f"Overlays: {counted(len(files), 'image')} in {out}; to leaf through: {out / _PAGE}"
    return Shown(line, list(map(str, files)))


def _page(image_ids: Sequence[str], files: Sequence[Path]) -> str:
    """Return a page that shows one overlay a screen."""
    figures = []
    for number, (image_id, file) in enumerate(zip(image_ids, files, strict=True), start=1):
        name = escape(image_id)
        picture = f'<img src="{escape(file.name)}" alt="Overlay of {name}" loading="lazy">'
        caption = f"<figcaption>{number} of {len(files)}: {name}</figcaption>"
        figures.append(f"<figure>{picture}{caption}</figure>")
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Overlays</title><style>{_STYLE}</style></head>
<body><main>{"".join(figures)}</main></body></html>
"""


def _chosen(dataset: DataSet, image: Sequence[str] | None, split: str, limit: int) -> list[str]:
    """Return the images that are named, or some test images."""
    if image:
        unknown = sorted(set(image) - set(dataset.images["image_id"]))
        if unknown:
            raise InputError(f"{dataset.folder}: has no image '{unknown[0]}'")
        return list(dict.fromkeys(image))
    ids = dataset.image_ids("test", split).to_numpy()
    if not len(ids):
        raise InputError(f"{dataset.folder}: split '{split}' has no test image")
    drawn = np.random.default_rng(_SEED).choice(ids, min(limit, len(ids)), replace=False)
    return sorted(map(str, drawn))


def _file_name(image_id: str) -> str:
    return "".join(c if c.isalnum() or c in "._-" else "_" for c in image_id) + ".png"
