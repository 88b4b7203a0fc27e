"""Display of a DICOM pixel by the formulas of PS3.3 C.11, in plain Python, one pixel at a time."""

import math

DEPTHS = (8, 10, 12, 14, 16)
MODALITIES = ("none", "rescale", "lut")
VOIS = ("none", "linear", "exact", "sigmoid", "lut")
_SHARES = (0, 0.001, 0.2, 0.37, 0.5, 0.501, 0.73, 0.9, 1)


def steps(depth, signed, modality, voi):
    """Return ten stored values, of which the last is padding, and the tags of a combination."""
    least = -(1 << (depth - 1)) if signed else 0
    span = (1 << depth) - 1
    stored = [least + round(span * share) for share in _SHARES]
    padding = least + span // 3  # inside the range, so that it would show
    tags = {"BitsStored": depth, "PixelRepresentation": signed, "PixelPaddingValue": padding}
    if modality == "rescale":
        tags |= {"RescaleSlope": 2.5, "RescaleIntercept": -100}
    elif modality == "lut":
        entries = [i * i // 256 for i in range(1024)]  # 12 bits
        tags["ModalityLUTSequence"] = _sequence(entries, least + span // 8, 12)
    ends = [_modality(value, tags) for value in (stored[0], stored[-1])]
    low, high = min(ends), max(ends)
    if voi == "lut":
        first = max(math.floor(low + (high - low) * 0.3), -32768)
        tags["VOILUTSequence"] = _sequence(
            [min(4 * i + i % 3, 1023) for i in range(256)], first, 10
        )
    elif voi != "none":
        functions = {"linear": "LINEAR", "exact": "LINEAR_EXACT", "sigmoid": "SIGMOID"}
        tags |= {
            "WindowCenter": round((low + high) / 2 + 0.3, 3),
            "WindowWidth": round((high - low) * 0.6, 3),
            "VOILUTFunction": functions[voi],
        }
    return [*stored, padding], tags


def greys_of(stored, tags):
    """Return the grey of each stored value, 0 to 255, not rounded."""
    padding = tags.get("PixelPaddingValue")
    shown = [value for value in stored if value != padding]
    turned = (
        tags.get("PhotometricInterpretation") == "MONOCHROME1"
        or tags.get("PresentationLUTShape") == "INVERSE"
    )
    greys = []
    for value in stored:
        share = _share(_modality(value, tags), shown, tags)
        share = min(max(share, 0.0), 1.0)
        greys.append(0.0 if value == padding else 255 * (1 - share if turned else share))
    return greys


def _sequence(entries, first, bits):
    return [{"LUTDescriptor": [len(entries), first, bits], "LUTData": entries}]


def _entry(table, value):
    """Return the entry of a value; the first or last of the table beyond its ends."""
    _, first, _ = table["LUTDescriptor"]
    entries = table["LUTData"]
    return entries[min(max(round(value) - first, 0), len(entries) - 1)]


def _modality(value, tags):
    if "ModalityLUTSequence" in tags:
        return _entry(tags["ModalityLUTSequence"][0], value)
    return value * tags.get("RescaleSlope", 1) + tags.get("RescaleIntercept", 0)


def _share(x, shown, tags):
    """Return where a value lies between black (0) and white (1)."""
    if "VOILUTSequence" in tags:
        table = tags["VOILUTSequence"][0]
        return _entry(table, x) / ((1 << table["LUTDescriptor"][2]) - 1)
    if "WindowCenter" in tags:
        return _window(x, tags["WindowCenter"], tags["WindowWidth"], tags["VOILUTFunction"])
    if tags["BitsStored"] == 8:  # all that 8 bits can hold
        least = -128 if tags["PixelRepresentation"] else 0
        shown = range(least, least + 256)
    ends = [_modality(value, tags) for value in shown]
    return (x - min(ends)) / (max(ends) - min(ends))


def _window(x, center, width, function):
    if function == "SIGMOID":  # C.11.2.1.3.1
        return 1 / (1 + math.exp(-4 * (x - center) / width))
    if function == "LINEAR_EXACT":  # C.11.2.1.3.2
        return (x - center) / width + 0.5
    return (x - (center - 0.5)) / (width - 1) + 0.5  # C.11.2.1.2.1
