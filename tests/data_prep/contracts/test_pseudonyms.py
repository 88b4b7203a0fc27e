"""Keyed hashes: one name, one hash, in every table, and nothing of the old names on the disk."""

import os
from pathlib import Path

import pandas as pd
import pytest
from cxr_compare.data_prep.assemble.hidden_ids import pseudonymise
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.pseudonyms import (
    KEY_ID_TEXT,
    find_hidden,
    hide_paths,
    keyed_hash,
    read_id_key,
)
from cxr_compare.data_prep.contracts.tables import typed_table
from cxr_compare.data_prep.contracts.text import TEXT
from cxr_compare.data_prep.sources.source_tables import SourceTables, targets_from_findings
from hypothesis import given, settings
from hypothesis import strategies as st

KEY, OTHER_KEY = b"k" * 32, b"o" * 32
SECRETS = ("DOE^JANE", "4711-0815", "1.2.840.99.1", "1.2.840.99.2", "1.2.840.77", "SMITH", "jane")


def hidden_path(path: str) -> str:
    """Return a path as `hide_paths` writes it."""
    return hide_paths(pd.DataFrame({"path": [path]}, dtype=TEXT), KEY)["path"].iloc[0]


def tables_with_names(root: Path) -> SourceTables:
    """A small set of every table, full of names."""
    images = pd.DataFrame(
        {
            "image_id": ["1.2.840.99.1", "1.2.840.99.2"],
            "patient_id": ["dicom:4711-0815", "dicom:4711-0815"],
            "patient_id_source": "given",
            "study_id": pd.Series(["1.2.840.77", None], dtype=TEXT),
            "source": "dicom",
            "path": ["DOE^JANE/a.dcm", "DOE^JANE/b.dcm"],
            "file_sha256": "0" * 64,
            "height": pd.array([64, 64], dtype="Int64"),
            "width": pd.array([64, 64], dtype="Int64"),
        }
    )
    images = typed_table(images, "images")
    rows = pd.DataFrame({"image_id": images["image_id"], "finding": "mass"})
    edges = {"x1": 1.0, "y1": 1.0, "x2": 5.0, "y2": 5.0}
    return SourceTables(
        format="dicom",
        root=root,
        images=images,
        findings=rows.assign(reader="reference", state="present", origin="consensus"),
        boxes=rows.assign(**edges, reader="reference"),
        box_coverage=rows.assign(reader="reference", coverage="all"),
        excluded=pd.DataFrame(
            {"path": ["SMITH/jane.pdf", "1.2.840.99.1"], "stage": "header", "reason": "no image"}
        ),
        targets=targets_from_findings(["mass"]),
        split=rows[["image_id"]].assign(role="train"),
        official=rows[["image_id"]].assign(role="test"),
    )


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(max_size=64), min_size=2, unique=True, max_size=30))
def test_different_names_get_different_hashes(names):
    hashes = [keyed_hash(KEY, name) for name in names]
    assert len(set(hashes)) == len(names)
    assert all(len(text) == 24 and set(text) <= set("0123456789abcdef") for text in hashes)
    assert set(hashes).isdisjoint(keyed_hash(OTHER_KEY, name) for name in names)


def test_numbers_of_a_hospital_stay_apart_by_the_hundred_thousand():
    assert len({keyed_hash(KEY, f"patient:{number:08d}") for number in range(100_000)}) == 100_000


def test_every_table_has_the_same_new_name_of_an_image(tmp_path):
    before = tables_with_names(tmp_path)
    after, names = pseudonymise(before, KEY)
    for table in ("images", "findings", "boxes", "box_coverage", "split", "official"):
        old, new = getattr(before, table), getattr(after, table)
        assert new["image_id"].tolist() == [names[name] for name in old["image_id"]], table
        assert (new.dtypes == old.dtypes).all(), table
    assert after.images["patient_id"].nunique() == 1
    assert after.images["patient_id"].str.fullmatch(r"dicom:[0-9a-f]{24}").all()
    assert after.images["study_id"].isna().tolist() == [False, True]
    assert names["dicom:4711-0815"] == after.images["patient_id"].iloc[0]
    again, _ = pseudonymise(before, KEY)
    pd.testing.assert_frame_equal(after.images, again.images)


def test_paths_stay_true_in_memory_until_they_are_hidden(tmp_path):
    after, _ = pseudonymise(tables_with_names(tmp_path), KEY)
    assert after.images["path"].tolist() == ["DOE^JANE/a.dcm", "DOE^JANE/b.dcm"]
    hidden = hide_paths(after.images, KEY)
    assert hidden["path"].tolist() == [hidden_path(path) for path in after.images["path"]]
    pd.testing.assert_frame_equal(hide_paths(hidden, KEY), hidden)  # twice is once
    without = after.images.assign(path=pd.Series([None, None], dtype=TEXT))
    assert hide_paths(without, KEY)["path"].isna().all()


def test_hidden_files_are_found_again_with_the_key_alone(tmp_path):
    for name in ("DOE^JANE/a.dcm", "deep/er/b"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(name)
    wanted = [
        hidden_path("DOE^JANE/a.dcm"),
        hidden_path("deep/er/b"),
        hidden_path("gone"),
    ]
    found = find_hidden(tmp_path, KEY, wanted)
    assert found == {
        wanted[0]: tmp_path / "DOE^JANE" / "a.dcm",
        wanted[1]: tmp_path / "deep" / "er" / "b",
    }
    assert find_hidden(tmp_path, OTHER_KEY, wanted) == {}


def test_a_key_is_made_once_for_its_owner_alone(tmp_path):
    path = tmp_path / "id.key"
    key = read_id_key(path, tmp_path / "out")
    assert len(key) == 32
    assert path.stat().st_mode & 0o777 == 0o600
    assert read_id_key(path, tmp_path / "out") == key
    assert [p.name for p in tmp_path.iterdir()] == ["id.key"]
    assert read_id_key(tmp_path / "second.key") != key
    assert keyed_hash(key, KEY_ID_TEXT) != keyed_hash(KEY, KEY_ID_TEXT)
    assert key.hex()[:8] not in keyed_hash(key, KEY_ID_TEXT)


def test_an_unfit_key_is_refused_with_the_way_out(tmp_path):
    def refused(path: Path, message: str, *folders: Path) -> None:
        with pytest.raises(InputError, match=message):
            read_id_key(path, *folders)

    out = tmp_path / "out"
    out.mkdir()
    refused(out / "id.key", "must lie outside", tmp_path / "source", out)
    assert not (out / "id.key").exists()
    (tmp_path / "link.key").symlink_to(out / "id.key")
    refused(tmp_path / "link.key", "must lie outside", out)
    short = tmp_path / "short.key"
    short.write_bytes(b"0123456789")
    short.chmod(0o600)
    refused(short, "10 bytes are no key")
    short.write_bytes(b"0" * 32)
    short.chmod(0o640)
    refused(short, "chmod 600")
    refused(out, "is not a file")
    refused(tmp_path / "no-such-folder" / "id.key", "cannot be made there")


def test_a_key_is_made_where_a_killed_process_of_the_same_number_left_half_of_one(tmp_path):
    """A container's process has the same number each time."""
    left = tmp_path / f".key.{os.getpid()}.tmp"
    left.write_bytes(b"half")
    os.utime(left, (0, 0))
    assert len(read_id_key(tmp_path / "key")) == 32
    assert [path.name for path in tmp_path.iterdir()] == ["key"]
