"""Fixtures of the tests of data preparation: DICOM files with any flaw that a test needs."""

import base64
import copy
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom import uid
from pydicom.encaps import encapsulate

from tests.small_dicom import write_dicom


@pytest.fixture(scope="session", name="write_dicom")
def _write_dicom() -> Callable[..., Path]:
    """Write a grey (H, W) or colour (H, W, 3) image with any further header elements."""
    return write_dicom


# A ramp of 16 x 16 px and 12 bits, 200 a column and 50 a row, as encoders that the project does
# not need wrote it (libjpeg-turbo 12 bit, liblj92, OpenJPH, by way of imagecodecs).
_RAMP = (200 * np.arange(16)[None, :] + 50 * np.arange(16)[:, None]).astype(np.uint16)
_CODED = {
    uid.JPEGExtended12Bit: (
        "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAAIBAQEBAQIBAQECAgICAgQDAgICAgUEBAMEBgUGBgYFBgYGBwkIBgcJ"
        "BwYGCAsICQoKCgoKBggLDAsKDAkKCgr/wQALDAAQABABAREA/8QAFAABAAAAAAAAAAAAAAAAAAAADf/EABwQAAAG"
        "AwAAAAAAAAAAAAAAAAAKDCc4RFVhc//aAAgBAQAAPwA2rQ4RHCIDQYKjy0GQBDhEcIgNBgqPLQNP0OERwiA0GCo8"
        "tBkAQ4RHCIDQYKjy0P/Z"
    ),
    uid.JPEGLossless: (
        "/9j/xAAXAAEBAQEAAAAAAAAAAAAAAAAFCAYM/8MACwwAEAAQAQARAP/aAAgBAAAGAADn/wCyLIsiyLIsiyLIsiyL"
        "IsiyLIsjZMssssssssssssss7JllllllllllllllnZMssssssssssssss7JllllllllllllllnZMssssssssssssss"
        "7JllllllllllllllnZMssssssssssssss7JllllllllllllllnZMssssssssssssss7Jlllllllllllllln"
        "ZMssssssssssssss7JllllllllllllllnZMssssssssssssss7JllllllllllllllnZMssssssssssssssg/9k="
    ),
    uid.HTJ2KLossless: (
        "/0//UQApQAAAAAAQAAAAEAAAAAAAAAAAAAAAEAAAABAAAAAAAAAAAAABDwEB/1AACAACAAAACv9SAAwAAgABAAUE"
        "BEAB/1wAEyCIkJCQkJCQkJCQkJCQiIiI/2QAFwABT3BlbkpQSCBWZXIgMC4yNi4zLv+QAAoAAAAAAIAAAf+TwAAm"
        "EfcFB3QAAMAAE0AAEoBG/gMHdACQAgd0AMAAE8AAEwAgg/wCgnQAxo0AY1QAwAAVUAAFUIIFCxb8qnICdQDgYDD4"
        "wCEB7LYAwAAtCAAFoI6Ojo6Ojo6O58p6enGCeABiURRFURT9hCB79hCB7LoA/9k="
    ),
}


@pytest.fixture(scope="session")
def ramp() -> np.ndarray:
    """The image in the files of `coded_files`: uint16, shape (16, 16), 0 to 3,750."""
    return _RAMP


@pytest.fixture(scope="session")
def coded_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One file a transfer syntax with the ramp in it, in 8 bits where the syntax has no more."""
    folder = tmp_path_factory.mktemp("coded")
    coded = {syntax: base64.b64decode(text) for syntax, text in _CODED.items()}
    coded[uid.JPEGLosslessSV1] = coded[uid.JPEGLossless]
    coded[uid.HTJ2KLosslessRPCL] = coded[uid.HTJ2K] = coded[uid.HTJ2KLossless]
    for syntax in (uid.JPEG2000Lossless, uid.JPEG2000):
        buffer = BytesIO()
        lossy = syntax == uid.JPEG2000
        Image.fromarray(_RAMP).save(
            buffer, "JPEG2000", no_jp2=True, num_resolutions=2, irreversible=lossy
        )
        coded[syntax] = buffer.getvalue()
    files = {}
    for syntax in (uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian,
                   uid.DeflatedExplicitVRLittleEndian, *coded):  # fmt: skip
        frame = encapsulate([coded[syntax]]) if syntax in coded else None
        files[str(syntax)] = write_dicom(
            folder / f"{syntax}.dcm", _RAMP, bits_stored=12, syntax=syntax, pixel_data=frame
        )
    plain = pydicom.dcmread(files[str(uid.ExplicitVRLittleEndian)])
    for syntax in (uid.RLELossless, uid.JPEGLSLossless, uid.JPEGLSNearLossless):
        options = {uid.JPEGLSNearLossless: {"jls_error": 1}}
        header = copy.deepcopy(plain)
        header.compress(syntax, _RAMP, generate_instance_uid=False, **options.get(syntax, {}))
        files[str(syntax)] = folder / f"{syntax}.dcm"
        header.save_as(files[str(syntax)])
    baseline = BytesIO()
    Image.fromarray((_RAMP >> 4).astype(np.uint8)).save(baseline, "JPEG", quality=98)
    files[str(uid.JPEGBaseline8Bit)] = write_dicom(
        folder / "baseline.dcm",
        (_RAMP >> 4).astype(np.uint8),
        syntax=uid.JPEGBaseline8Bit,
        pixel_data=encapsulate([baseline.getvalue()]),
    )
    return files
