"""Requirements of the study, which are checked before it starts; each refusal is one line."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from cxr_compare.data_prep.contracts.disk_space import require_free_space
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.formats.rsna import CLASS_INFO, LABELS, TRAIN_IMAGES
from cxr_compare.data_prep.formats.rsna_mapping import MAPPING, MAPPINGS_JSON
from cxr_compare.data_prep.formats.rsna_release import ANNOTATIONS, KAGGLE_TEST
from cxr_compare.scripts.runtime import runs_on_gpu
from tools.full_size.protocol import Protocol

LEAST_REHEARSED = 30
"""Least number of images of a rehearsal."""


def require_images(protocol: Protocol, *, rehearsal: bool = False) -> int:
    """Check that the folders of images are complete.

    Args:
        protocol: The protocol.
        rehearsal: True needs only some images in Kaggle's layout, and no images of the challenge.

    Returns:
        Number of images in the folder of training images.

    Raises:
        InputError: A folder or a file is missing, or there are too few images.
    """
    folder = Path(protocol.data.training)
    if not folder.is_dir():
        raise InputError(
            f"{folder}: no such folder; put RSNA's images there in Kaggle's layout, or name "
            "another folder by data.training of the protocol or by --data"
        )
    for name, advice in (
        (LABELS, "unpack Kaggle's download there"),
        (CLASS_INFO, "unpack Kaggle's download there"),
        (TRAIN_IMAGES, "unpack Kaggle's download there"),
        (MAPPING, "without it the patients are unknown; docs/full-size.md says where it is"),
    ):
        if not (folder / name).exists():
            raise InputError(f"{folder / name}: is missing; {advice}")
    with os.scandir(folder / TRAIN_IMAGES) as entries:
        found = sum(1 for entry in entries if not entry.name.startswith("."))
    least = LEAST_REHEARSED if rehearsal else protocol.data.n_training
    if found < least:
        raise InputError(
            f"{folder / TRAIN_IMAGES}: has {found:,} images, {least:,} are needed; complete the "
            "download" + ("" if rehearsal else ", or rehearse with --rehearsal")
        )
    if protocol.data.challenge and not rehearsal:
        _require_challenge(Path(protocol.data.challenge), protocol.data.n_challenge)
    return found


def _require_challenge(folder: Path, n_images: int) -> None:
    if not folder.is_dir():
        raise InputError(
            f"{folder}: no such folder; put RSNA's own release there, name another folder by "
            'data.challenge of the protocol, or leave the challenge out by challenge = ""'
        )
    if next(folder.glob(ANNOTATIONS), None) is None:
        raise InputError(f"{folder}: has no {ANNOTATIONS}; download RSNA's annotations there")
    for name in (MAPPINGS_JSON, KAGGLE_TEST):
        if not (folder / name).is_file():
            raise InputError(f"{folder / name}: is missing; docs/full-size.md says where it is")
    lines = (folder / KAGGLE_TEST).read_text(encoding="utf-8").split()
    listed = max(0, len(lines) - 1)
    if listed < n_images:
        raise InputError(
            f"{folder / KAGGLE_TEST}: lists {listed:,} images, {n_images:,} are needed; download "
            "it again"
        )


def require_gpu(on_gpu: Callable[[str], bool] = runs_on_gpu) -> None:
    """Check that torch finds a GPU.

    Raises:
        InputError: There is none.
    """
    if not on_gpu("auto"):
        raise InputError(
            "no GPU: torch finds none, and on processors the study would take months; "
            "scripts/full_size.sh --rehearsal runs it in a small size"
        )


def require_disk(out: Path, needed: int, done: float) -> None:
    """Check that the disk has space for what is still to be written.

    Args:
        out: Folder of results.
        needed: Bytes of the whole study.
        done: Share of the steps that ended before.

    Raises:
        InputError: The disk has less.
    """
    require_free_space(out, round(needed * (1 - done)))
