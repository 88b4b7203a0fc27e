"""Codes of findings for DICOM objects, from DICOM, from SNOMED CT, or private ones."""

from __future__ import annotations

import hashlib

import highdicom.sr as hd

from cxr_compare.data_prep.contracts.finding_names import display_name, finding_name

PRIVATE_SCHEME = "99CXRCOMPARE"
# Largest numbers of characters of a code and of its meaning
_MOST_VALUE = 16
_MOST_MEANING = 64
# Terms of DICOM for chest X-rays (PS3.16, CID 6101 and 6104) come first, because they name what is
# seen. If DICOM has no term, SNOMED CT's code of the disorder is used. All other findings get a
# private code, because a wrong code would be worse than none.
_FINDING_CODES: dict[str, tuple[str, str, str]] = {
    "atelectasis": ("46621007", "SCT", "Atelectasis"),
    "bacterial_pneumonia": ("53084003", "SCT", "Bacterial pneumonia"),
    "calcification": ("112063", "DCM", "Abnormal calcifications"),
    "cardiomegaly": ("8186001", "SCT", "Cardiomegaly"),
    "clavicle_fracture": ("58150001", "SCT", "Fracture of clavicle"),
    "consolidation": ("95436008", "SCT", "Lung consolidation"),
    "covid_19": ("840539006", "SCT", "COVID-19"),
    "edema": ("19242006", "SCT", "Pulmonary edema"),
    "effusion": ("60046008", "SCT", "Pleural effusion"),
    "emphysema": ("87433001", "SCT", "Pulmonary emphysema"),
    "fibrosis": ("51615001", "SCT", "Fibrosis of lung"),
    "ild": ("233703007", "SCT", "Interstitial lung disease"),
    "infiltration": ("112121", "DCM", "Infiltrate"),
    "infiltrate": ("112121", "DCM", "Infiltrate"),
    "lung_opacity": ("112001", "DCM", "Opacity"),
    "mass": ("4147007", "SCT", "Mass"),
    "nodule": ("27925004", "SCT", "Nodule"),
    "opacity": ("112001", "DCM", "Opacity"),
    "pleural_effusion": ("60046008", "SCT", "Pleural effusion"),
    "pneumonia": ("233604007", "SCT", "Pneumonia"),
    "pneumothorax": ("36118008", "SCT", "Pneumothorax"),
    "pulmonary_fibrosis": ("51615001", "SCT", "Fibrosis of lung"),
    "rib_fracture": ("33737001", "SCT", "Fracture of rib"),
    "viral_pneumonia": ("75570004", "SCT", "Viral pneumonia"),
}


def private_code(name: str, meaning: str) -> hd.CodedConcept:
    """Return a coded concept in this program's own (private) DICOM coding scheme.

    A name that is longer than a DICOM code is shortened to its beginning and a digest; the meaning
    for people is cut to 64 characters.
    """
    value = name
    if len(value) > _MOST_VALUE or not value.isascii():
        digest = hashlib.sha256(name.encode()).hexdigest()[:8]
        start = "".join(c for c in name if c.isascii() and c.isalnum())
        value = f"{start[: _MOST_VALUE - 9]}_{digest}"
    plain = "".join(c for c in meaning if c.isprintable() and c != "\\")
    return hd.CodedConcept(value, PRIVATE_SCHEME, plain[:_MOST_MEANING].strip() or value)


def finding_code(finding: str) -> hd.CodedConcept:
    """Return the coded DICOM concept of a finding, by its name or its display name.

    It is a term of DICOM or SNOMED CT, or a private code of this program if neither has one.
    """
    name = finding_name(finding)
    if name in _FINDING_CODES:
        return hd.CodedConcept(*_FINDING_CODES[name])
    return private_code(name or finding, display_name(name) if name else finding)
