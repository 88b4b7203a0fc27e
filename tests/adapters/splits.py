"""Draws, copies and checks of a data set on tables in memory, as plain values."""

import numpy as np
import pandas as pd

from cxr_compare import InputError
from cxr_compare.data_prep import audit, copies, export_labels, seen, splits
from cxr_compare.data_prep.base.ids import TEXT
from cxr_compare.data_prep.base.tables import empty_table
from cxr_compare.data_prep.images.decoded_image import pixel_digest
from cxr_compare.data_prep.images.fingerprint import TURNS, perceptual_hash

TURN_NAMES = TURNS
_NOTHING = pd.DataFrame({"image_id": [], "role": []}, dtype=TEXT)


def image_table(patients, **columns):
    """Images i0000 and so on of these patients."""
    ids = [f"i{number:04d}" for number in range(len(patients))]
    images = pd.DataFrame({"image_id": ids, "patient_id": patients, "patient_id_source": "given"})
    return images.assign(**columns)


def finding_table(images, states):
    """Findings of the reference reader: states by finding, None where nothing is known."""
    rows = [
        (image_id, finding, "reference", state)
        for finding, of_images in states.items()
        for image_id, state in zip(images["image_id"], of_images, strict=True)
        if state
    ]
    return pd.DataFrame(rows, columns=["image_id", "finding", "reader", "state"], dtype=TEXT)


def drawn(images, findings, *, stated=None, links=None, **rule):
    """Roles and folds by image, drawn where `stated` (a role by image) leaves them free."""
    given = _NOTHING if stated is None else _role_table(stated)
    rule = splits.SplitRule(**rule)
    return splits.draw_split(images, findings, given, rule, links)[0].set_index("image_id")


def adopted(images, findings, stated, *, links=None, **rule):
    """Roles and folds by image of a published split, and the notes on it."""
    rule = splits.SplitRule(**rule)
    table, how = splits.adopt(_role_table(stated), images, findings, rule, links)
    return table.set_index("image_id"), list(how.notes)


def _role_table(stated):
    return pd.DataFrame({"image_id": list(stated), "role": list(stated.values())}, dtype=TEXT)


def read_file(path, images, name="role"):
    """("read", role by image, notes) of the user's own split, or ("refused", the line)."""
    try:
        table, how = splits.read_split_file(path, images, name)
    except InputError as error:
        return "refused", str(error)
    return "read", dict(zip(table["image_id"], table["role"], strict=True)), list(how.notes)


def leak(images, roles, links=None):
    """The line that refuses a split of these roles; None if it may be written."""
    table = _role_table(roles).assign(fold=pd.NA)
    try:
        splits.require_clean(table, images, links, "split 'x'")
    except InputError as error:
        return str(error)
    return None


def strata(images, findings):
    """Return the properties that a split balances, a column each."""
    return splits.image_strata(images, findings)


def decoded(images):
    """The table of decoding of images in memory, by their ids."""
    return pd.DataFrame(
        {
            "image_id": list(images),
            "pixel_sha256": [pixel_digest(pixels) for pixels in images.values()],
            "perceptual_hash": [perceptual_hash(pixels) for pixels in images.values()],
        },
        dtype=TEXT,
    )


def pairs_of(images, *, with_pixels=True):
    """Pairs of ids of copies that are not equal among images in memory."""
    found = copies.find_copies(decoded(images), images.__getitem__ if with_pixels else None)
    return sorted(zip(found["image_id"], found["other_id"], strict=True))


def pairs_of_hashes(hashes):
    """Rows, distances and turns of the close pairs of fingerprints, uint8 (N, 32)."""
    words = np.ascontiguousarray(hashes).view(np.uint64).reshape(-1, 4)
    return list(zip(*(part.tolist() for part in copies.close_pairs(words)), strict=True))


def turned(pixels, turn):
    """An image turned in one of eight ways."""
    return copies.turn_image(pixels, turn)


def groups(patients, keys):
    """The group of each image, of which these are the patients and the keys of copies."""
    images = image_table(patients)
    links = pd.Series(keys, index=images["image_id"])
    return copies.patient_groups(images, links).tolist()


def seen_among(trained, images):
    """(ids named by id or patient, training image by id of an equal one, of a near one, lines).

    Both are images in memory by id, with their patients: {id: (patient, pixels)}.
    """
    tables = [_with_patients(each) for each in (trained, images)]
    found = seen.SeenImages(tables[0]).among(tables[1])
    lines = found.describe_copies("A")
    return sorted(found.by_id), found.equal.to_dict(), found.near.to_dict(), lines


def _with_patients(images):
    table = decoded({name: pixels for name, (_, pixels) in images.items()})
    return table.assign(patient_id=[patient for patient, _ in images.values()], role="train")


def problems(case):
    """{check: [severity, cases]} of an audit of tables: see `tests/cases/audit.json`."""
    images = pd.DataFrame.from_dict(case["images"], orient="index")
    images = images.rename_axis("image_id").reset_index()
    if "patient_id_source" not in images:
        images["patient_id_source"] = "given"
    if "patient_id" not in images:
        images["patient_id"] = images["image_id"]
    labels = pd.DataFrame(case.get("labels", {}), index=images["image_id"], dtype="float64")
    pixels = images.get("pixels", images["image_id"])
    decode = pd.DataFrame({"image_id": images["image_id"], "pixel_sha256": pixels})
    pairs = pd.DataFrame(case.get("copies", []), columns=["image_id", "other_id"], dtype=TEXT)
    keys = copies.copy_keys(decode, pairs)
    roles = pd.DataFrame({"image_id": images["image_id"], "role": images.get("role", "train")})
    found = [*audit.copy_problems(images, labels, decode, pairs, keys)]
    found += audit.people_problems(images, {"default": roles})
    found += audit.split_problems(_Tables(images, roles), labels, keys, "default")
    found += audit.box_problems(*_box_tables(case))
    found += audit.excluded_problems(_excluded(case))
    found += audit.shortcut_problems(case.get("shortcuts", []))
    return {
        each.check: [each.severity, [list(ids) for ids in each.cases]]
        for each in found
        if each.count and each.check in case["checks"]
    }


class _Tables:
    """A data set of tables in memory, as far as a check of its split asks."""

    folder = "set"

    def __init__(self, images, roles):
        self.images = images
        self._roles = roles

    def split(self, name):
        """The one split."""
        return self._roles


def _box_tables(case):
    key = ["image_id", "finding", "reader"]
    columns = [*key, "x1", "y1", "x2", "y2"]
    boxes = pd.DataFrame(case.get("boxes", []), columns=columns)
    findings = pd.DataFrame(case.get("findings", []), columns=[*key, "state"], dtype=TEXT)
    return findings, boxes.astype({**dict.fromkeys(key, TEXT), **dict.fromkeys(columns[3:], float)})


def _excluded(case):
    if "excluded" not in case:
        return empty_table("excluded")
    return pd.DataFrame(case["excluded"], columns=["path", "stage", "reason"], dtype=TEXT)


def exclusions(problems):
    """{image: reason} of what is advised to be left out because of problems.

    Each problem is [message, cases, number that stays of a case].
    """
    made = [
        audit.Problem(check="x", severity="warning", message=text, count=1, cases=ids, n_kept=kept)
        for text, ids, kept in problems
    ]
    found = audit.Audit(passed=True, checked={}, problems=made, facts={}).exclusions
    return dict(zip(found["image_id"], found["reason"], strict=True))


def file_names(ids):
    """Names without suffix of the files of an export, by the ids of its images."""
    return export_labels.file_stems(pd.Series(ids, dtype=TEXT)).tolist()
