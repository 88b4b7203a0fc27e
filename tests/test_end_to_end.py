"""The whole way of the data, through the commands that a user types."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

import cxr_compare
from tests.adapters.commands import cxr

ROOT = Path(__file__).resolve().parents[1]
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": str(ROOT),
    "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    "CXR_SKIP_INSTALL": "1",
    "OMP_NUM_THREADS": "1",
}
SMALL = ["--set", "data.image_size=96", "--set", "training.epochs=1", "--set", "training.workers=0"]


def link_rsna_slice(source, folder, n_each=20):
    """The first positive and negative images of the challenge, linked, with their labels cut."""
    labels = pd.read_csv(source / "stage_2_train_labels.csv")
    ids = labels.drop_duplicates("patientId").groupby("Target")["patientId"].head(n_each)
    (folder / "stage_2_train_images").mkdir(parents=True)
    for image_id in ids:
        link = folder / "stage_2_train_images" / f"{image_id}.dcm"
        link.symlink_to(source / "stage_2_train_images" / link.name)
    for name in ("stage_2_train_labels", "stage_2_detailed_class_info", "rsna_to_nih"):
        table = pd.read_csv(source / f"{name}.csv", dtype={"nih_patient": str})
        table[table["patientId"].isin(ids)].to_csv(folder / f"{name}.csv", index=False)


@pytest.mark.release
def test_real_x_rays_go_from_dicom_to_a_report_and_to_answers(shared_data, tmp_path, capsys):
    source, data, run = (tmp_path / name for name in ("source", "data", "run"))
    link_rsna_slice(shared_data / "rsna", source)
    shares = ("--val", 0.3, "--test", 0.4)
    assert cxr("prepare", source, data, "--format", "rsna", "--size", 96, *shares) == 0
    small = (*SMALL, "--set", "model.backbone=small_cnn")
    assert cxr("train", "chexnet_quickstart", "--data", data, "--out", run, *small) == 0
    assert cxr("predict", run, "--data", data, "--out", tmp_path / "predictions") == 0
    capsys.readouterr()
    systems = [f"Run={run}", f"Predictions={tmp_path / 'predictions'}"]
    options = ("--data", data, "--out", tmp_path / "report", "--replicates", 100)
    assert cxr("compare", *systems, *options, "--json") == 0
    figures = pd.DataFrame(json.loads(capsys.readouterr().out)["figures"])
    of_all = figures[figures["metric"] == "auroc"]
    alone = of_all[of_all["second"] == ""].set_index("first")["estimate"]
    assert alone["Run"] == alone["Predictions"]
    dataset = cxr_compare.DataSet.open(data)
    assert of_all["n_images"].max() == len(dataset.image_ids("test"))
    files = sorted((source / "stage_2_train_images").iterdir())[:2]
    folder = tmp_path / "films"
    folder.mkdir()
    (folder / "broken.dcm").write_bytes(files[0].read_bytes()[:900])
    for file in files:
        (folder / file.name).symlink_to(file)
    table = tmp_path / "answers.csv"
    assert cxr("predict", run, folder, "--out", tmp_path / "overlays", "--csv", table) == 1
    assert "broken.dcm" in capsys.readouterr().err
    rows = pd.read_csv(table)
    assert set(rows.loc[rows["score"].notna(), "image"].map(lambda name: Path(name).name)) == {
        file.name for file in files
    }


@pytest.mark.release
def test_quickstart_runs_and_a_second_run_changes_nothing(tmp_path):
    out = tmp_path / "out"
    first, second = (run_quickstart(out) for _ in range(2))
    assert (out / "report" / "report.html").is_file()
    assert first.stdout == second.stdout == f"{out}/report/report.html\n"
    assert second.stderr.count("done before") == 5


def run_quickstart(out):
    command = ["bash", ROOT / "scripts/quickstart", "--small", out]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done
