"""Lookup tables of a DICOM header: modality, VOI and presentation LUTs have one form."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from pydicom.dataset import Dataset

_SIGN = 1 << 15  # of a 16-bit number


@dataclass(frozen=True)
class LookupTable:
    """A table that turns values into other values.

    Attributes:
        first: Value that the first entry stands for.
        entries: int64, shape ``(N,)``, each 0 to 65,535.
        bits: Depth of the entries as the header states it, 1 to 16.
    """

    first: int
    entries: np.ndarray
    bits: int

    def look_up(self, values: np.ndarray) -> np.ndarray:
        """Look values up; those outside the table get its first or last entry.

        Args:
            values: Numbers, shape ``(K,)``; fractions are rounded.

        Returns:
            int64, shape ``(K,)``.

        Example:
            >>> LookupTable(10, np.array([0, 5, 9]), 4).look_up(np.array([3, 11, 11.6, 40]))
            array([0, 5, 9, 9])
        """
        first = self.first
        if first >= _SIGN and values.min(initial=0) < 0 and values.max(initial=0) < first:
            first -= 2 * _SIGN  # a signed number, kept under an unsigned VR
        index = np.clip(np.rint(values) - first, 0, self.entries.size - 1)
        return self.entries[index.astype(np.int64)]


def read_table(item: Dataset, header: Dataset) -> LookupTable:
    """Read one item of a LUT sequence.

    pydicom's own functions take depths of 8 and 16 bits only; 10 and 12 are common.

    Args:
        item: Holds ``LUTDescriptor`` and ``LUTData``.
        header: The data set that the sequence is in.

    Returns:
        The table.

    Raises:
        ValueError: An element is missing, or there are fewer entries than the descriptor says.

    Source:
        DICOM PS3.3 C.11.1.1 and C.11.2.1.1.
    """
    descriptor, stored = item.get("LUTDescriptor"), item.get("LUTData")
    if descriptor is None or len(descriptor) != 3 or stored is None:
        raise ValueError("lookup table lacks its descriptor or its entries")
    count, first, bits = (int(v) for v in descriptor)
    count = (count & 0xFFFF) or 1 << 16
    if isinstance(stored, bytes):
        little = header.original_encoding[1] is not False
        wide = len(stored) >= 2 * count
        whole = stored[: len(stored) // 2 * 2] if wide else stored
        entries = np.frombuffer(whole, ("<u2" if little else ">u2") if wide else "u1")
    else:
        entries = np.atleast_1d(np.asarray(stored, dtype=np.int64)) & 0xFFFF
    if entries.size < count:
        raise ValueError(f"lookup table has {entries.size} entries, its descriptor says {count}")
    return LookupTable(first, entries[:count].astype(np.int64), min(max(bits, 1), 16))
