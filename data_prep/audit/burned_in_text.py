"""Check for text that is burned into the pixels of images."""

from __future__ import annotations

import pandas as pd

from cxr_compare.data_prep.audit.problem import Problem
from cxr_compare.data_prep.contracts.ids import is_member
from cxr_compare.data_prep.images.burned_in_text import TEXT_LINE_CHARACTERS

_TEXT_SHOWN = 24
"""Number of images with burned-in text that the page shows; its CSV lists all."""


def text_suspects(decode: pd.DataFrame) -> pd.Series:
    """Return the ids of images that may contain burned-in text, the most likely first.

    The header of the file states such text, or a line of characters was found in the pixels.

    Args:
        decode: Decode table: one row for each image, with what was measured on its pixels, such as
            ``text_score``, the number of characters of the longest line.
    """
    stated = pd.Series(False, index=decode.index)
    score = pd.Series(0.0, index=decode.index)
    if "burned_in_annotation" in decode.columns:
        stated |= is_member(decode["burned_in_annotation"], ["yes"])
    if "text_score" in decode.columns:
        score = decode["text_score"].fillna(0.0)
    suspects = decode.assign(_score=score)[(stated | (score >= TEXT_LINE_CHARACTERS)).to_numpy()]
    return suspects.sort_values(["_score", "image_id"], ascending=[False, True])["image_id"]


def check_burned_in_text(decode: pd.DataFrame) -> list[Problem]:
    """Report images that may show a name, a date or a hospital in their pixels.

    Args:
        decode: Decode table: one row for each image, with what was done to its pixels and what was
            measured on them.

    Returns:
        A list with one problem; an empty list if no image may contain text.
    """
    suspects = text_suspects(decode)
    return [
        Problem.from_cases(
            "burned_in_text",
            "warning",
            "image that seems to contain a line of text, such as a name or a mark that reveals the "
            "label",
            suspects,
            advice="look at each image; leave out or black out what identifies a person",
            shown=tuple(suspects.head(_TEXT_SHOWN)),
        )
    ]
