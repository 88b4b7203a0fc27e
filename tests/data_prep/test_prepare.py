"""Preparing a data set: complete or absent, resumable, each image decoded once."""

import shutil
import subprocess
import sys
from contextlib import contextmanager, nullcontext
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from cxr_compare.data_prep.audit.splits import find_leaks
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.locks import folder_lock
from cxr_compare.data_prep.contracts.text import TEXT
from cxr_compare.data_prep.sources.source_tables import ReadOptions
from cxr_compare.data_prep.splits.stored_splits import SplitRule
from cxr_compare.data_prep.store import decode as decoding
from cxr_compare.data_prep.store import decode_writer
from PIL import Image

import cxr_compare.scripts.commands.prepare
from cxr_compare.data_prep import prepare as preparing
from cxr_compare.data_prep.dataset import DataSet
from tests.data_prep.assemble.sources import make, read_options, told
from tests.data_prep.assemble.sources import write_pairs as write_source
from tests.data_prep.sources.answers import write_files
from tests.plain_sets import prepare_plain

TABLES = ("images", "findings", "boxes", "box_coverage", "decode", "excluded", "splits/default")


def tables(out: Path) -> dict[str, pd.DataFrame]:
    return {name: pd.read_parquet(out / f"{name}.parquet") for name in TABLES}


def assert_same(one: Path, two: Path) -> None:
    for name, table in tables(one).items():
        pd.testing.assert_frame_equal(table, tables(two)[name], obj=name)
    assert DataSet.open(one).ids == DataSet.open(two).ids
    assert pixels(one) == pixels(two)


def pixels(folder: Path) -> dict[str, bytes]:
    """Return the bytes of the arrays and of their indexes."""
    return {path.name: path.read_bytes() for path in (folder / "pixels").iterdir()}


def stop_after(n_images: int):
    """A progress that is interrupted, as by Ctrl-C."""

    @contextmanager
    def progress(description, total):
        seen = 0

        def advance(n):
            nonlocal seen
            seen += n
            if seen >= n_images:
                raise KeyboardInterrupt

        yield advance

    return progress


@pytest.fixture
def decoded(monkeypatch) -> list[Path]:
    """Files that are decoded from now on."""
    paths = []
    read = decoding.read_image
    monkeypatch.setattr(
        decoding, "read_image", lambda path, **how: paths.append(path) or read(path, **how)
    )
    return paths


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """A source, and the set that a run without an interruption makes of it."""
    folder = tmp_path_factory.mktemp("straight")
    source = write_source(folder / "source")
    make(source, folder / "set", sizes=(32,))
    return source, folder / "set"


def test_every_image_comes_in_with_its_label_box_and_size(tmp_path):
    summary = make(write_source(tmp_path / "source"), tmp_path / "set")
    dataset = DataSet.open(tmp_path / "set")
    assert (summary.n_images, summary.n_patients, summary.n_boxes) == (12, 6, 4)
    assert summary.targets == {"mass": {"positive": 4, "negative": 8, "unknown": 0}}
    assert dataset.images[["height", "width"]].drop_duplicates().to_numpy().tolist() == [[40, 50]]
    assert len(dataset.target_boxes(dataset.target())) == 4
    assert dataset.has_pixels
    assert dataset.read_original("i000").shape == (40, 50)
    assert find_leaks(dataset.images, dataset.split()).empty
    assert not (tmp_path / "set" / ".prepare").exists()


def test_a_second_run_adds_nothing_and_says_so(tmp_path):
    source = write_source(tmp_path / "source")
    out = tmp_path / "set"
    assert not make(source, out, sizes=(32,)).already_complete
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    summary = make(source, out, sizes=(32,))
    assert summary.already_complete
    assert "already complete" in summary.lines[-1]
    assert {p: p.stat().st_mtime_ns for p in out.rglob("*") if p.is_file()} == before


def test_each_image_is_decoded_once_for_tables_and_all_sizes(tmp_path, decoded):
    source = write_source(tmp_path / "source")
    cxr_compare.scripts.commands.prepare.prepare(
        *read_options(source).labels, source, tmp_path / "set", size=[16, 32, 32], workers=1
    )
    assert len(decoded) == len(set(decoded)) == 12
    dataset = DataSet.open(tmp_path / "set")
    assert [dataset.store(size).image("i004").shape for size in (16, 32)] == [(16, 16), (32, 32)]


def test_a_size_can_be_added_to_a_complete_set(straight, tmp_path):
    source, whole = straight
    make(source, tmp_path / "late")
    make(source, tmp_path / "late", sizes=(32,))
    assert pixels(whole) == pixels(tmp_path / "late")
    assert not (tmp_path / "late" / "decoded.jsonl").exists()


@pytest.mark.parametrize("stop", [1, 6, 12])
def test_an_interrupted_run_goes_on_to_the_same_result(
    straight, tmp_path, monkeypatch, decoded, stop
):
    monkeypatch.setattr(decode_writer, "_COMMIT_IMAGES", 3)
    source, whole = straight
    with pytest.raises(KeyboardInterrupt):
        make(source, tmp_path / "broken", sizes=(32,), progress=told(stop_after(stop)))
    with pytest.raises(InputError, match="an unfinished data set"):
        DataSet.open(tmp_path / "broken")
    decoded.clear()
    make(source, tmp_path / "broken", sizes=(32,))
    assert len(decoded) == 12 - stop  # an interrupt keeps every image that was decoded
    assert_same(whole, tmp_path / "broken")


KILLED = """
import os, sys
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from cxr_compare.data_prep import prepare as preparing
from cxr_compare.data_prep.prepare import prepare
from cxr_compare.data_prep.store import decode_writer
from tests.data_prep.assemble.sources import read_options
decode_writer._COMMIT_IMAGES = 3
@contextmanager
def progress(description, total):
    done = []
    yield lambda n: done.extend([1] * n) or (len(done) >= 8 and os._exit(9))
source = Path(sys.argv[1])
read = read_options(source)
options = preparing.PrepareOptions(
    "table", read, sizes=(32,), workers=1,
    progress=SimpleNamespace(track=progress, say=lambda line: None),
)
prepare(source, Path(sys.argv[2]), options)
"""


def test_a_killed_run_goes_on_to_the_same_result(straight, tmp_path, decoded):
    source, whole = straight
    command = [sys.executable, "-c", KILLED, str(source), str(tmp_path / "killed")]
    home = Path(__file__).resolve().parents[2]
    assert subprocess.run(command, check=False, cwd=home).returncode == 9
    journal = tmp_path / "killed" / "decoded.jsonl"
    assert len(journal.read_bytes().splitlines()) == 6
    with journal.open("ab") as torn:
        torn.write(b'{"image_id": "i00')
    decoded.clear()
    make(source, tmp_path / "killed", sizes=(32,))
    assert len(decoded) == 6
    assert_same(whole, tmp_path / "killed")


def test_workers_do_not_change_the_result(straight, tmp_path):
    source, whole = straight
    make(source, tmp_path / "two", sizes=(32,), workers=2)
    assert_same(whole, tmp_path / "two")


def test_an_unreadable_file_is_left_out_with_its_reason(tmp_path):
    source = write_source(tmp_path / "source")
    (source / "i003.png").write_bytes(b"no image")
    (source / "i006.png").unlink()
    summary = make(source, tmp_path / "set")
    reasons = summary.excluded.set_index("path")["reason"]
    assert {Path(path).stem for path in reasons.index} == {"i003", "i006"}
    assert "no such image" in reasons["i006.png"]
    assert summary.n_boxes == 2
    assert any("i003.png" in line for line in summary.lines)


@pytest.mark.parametrize(
    ("x2", "kept"),
    [(50.0, True), (50.004, True), (52.5, True), (53.5, False)],
    ids=["on the edge", "rounding, trimmed to the edge", "cut", "another image's box"],
)
def test_a_box_must_lie_in_its_image(tmp_path, x2, kept):
    source = write_source(tmp_path / "source")
    boxes = pd.read_csv(source / "boxes.csv").astype({"x2": "float64"})
    boxes.loc[0, "x2"] = x2
    boxes.to_csv(source / "boxes.csv", index=False)
    summary = make(source, tmp_path / "set", sizes=(32,))
    dataset = DataSet.open(tmp_path / "set")
    assert ("i000" in set(dataset.images["image_id"])) is kept
    assert dataset.boxes["x2"].max() <= 50.0
    assert len(summary.excluded) == (0 if kept else 1)
    assert any(note.startswith("1 box left the image") for note in summary.notes) is (x2 == 52.5)
    assert len(dataset.store(32).ids) == summary.n_images


def test_a_stated_size_that_the_image_has_not_excludes_it(tmp_path):
    sizes = {"image_height": [40] * 11 + [80], "image_width": [50] * 12}
    summary = make(write_source(tmp_path / "source", **sizes), tmp_path / "set")
    (row,) = summary.excluded.itertuples()
    assert (row.path, row.stage) == ("i011.png", "size")


def test_what_the_table_says_of_a_person_stands(tmp_path):
    source = write_source(tmp_path / "source", sex=["F"] * 12, age_years=[50.5] * 12)
    make(source, tmp_path / "set")
    images = DataSet.open(tmp_path / "set").images
    assert set(images["sex"]) == {"F"}
    assert set(images["age_years"]) == {50.5}


def test_a_source_without_one_readable_image_is_an_error(tmp_path):
    source = write_source(tmp_path / "source", n_images=3)
    for path in source.glob("*.png"):
        path.write_bytes(b"no image")
    with pytest.raises(InputError, match=r"no usable image; i000\.png: "):
        make(source, tmp_path / "set")


def test_other_settings_or_a_changed_source_are_refused(tmp_path):
    source = write_source(tmp_path / "source")
    out = tmp_path / "set"
    make(source, out)
    with pytest.raises(InputError, match=r"val=0\.15.*val=0\.1;"):
        make(source, out, rule=SplitRule(val=0.1))
    with pytest.raises(InputError, match=f"{source}, .*{tmp_path / 'other'};"):
        make(write_source(tmp_path / "other"), out)
    with (source / "labels.csv").open("a") as labels:
        labels.write("i000,nodule,1\n")
    with pytest.raises(InputError, match="another list of images or labels; prepare a new folder"):
        make(source, out)


def test_another_target_is_refused_with_both_values_and_the_former_one_accepted(tmp_path):
    source = write_source(tmp_path / "source")
    out = tmp_path / "set"
    make(source, out)
    with pytest.raises(InputError, match=r"targets=None.*'any'.*'big'"):
        make(source, out, targets={"any": ["mass"], "big": ["mass"]})
    other = tmp_path / "other"
    make(source, other, targets={"any": ["mass"]})
    with pytest.raises(InputError, match=r"targets=.*any.*mass.*targets=None"):
        make(source, other)
    assert make(source, other, targets={"any": ["mass"]}).already_complete


def test_a_target_that_joins_spellings_is_another_target_and_no_changed_source(tmp_path):
    rows = "".join(f"i{n:03d},{'masss' if n == 0 else 'mass'},1\n" for n in range(4))
    source = write_source(tmp_path / "source")
    (source / "labels.csv").write_text("image_id,finding,state\n" + rows)
    make(source, tmp_path / "set")
    with pytest.raises(InputError, match="targets=None"):
        make(source, tmp_path / "set", targets={"mass": ["mass", "masss"]})


def test_a_folder_with_other_things_is_left_alone(tmp_path):
    out = tmp_path / "precious"
    out.mkdir()
    (out / "thesis.txt").write_text("two years of work")
    with pytest.raises(InputError, match="not empty and not a cxr data set"):
        make(write_source(tmp_path / "source"), out)
    assert [path.name for path in out.iterdir()] == ["thesis.txt"]


def test_two_writers_of_one_folder_are_refused(tmp_path):
    source = write_source(tmp_path / "source")
    with folder_lock(tmp_path / "set"), pytest.raises(InputError, match="another cxr"):
        make(source, tmp_path / "set")


@pytest.mark.parametrize(
    ("name", "message"), [(None, "no --format given"), ("jpg", "--format jpg is not known")]
)
def test_a_missing_or_unknown_format_names_the_likely_one(tmp_path, name, message):
    with pytest.raises(InputError, match=f"{message}; it looks like a table of labels with images"):
        make(write_source(tmp_path / "source"), tmp_path / "set", format=name)


def test_published_roles_are_kept_and_validation_is_drawn_where_none_is_given(tmp_path):
    roles = ["test"] * 4 + ["train"] * 8
    source = write_source(tmp_path / "source", split=roles)
    make(source, tmp_path / "set", rule=SplitRule(val=0.25))
    split = DataSet.open(tmp_path / "set").split().set_index("image_id")["role"]
    assert set(split[["i000", "i001", "i002", "i003"]]) == {"test"}
    assert set(split.iloc[4:]) == {"train", "val"}


def test_equal_images_of_two_patients_get_one_role(tmp_path):
    source = write_source(tmp_path / "source", n_images=40)
    for n in range(0, 40, 8):
        shutil.copy(source / f"i{n:03d}.png", source / f"i{n + 4:03d}.png")
    make(source, tmp_path / "set", rule=SplitRule(val=0.3, test=0.4))
    roles = DataSet.open(tmp_path / "set").split().set_index("image_id")["role"]
    for n in range(0, 40, 8):
        assert roles[f"i{n:03d}"] == roles[f"i{n + 4:03d}"]
    assert roles.nunique() == 3


def test_a_set_without_pixels_can_be_evaluated_on_but_has_no_stores(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    (source / "images.csv").write_text("image_id,patient_id\na,p\nb,q\nc,r\n")
    (source / "labels.csv").write_text("image_id,finding,state\na,mass,1\nb,mass,0\n")
    dataset = prepare_plain(source, tmp_path / "set")
    assert dataset.summary.targets["mass"] == {"positive": 1, "negative": 1, "unknown": 1}
    assert not dataset.has_pixels
    with pytest.raises(InputError, match="size does not apply"):
        prepare_plain(source, tmp_path / "set", size=[32])


def test_real_dicoms_give_views_ages_and_no_false_spacing(tmp_path, shared_data):
    real = shared_data / "rsna"
    labels = pd.read_csv(real / "stage_2_train_labels.csv")
    ids = [*labels.loc[labels["Target"] == 1, "patientId"].unique()[:6]]
    ids += [*labels.loc[labels["Target"] == 0, "patientId"].unique()[:6]]
    source = tmp_path / "rsna"
    (source / "stage_2_train_images").mkdir(parents=True)
    for name in ids:
        link = source / "stage_2_train_images" / f"{name}.dcm"
        link.symlink_to(real / "stage_2_train_images" / f"{name}.dcm")
    for name in ("stage_2_train_labels", "stage_2_detailed_class_info", "rsna_to_nih"):
        table = pd.read_csv(real / f"{name}.csv", dtype=TEXT)
        table[table["patientId"].isin(ids)].to_csv(source / f"{name}.csv", index=False)
    summary = make(source, tmp_path / "set", format="rsna", sizes=(64,))
    assert (summary.n_images, len(summary.excluded)) == (12, 0)
    images = DataSet.open(tmp_path / "set").images
    assert set(images["view"]) <= {"PA", "AP"}
    assert images["age_years"].between(1, 100).all()
    # The headers state NIH's spacing for another size: a chest 146 mm wide.
    assert images["spacing_col_mm"].isna().all()
    assert not any(column.lower().startswith(("patientname", "birth")) for column in images)


def test_limits_of_a_set_are_noted_before_any_image_is_read(tmp_path):
    files = {
        "images.csv": "image_id,path\na,a.png\nb,b.png\n",
        "labels.csv": "image_id,finding,state\na,mass,1\nb,mass,1\n",
    }
    source = write_files(tmp_path / "ward", files)
    read = ReadOptions(labels=tuple(source / name for name in files))
    for name in "ab":
        pixels = np.random.default_rng(ord(name)).integers(0, 255, (80, 80), dtype="uint8")
        Image.fromarray(pixels).save(source / f"{name}.png")
    said: list[str] = []

    def progress(description, total):
        said.append(description)
        return nullcontext(lambda n: None)

    options = preparing.PrepareOptions(
        "table", read, workers=0, progress=told(progress, said.append)
    )
    notes = preparing.prepare(source, tmp_path / "data", options).notes
    few = "WARNING: There are few patients: 2 positive for mass, 0 negative for mass"
    before = said[: said.index("Reading images")]
    assert any("no boxes" in line for line in before)
    assert any(line.startswith(few) for line in before)
    assert any(note.startswith(few) for note in notes)


def write_list(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(["image_id,reason", *lines]) + "\n")
    return path


def test_images_of_a_list_are_left_out_of_all_tables_with_their_reason(tmp_path):
    source = write_source(tmp_path / "source")
    roles = tmp_path / "roles.csv"
    lines = [f"i{n:03d},{'train' if n % 4 < 2 else 'test'}" for n in range(12)]
    roles.write_text("\n".join(["image_id,role", *lines]))
    listed = write_list(tmp_path / "exclude.csv", "i003,a copy", "i004,", "i003,twice")
    summary = make(source, tmp_path / "set", exclude=listed, sizes=(32,), split=roles)
    dataset = DataSet.open(tmp_path / "set")
    assert (summary.n_images, summary.n_boxes) == (10, 3)
    for table in (dataset.images, dataset.findings, dataset.boxes, dataset.split()):
        assert not {"i003", "i004"} & set(table["image_id"])
    assert len(dataset.store(32).ids) == 10
    excluded = dataset.optional_table("excluded")
    assert excluded[["path", "stage", "reason"]].to_numpy().tolist() == [
        ["i003.png", "list", "a copy"],
        ["i004.png", "list", "named in exclude.csv"],
    ]
    (problem,) = [p for p in summary.audit.problems if p.check == "excluded_list"]
    assert (problem.severity, problem.count) == ("info", 2)


def test_another_list_takes_add_and_the_same_lines_in_another_order_do_not(tmp_path, decoded):
    source = write_source(tmp_path / "source")
    out = tmp_path / "set"
    make(source, out, exclude=write_list(tmp_path / "one.csv", "i003,a", "i004,b"))
    again = make(source, out, exclude=write_list(tmp_path / "two.csv", "i004,b", "i003,a"))
    assert again.already_complete
    for other in (None, write_list(tmp_path / "three.csv", "i003,a")):
        with pytest.raises(
            InputError, match="another list of images to leave out; prepare a new folder"
        ):
            make(source, out, exclude=other)
    roles = DataSet.open(out).split().set_index("image_id")["role"]
    write_source(source, n_images=14)
    decoded.clear()
    grown = make(source, out, exclude=write_list(tmp_path / "four.csv", "i005,c"), add=True)
    assert (grown.n_images, len(decoded)) == (13, 4)  # new, or left out before
    assert grown.changes == ("added: 4 images new, 0 replaced, 1 gone",)
    after = DataSet.open(out).split().set_index("image_id")["role"]
    assert after[roles.index.drop("i005")].equals(roles.drop("i005"))
    assert make(source, out, exclude=tmp_path / "four.csv").already_complete


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["i003,", "i0,"], r"line 3: image_id='i0' is no image of this source, .* like 'i000'"),
        ([f"i{n:03d}," for n in range(12)], "names every image of the source"),
    ],
)
def test_a_list_that_cannot_be_followed_is_refused_before_the_folder_is_made(
    tmp_path, lines, message
):
    source = write_source(tmp_path / "source")
    with pytest.raises(InputError, match=message):
        make(source, tmp_path / "set", exclude=write_list(tmp_path / "list.csv", *lines))
    assert not (tmp_path / "set").exists()


def test_a_list_names_images_by_their_hashed_ids_where_ids_are_hashed(tmp_path):
    source = write_source(tmp_path / "source")
    key = tmp_path / "key"
    make(source, tmp_path / "all", id_key=key)
    first = DataSet.open(tmp_path / "all").images["image_id"].iloc[0]
    listed = write_list(tmp_path / "list.csv", f"{first},a name")
    summary = make(source, tmp_path / "set", id_key=key, exclude=listed)
    assert summary.n_images == 11
    (path,) = summary.excluded["path"]
    assert path.startswith("hidden/")
