"""The table of folder kinds agrees with the records, schemas and commands."""

from __future__ import annotations

from collections import Counter
from typing import get_args

from cxr_compare.data_prep.contracts.folder_kinds import FOLDER_KINDS, KindName, kind_of_file
from cxr_compare.data_prep.contracts.schemas import SCHEMAS
from cxr_compare.scripts.command_line import command_name
from cxr_compare.scripts.command_list import all_commands


def test_literal_type_lists_all_kinds():
    assert [kind.name for kind in FOLDER_KINDS] == [*get_args(KindName)]


def test_each_file_belongs_to_one_kind_of_folder():
    counts = Counter(file for kind in FOLDER_KINDS for file in kind.files)
    assert [file for file, count in counts.items() if count > 1] == []
    assert {*SCHEMAS} - {*counts} == set()


def test_each_kind_of_folder_has_its_own_marker():
    markers = [kind.marker for kind in FOLDER_KINDS if not kind.is_part]
    assert len(markers) == len({*markers})


def test_marker_is_one_of_the_files_of_its_folder():
    for kind in FOLDER_KINDS:
        if kind.marker.endswith(".json"):
            assert kind_of_file(kind.marker.removesuffix(".json")) is kind


def test_each_kind_is_made_by_an_existing_command():
    assert {kind.command for kind in FOLDER_KINDS} <= {
        command_name(name) for name in all_commands()
    }
