"""Data sets that grow, splits that come from elsewhere, and ids that must not be told."""

import os
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.text import TEXT
from cxr_compare.data_prep.sources.source_tables import ReadOptions
from cxr_compare.data_prep.splits.split import SplitRule
from cxr_compare.data_prep.splits.stored_splits import add_splits
from PIL import Image

from cxr_compare.data_prep.assemble import decode_source
from cxr_compare.data_prep.dataset import DataSet
from tests.data_prep.assemble.sources import make, told, write_pairs

SIZE = 32


def write_source(folder: Path, n_images: int = 24) -> Path:
    return write_pairs(folder, n_images)


@pytest.fixture
def decoded(monkeypatch) -> list[str]:
    """Ids of the images that are decoded from now on."""
    seen = []
    decode_into = decode_source.decode_into

    def watched(writer, tasks, **options):
        tasks = list(tasks)
        seen.extend(task.image_id for task in tasks)
        return decode_into(writer, tasks, **options)

    monkeypatch.setattr(decode_source, "decode_into", watched)
    return seen


def test_new_images_come_in_without_decoding_the_old_ones_again(tmp_path, decoded):
    source = write_source(tmp_path / "source")
    out = tmp_path / "set"
    make(source, out, sizes=[SIZE])
    before = DataSet.open(out).split().set_index("image_id")["role"]
    decoded.clear()
    write_source(source, 31)
    summary = make(source, out, sizes=[SIZE], add=True)
    assert sorted(decoded) == [f"i{n:03d}" for n in range(24, 31)]
    assert summary.changes == ("added: 7 images new, 0 replaced, 0 gone",)
    dataset = DataSet.open(out)
    after = dataset.split().set_index("image_id")["role"]
    assert len(after) == 31
    pd.testing.assert_series_equal(after[before.index], before)
    assert set(DataSet.open(out).store(SIZE).ids) == set(after.index)
    assert make(source, out, sizes=[SIZE], add=True).already_complete


def test_a_new_image_of_a_known_patient_takes_that_patients_role_in_every_split(tmp_path):
    source = write_source(tmp_path / "source", 23)
    out = tmp_path / "set"
    make(source, out)
    add_splits(DataSet.open(out), "other", SplitRule(seed=3))
    write_source(source, 24)
    make(source, out, add=True)
    dataset = DataSet.open(out)
    for name in ("default", "other"):
        role = dataset.split(name).set_index("image_id")["role"]
        assert role["i023"] == role["i022"]


def test_a_replaced_file_and_a_mended_one_are_read_again(tmp_path, decoded):
    source = write_source(tmp_path / "source")
    out = tmp_path / "set"
    (source / "i005.png").write_bytes(b"not an image")
    make(source, out, sizes=[SIZE])
    assert "i005" not in set(DataSet.open(out).images["image_id"])
    for name in ("i005", "i007"):
        Image.fromarray(np.full((40, 50), 99, np.uint8)).save(source / f"{name}.png")
        os.utime(source / f"{name}.png", ns=(1, 1))
    decoded.clear()
    summary = make(source, out, sizes=[SIZE], add=True)
    assert sorted(decoded) == ["i005", "i007"]
    assert summary.changes == ("added: 1 image new, 1 replaced, 0 gone",)
    assert DataSet.open(out).read_original("i007").max() == 99
    store = DataSet.open(out).store(SIZE)
    assert store.image("i007")[SIZE // 2].max() == 99


def test_an_image_that_is_gone_leaves_the_set(tmp_path):
    source = write_source(tmp_path / "source")
    out = tmp_path / "set"
    make(source, out)
    write_source(source, 20)
    assert make(source, out, add=True).changes == ("added: 0 images new, 0 replaced, 4 gone",)
    dataset = DataSet.open(out)
    assert len(dataset.images) == len(dataset.split()) == 20


def test_a_kill_while_adding_leaves_a_complete_set_and_is_resumed(tmp_path, monkeypatch):
    source = write_source(tmp_path / "source")
    out = tmp_path / "set"
    make(source, out)
    write_source(source, 30)

    def killed(*args, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("cxr_compare.data_prep.prepare.complete_tables", killed)
        with pytest.raises(KeyboardInterrupt):
            make(source, out, add=True)
    assert len(DataSet.open(out).images) == 24
    make(source, out, add=True)
    assert len(DataSet.open(out).images) == 30


def test_a_split_file_of_the_users_becomes_the_default_split(tmp_path):
    source = write_source(tmp_path / "source")
    out = tmp_path / "set"
    roles = ["test"] * 3 + ["val"] * 3 + ["train"] * 6
    mine = pd.DataFrame({"patient_id": [f"source:p{n}" for n in range(12)], "role": roles})
    mine.to_csv(tmp_path / "mine.csv", index=False)
    make(source, out, split=tmp_path / "mine.csv")
    counts = DataSet.open(out).split()["role"].value_counts().to_dict()
    assert counts == {"train": 12, "val": 6, "test": 6}


def test_an_official_split_is_refused_where_the_source_has_none(tmp_path):
    source = write_source(tmp_path / "source")
    with pytest.raises(InputError, match=r"^--split official: "):
        make(source, tmp_path / "set", split="official")


def test_the_split_column_of_a_table_is_its_official_split(tmp_path):
    source = write_source(tmp_path / "source")
    images = pd.read_csv(source / "images.csv", dtype=TEXT)
    patients = images["patient_id"].astype("category").cat.codes
    images.assign(split=(patients % 3).map({0: "test", 1: "val", 2: "train"})).to_csv(
        source / "images.csv", index=False
    )
    make(source, tmp_path / "set", split="official")
    split = DataSet.open(tmp_path / "set").split().set_index("image_id")["role"]
    given = pd.read_csv(source / "images.csv", dtype=TEXT).set_index("image_id")["split"]
    assert split[given.index].tolist() == given.tolist()


def test_a_target_of_the_users_joins_findings_and_a_strange_one_is_refused(tmp_path):
    source = write_source(tmp_path / "source")
    summary = make(source, tmp_path / "set", targets={"any_lesion": ["mass"]})
    assert summary.targets["any_lesion"] == summary.targets["mass"]
    with pytest.raises(InputError, match="'nodule' is not in the source; it has mass"):
        make(source, tmp_path / "other", targets={"x": ["mass", "nodule"]})


def test_an_option_that_means_nothing_to_the_format_is_refused(tmp_path):
    source = write_source(tmp_path / "source")
    read = ReadOptions(class_names=("mass",))
    with pytest.raises(InputError, match=r"--class-names: .*--format rsna"):
        make(source, tmp_path / "set", format="rsna", read=read)


def test_with_a_key_no_id_or_path_of_the_source_is_written_anywhere(tmp_path, monkeypatch):
    source = write_source(tmp_path / "source")
    out = tmp_path / "set"
    key = tmp_path / "key"
    (source / "i003.png").write_bytes(b"not an image")
    mine = pd.DataFrame({"image_id": [f"i{n:03d}" for n in range(24)], "role": "train"})
    mine.loc[:5, "role"] = "test"
    mine.to_csv(tmp_path / "mine.csv", index=False)
    make(source, out, id_key=key, sizes=[SIZE], split=tmp_path / "mine.csv")
    secrets = [b"i000", b"i003", b"i023", b":p0", b":p11"]
    for path in out.rglob("*"):
        text = b""
        if path.suffix == ".parquet":
            text = pd.read_parquet(path).to_csv().encode()
        elif path.is_file() and path.suffix in (".json", ".html", ".jsonl"):
            text = path.read_bytes()
        assert not [secret for secret in secrets if secret in text], path
    dataset = DataSet.open(out)
    assert dataset.split()["role"].value_counts().to_dict() == {"train": 18, "test": 5}
    image_id = dataset.images["image_id"].iloc[0]
    with pytest.raises(InputError, match="keyed hashes; set CXR_ID_KEY"):
        dataset.read_original(image_id)
    monkeypatch.setenv("CXR_ID_KEY", str(key))
    square = DataSet.open(out).store(SIZE).image(image_id)
    original = DataSet.open(out).read_original(image_id)
    assert original.shape == (40, 50)
    assert abs(float(original.mean()) - float(square[4:-4].mean())) < 15
    assert make(source, out, id_key=key, sizes=[SIZE], split=tmp_path / "mine.csv").already_complete


def test_while_it_works_no_id_of_the_source_is_written_either(tmp_path):
    source = write_source(tmp_path / "source")
    out = tmp_path / "set"

    @contextmanager
    def interrupted(description, total):
        done: list[int] = []
        yield lambda n: done.append(n)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make(source, out, id_key=tmp_path / "key", sizes=[SIZE], progress=told(interrupted))
    assert len((out / "decoded.jsonl").read_bytes().splitlines()) == 24
    written = b"".join(path.read_bytes() for path in out.rglob("*") if path.is_file())
    assert not [secret for secret in (b"i000", b"i023", b":p0") if secret in written]


def test_dicom_needs_a_key_or_the_users_word_that_its_ids_name_nobody(tmp_path):
    source = write_source(tmp_path / "source")
    with pytest.raises(InputError, match=r"give --id-key FILE .* or --keep-ids"):
        make(source, tmp_path / "set", format="dicom")
