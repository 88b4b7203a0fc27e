"""Help, README, docs and detection follow from the registry of formats."""

from dataclasses import fields
from pathlib import Path

import pytest

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.formats.registry import (
    FORMATS,
    describe_raw_download,
    likely_format,
    read_source,
)
from cxr_compare.data_prep.formats.source import ReadOptions
from cxr_compare.scripts.commands.prepare import prepare
from cxr_compare.scripts.parameters import parameters_of

ROOT = Path(__file__).resolve().parents[3]
OPTIONS = [field.name for field in fields(ReadOptions)]


def test_help_names_every_format():
    text = next(p.help for p in parameters_of(prepare) if p.option == "--format")
    names = text.partition(": ")[2].split("(")[0].replace(" or ", ", ").split(",")
    assert [name.strip() for name in names] == list(FORMATS), names


@pytest.mark.parametrize("option", OPTIONS)
def test_refusal_of_an_option_names_the_formats_that_take_it(tmp_path, option):
    with pytest.raises(
        InputError, match=rf"^--{option.replace('_', '-')}: .*--format rsna"
    ) as refused:
        read_source(tmp_path, "rsna", ReadOptions(**{option: ("given",)}))
    named = str(refused.value).partition("formats that take it: ")[2]
    assert named.split(", ") == [name for name, f in FORMATS.items() if option in f.options]


def test_docs_have_a_section_on_every_format():
    page = (ROOT / "docs" / "formats.md").read_text()
    assert all(f"\n## {name}\n" in page for name in FORMATS)


def test_first_page_names_every_format():
    text = " ".join((ROOT / "docs" / "index.md").read_text().split())
    assert f"`--format`: {', '.join(f'`{name}`' for name in FORMATS)}" in text


@pytest.mark.parametrize("name", FORMATS)
def test_record_is_complete_and_its_options_exist(name):
    known = FORMATS[name]
    assert known.name == name
    assert known.title
    assert known.folder
    assert set(known.options) <= set(OPTIONS)
    assert not any("://" in address for address in known.sources)


@pytest.mark.parametrize("name", FORMATS)
def test_empty_and_missing_folders_are_refused_by_every_format(tmp_path, name):
    with pytest.raises(InputError, match="is empty"):
        read_source(tmp_path, name, ReadOptions())
    with pytest.raises(InputError, match="no such folder"):
        read_source(tmp_path / "none", name, ReadOptions())
    assert likely_format(tmp_path) is None


def test_a_download_or_the_folder_above_it_is_named_with_the_command(tmp_path):
    assert describe_raw_download(tmp_path) is None
    download = tmp_path / "my disk" / "rsna"
    download.mkdir(parents=True)
    (download / "stage_2_train_labels.csv").touch()
    says = (
        "looks like a raw download (rsna: RSNA Pneumonia Detection Challenge 2018); run: cxr "
        f"prepare '{download}' out/data --format rsna"
    )
    assert describe_raw_download(download) == says
    assert describe_raw_download(download.parent) == says
