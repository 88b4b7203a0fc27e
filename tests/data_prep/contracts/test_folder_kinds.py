"""The table of folder kinds agrees with the records, schemas and commands."""

from __future__ import annotations

from typing import get_args

from cxr_compare.data_prep.contracts.folder_kinds import FOLDER_KINDS, KindName

from cxr_compare.scripts.cli import COMMANDS


def test_literal_type_lists_all_kinds():
    assert [kind.name for kind in FOLDER_KINDS] == [*get_args(KindName)]


def test_each_kind_of_folder_has_its_own_marker():
    markers = [kind.marker for kind in FOLDER_KINDS]
    assert len(markers) == len({*markers})


def test_each_kind_is_made_by_an_existing_command():
    assert {kind.command for kind in FOLDER_KINDS} <= set(COMMANDS)
