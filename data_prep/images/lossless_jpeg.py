"""Check that no data of a lossless JPEG are missing.

Decoders fill missing parts with grey, and most of them do so without a message. The decoded values
show how many bits the data must have.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.images.codestream import (
    HUFFMAN_TABLES,
    LOSSLESS,
    RESTART_INTERVAL,
    SCAN,
    segments,
)

PREDICTORS: dict[int, Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]] = {
    1: lambda left, above, corner: left,
    2: lambda left, above, corner: above,
    3: lambda left, above, corner: corner,
    4: lambda left, above, corner: left + above - corner,
    5: lambda left, above, corner: left + ((above - corner) >> 1),
    6: lambda left, above, corner: above + ((left - corner) >> 1),
    7: lambda left, above, corner: (left + above) >> 1,
}
"""Prediction of a value from its neighbours to the left, above and in the corner between them."""
_FIRST_HALVING_PREDICTOR = 5
_BLOCK_PIXELS = 1 << 16  # handled at a time
_BITS_WITHOUT_CODE = 200  # cost of a difference that the encoder cannot have met
_MAX_PADDING_SHARE = 1 / 1000  # share of the data that no padding reaches
_DIFFERENCES = np.arange(1 << 16)  # modulo 65,536
_DIFFERENCE_SIZES = np.frexp(np.minimum(_DIFFERENCES, (1 << 16) - _DIFFERENCES))[1].astype(np.uint8)


def lossless_doubts(path: Path, frame: bytes, values: np.ndarray) -> list[str]:
    """Check by the number of its bytes whether a lossless JPEG is cut short.

    Args:
        path: Path of the file, for the message.
        frame: Bytes of the compressed image.
        values: Decoded values, shape ``(H, W)`` or ``(H, W, C)``.

    Returns:
        Warnings as sentences without a full stop; an empty list if the image seems complete.

    Raises:
        InputError: The image is cut short: the decoder made up its last rows, which repeat the row
            above.
    """
    try:
        bits = count_lossless_bits(frame, values)
    except (ArithmeticError, IndexError, KeyError, ValueError):
        return ["whether all data of its lossless JPEG are there cannot be checked"]
    needed = bits.needed_by_row
    present_rows = int(np.searchsorted(np.cumsum(needed), bits.present, side="right"))
    rows_behind = needed[present_rows + 2 :].tolist()
    if present_rows < len(needed) and len(set(rows_behind)) <= 1:
        raise InputError(
            f"{path}: is cut short: {present_rows:,} of {len(needed):,} rows are there"
        )
    missing_bits = int(needed.sum()) - bits.present
    # Each part may end with bits that fill up its last byte.
    padding_bits = 8 * bits.parts + _MAX_PADDING_SHARE * bits.present
    if -padding_bits <= missing_bits <= 0:
        return []
    return [
        f"its lossless JPEG seems damaged: the pixels decoded are "
        f"{abs(missing_bits) / max(bits.present, 1):.1%} "
        f"{'more' if missing_bits > 0 else 'less'} than its data hold"
    ]


class LosslessBits(NamedTuple):
    """Number of bits that the values of a lossless JPEG need, and number of bits in its data.

    Data with fewer bits than the values need are cut off, so the image is damaged.

    Attributes:
        needed_by_row: Bits that the decoded values of each row need, int64 (H,).
        present: Number of bits in the compressed data.
        parts: Number of separately coded parts of the compressed data. Each is filled up to a whole
            byte, so `present` may exceed the needed bits by up to 7 for each part.
    """

    needed_by_row: np.ndarray
    present: int
    parts: int


def count_lossless_bits(frame: bytes, values: np.ndarray) -> LosslessBits:
    """Count the bits that decoded values need in a lossless JPEG, and the bits that it has.

    Args:
        frame: Bytes of the compressed image.
        values: Decoded values, shape ``(H, W)`` or ``(H, W, C)``.

    Returns:
        Both numbers of bits. That of the needed bits is given for each row of the image.

    Raises:
        ValueError: The channels differ in size. Damaged data may raise other errors as well.

    Source:
        ITU-T T.81 H.1.2 and H.2 (prediction, differences modulo 65,536, restarts) and F.1.2.1
        (codes).
    """
    planes = values.reshape(*values.shape[:2], -1)
    height, width = planes.shape[:2]
    costs_by_table: dict[int, np.ndarray] = {}
    needed = np.zeros(height, np.int64)
    present = 0
    parts = 1
    restart_rows = height
    for marker, body, data in segments(frame):
        if marker == LOSSLESS:
            depth = body[0]
            channels = body[6::3]
            if len(channels) != planes.shape[2] or len(set(body[7::3])) > 1:
                raise ValueError("channels of several sizes")
        elif marker == HUFFMAN_TABLES:
            costs_by_table.update(_bits_of_differences(body))
        elif marker == RESTART_INTERVAL and any(body):
            restart_rows = int.from_bytes(body, "big") // width
            parts = math.ceil(height / restart_rows)
        elif marker == SCAN:
            predictor = body[-3]
            shift = body[-1] & 15
            for channel, table in zip(body[1:-3:2], body[2:-3:2], strict=True):
                image: np.ndarray = planes[..., channels.index(channel)].astype(np.uint16)
                if shift or values.dtype.kind == "i":
                    image = (image & np.uint16((1 << depth) - 1)) >> shift
                middle = 1 << (depth - shift - 1)
                costs = costs_by_table[table >> 4]
                needed += _bits_of_rows(image, costs, predictor, middle, restart_rows)
            coded = np.frombuffer(data, np.uint8)
            stuffed = int(np.count_nonzero((coded[:-1] == 0xFF) & (coded[1:] == 0)))
            present += 8 * (len(data) - stuffed - 2 * (parts - 1))
    return LosslessBits(needed, present, parts)


def _bits_of_rows(
    image: np.ndarray, costs: np.ndarray, predictor: int, middle: int, restart_rows: int
) -> np.ndarray:
    """Return the bits that each row of a channel needs.

    `costs` are the bits of each difference; `middle` is the prediction of the first value; after
    each `restart_rows` rows prediction begins anew.
    """
    bits = np.zeros(len(image), np.int64)
    predict = PREDICTORS[predictor]
    block_rows = max(1, _BLOCK_PIXELS // image.shape[1])
    # Differences count modulo 65,536, and so may sums; halves must be of whole numbers.
    number: Any = np.uint16 if predictor < _FIRST_HALVING_PREDICTOR else np.int32
    for top in range(0, len(image) - 1, block_rows):
        block: np.ndarray = image[top : top + block_rows + 1].astype(number, copy=False)
        rows = block[1:]
        above = block[:-1]
        differences = np.empty_like(rows)
        np.subtract(rows[:, 0], above[:, 0], out=differences[:, 0])
        predicted = predict(rows[:, :-1], above[:, 1:], above[:, :-1])
        np.subtract(rows[:, 1:], predicted, out=differences[:, 1:])
        lengths = np.take(costs, differences.astype(np.uint16, copy=False))
        sums = cv2.reduce(lengths, 1, cv2.REDUCE_SUM, dtype=cv2.CV_32S)
        bits[top + 1 : top + 1 + len(rows)] = sums[:, 0]
    first_rows = image[::restart_rows]
    left = np.hstack([np.full_like(first_rows[:, :1], middle), first_rows[:, :-1]])
    bits[::restart_rows] = np.take(costs, first_rows - left).sum(1, dtype=np.int64)
    return bits


def _bits_of_differences(body: bytes) -> dict[int, np.ndarray]:
    """Return the bits of each difference modulo 65,536, by the number of the Huffman table."""
    costs = {}
    position = 0
    while position < len(body):
        counts = list(body[position + 1 : position + 17])
        sizes = list(body[position + 17 : position + 17 + sum(counts)])
        bits = np.full(17, _BITS_WITHOUT_CODE)
        # A code is followed by as many bits as the difference has, but for 16, which has none.
        bits[sizes] = np.repeat(np.arange(1, 17), counts) + np.array(sizes) % 16
        costs[body[position]] = np.take(bits.astype(np.uint8), _DIFFERENCE_SIZES)
        position += 17 + sum(counts)
    return costs
