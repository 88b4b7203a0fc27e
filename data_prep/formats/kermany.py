"""Format `kermany`: the paediatric chest X-rays of Kermany et al. (2018), from Kaggle or Mendeley.

The file name states the kind of pneumonia and the child: ``person1_bacteria_2.jpeg``,
``IM-0115-0001.jpeg``, ``NORMAL2-IM-1427-0001.jpeg``, and in Mendeley's first release
``BACTERIA-1008087-0001.jpeg``.

If ``person1`` occurs in the names of bacterial and of viral images, both count as one child. This
is the safe assumption, because it never puts one child into training and test. Probably most such
pairs are two children: person and image numbers rise together within each kind, across train and
test, so each kind seems to be numbered separately.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from cxr_compare.data_prep.contracts.errors import counted
from cxr_compare.data_prep.contracts.ids import is_member
from cxr_compare.data_prep.contracts.text import TEXT
from cxr_compare.data_prep.formats.folder_scan import has_match, list_image_files
from cxr_compare.data_prep.formats.patients import patients_from_names
from cxr_compare.data_prep.formats.source import Format, SourceBuilder, SourceTables, reference_rows
from cxr_compare.data_prep.formats.targets import targets_from_findings

_FINDINGS = ("pneumonia", "bacterial_pneumonia", "viral_pneumonia")
_NESTED = "chest_xray"
_ROLES = ("train", "val", "test")
_PLACE = r"^(?:(?P<role>train|val|test)/)?(?P<folder>NORMAL|PNEUMONIA)/(?P<name>[^/]+)\.\w+$"
_PATIENT = (
    r"^(?:(?:BACTERIA|VIRUS|NORMAL)-)?"
    r"(person\d+(?=_)|(?:NORMAL2-)?IM-\d+(?=-)|(?<=[A-Z]-)\d+(?=-))"
)
_KIND = r"^(?:person\d+_)?(bacteria|virus)[_-]"
_CLASSES = {"bacteria": "bacterial", "virus": "viral"}
# With fewer validation images, two thresholds or two trainings cannot be distinguished.
_SMALL_VAL = 100


def _read_kermany(builder: SourceBuilder) -> SourceTables:
    """List the images and read labels, roles and patients from their paths."""
    files = _list_labelled(builder)
    pattern = builder.options.patient_pattern or _PATIENT
    patients = builder.patients(
        patients_from_names(files["name"], pattern, "kermany"),
        "kermany:" + files["image_id"],
        lambda n: f"the names of {n} images do not contain the patient, so each",
        remedy="Give --patient-pattern to find the patients",
    )
    images = files[["image_id"]].join(patients)
    images = images.assign(
        source="kermany", path=files["path"], view="AP", x_class=files["x_class"]
    )
    builder.notes.append(
        "The images show children of one to five years, all anteroposterior; results do not apply "
        "to adults"
    )
    return builder.build(
        images,
        _findings(files),
        targets_from_findings(_FINDINGS),
        official=_official(files, images["patient_id"], builder.notes),
    )


def _list_labelled(builder: SourceBuilder) -> pd.DataFrame:
    """List the usable images: ``image_id, path, role, folder, name, x_class``."""
    source = builder.root
    exclusions = builder.exclusions
    holders = (*_ROLES, "NORMAL", "PNEUMONIA")
    prefix = "" if any((source / name).is_dir() for name in holders) else f"{_NESTED}/"
    files = list_image_files(source)
    files["inside"] = files["path"].str.removeprefix(prefix)
    copies = files["inside"].str.startswith(f"{_NESTED}/")  # Kaggle's archive holds the set twice
    if copies.any():
        builder.notes.append(
            f"{counted(int(copies.sum()), 'image')} below a second {_NESTED} folder were left out"
        )
    files = files[~copies].reset_index(drop=True)
    files = files.join(files["inside"].str.extract(_PLACE))
    kind = files["name"].str.lower().str.extract(_KIND)[0]
    exclusions.add(files.loc[files["folder"].isna(), "path"], "not in a NORMAL or PNEUMONIA folder")
    in_normal = files["folder"] == "NORMAL"
    exclusions.add(
        files.loc[in_normal & kind.notna(), "path"], "in NORMAL, but named as a pneumonia"
    )
    named_normal = files["name"].str.startswith("NORMAL", na=False)
    exclusions.add(
        files.loc[~in_normal & named_normal, "path"], "in PNEUMONIA, but named as normal"
    )
    kinds = kind.map(_CLASSES).fillna("pneumonia")
    files["x_class"] = kinds.where(~in_normal, "normal").astype(TEXT)
    published = files["name"].str.extract(_PATIENT)[0].notna()
    empty = f"{source}: its NORMAL and PNEUMONIA folders hold no image; unpack them"
    return builder.usable_files(files, published, empty)


def _findings(files: pd.DataFrame) -> pd.DataFrame:
    """Build findings: pneumonia by folder, its kind by file name or else unknown."""
    classes = files["x_class"]
    of_kind = classes.where(classes != "pneumonia")
    answers = (classes != "normal", of_kind == "bacterial", of_kind == "viral")
    parts = []
    for finding, answer in zip(_FINDINGS, answers, strict=True):
        stated = answer if finding == "pneumonia" else answer[of_kind.notna()]
        ids = files["image_id"].loc[stated.index]
        state = np.where(stated, "present", "absent")
        parts.append(reference_rows(ids, finding, state=state, origin="folder"))
    return pd.concat(parts, ignore_index=True)


def _official(files: pd.DataFrame, patients: pd.Series, notes: list[str]) -> pd.DataFrame | None:
    """Return the roles of the folders, and note their flaws."""
    if not {"train", "test"} <= set(files["role"].dropna()):
        return None  # a part of the set is no split
    role = files["role"].fillna("unused").astype(TEXT)
    n_val = int((role == "val").sum())
    if n_val < _SMALL_VAL:
        notes.append(
            f"The official validation set has {counted(n_val, 'image')}, too few to choose a "
            "threshold or an epoch on"
        )
    tested = patients[role == "test"]
    trained = patients[role == "train"]
    shared = tested[is_member(tested, trained)]
    if len(shared):
        same = patients + " " + files["x_class"]
        n_same = int(is_member(same[role == "test"].drop_duplicates(), same[role == "train"]).sum())
        notes.append(
            f"WARNING: by file name, {shared.nunique()} of {patients.nunique()} patients are in "
            f"both the official train ({int(is_member(trained, shared).sum())} of {len(trained)} "
            f"images) and test ({len(shared)} of {len(tested)} images), {n_same} of them with the "
            "same kind of pneumonia in both. Each kind seems to be numbered separately; here a "
            "number counts as one patient, whom the default split gives one role"
        )
    return pd.DataFrame({"image_id": files["image_id"], "role": role})


KERMANY = Format(
    name="kermany",
    title="Kermany's paediatric X-rays",
    folder="`NORMAL/` and `PNEUMONIA/`, there or in `train`, `val`, `test`",
    detect=has_match(
        "PNEUMONIA", *(f"{p}{role}/PNEUMONIA" for p in ("", f"{_NESTED}/") for role in _ROLES)
    ),
    read=_read_kermany,
    options=("patient_pattern",),
    sources=(
        "kaggle.com/datasets/paultimothymooney/chest-xray-pneumonia",
        "data.mendeley.com/datasets/rscbjbr9sj",
    ),
)
