"""`prepare` beyond reading: complete or absent, resumable, private, split by patient, audited."""

import os
import shutil
from unittest import mock

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import cxr_compare
from cxr_compare import InputError
from tests.adapters import storage
from tests.adapters.sets import data_page_only_if
from tests.small_dicom import as_file, chest, dicom_image, write_dicom

N_IMAGES = 24
FINDING = "mass"
# Secrets that tests search for. In a million characters of base64, hashes in hex, times and
# figures the letters (in either case) occur by chance with a probability of 1e-9, the digits 1e-6.
LETTERS, DIGITS = "XQZWVKJUYT", "719384650127"


def write_image(path, seed):
    """A smooth image of 50 x 40 px that no other one is a copy of."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 4), dtype=np.uint8)
    Image.fromarray(coarse).resize((50, 40)).save(path)


def write_source(folder, n_images=N_IMAGES, **columns):
    """Images i000, i001, ..., two of each patient; every third patient is ill."""
    (folder / "images").mkdir(parents=True)
    ids = [f"i{number:03d}" for number in range(n_images)]
    for number, name in enumerate(ids):
        write_image(folder / "images" / f"{name}.png", number)
    patients = [f"p{number // 2:02d}" for number in range(n_images)]
    ill = [int(number // 2 % 3 == 0) for number in range(n_images)]
    table = pd.DataFrame({"image_id": ids, "patient_id": patients, FINDING: ill, **columns})
    table.to_csv(folder / "labels.csv", index=False)
    return folder


def prepare(source, out, *, page=False, **options):
    with data_page_only_if(page):
        return cxr_compare.prepare(
            source / "labels.csv", source / "images", out, **{"workers": 0, **options}
        )


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return write_source(tmp_path_factory.mktemp("prepare") / "source")


@pytest.fixture(scope="module")
def whole(source):
    """The data set that an undisturbed call makes, with squares of 32 px."""
    prepare(source, source.parent / "whole", size=[32])
    return source.parent / "whole"


TABLES = ("images", "findings", "boxes", "box_coverage", "decode", "excluded", "splits/default")


def assert_same_set(one, other):
    for name in TABLES:
        first, second = (pd.read_parquet(folder / f"{name}.parquet") for folder in (one, other))
        pd.testing.assert_frame_equal(first, second, obj=name)
    stores = [sorted((folder / "pixels").iterdir()) for folder in (one, other)]
    assert [path.name for path in stores[0]] == [path.name for path in stores[1]] != []
    for first, second in zip(*stores, strict=True):
        assert first.read_bytes() == second.read_bytes(), first.name


def files_of(folder):
    """Every file with its time and content."""
    return {
        path: (path.stat().st_mtime_ns, path.read_bytes())
        for path in folder.rglob("*")
        if path.is_file()
    }


def roles_of(data):
    return data.split().set_index("image_id")["role"]


def test_every_image_has_its_label_patient_and_size(whole):
    data = cxr_compare.DataSet.open(whole)
    assert len(data.images) == N_IMAGES
    assert data.images["patient_id"].nunique() == N_IMAGES // 2
    assert data.images[["width", "height"]].drop_duplicates().to_numpy().tolist() == [[50, 40]]
    labels = data.labels(data.target(FINDING))
    assert labels.to_dict() == {
        f"i{number:03d}": float(number // 2 % 3 == 0) for number in range(N_IMAGES)
    }


def test_a_second_call_changes_no_file(source, whole):
    before = files_of(whole)
    prepare(source, whole, size=[32])
    assert files_of(whole) == before


def test_an_interrupted_call_goes_on_to_the_same_set(source, whole, tmp_path):
    out = tmp_path / "set"
    real, opened = Image.open, []

    def open_until_interrupted(*arguments, **options):
        opened.append(arguments)
        if len(opened) == 9:
            raise KeyboardInterrupt
        return real(*arguments, **options)

    with mock.patch.object(Image, "open", open_until_interrupted), pytest.raises(KeyboardInterrupt):
        prepare(source, out, size=[32])
    with pytest.raises(InputError):
        cxr_compare.DataSet.open(out)
    prepare(source, out, size=[32])
    assert_same_set(whole, out)


def test_a_file_that_cannot_be_read_is_left_out_with_its_reason(tmp_path):
    source = write_source(tmp_path / "source")
    (source / "images/i003.png").write_bytes(b"no image")
    (source / "images/i006.png").unlink()
    data = prepare(source, tmp_path / "set")
    left_out = pd.read_parquet(tmp_path / "set/excluded.parquet").set_index("path")["reason"]
    assert {path.rpartition("/")[2].removesuffix(".png") for path in left_out.index} == {
        "i003",
        "i006",
    }
    assert left_out.str.len().min() > 0
    for table in (data.images, data.findings, data.split()):
        assert not {"i003", "i006"} & set(table["image_id"])


def test_a_source_without_one_readable_image_is_refused_with_the_first_reason(tmp_path):
    source = write_source(tmp_path / "source", 4)
    for path in (source / "images").iterdir():
        path.write_bytes(b"no image")
    with pytest.raises(InputError) as refused:
        prepare(source, tmp_path / "set")
    assert "i000.png" in str(refused.value)
    assert "\n" not in str(refused.value)
    with pytest.raises(InputError):
        cxr_compare.DataSet.open(tmp_path / "set")


def test_listed_images_are_in_no_table_but_that_of_what_is_left_out(source, tmp_path):
    file = tmp_path / "exclude.csv"
    file.write_text("image_id,reason\ni003,a copy\ni004,\ni003,twice\n")
    data = prepare(source, tmp_path / "set", exclude=file, size=[16, 32, 32])
    assert len(data.images) == N_IMAGES - 2
    assert [data.store(size).image("i005").shape for size in (16, 32)] == [(16, 16), (32, 32)]
    for table in (data.images, data.findings, data.split()):
        assert not {"i003", "i004"} & set(table["image_id"])
    left_out = pd.read_parquet(tmp_path / "set/excluded.parquet")
    assert left_out["path"].str.contains("i003|i004").sum() == len(left_out) == 2
    assert "a copy" in set(left_out["reason"])


def test_with_a_key_no_id_of_a_header_or_a_table_is_stored_or_shown(tmp_path, capsys):
    folder = tmp_path / "scans"
    rows = []
    for number in range(24):
        person, view = divmod(number, 2)
        ward = folder / f"WARD{LETTERS}{person}"
        ward.mkdir(parents=True, exist_ok=True)
        header = {
            "PatientID": f"{LETTERS}{person:02d}",
            "PatientName": f"{LETTERS}^JANE",
            "SOPInstanceUID": f"9.{DIGITS}.{person}.1.{number}",
            "StudyInstanceUID": f"9.{DIGITS}.{person}.1",
            "AccessionNumber": f"00{DIGITS}{person:02d}",
            "Modality": "CR",
            "Manufacturer": "Maker",
            "ManufacturerModelName": f"Model {person % 2}",
            "ViewPosition": "LL" if view and person < 6 else "PA",
        }
        if person == 3:  # as a person typed it into the wrong field
            header |= dict.fromkeys(["Manufacturer", "ManufacturerModelName"], f"{LETTERS} JANE")
        write_dicom(ward / f"SCAN{LETTERS}{number}.DCM", chest(number), **header)
        rows.append((header["AccessionNumber"].lstrip("0"), person % 2, header["PatientID"]))
    labels = pd.DataFrame(rows, columns=["accession", FINDING, "mrn"])
    labels[["accession", FINDING]].drop_duplicates().to_csv(tmp_path / "labels.csv", index=False)
    people = labels[["mrn"]].drop_duplicates().assign(sex="F", split=["train", "test"] * 6)
    people.loc[len(rows)] = [f"{LETTERS}99", "F", "train"]
    people.to_csv(tmp_path / "people.csv", index=False)
    boxes = [f"9.{DIGITS}.{number}.1.2,5,5,40,40\n" for number in (1, 99)]
    (tmp_path / "boxes.csv").write_text("".join(["uid,x1,y1,x2,y2\n", *boxes]))
    tables = [tmp_path / name for name in ("labels.csv", "people.csv", "boxes.csv")]
    out = tmp_path / "set"
    data = cxr_compare.prepare(*tables, folder, out, id_key=tmp_path / "key", size=[32], workers=0)
    assert len(data.images) == 18
    assert data.images["patient_id"].nunique() == 12
    assert data.images["model"].value_counts().to_dict() == {"Model 0": 9, "Model 1": 8}
    page = (out / "data.html").read_text(encoding="utf-8")
    assert page.count("<img") > 8
    assert data.images["manufacturer"].value_counts().to_dict() == {"Maker": 17}
    assert "hashed with a key" in page
    shown = capsys.readouterr()
    texts = [str(data), shown.out, shown.err]
    for path in out.rglob("*"):
        if path.suffix == ".parquet":
            texts.append(pd.read_parquet(path).to_csv())
        elif path.is_file() and path.suffix != ".npy":
            texts.append(path.read_text())
        texts.append(path.name)
    assert [text for text in texts if str(folder) in text] == []
    for marker in (LETTERS, DIGITS):
        assert [text for text in texts if marker in text.upper()] == [], marker
    stored = [text for text in texts if text not in (shown.out, shown.err)]  # the user's terminal
    assert [text for text in stored if "people.csv" in text] == []
    assert "table 2" in page


def test_images_of_one_grey_value_are_left_out_whatever_their_file_is(tmp_path):
    """An image shows nothing as it is displayed: by its colours, its window or its transparency."""
    folder = write_source(tmp_path / "source", n_images=20)
    blank = {
        "i003.png": Image.new("L", (50, 40), 255),
        "i007.png": Image.new("P", (50, 40), 3),
        "i011.png": Image.new("RGB", (50, 40), (9, 30, 200)),
        "i015.png": Image.merge(
            "RGBA", [Image.linear_gradient("L")] * 3 + [Image.new("L", (256, 256))]
        ),
    }
    for name, image in blank.items():
        image.save(folder / "images" / name)
    stored = dicom_image(np.full((64, 64), 700, np.uint16), WindowCenter=600, WindowWidth=400)
    (folder / "images" / "i019.png").write_bytes(as_file(stored))
    data = prepare(folder, tmp_path / "set", format="table")
    left_out = data.table("excluded")
    assert sorted(left_out["path"]) == [*blank, "i019.png"]
    assert len(data.images) == 15
    assert set(data.findings["image_id"]) == set(data.images["image_id"])
    assert all(path in str(data) for path in left_out["path"])


# Stored squares


@pytest.mark.parametrize("damage", ["cut", "gone", "fewer", "another side", "index gone"])
def test_damaged_squares_are_refused_with_their_file(whole, tmp_path, damage):
    folder = shutil.copytree(whole, tmp_path / "set")
    path = folder / "pixels" / "32.npy"
    if damage == "cut":
        os.truncate(path, 500)
    elif damage == "gone":
        path.unlink()
    elif damage == "fewer":
        np.save(path, np.load(path)[:20])
    elif damage == "another side":
        np.save(path, np.zeros((24, 8, 8), np.uint8))
    else:
        path.with_suffix(".parquet").unlink()
    with pytest.raises(InputError, match="32"):
        storage.store_of(folder, 32)


def test_a_changed_byte_of_a_square_is_noticed_when_its_image_is_read(whole, tmp_path):
    folder = shutil.copytree(whole, tmp_path / "set")
    with (folder / "pixels" / "32.npy").open("r+b") as file:
        file.seek(-1500, os.SEEK_END)  # of the last image but one
        byte = file.read(1)[0]
        file.seek(-1500, os.SEEK_END)
        file.write(bytes([byte ^ 1]))
    store = storage.store_of(folder, 32)
    for name in ("i000", "i021", "i023"):
        assert (store.image(name) == storage.store_of(whole, 32).image(name)).all()
    with pytest.raises(InputError, match="'i022'"):
        store.image("i022")
