"""Look-up of ids among other ids, with Arrow where they are many, and of names that differ."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from cxr_compare.data_prep.contracts.errors import InputError, counted
from cxr_compare.data_prep.contracts.text import TEXT

ENDING = re.compile(r"\.(?:png|jpe?g|tiff?|bmp|webp|dcm|dicom)$", re.IGNORECASE)
"""Ending of the name of an image file."""
_DRESSES = {
    "file ending": re.compile(
        rf"(?:{ENDING.pattern[:-1]}|\.(?:npy|npz|nii|gz|mha|nrrd|txt|json|xml))+$", re.IGNORECASE
    ),
    "folder": re.compile(r"^.*/"),
    "prefix of an upload": re.compile(r"^[0-9a-f]{8}-(?=.)"),  # as Label Studio writes it
    "zeros before a number": re.compile(r"^0+(?=\d+$)"),
}
"""Parts that a name may have more or fewer than its image, in the order in which they are tried."""


def is_member(values: pd.Series | pd.Index, members: Iterable[str]) -> np.ndarray:
    """Return a flag for each of N texts, True if it is among the members; a missing one is not.

    The function gives the same as ``values.isin(members)`` in a tenth of the time: for a million
    ids, pandas 3 makes Python strings, which takes 3 s and 200 MB.

    Example:
        >>> is_member(pd.Series(["a", "b"]), ["b", "c"]).tolist()
        [False, True]
    """
    if isinstance(members, pd.Series | pd.Index):
        present = members.dropna()
    else:
        present = pd.Series(list(members), dtype=TEXT).dropna()
    text = _as_text(values)
    value_set = _as_text(present)
    if not text.null_count and text.equals(value_set):  # as in tables of the same images
        return np.ones(len(text), dtype=bool)
    flags = pc.is_in(text, value_set=value_set)  # type: ignore[attr-defined]
    return np.asarray(flags.to_numpy(zero_copy_only=False), dtype=bool)


def positions(values: pd.Series | pd.Index, members: pd.Series | pd.Index) -> np.ndarray:
    """Return the row number, int64, of each value among unique texts; -1 if it is not among them.

    The function gives the same as ``pd.Index(members).get_indexer(values)``, without a Python
    object for each text.

    Example:
        >>> positions(pd.Series(["b", "x"]), pd.Index(["a", "b"])).tolist()
        [1, -1]
    """
    text = _as_text(values)
    value_set = _as_text(members)
    if text.equals(value_set) and _rises(text):  # as in tables of the same images
        return np.arange(len(text), dtype=np.int64)
    indices = pc.index_in(text, value_set=value_set).fill_null(-1)  # type: ignore[attr-defined]
    rows = indices.to_numpy(zero_copy_only=False).astype(np.int64)
    if text.null_count:  # a missing value is equal to a missing member, but means nothing
        rows[text.is_null().to_numpy(zero_copy_only=False)] = -1
    return rows


def renamed(values: pd.Series, names: Mapping[str, str]) -> pd.Series:
    """Replace each text of a column by its new name; a text without one becomes missing.

    The function gives the same as ``values.map(names)``, without a Python object for each value.

    Example:
        >>> renamed(pd.Series(["a", "b"]), {"a": "x"}).tolist()
        ['x', nan]
    """
    rows = positions(values, pd.Index(list(names), dtype=TEXT))
    new_texts = pa.array(list(names.values()), pa.large_string()).take(
        pa.array(rows, mask=rows < 0)
    )
    return pd.Series(pd.array(new_texts, dtype=TEXT), index=values.index, name=values.name)


def are_rows_of(rows: pd.DataFrame, others: pd.DataFrame) -> np.ndarray:
    """Return True for the rows that are among the rows of another table of the same columns."""
    return pd.MultiIndex.from_frame(rows).isin(pd.MultiIndex.from_frame(others))


def find_one(value: str, members: pd.Series | pd.Index) -> int:
    """Return the row number of the first member that equals a text; -1 if there is none.

    The function reads the texts one after the other. For a few look-ups this is faster than a
    dictionary, which takes half a second to make for a million texts.
    """
    text = pa.scalar(value, pa.large_string())
    return int(pc.index(_as_text(members), text).as_py())


def is_strictly_increasing(values: pd.Series | pd.Index) -> bool:
    """Return True if each text is greater than the one before, so that none repeats.

    If a text is missing, the answer is False.
    """
    return _rises(_as_text(values))


def _rises(text: pa.Array) -> bool:
    if text.null_count:
        return False
    if len(text) < 2:
        return True
    rises = pc.less(text.slice(0, len(text) - 1), text.slice(1))  # type: ignore[attr-defined]
    return bool(pc.all(rises).as_py())  # type: ignore[attr-defined]


def _as_text(values: pd.Series | pd.Index) -> pa.Array:
    text = values if values.dtype == TEXT else values.astype(TEXT)
    array = pa.array(text, type=pa.large_string(), from_pandas=True)
    return array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array


def spelling_key(name: str) -> str:
    """Return an id without what spreadsheets and people change in it.

    These are case, spaces, the zeros before a number, and ``.0`` after it.

    Example:
        >>> spelling_key("P  1"), spelling_key("0012.0")
        ('p 1', '12')
    """
    plain = " ".join(unicodedata.normalize("NFKC", name).casefold().split())
    return re.sub(r"^(\d+)\.0+$", r"\1", plain).lstrip("0")


def match_ids(
    names: Iterable[str],
    ids: Iterable[str],
    where: str,
    among: str = "the truth",
    remedy: str = "give each the name that it has there, or leave it out",
) -> tuple[dict[str, str], str]:
    """Return the image of each name, and a sentence on how names differ, empty if none does.

    A name that equals an id is this image. The others lose one part after the other, as the ids do:
    the ending of a file, the folder, the eight hexadecimal digits that Label Studio puts before an
    upload, the zeros before a number. What they have lost counts only if all of them then fit
    exactly one image each, which has lost nothing that contradicts it (a/x is not b/x). InputError,
    which names `where` and an example, for all others, and for two names of one image; `among` is
    what a message calls the images, and `remedy` what to do about others.

    Example:
        >>> match_ids(["a", "out/1.png"], ["a", "0001"], "A")[0]
        {'a': 'a', 'out/1.png': '0001'}
    """
    ids = list(dict.fromkeys(ids))
    known = set(ids)
    found = {name: name for name in names}
    others = [name for name in found if name not in known]
    if not others:
        return found, ""
    bare = {text: text.replace("\\", "/") for text in (*ids, *others)}
    lost: dict[str, dict[str, str]] = {text: {} for text in bare}
    fits: dict[str, list[str]] = {}
    for dress, pattern in _DRESSES.items():
        ids_of: dict[str, list[str]] = {}
        for text, rest in bare.items():
            if part := pattern.search(rest):
                lost[text][dress] = part[0]
                bare[text] = pattern.sub("", rest)
            if text in known:
                ids_of.setdefault(bare[text], []).append(text)
        for name in others:
            same = ids_of.get(bare[name], [])
            fits[name] = [image for image in same if _agree(lost[name], lost[image])]
        if all(len(images) == 1 for images in fits.values()):
            break
    _refuse_unfit(fits, bare, known, where, among, remedy)
    found |= {name: images[0] for name, images in fits.items()}
    first: dict[str, str] = {}
    for name, image in found.items():
        if image in first:
            raise InputError(
                f"{where}: calls image '{image}' {first[image]!r} and {name!r}; keep one name"
            )
        first[image] = name
    differ = [
        dress
        for dress in _DRESSES
        if any(lost[name].get(dress) != lost[found[name]].get(dress) for name in others)
    ]
    return found, (
        f"{counted(len(others), 'image')} found by another name: {', '.join(differ)} (such as "
        f"{others[0]!r} for {found[others[0]]!r} of {among})."
    )


def _agree(one: Mapping[str, str], other: Mapping[str, str]) -> bool:
    """Return True if two names of equal rests have lost nothing that makes them two images."""
    for dress in (one.keys() & other.keys()) - {"file ending"}:
        parts = f"/{one[dress]}", f"/{other[dress]}"
        if not (parts[0].endswith(parts[1]) or parts[1].endswith(parts[0])):
            return False
    return True


def _refuse_unfit(
    fits: Mapping[str, Sequence[str]],
    bare: Mapping[str, str],
    known: set[str],
    where: str,
    among: str,
    remedy: str,
) -> None:
    """Refuse names of which one fits no image, or two."""
    for name, images in fits.items():
        if len(images) > 1:
            raise InputError(
                f"{where}: {name!r} may be {images[0]!r} or {images[1]!r} of {among}; write each "
                "image as it is there"
            )
    unknown = [name for name, images in fits.items() if not images]
    if unknown:
        near = {bare[image].casefold(): image for image in sorted(known)}
        image = near.get(bare[unknown[0]].casefold())
        some = min(known, default="none")
        advice = f"is it {image!r}?" if image else f"whose images are such as {some!r};"
        raise InputError(
            f"{where}: {counted(len(unknown), 'image', 'are')} not in {among}, such as "
            f"{unknown[0]!r}; {advice} {remedy}"
        )


def renumber_codes(codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the codes that occur, sorted, and the position of each row's code among them (int64).

    The function gives the same as ``np.unique(codes, return_inverse=True)`` for whole numbers from
    0 on, but it counts the codes where `np.unique` sorts them. That is much faster for many rows
    with few values. The memory grows with the largest code.

    Example:
        >>> used, rows = renumber_codes(np.array([7, 2, 7]))
        >>> used.tolist(), rows.tolist()
        ([2, 7], [1, 0, 1])
    """
    occurs = np.bincount(codes) > 0
    used = np.flatnonzero(occurs)
    return used, (np.cumsum(occurs) - 1)[codes]
