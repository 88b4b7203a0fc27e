"""A copy of RSNA's folder that does not know the patients, so that a split of it leaks.

    python -m tools.full_size.leaky_folder SOURCE FOLDER

The folder has links to the images and label files of Kaggle's layout, but not the mapping to
patients: `cxr prepare` then takes each image for a patient of its own, as the authors of many
published splits did.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from cxr_compare.data_prep.formats.rsna import CLASS_INFO, LABELS, TRAIN_IMAGES


def link_without_patients(source: Path, folder: Path) -> None:
    """Link the images and labels of a folder in Kaggle's layout, without the mapping to patients.

    Args:
        source: Folder in Kaggle's layout.
        folder: Folder to make; links that are there already are kept.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in (TRAIN_IMAGES, LABELS, CLASS_INFO):
        if (source / name).exists() and not (folder / name).is_symlink():
            (folder / name).symlink_to((source / name).resolve())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    link_without_patients(arguments.source, arguments.folder)


if __name__ == "__main__":
    main()
