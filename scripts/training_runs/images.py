"""Which images of a data set a classifier and a guard can learn from; needs no torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from data_prep.contracts.errors import InputError
from scripts import console

if TYPE_CHECKING:
    from data_prep.contracts.engines import Engine
    from data_prep.store.dataset import DataSet, Target
    from data_prep.store.pixel_store import PixelStore


_STATES = {"present": 1.0, "absent": 0.0}


def labelled_images(
    dataset: DataSet, target: Target, split: str
) -> tuple[pd.DataFrame, dict[str, pd.Index]]:
    """Labels, and the images that are learned from and validated on."""
    labels = _finding_labels(dataset, target)
    ids = {
        role: dataset.image_ids(role, split).intersection(labels.index) for role in ("train", "val")
    }
    for role, chosen in ids.items():
        require_both_kinds((labels.loc[chosen] == 1).any(axis=1), role, "images with a label")
    return labels, ids


def _finding_labels(dataset: DataSet, target: Target) -> pd.DataFrame:
    """Labels by ``image_id``, a column a finding: 1 present, 0 absent, NaN unknown."""
    rows = dataset.findings[dataset.findings["finding"].isin(target.any_of)]
    rows = rows.assign(label=rows["state"].map(_STATES)).dropna(subset="label")
    labels = rows.pivot(index="image_id", columns="finding", values="label")
    return labels.reindex(columns=list(target.any_of))


def require_both_kinds(positive: pd.Series, role: str, what: str) -> None:
    """Check that a role has images with and without a finding."""
    if positive.any() and not positive.all():
        return
    lack = "no images" if positive.empty else f"only {'positive' if positive.any() else 'negative'}"
    raise InputError(
        f"split: role '{role}' has {lack}{'' if positive.empty else ' images'} ({what}); "
        "make another split with cxr split"
    )


def open_store(dataset: DataSet, size: int, engine: Engine | None = None) -> PixelStore:
    """Open the pixel store of a size; decode what it lacks.

    Where another training is decoding the same pixels, wait for it: one does the work.
    """
    from data_prep.store.pixel_store import build_pixel_store

    title = f"Pixels at {size} px"
    with console.progress(title, len(dataset.images)) as advance:
        return build_pixel_store(
            dataset.folder,
            dataset.image_files,
            dataset.source_root,
            size,
            window=dataset.window,
            engine=engine,
            progress=advance,
            before_wait=lambda: console.say(f"{title}: another cxr decodes them; waiting"),
        )


def add_guard(run: Path, dataset: DataSet, split: str, size: int) -> None:
    """Learn what is no frontal chest X-ray from a run's training images; one that is there stays.

    Args:
        run: Run folder; gets ``guard.json``.
        dataset: What the run was trained on.
        split: Likewise.
        size: Side of the run's images, px.
    """
    from serving.guard import GUARD_NAME, MIN_IMAGES, MIN_PATIENTS, Guard, fit_guard

    path = run / GUARD_NAME
    if path.is_file():
        Guard.read(path)  # refuses a damaged one
        return
    images = dataset.images.set_index("image_id").loc[dataset.image_ids("train", split)]
    guard = fit_guard(open_store(dataset, size), images["patient_id"], images.get("age_years"))
    if guard is None:
        console.say(
            f"No guard against other images: learning it takes {MIN_IMAGES} training images of "
            f"{MIN_PATIENTS} patients"
        )
        return
    guard.write(path)
    console.say(f"Guard: {guard.images} training images tell what is no frontal chest X-ray")
