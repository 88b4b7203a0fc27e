"""A chest X-ray as DICOM, for every test of what is answered for one."""

import numpy as np
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset


def radiograph(pixels: np.ndarray | None = None, **changes: object) -> Dataset:
    """A CR image of 40 rows and 32 columns, or of some 8-bit pixels; None removes an attribute."""
    source = Dataset()
    for keyword, value in {
        "SOPClassUID": uid.ComputedRadiographyImageStorage, "SOPInstanceUID": "1.2.3.4",
        "StudyInstanceUID": "1.2.3", "SeriesInstanceUID": "1.2.3.3", "PatientID": "P1",
        "PatientName": "Doe^Jane", "PatientBirthDate": "19500102", "PatientSex": "F",
        "StudyID": "S1", "StudyDate": "20260102", "StudyTime": "101112", "AccessionNumber": "A1",
        "ReferringPhysicianName": "Roe^R", "Modality": "CR", "BodyPartExamined": "CHEST",
        "Rows": 40, "Columns": 32, "InstanceNumber": 7, "PhotometricInterpretation": "MONOCHROME2",
    }.items():  # fmt: skip
        setattr(source, keyword, value)
    source.file_meta = FileMetaDataset()
    source.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    if pixels is not None:
        source.set_pixel_data(pixels, "MONOCHROME2", 8, generate_instance_uid=False)
    for keyword, value in changes.items():
        if value is None:
            delattr(source, keyword)
        else:
            setattr(source, keyword, value)
    return source
