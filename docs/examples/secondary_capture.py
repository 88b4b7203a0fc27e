"""Write overlay.png as a Secondary Capture of the study of image.dcm."""

import highdicom
import numpy as np
import pydicom
from highdicom.sc import SCImage
from PIL import Image

header = pydicom.dcmread("image.dcm")
drawing = np.asarray(Image.open("overlay.png").convert("RGB"))
capture = SCImage.from_ref_dataset(
    header,
    drawing,
    photometric_interpretation="RGB",
    bits_allocated=8,
    coordinate_system="PATIENT",
    series_instance_uid=highdicom.UID(),
    series_number=9902,
    sop_instance_uid=highdicom.UID(),
    instance_number=1,
    manufacturer="cxr-compare",
    patient_orientation=("L", "F"),
)
capture.BurnedInAnnotation = "YES"
capture.save_as("overlay.dcm")
