"""DICOM files as a case describes them: stored values and elements as JSON."""

import base64
import warnings
from io import BytesIO

import numpy as np
from pydicom import uid
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence

from tests.small_dicom import as_file, dicom_image

_DEFAULT_SIDE = 64  # px
_CODED = uid.JPEGBaseline8Bit
_WIDE = {"LUTDescriptor": "US", "LUTData": "US"}  # their type is ambiguous in the dictionary


def stored_values(case):
    """The array of stored values that a case states."""
    tags = case.get("tags", {})
    signed = tags.get("PixelRepresentation") == 1
    dtype = np.dtype(f"{'i' if signed else 'u'}{case.get('allocated', 8) // 8}")
    if "runs" in case:
        width, height = case["size"]
        values = [value for value, count in case["runs"] for _ in range(count)]
        channels = np.shape(values)[1:]
        return np.array(values).reshape(height, width, *channels).astype(dtype)
    if "frames" in case:
        return np.array(case["frames"][0]).astype(dtype)
    if "pixels" in case:
        return np.array(case["pixels"]).astype(dtype)
    return np.zeros((_DEFAULT_SIDE, _DEFAULT_SIDE), dtype)


def plain_value(value):
    return base64.b64decode(value["base64"]) if isinstance(value, dict) else value


def set_element(dataset, keyword, value):
    """Set an element to a value, to {"vr", "value"} or to a list of items."""
    tag = tag_for_keyword(keyword) or int(keyword, 16)
    if isinstance(value, dict):
        dataset[tag] = DataElement(tag, value["vr"], plain_value(value["value"]))
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        dataset[tag] = DataElement(tag, "SQ", Sequence([item_of(one) for one in value]))
    elif keyword in _WIDE:
        vr = "SS" if min(value) < 0 else _WIDE[keyword]
        dataset[tag] = DataElement(tag, vr, value)
    else:
        vr = dictionary_VR(tag)
        if vr == "US or SS":
            vr = "SS" if dataset.get("PixelRepresentation") == 1 else "US"
        dataset[tag] = DataElement(tag, vr, value)


def item_of(elements):
    item = Dataset()
    for keyword, value in elements.items():
        set_element(item, keyword, value)
    return item


def file_content(case):
    """The bytes of the file that a case describes."""
    if "file" in case:
        file = case["file"]
        return file["text"].encode() if "text" in file else base64.b64decode(file["base64"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom warns of the very flaws that are wanted here
        return dicom_content(case)[: case.get("keep")]


def dicom_content(case):
    """The whole DICOM file of a case."""
    tags = case.get("tags", {})
    values = stored_values(case)
    name = case.get("syntax", "ExplicitVRLittleEndian")
    syntax = uid.UID(getattr(uid, name, name))
    content = base64.b64decode(case["raw"]) if "raw" in case else None
    if "frames" in case:
        content = np.array(case["frames"]).astype(values.dtype).tobytes()
    frame = encapsulate([base64.b64decode(case["frame"])]) if "frame" in case else None
    is_odd = syntax.is_private or (frame is not None and not syntax.is_encapsulated)
    data = dicom_image(
        values,
        bits_stored=tags.get("BitsStored"),
        syntax=_CODED if is_odd else syntax,  # pydicom writes no file that contradicts itself
        pixel_data=frame,
        content=content,
    )
    for keyword, value in tags.items():
        if value is not None:
            set_element(data, keyword, value)
        elif keyword in data:
            delattr(data, keyword)
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
    if "bare" in case:
        return bare_content(data, implicit=case["bare"] == "implicit")
    written = as_file(data)
    stated = syntax.encode().ljust(len(_CODED), b"\0")
    return written.replace(_CODED.encode(), stated, 1) if is_odd else written


def bare_content(data, *, implicit):
    """A data set alone, without preamble and meta header."""
    buffer = BytesIO()
    Dataset(data).save_as(buffer, implicit_vr=implicit, little_endian=True)
    return buffer.getvalue()
