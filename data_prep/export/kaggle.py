"""Export of labels as the tables of the RSNA challenge on Kaggle."""

from __future__ import annotations

import pandas as pd

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.ids import is_member
from cxr_compare.data_prep.export.annotation_folder import AnnotationFolder
from cxr_compare.data_prep.export.content import AnnotationContent
from cxr_compare.data_prep.formats import rsna, rsna_classes, rsna_mapping

_NIH = "nih:"


def write_kaggle(content: AnnotationContent, folder: AnnotationFolder) -> int:
    """Write labels and boxes as the CSV files of the RSNA pneumonia challenge on Kaggle.

    Args:
        content: Images, labels and boxes to export, of exactly one target (findings that together
            make an image positive).
        folder: Folder to write into.

    Returns:
        Number of boxes that were written.

    Raises:
        InputError: No image is labelled for the target.
    """
    target = content.dataset.target(next(iter(content.targets)))
    label = content.dataset.labels(target).reindex(content.images["image_id"]).to_numpy()
    images = content.images.assign(label=label)
    known = images["label"].notna()
    if not known.any():
        raise InputError(f"{content.dataset.folder}: no image is labelled for {target.name}")
    stems = images.set_index("image_id")["stem"]
    boxes = content.dataset.boxes
    positive = images.loc[images["label"] == 1, "image_id"]
    boxes = boxes[is_member(boxes["image_id"], positive)]
    drawn = pd.DataFrame(
        {
            "patientId": boxes["image_id"].map(stems),
            "x": boxes["x1"],
            "y": boxes["y1"],
            "width": boxes["x2"] - boxes["x1"],
            "height": boxes["y2"] - boxes["y1"],
            "Target": 1,
        }
    )
    plain = images[known & ~is_member(images["image_id"], boxes["image_id"])]
    others = pd.DataFrame({"patientId": plain["stem"], "Target": plain["label"].astype("int64")})
    rows = pd.concat([drawn, others]).sort_values(["patientId", "x", "y"], kind="stable")
    folder.write(rsna.LABELS, rows.to_csv(index=False))
    _write_classes(images[known], folder)
    _write_mapping(images, folder)
    for image, labelled in zip(content.entries(), known, strict=True):
        image_folder = rsna.TRAIN_IMAGES if labelled else rsna.TEST_IMAGES
        folder.put_image(image, f"{image_folder}/{folder.file_name_of(image)}")
    _note_losses(content, images, folder)
    return len(drawn)


def _write_classes(images: pd.DataFrame, folder: AnnotationFolder) -> None:
    if "x_class" not in images.columns or images["x_class"].isna().all():
        return
    names = {ours: other for other, ours in rsna_classes.CLASSES.items()}
    written = images["x_class"].map(names)
    is_opaque = images["x_class"] == "lung_opacity"
    if written.isna().any() or (is_opaque != (images["label"] == 1)).any():
        folder.not_exported.append(
            "x_class is not exported, since its classes are not those of the challenge"
        )
        return
    table = pd.DataFrame({"patientId": images["stem"], "class": written})
    folder.write(rsna.CLASS_INFO, table.to_csv(index=False))


def _write_mapping(images: pd.DataFrame, folder: AnnotationFolder) -> None:
    given = images["patient_id_source"] != "assumed_image"
    number = images["patient_id"].str.removeprefix(_NIH)
    is_nih = given & images["patient_id"].str.startswith(_NIH) & number.str.fullmatch(r"[^\W_]+")
    folder.note_loss(
        int((given & ~is_nih).sum()),
        "images have a patient who is not of NIH: each image reads back as a patient of its own",
    )
    if not is_nih.any():
        return
    nih = images[is_nih]
    number = number[is_nih]
    table = pd.DataFrame(
        {"patientId": nih["stem"], "nih_image": number + "_" + nih["stem"], "nih_patient": number}
    )
    doubtful = nih["patient_id_source"] == "mapped_unverified"
    if doubtful.any():
        table["mse"] = doubtful.map({True: "", False: "0"})
    folder.write(rsna_mapping.MAPPING, table.to_csv(index=False))


def _note_losses(
    content: AnnotationContent, images: pd.DataFrame, folder: AnnotationFolder
) -> None:
    if content.classes != (rsna_classes.FINDING,):
        names = ", ".join(content.classes)
        folder.not_exported.append(
            f"the name of the finding is not exported: {names} reads back as {rsna_classes.FINDING}"
        )
    folder.note_loss(
        int(images["label"].isna().sum()),
        "images have no label for the target and are exported without one",
    )
    inexpressible_labels = content.inexpressible_labels()
    partly = inexpressible_labels.loc[inexpressible_labels["why"] == "not fully boxed", "image_id"]
    folder.note_loss(
        partly.nunique(),
        "images are positive and not fully boxed; other programs take their boxes for all boxes",
    )
    if content.has_roles:
        folder.not_exported.append(
            "the split is not exported: all labelled images are in one table"
        )
    missing = [fact for fact in content.known_facts() if fact != "x_class"]
    if missing:
        folder.not_exported.append(
            f"{', '.join(missing)}: not exported, unless the headers of the images state them"
        )
