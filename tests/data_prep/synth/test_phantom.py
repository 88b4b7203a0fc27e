"""The phantom's folder: layout, determinism, resuming, refusals."""

import hashlib
from pathlib import Path

import pandas as pd
import pydicom
import pytest
from cxr_compare.data_prep.contracts.errors import InputError

from cxr_compare.data_prep.synth.phantom import write_phantom
from tests.stored_json import stored_json

PHANTOM = {"n_images": 60, "size": 96, "seed": 3}


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("phantom") / "set"
    write_phantom(out, **PHANTOM)
    return out


def test_columns_are_those_of_the_real_challenge(phantom, shared_data):
    for name in ("stage_2_train_labels.csv", "stage_2_detailed_class_info.csv", "rsna_to_nih.csv"):
        real = pd.read_csv(shared_data / "rsna" / name, nrows=1)
        assert list(pd.read_csv(phantom / name, nrows=1).columns) == list(real.columns)


def test_mapping_names_each_nih_image_once(phantom):
    mapping = pd.read_csv(phantom / "rsna_to_nih.csv", dtype=str)
    assert mapping["patientId"].is_unique
    assert mapping["nih_image"].is_unique
    assert (mapping["nih_image"].str[:8] == mapping["nih_patient"]).all()
    assert mapping["nih_patient"].value_counts().max() in (2, 3)


def test_files_look_like_the_challenges(phantom, shared_data):
    real = pydicom.dcmread(next((shared_data / "rsna/stage_2_train_images").glob("*.dcm")))
    syntaxes = set()
    for path in (phantom / "stage_2_train_images").iterdir():
        image = pydicom.dcmread(path)
        syntaxes.add(image.file_meta.TransferSyntaxUID)
        for key in ("SOPClassUID", "Modality", "PhotometricInterpretation", "BitsStored"):
            assert image[key].value == real[key].value
        assert {element.tag for element in real} - {element.tag for element in image} <= {
            0x00282110,  # lossy compression: not in the uncompressed share
            0x00282114,
        }
        assert image.PatientID == path.stem
        assert image.StudyDate == ""
        assert 18 <= int(image.PatientAge) <= 92
    assert syntaxes == {"1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.1"}


def test_workers_do_not_change_a_byte(phantom, tmp_path):
    write_phantom(tmp_path / "again", **PHANTOM, workers=2)
    assert digests(tmp_path / "again") == digests(phantom)


def test_another_seed_gives_other_images(phantom, tmp_path):
    write_phantom(tmp_path / "other", n_images=5, size=96, seed=4)
    ours = {path.name for path in (phantom / "stage_2_train_images").iterdir()}
    other = {path.name for path in (tmp_path / "other/stage_2_train_images").iterdir()}
    assert not ours & other


def test_a_complete_folder_is_left_as_it_is(phantom):
    before = digests(phantom)
    done: list[int] = []
    summary = write_phantom(phantom, **PHANTOM, progress=done.append)
    assert summary.already_complete
    assert sum(done) == PHANTOM["n_images"] + summary.n_test_images
    assert digests(phantom) == before


def test_an_interrupted_run_is_completed_to_the_same_bytes(phantom, tmp_path, monkeypatch):
    out = tmp_path / "cut"
    drawn = []

    def stop(n_images: int) -> None:
        drawn.append(n_images)
        if n_images and len(drawn) > 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_phantom(out, **PHANTOM, progress=stop)
    assert not (out / "synth.json").exists()
    write_phantom(out, **PHANTOM)
    assert digests(out) == digests(phantom)


def test_another_phantom_in_the_folder_is_refused(phantom):
    with pytest.raises(InputError, match=r"seed=3.*\b4\b"):
        write_phantom(phantom, **{**PHANTOM, "seed": 4})


def test_a_strangers_folder_is_refused_and_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("do not lose")
    with pytest.raises(InputError, match="not an empty folder and not a phantom"):
        write_phantom(tmp_path, **PHANTOM)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_images": 0}, r"n_images.*\b0$"),
        ({"seed": -1}, "seed must not be negative"),
        ({"size": 32}, r"size.*64 to 4096 px.*\b32$"),
        ({"prevalence": 1.0}, "prevalence must lie in"),
    ],
)
def test_arguments_out_of_range_leave_nothing(tmp_path, change, message):
    with pytest.raises(InputError, match=message):
        write_phantom(tmp_path / "none", **{**PHANTOM, **change})
    assert not (tmp_path / "none").exists()


def test_synth_json_tells_how_it_was_made(phantom):
    facts = stored_json(phantom / "synth.json")
    assert facts["arguments"]["seed"] == PHANTOM["seed"]
    assert facts["counts"]["n_images"] == PHANTOM["n_images"]
    assert not list(phantom.glob(".*"))
