"""Targets of a data set that is combined from several parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pandas as pd

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.finding_names import Target
from cxr_compare.data_prep.contracts.ids import is_member
from cxr_compare.data_prep.contracts.schemas import REFERENCE_READER
from cxr_compare.data_prep.sources.source_tables import (
    SourceTables,
    reference_rows,
    target_from_findings,
)


def merge_targets(
    tables: SourceTables,
    part_targets: Mapping[str, Mapping[str, Target]],
    part_findings: Mapping[str, pd.DataFrame],
    user_targets: Mapping[str, Sequence[str]],
) -> SourceTables:
    """Add targets to a combined data set: those of the joined data sets (parts) and the user's.

    `part_targets` and `part_findings` have the name of a part as key, `user_targets` that of a
    target. An image is negative for a target only if all its findings are absent. If one part
    labels only lung opacity and another part only pneumonia, a target of both findings would
    therefore have no negatives. If no part labels all findings of a user's target, the target
    becomes a finding of its own. It is present on an image if any of the findings is present, and
    absent if all findings that the part of the image labels are absent. Boxes are copied to the new
    finding. Parts that define a target differently, and unknown findings, are refused.
    """
    findings = {name: reference_only(table) for name, table in part_findings.items()}
    targets: dict[str, Target] = {}
    origin: dict[str, str] = {}
    for part, specs in part_targets.items():
        for name, spec in specs.items():
            if name in user_targets:
                continue
            first = targets.setdefault(name, spec)
            if set(first.any_of) != set(spec.any_of):
                raise InputError(
                    f"target '{name}' is {' or '.join(first.any_of)} in {origin[name]} and "
                    f"{' or '.join(spec.any_of)} in {part}; say what it is with --target "
                    f"{name}=FINDING,..."
                )
            origin.setdefault(name, part)
    known = sorted({finding for table in findings.values() for finding in table["finding"]})
    notes = list(tables.notes)
    for name, members in user_targets.items():
        unknown = [member for member in members if member not in known]
        if unknown or not members:
            raise InputError(
                f"--target {name}: finding '{', '.join(unknown)}' is in none of the sets; they "
                f"have {', '.join(known) or 'none'}"
            )
        labelled = {part: _labelled(table, members) for part, table in findings.items()}
        if all(len(names) in (0, len(set(members))) for names in labelled.values()):
            targets[name] = target_from_findings(name, members)
            continue
        if name in known:
            raise InputError(
                f"--target {name}: '{name}' is a finding, and no set labels all of "
                f"{', '.join(members)}; choose another name"
            )
        tables = _with_finding(tables, name, list(members), labelled, findings)
        targets[name] = target_from_findings(name, [name])
        origins = "; ".join(
            f"in {part} {' or '.join(names)}" for part, names in labelled.items() if names
        )
        notes.append(f"finding '{name}' was made of the findings that each set labels: {origins}")
    notes += _partly_labelled(findings, known)
    tables = replace(tables, targets=targets, notes=tuple(notes))
    return tables.with_joined_spellings(user_targets)


def reference_only(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of a label table whose reader is ``reference``.

    A label table may have rows of several people (readers). The rows of the reader ``reference``
    are the final labels, which training and evaluation use.
    """
    return table[table["reader"] == REFERENCE_READER]


def _labelled(findings: pd.DataFrame, members: Sequence[str]) -> list[str]:
    """Return the members that a part labels."""
    names = set(findings["finding"].unique())
    return [member for member in dict.fromkeys(members) if member in names]


def _partly_labelled(findings: Mapping[str, pd.DataFrame], known: Sequence[str]) -> list[str]:
    """Note the findings that only some of the sets label."""
    findings_by_sets: dict[tuple[str, ...], list[str]] = {}
    for finding in known:
        where = tuple(part for part, table in findings.items() if _labelled(table, [finding]))
        findings_by_sets.setdefault(where, []).append(finding)
    return [
        f"labelled only in {' and '.join(where)}: {', '.join(names)}; on other images this is "
        "unknown, not absent"
        for where, names in findings_by_sets.items()
        if len(where) < len(findings)
    ]


def _with_finding(
    tables: SourceTables,
    name: str,
    members: list[str],
    labelled: Mapping[str, list[str]],
    findings: Mapping[str, pd.DataFrame],
) -> SourceTables:
    """Add a finding that holds where any member is present, with its boxes."""
    new = [_derived(findings[part], names, name) for part, names in labelled.items() if names]
    added = pd.concat([rows for rows, _ in new], ignore_index=True)
    deciding = pd.concat([pairs for _, pairs in new], ignore_index=True)
    boxes = reference_only(tables.boxes)
    coverage = reference_only(tables.box_coverage)
    boxes = boxes[boxes["finding"].isin(members)]
    return replace(
        tables,
        findings=pd.concat([tables.findings, added], ignore_index=True),
        boxes=pd.concat([tables.boxes, boxes.assign(finding=name)], ignore_index=True),
        box_coverage=pd.concat(
            [tables.box_coverage, _coverage(deciding, coverage, name)], ignore_index=True
        ),
    )


def _derived(
    findings: pd.DataFrame, members: list[str], name: str
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Build the new finding for one set, and list the ``image_id, finding`` that decided it."""
    rows = findings[findings["finding"].isin(members)]
    ids = rows["image_id"]
    present = is_member(ids, ids[rows["state"] == "present"])
    n_absent = ids[rows["state"] == "absent"].value_counts()
    absent = is_member(ids, n_absent.index[n_absent == len(members)])
    uncertain = ~present & is_member(ids, ids[rows["state"] == "uncertain"])
    state = rows["state"].where(~present, "present").where(~uncertain, "uncertain")
    decided = present | absent | uncertain
    deciding = rows[decided & (rows["state"] == state)]
    made = rows.assign(state=state)[decided].drop_duplicates("image_id")
    # The origin is that of the first deciding row.
    made["origin"] = made["image_id"].map(
        deciding.drop_duplicates("image_id").set_index("image_id")["origin"]
    )
    return made.assign(finding=name), deciding[["image_id", "finding"]]


def _coverage(deciding: pd.DataFrame, coverage: pd.DataFrame, name: str) -> pd.DataFrame:
    """Build the coverage of the new finding: "all" if it is so for each deciding member."""
    pairs = deciding.merge(coverage, on=["image_id", "finding"], how="left")
    whole = (pairs["coverage"] == "all").groupby(pairs["image_id"]).all()
    boxed = pairs["coverage"].notna().groupby(pairs["image_id"]).any()
    whole = whole[boxed]
    covered = whole.map({True: "all", False: "some"}).to_numpy()
    return reference_rows(whole.index, name, coverage=covered)
