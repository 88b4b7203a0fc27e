"""One table says what folders there are; what others say of them agrees with it."""

from __future__ import annotations

from collections import Counter
from typing import get_args

from cxr_compare.data_prep.contracts.kinds import FOLDER_KINDS, KindName, kind_holding
from cxr_compare.data_prep.contracts.records import RECORDS
from cxr_compare.data_prep.contracts.schemas import SCHEMAS
from cxr_compare.scripts.command_line import command_name
from cxr_compare.scripts.command_list import COMMANDS


def test_type_checkers_know_the_names_of_the_table():
    assert [kind.name for kind in FOLDER_KINDS] == [*get_args(KindName)]


def test_each_file_lies_in_one_kind_of_folder():
    counts = Counter(file for kind in FOLDER_KINDS for file in kind.files)
    assert [file for file, count in counts.items() if count > 1] == []
    assert {*RECORDS, *SCHEMAS} - {*counts} == set()


def test_no_two_kinds_of_folder_have_one_marker():
    markers = [kind.marker for kind in FOLDER_KINDS if not kind.is_part]
    assert len(markers) == len({*markers})


def test_the_json_that_marks_a_folder_is_one_of_its_files():
    for kind in FOLDER_KINDS:
        if kind.marker.endswith(".json"):
            assert kind_holding(kind.marker.removesuffix(".json")) is kind


def test_each_kind_is_made_by_a_command_that_there_is():
    assert {kind.command for kind in FOLDER_KINDS} <= {command_name(name) for name in COMMANDS}
