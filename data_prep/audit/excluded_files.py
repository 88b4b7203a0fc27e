"""Report of the files that were left out when the data set was prepared."""

from __future__ import annotations

import pandas as pd

from cxr_compare.data_prep.audit.problem import Problem
from cxr_compare.data_prep.contracts.ids import is_member

_REASONS_SHOWN = 20
_POSITION = r"^(label file), \w+ \d+(?=: )"  # such as "label file, line 3: "
_FILES_SHOWN = 8  # images with a wrong box to show for each reason


def check_excluded(excluded: pd.DataFrame) -> list[Problem]:
    """Report the files that were left out when the data set was prepared, by reason.

    Args:
        excluded: Table of these files with columns ``path``, ``stage`` (step that left the file
            out) and ``reason``.

    Returns:
        One problem for each reason.
    """
    # In these reasons, the text after the colon describes the single case, such as a size.
    measured = is_member(excluded["stage"], ["boxes", "size"])
    reasons = excluded["reason"].mask(measured, excluded["reason"].str.split(":").str[0])
    reasons = reasons.str.replace(_POSITION, r"\1", regex=True)
    reasons = reasons.mask(excluded["stage"] == "list", "named in the list of --exclude")
    code, kinds = pd.factorize(reasons)
    common = pd.Series(code).value_counts().index[:_REASONS_SHOWN]
    problems = []
    for kind_code in sorted(int(kind) for kind in common):
        rows = excluded[code == kind_code]
        stage = rows["stage"].iloc[0]
        seen = rows["path"][rows.reindex(columns=["file_sha256"])["file_sha256"].notna()]
        expected = stage == "list" or "no image file" in str(kinds[kind_code])
        problems.append(
            Problem.from_cases(
                f"excluded_{stage}",
                "info" if expected else "warning",
                f"left out when prepared: {kinds[kind_code]}",
                rows["path"],
                advice="check if this is intended; otherwise correct the source and prepare again",
                unit="file",
                shown=tuple(seen.head(_FILES_SHOWN)),
            )
        )
    rest = excluded[~pd.Series(code).isin(common).to_numpy()]
    text = f"left out when prepared, for {len(kinds) - len(common):,} other reasons"
    advice = "read excluded.parquet"
    return [
        *problems,
        Problem.from_cases(
            "excluded_other", "warning", text, rest["path"], advice=advice, unit="file"
        ),
    ]
