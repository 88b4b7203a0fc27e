"""The settings file of `cxr serve` and `cxr pacs`: typed keys, each described in the documents."""

from pathlib import Path

import pytest

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.serving.settings_file import SettingsFile, read_settings_file, settings_keys

PAGE = Path(__file__).resolve().parents[2] / "docs" / "serving.md"


def write(folder: Path, text: str) -> Path:
    path = folder / "settings.toml"
    path.write_text(text)
    return path


def test_a_file_changes_its_keys_and_keeps_the_other_defaults(tmp_path):
    settings = read_settings_file(write(tmp_path, "[serve]\nmax_mib = 8\n[models]\ndevice = 'cpu'"))
    assert settings.serve.max_mib == 8
    assert settings.serve.queue == SettingsFile().serve.queue
    assert settings.models.device == "cpu"
    assert settings.pacs == SettingsFile().pacs


def test_no_file_gives_the_defaults():
    assert read_settings_file(None) == SettingsFile()


@pytest.mark.parametrize(
    ("text", "key", "nearest"),
    [
        ("[serve]\nmax_mb = 8", "serve.max_mb", "serve.max_mib"),
        ("[serve]\nmax-mib = 8", "serve.max-mib", "serve.max_mib"),
        ("[serve]\npatience = 8", "serve.patience", "pacs.patience"),
        ("backend = 'onnx'", "backend", "models.backend"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_one(tmp_path, text, key, nearest):
    with pytest.raises(InputError, match=f"{key}: .*'{nearest}'"):
        read_settings_file(write(tmp_path, text))


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("[serve]\nmax_mib = 0", "serve.max_mib"),
        ("[serve]\nqueue = 'long'", "serve.queue"),
        ("[serve]\nexamples = 'no/such/folder'", "serve.examples"),
        ("[models]\ndevice = 'tpu'", "models.device"),
        ("[pacs]\nmodalities = ['C/R']", "pacs.modalities.0"),
    ],
)
def test_a_value_that_cannot_be_is_refused_by_its_key(tmp_path, text, key):
    with pytest.raises(InputError, match=f"settings.toml: {key}: "):
        read_settings_file(write(tmp_path, text))


def test_every_key_is_described_and_stands_in_the_documents():
    page = PAGE.read_text(encoding="utf-8")
    for key, description in settings_keys().items():
        assert f"`{key}`" in page
        assert description.endswith(".")
        assert description in page
