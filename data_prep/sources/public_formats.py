"""Formats of public data sets, which are read by their descriptions."""

from __future__ import annotations

from pathlib import Path

from cxr_compare.data_prep.sources.described import read_set
from cxr_compare.data_prep.sources.descriptions import find_set, public_sets
from cxr_compare.data_prep.sources.source_tables import Format, ReadOptions, Show, SourceTables


def _public(
    name: str,
    title: str,
    folder: str,
    sources: tuple[str, ...],
    options: tuple[str, ...] = (),
) -> Format:
    def read(root: Path, options: ReadOptions, show: Show) -> SourceTables:
        first = next(entry for entry in public_sets().values() if entry.format == name)
        return read_set(root, find_set(root, name) or first, options, show)

    def detect(root: Path) -> bool:
        return find_set(root, name) is not None

    return Format(
        name=name,
        title=title,
        folder=folder,
        detect=detect,
        read=read,
        options=options,
        sources=sources,
    )


RSNA = _public(
    "rsna",
    "RSNA Pneumonia Detection Challenge 2018",
    "Kaggle's `stage_2_train_labels.csv`, pixels in `stage_2_train_images/`",
    ("kaggle.com/c/rsna-pneumonia-detection-challenge",),
)
NIH = _public(
    "nih",
    "NIH ChestX-ray14",
    "`Data_Entry_2017*.csv`, images in any folders",
    ("nihcc.app.box.com/v/ChestXray-NIHCC", "kaggle.com/datasets/nih-chest-xrays/data"),
)
VINDR = _public(
    "vindr",
    "VinDr-CXR",
    "`[annotations/]annotations_*.csv` and `image_labels_*.csv`; or Kaggle's `train.csv`",
    (
        "physionet.org/content/vindr-cxr",
        "kaggle.com/c/vinbigdata-chest-xray-abnormalities-detection",
    ),
    ("reference",),
)
KERMANY = _public(
    "kermany",
    "Kermany's paediatric X-rays",
    "`NORMAL/` and `PNEUMONIA/`, there or in `train`, `val`, `test`, with the published names "
    "such as `person1_bacteria_2.jpeg`",
    (
        "kaggle.com/datasets/paultimothymooney/chest-xray-pneumonia",
        "data.mendeley.com/datasets/rscbjbr9sj",
    ),
    ("patient_pattern",),
)
COVID = _public(
    "covid",
    "three COVID-19 sets",
    "`COVID/` and `Normal/`; or `metadata.csv`; or `data.csv` with `png/`",
    (
        "kaggle.com/datasets/tawsifurrahman/covid19-radiography-database",
        "github.com/ieee8023/covid-chestxray-dataset",
        "github.com/ml-workgroup/covid-19-image-repository",
    ),
    ("patient_pattern",),
)
