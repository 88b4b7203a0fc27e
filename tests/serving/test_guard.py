"""The guard: chest X-rays pass, other images are named, and what is stored says the same."""

import json
import re
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.records import write_json
from cxr_compare.data_prep.dataset import DataSet
from cxr_compare.data_prep.images.decoded_image import DecodedImage, decode_record
from cxr_compare.data_prep.images.image import read_image
from cxr_compare.data_prep.sources.registry import read_source
from cxr_compare.data_prep.sources.source_tables import ReadOptions
from cxr_compare.scripts import console
from cxr_compare.serving import guard as guards
from cxr_compare.serving.guard import (
    GUARD_NAME,
    Guard,
    add_guard,
    file_warnings,
    fit_guard,
    how_to_add_guard,
    image_notes,
)
from cxr_compare.training.run_info import RunInfo
from tests.memory_store import ImageStore
from tests.scripts.small_sets import drawn_images
from tests.small_dicom import write_dicom
from tests.stored_json import stored_json

SIZE = 64
FOREIGN = "does not look like the frontal chest X-rays that trained"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataSet:
    folder = tmp_path_factory.mktemp("guard")
    return DataSet.open(drawn_images(folder, 120, 96, [SIZE], seed=5))


def _patients(data: DataSet) -> pd.Series:
    patients = data.images.set_index("image_id")["patient_id"]
    return patients.loc[data.image_ids("train")]


@pytest.fixture(scope="module")
def run_folder(data: DataSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    add_guard(folder, data, "default", SIZE, console)
    return folder


@pytest.fixture(scope="module")
def guard(run_folder: Path) -> Guard:
    return Guard.read(run_folder / GUARD_NAME)


@pytest.fixture(scope="module")
def unseen(data: DataSet) -> list[np.ndarray]:
    """Images of patients that are not in training, at their original size."""
    ids = [*data.image_ids("val"), *data.image_ids("test")]
    return [data.read_original(image_id) for image_id in ids]


def _share_refused(guard: Guard, images: list[np.ndarray]) -> float:
    return float(np.mean([bool(guard.warnings(image)) for image in images]))


def _text_page(seed: int) -> np.ndarray:
    page = np.full((400, 300), 255, np.uint8)
    for line in range(30, 380, 14):
        text = f"line {line} of page {seed} " * 3
        cv2.putText(page, text[seed % 7 :], (20, line), cv2.FONT_HERSHEY_SIMPLEX, 0.35, 0)
    return page


def test_other_patients_pass_however_their_image_was_exposed_cut_or_framed(guard, unseen):
    assert len(unseen) >= 20
    assert _share_refused(guard, unseen) == 0
    assert _share_refused(guard, [(x * 0.6 + 60).astype(np.uint8) for x in unseen]) == 0
    assert _share_refused(guard, [np.pad(x, ((0, 0), (30, 20))) for x in unseen]) == 0
    assert _share_refused(guard, [x[3:-3, 4:-2] for x in unseen]) <= 0.05
    assert _share_refused(guard, [cv2.resize(x, (224, 192)) for x in unseen]) <= 0.05


def test_what_is_no_chest_x_ray_is_named(guard: Guard, unseen: list[np.ndarray]) -> None:
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 256, (120, 90), dtype=np.uint8) for _ in range(10)]
    flat = [np.full((90, 120), grey, np.uint8) for grey in (0, 9, 128, 255)]
    corners = [image[:38, :38] for image in unseen]
    for images in (noise, flat, [_text_page(seed) for seed in range(10)], corners):
        assert _share_refused(guard, images) == 1


@pytest.mark.parametrize(
    ("turn", "kind", "message"),
    [
        (lambda x: 255 - x, "negative", "black and white seem to be swapped"),
        (lambda x: np.rot90(x, 2), "turned", "upside down"),
        (np.rot90, "turned", "lie on its side"),
        (lambda x: np.rot90(x, 3), "turned", "lie on its side"),
    ],
)
def test_a_negative_or_turned_x_ray_is_named_with_the_turn_that_it_needs(
    guard, unseen, turn, kind, message
):
    warnings = [guard.warnings(turn(image)) for image in unseen]  # type: ignore[operator]
    assert all(len(one) == 1 and one[0].startswith(FOREIGN) for one in warnings)
    assert np.mean([message in one[0] for one in warnings]) >= 0.9
    assert all((one[0].kind == kind) == (message in one[0]) for one in warnings)


def test_the_original_and_its_square_in_the_pixel_store_score_the_same(guard, data, unseen):
    ids = [*data.image_ids("val"), *data.image_ids("test")]
    squares = [guard.score(data.store(SIZE).image(image_id)) for image_id in ids]
    assert squares == [guard.score(image) for image in unseen]


def test_sixteen_bits_give_the_same_warnings_as_eight(guard, unseen, tmp_path):
    Image.fromarray(unseen[0].astype(np.uint16) * 257).save(tmp_path / "deep.png")
    Image.fromarray(unseen[0]).save(tmp_path / "plain.png")
    deep, plain = (read_image(tmp_path / name) for name in ("deep.png", "plain.png"))
    assert guard.score(deep.pixels) == pytest.approx(guard.score(plain.pixels), abs=0.5)
    assert guard.warnings(deep) == guard.warnings(plain) == ()
    assert file_warnings(tmp_path / "deep.png") == ()


def test_what_is_written_reads_back_and_scores_the_same(guard, data, unseen, tmp_path):
    guard.write(tmp_path / GUARD_NAME)
    again = Guard.read(tmp_path / GUARD_NAME)
    assert [again.score(x) for x in unseen] == [guard.score(x) for x in unseen]
    assert (again.size, again.limit, again.images) == (SIZE, guard.limit, guard.images)
    assert guard.images == len(_patients(data))
    assert (tmp_path / GUARD_NAME).stat().st_size < 300_000


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"statistics": 0}, "another version of cxr"),
        ({"limit": None}, "limit.*'None'"),
        ({"arrays": {}}, "'layout_mean'"),
        ({"contract": "run"}, "'run'.*'guard'"),
    ],
)
def test_a_damaged_file_is_refused_in_one_line(guard, tmp_path, change, message):
    path = tmp_path / GUARD_NAME
    guard.write(path)
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(InputError, match=re.escape(str(path)) + f".*{message}"):
        Guard.read(path)


def test_an_array_of_another_shape_is_refused(guard: Guard, tmp_path: Path) -> None:
    path = tmp_path / GUARD_NAME
    guard.write(path)
    content = stored_json(path)
    content["arrays"]["weights"] = content["arrays"]["centre"]
    write_json(path, "guard", content)
    with pytest.raises(InputError, match=r"weights .*\(\d+,\).*\(\d+,\)"):
        Guard.read(path)


def test_the_same_images_give_the_same_guard_in_any_order(data, monkeypatch, tmp_path):
    monkeypatch.setattr(guards, "_DRAWN", 40)
    monkeypatch.setattr(guards, "_MOST_IMAGES", 30)
    for name, patients in (("one", _patients(data)), ("two", _patients(data).iloc[::-1])):
        fitted = fit_guard(data.store(SIZE), patients)
        assert fitted is not None
        assert fitted.images == 30  # a large set costs no more than a small one
        fitted.write(tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_a_run_gets_its_guard_once_and_a_small_set_gets_none(
    data, run_folder, tmp_path, monkeypatch
):
    lines: list[str] = []
    monkeypatch.setattr(console, "say", lambda text="": lines.append(text))
    before = (run_folder / GUARD_NAME).stat().st_mtime_ns
    add_guard(run_folder, data, "default", SIZE, console)
    assert (run_folder / GUARD_NAME).stat().st_mtime_ns == before
    assert lines == []

    monkeypatch.setattr(guards, "MIN_IMAGES", len(_patients(data)) + 1)
    add_guard(tmp_path, data, "default", SIZE, console)
    assert not (tmp_path / GUARD_NAME).exists()
    assert lines[-1].startswith("No guard against other images")


@pytest.mark.parametrize("n_train", [29, 50])
def test_training_again_is_advised_only_where_there_are_enough_images(tmp_path, n_train):
    run = RunInfo(name="R", model_kind="detector", target="opacity", n_train=n_train)
    run.write(tmp_path / "run.json")
    advice = how_to_add_guard(tmp_path)
    assert ("cxr train" in advice) == (n_train >= guards.MIN_IMAGES)
    assert ("29 training images" in advice) == (n_train == 29)


def test_a_colour_file_is_named_and_a_grey_one_stored_in_colour_is_not(unseen, tmp_path):
    grey = np.repeat(unseen[0][..., None], 3, axis=2)
    Image.fromarray(grey).save(tmp_path / "grey.jpg")
    tinted = grey.copy()
    tinted[..., 2] //= 2
    Image.fromarray(tinted).save(tmp_path / "colour.png")
    assert file_warnings(tmp_path / "grey.jpg") == ()
    assert file_warnings(tmp_path / "colour.png") == ("a colour image; X-rays are grey",)


def write_chest(path: Path, **elements: object) -> Path:
    header = {"Modality": "DX", "BodyPartExamined": "CHEST", "ViewPosition": "PA", **elements}
    return write_dicom(path, np.tile(np.arange(64, dtype=np.uint8), (64, 1)), **header)


def test_a_dicom_file_is_named_by_the_rules_of_prepare(tmp_path: Path) -> None:
    folder = tmp_path / "dicom"
    folder.mkdir()
    for view, name in (("PA", "frontal"), ("LL", "lateral"), ("PA", "slice")):
        modality = "CT" if name == "slice" else "DX"
        uid = f"1.2.{len(name)}"
        path = folder / f"{name}.dcm"
        write_chest(path, Modality=modality, ViewPosition=view, SOPInstanceUID=uid)
    excluded = read_source(folder, "dicom", ReadOptions()).excluded
    reasons = dict(zip(excluded["path"], excluded["reason"], strict=True))
    assert reasons == {
        "lateral.dcm": "a lateral view",
        "slice.dcm": "no radiograph: its modality is CT",
    }
    for path in sorted(folder.iterdir()):
        expected = [f"by its DICOM header no frontal chest X-ray: {reasons.get(path.name)}"]
        assert list(file_warnings(path)) == expected * (path.name in reasons)


@pytest.mark.parametrize(
    ("orientation", "message"),
    [
        (["L", "F"], None),
        (["L", "PF"], None),
        (["R", "F"], "mirrored, with the patient's right at the right (PatientOrientation R\\F)"),
        (["R", "H"], "upside down (PatientOrientation R\\H)"),
        (["F", "R"], "lying on its side (PatientOrientation F\\R)"),
        (None, None),
    ],
)
def test_an_image_that_its_header_calls_turned_is_named(tmp_path, orientation, message):
    path = write_chest(tmp_path / "a.dcm", PatientOrientation=orientation)
    expected = () if message is None else (f"by its DICOM header {message}",)
    assert file_warnings(path, read_image(path)) == expected


def test_what_is_stored_as_a_negative_gets_a_note_and_no_warning(tmp_path: Path) -> None:
    path = tmp_path / "a.dcm"
    assert image_notes(read_image(write_chest(path))) == ()
    negative = read_image(write_chest(path, PhotometricInterpretation="MONOCHROME1"))
    assert image_notes(negative) == (
        "stored as a negative (MONOCHROME1) and inverted, so that air is dark",
    )
    assert file_warnings(path, negative) == ()


def _of_age(pixels: np.ndarray, years: float | None) -> DecodedImage:
    return DecodedImage(pixels, decode_record([]), header={"age_years": years})


@pytest.mark.parametrize(
    ("learned", "years", "message"),
    [
        ((0, 3, 60, 900), 6.0, "2 to 11 years.* 963 .* 3 "),
        ((0, 3, 60, 900), 0.2, "under 2 years.* 0 "),
        ((0, 3, 60, 900), 14.0, None),
        ((0, 3, 60, 900), None, None),
        ((400, 900, 200, 2), 40.0, "18 or more years"),  # a model of children
        ((400, 900, 200, 2), 6.0, None),
        (None, 6.0, None),  # a run that does not know
    ],
)
def test_a_patient_of_an_age_that_the_run_never_saw_is_named(
    guard, unseen, learned, years, message, tmp_path
):
    guard.with_values(ages=learned).write(tmp_path / GUARD_NAME)
    warnings = Guard.read(tmp_path / GUARD_NAME).warnings(_of_age(unseen[0], years))
    assert len(warnings) == (message is not None)
    assert message is None or re.search(message, warnings[0])


def test_a_run_knows_the_ages_that_it_learned_from(data: DataSet, guard: Guard) -> None:
    images = data.images.set_index("image_id").loc[data.image_ids("train")]
    ages = images["age_years"].dropna()
    assert guard.ages is not None
    assert (sum(guard.ages), guard.ages[3]) == (len(ages), int((ages >= 18).sum()))
    years = np.repeat([1.0, 18.0, 60.0, np.nan], [3, 10, 90, 9])
    assert guards.count_ages(years) == (3, 0, 0, 100)


def test_real_children_pass_and_the_dog_does_not(shared_data: Path) -> None:
    files = sorted((shared_data / "kermany_224").rglob("*.jpeg"))[::40]
    images = {f.name: read_image(f).pixels for f in files}
    patients = pd.Series({name: name.rpartition("-")[0] or name for name in images})
    train = patients.iloc[::2]
    fitted = fit_guard(ImageStore(images, 128), train)
    assert fitted is not None
    others = [images[name] for name in patients.index.difference(train.index)]
    assert _share_refused(fitted, others) <= 0.03
    dog = shared_data / "odd_images" / "dog.jpg"
    warnings = file_warnings(dog) + fitted.warnings(read_image(dog))
    assert [FOREIGN in warning for warning in warnings] == [False, True]
