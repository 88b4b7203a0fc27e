"""What the files themselves tell: text in the picture, and why files were left out."""

from __future__ import annotations

import pandas as pd

from data_prep.audit.problem import Problem
from data_prep.contracts.text_lookup import is_member
from data_prep.images.burned_in_text import TEXT_LINE_CHARACTERS

_REASONS_SHOWN = 20


def text_suspects(decode: pd.DataFrame) -> pd.Series:
    """Images with burned-in text, as their header says or their pixels look.

    Args:
        decode: Reads ``image_id`` and, where there are, ``burned_in_annotation, text_score``.

    Returns:
        Their ids, the most text first.
    """
    said = pd.Series(False, index=decode.index)
    score = pd.Series(0.0, index=decode.index)
    if "burned_in_annotation" in decode.columns:
        said |= is_member(decode["burned_in_annotation"], ["yes"])
    if "text_score" in decode.columns:
        score = decode["text_score"].fillna(0.0)
    suspects = decode.assign(_score=score)[(said | (score >= TEXT_LINE_CHARACTERS)).to_numpy()]
    return suspects.sort_values(["_score", "image_id"], ascending=[False, True])["image_id"]


def check_burned_in_text(decode: pd.DataFrame) -> list[Problem]:
    """Report pictures that may show a name, a date or a hospital in their pixels.

    Args:
        decode: The decode table.
    """
    suspects = text_suspects(decode)
    return [
        Problem.of(
            "burned_in_text",
            "warning",
            "picture that seems to hold a line of text: a name, or a mark that gives the label "
            "away",
            suspects,
            advice="look at each; leave out or black out what identifies a person",
            pairs=suspects.to_frame(),
        )
    ]


def check_excluded(excluded: pd.DataFrame) -> list[Problem]:
    """Say what was left out when the set was prepared; missing files are no fault of the set.

    Args:
        excluded: The excluded table.
    """
    # What follows the colon of these is the single case: a size, an edge.
    measured = is_member(excluded["stage"], ["boxes", "size"])
    reasons = excluded["reason"].mask(measured, excluded["reason"].str.split(":").str[0])
    code, kinds = pd.factorize(reasons)
    common = pd.Series(code).value_counts().index[:_REASONS_SHOWN]
    problems = []
    for place in sorted(int(kind) for kind in common):
        rows = excluded[code == place]
        missing = "no image file" in str(kinds[place])
        problems.append(
            Problem.of(
                f"excluded_{rows['stage'].iloc[0]}",
                "info" if missing else "warning",
                f"left out when prepared: {kinds[place]}",
                rows["path"],
                advice="make sure that this is no surprise, else mend the source and prepare again",
                unit="file",
            )
        )
    rest = excluded[~pd.Series(code).isin(common).to_numpy()]
    text = f"left out when prepared, for {len(kinds) - len(common):,} other reasons"
    advice = "read excluded.parquet"
    return [
        *problems,
        Problem.of("excluded_other", "warning", text, rest["path"], advice=advice, unit="file"),
    ]
