"""A Ray cluster writes the same bytes as the processes of this machine."""

import hashlib
import json
from importlib.util import find_spec

import pytest

import cxr_compare
from cxr_compare import InputError
from tests.adapters import serving
from tests.adapters.commands import cxr

VARYING = {"created", "command", "cost", "sha256_of_this_file"}


def contents(folder):
    """Digest of each file of a folder; of JSON the values, without those of one call."""
    found = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        found[path.relative_to(folder)] = hashlib.sha256(path.read_bytes()).hexdigest()
        if path.suffix == ".json":
            stored = json.loads(path.read_text())
            found[path.relative_to(folder)] = {k: v for k, v in stored.items() if k not in VARYING}
    return found


@pytest.mark.release
@pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed: the extra cluster")
@pytest.mark.usefixtures("one_thread")
def test_a_cluster_of_two_workers_prepares_and_predicts_the_same_bytes(world, tmp_path):
    source = tmp_path / "xrays"
    cxr_compare.synth(source, images=30, size=96, seed=5)
    (source / "stage_2_train_images" / "torn.dcm").write_bytes(b"no image")
    options = {"format": "rsna", "size": [96], "name": "set"}
    runs = {kind: world.run(kind) for kind in ("detector", "classifier")}
    runs["export"] = world.export("classifier")
    with serving.cluster(workers=2):
        for engine in ("local", "ray"):
            folder = tmp_path / engine
            folder.mkdir()
            cxr_compare.prepare(source, folder / "set", engine=engine, **options)
            for kind, run in runs.items():
                out = folder / kind
                cxr_compare.predict(run, data=world.data, out=out, engine=engine, device="cpu")
    for name in ("set", *runs):
        local = contents(tmp_path / "local" / name)
        assert len(local) > 2
        assert contents(tmp_path / "ray" / name) == local


@pytest.mark.parametrize("command", ["prepare", "predict"])
def test_an_engine_that_is_none_or_is_for_images_is_refused(world, tmp_path, command, capsys):
    words = {
        "prepare": ("prepare", world.xrays, tmp_path / "set", "--format", "rsna"),
        "predict": ("predict", world.run("classifier"), "--data", world.data, "--out", "p"),
    }
    assert cxr(*words[command], "--engine", "dask") == 2
    assert "dask" in capsys.readouterr().err
    assert not (tmp_path / "set").exists()
    run, image = world.run("classifier"), min((world.xrays / "stage_2_train_images").iterdir())
    for wrong in ({}, {"data": world.data, "out": tmp_path / "p", "device": "cuda"}):
        with pytest.raises(InputError, match=r"^(engine|device): "):
            cxr_compare.predict(run, *([] if wrong else [image]), engine="ray", **wrong)


def test_an_address_at_which_no_cluster_listens_is_one_line(world, tmp_path, monkeypatch):
    pytest.importorskip("ray", reason="Ray is not installed: the extra cluster")
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with pytest.raises(InputError, match=r"RAY_ADDRESS=127\.0\.0\.1:1: ") as refused:
        cxr_compare.prepare(world.xrays, tmp_path / "set", format="rsna", engine="ray")
    assert "\n" not in str(refused.value)
