"""Targets of a combined data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.ids import is_member
from cxr_compare.data_prep.contracts.schemas import REFERENCE_READER
from cxr_compare.data_prep.formats.source import SourceTables, reference_rows
from cxr_compare.data_prep.formats.targets import target_of

Targets = Mapping[str, Mapping[str, Any]]


def merge_targets(
    tables: SourceTables,
    own: Mapping[str, Targets],
    asked: Mapping[str, pd.DataFrame],
    wanted: Mapping[str, Sequence[str]],
) -> SourceTables:
    """Give a combined set its targets: those of its parts, and the user's.

    A target is negative only where all its findings are absent. Where one set asked about lung
    opacity and another about pneumonia, a target of both would have no negatives at all. A target
    of the user's that no set asked about in full becomes a finding of its own therefore: an image
    has it if any of the findings is present, and has it not if all those are absent that its set
    asked about. Boxes go with it.
    """
    findings = {name: reference_only(table) for name, table in asked.items()}
    targets: dict[str, dict[str, Any]] = {}
    origin: dict[str, str] = {}
    for part, its_targets in own.items():
        for name, spec in its_targets.items():
            if name in wanted:
                continue
            first = targets.setdefault(name, dict(spec))
            if set(first["any_of"]) != set(spec["any_of"]):
                raise InputError(
                    f"target '{name}' is {' or '.join(first['any_of'])} in {origin[name]} and "
                    f"{' or '.join(spec['any_of'])} in {part}; say what it is with --target "
                    f"{name}=FINDING,..."
                )
            origin.setdefault(name, part)
    known = sorted({finding for table in findings.values() for finding in table["finding"]})
    notes = list(tables.notes)
    for name, members in wanted.items():
        unknown = [member for member in members if member not in known]
        if unknown or not members:
            raise InputError(
                f"--target {name}: finding '{', '.join(unknown)}' is in none of the sets; they "
                f"have {', '.join(known) or 'none'}"
            )
        found = {part: _asked(table, members) for part, table in findings.items()}
        if all(len(its) in (0, len(set(members))) for its in found.values()):
            targets[name] = target_of(name, members)
            continue
        if name in known:
            raise InputError(
                f"--target {name}: '{name}' is a finding, and no set asked about all of "
                f"{', '.join(members)}; choose another name"
            )
        tables = _with_finding(tables, name, list(members), found, findings)
        targets[name] = target_of(name, [name])
        stated = "; ".join(f"in {part} {' or '.join(its)}" for part, its in found.items() if its)
        notes.append(f"finding '{name}' was made of what each set asked about: {stated}")
    notes += _partly_asked(findings, known)
    return replace(tables, targets=targets, notes=tuple(notes))


def reference_only(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the reference reader."""
    return table[table["reader"] == REFERENCE_READER]


def _asked(findings: pd.DataFrame, members: Sequence[str]) -> list[str]:
    requested = set(findings["finding"].unique())
    return [member for member in dict.fromkeys(members) if member in requested]


def _partly_asked(findings: Mapping[str, pd.DataFrame], known: Sequence[str]) -> list[str]:
    """Say which findings some of the sets know nothing of."""
    sets_of: dict[tuple[str, ...], list[str]] = {}
    for finding in known:
        where = tuple(part for part, table in findings.items() if _asked(table, [finding]))
        sets_of.setdefault(where, []).append(finding)
    return [
        f"only {' and '.join(where)} asked about {', '.join(names)}: unknown elsewhere, not absent"
        for where, names in sets_of.items()
        if len(where) < len(findings)
    ]


def _with_finding(
    tables: SourceTables,
    name: str,
    members: list[str],
    asked: Mapping[str, list[str]],
    findings: Mapping[str, pd.DataFrame],
) -> SourceTables:
    """Add a finding that holds where any member is present, with its boxes."""
    new = [_derived(findings[part], its, name) for part, its in asked.items() if its]
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
    """Rows of the new finding for one set, and the ``image_id, finding`` that decided each."""
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
    # The origin is that of a row which decided.
    made["origin"] = made["image_id"].map(
        deciding.drop_duplicates("image_id").set_index("image_id")["origin"]
    )
    return made.assign(finding=name), deciding[["image_id", "finding"]]


def _coverage(deciding: pd.DataFrame, coverage: pd.DataFrame, name: str) -> pd.DataFrame:
    """Boxed are all lesions of the new finding where those of each member that decided are."""
    pairs = deciding.merge(coverage, on=["image_id", "finding"], how="left")
    whole = (pairs["coverage"] == "all").groupby(pairs["image_id"]).all()
    boxed = pairs["coverage"].notna().groupby(pairs["image_id"]).any()
    whole = whole[boxed]
    covered = whole.map({True: "all", False: "some"}).to_numpy()
    return reference_rows(whole.index, name, coverage=covered)
