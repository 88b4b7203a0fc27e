"""The page and the HTTP answer say what limits an answer: chance, and training images."""

import csv
import io

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cxr_compare.data_prep.duplicates.seen_images import SeenLookup
from cxr_compare.data_prep.images.decoded_image import DecodedImage
from cxr_compare.serving.known_limits import MeasuredAuroc, TrainingImages
from cxr_compare.serving.run import Run
from cxr_compare.serving.web.limits import ServeSettings
from cxr_compare.serving.web.server import build_app
from tests.serving.web.test_app import ask, report_of

GUESSES = MeasuredAuroc(0.52, 0.43, 0.61, "validation", 68)
SETTINGS = ServeSettings(allowed_hosts=("testserver",))


@pytest.fixture
def limited(exports, png) -> list[Run]:
    """Two systems that learned from one image; the second was not shown to exceed chance."""
    pixels = np.asarray(Image.open(io.BytesIO(png(1))))
    image = DecodedImage(pixels, {})
    row = {
        "role": "train",
        "pixel_sha256": image.pixel_sha256,
        "perceptual_hash": image.perceptual_hash,
    }
    trained_by = TrainingImages(SeenLookup.from_table(pd.DataFrame([row])), is_complete=True)
    runs = [Run.open(folder, name=folder.name) for folder in exports]
    for run in runs:
        run.training_images = trained_by
    runs[1].validation_auroc = GUESSES
    return runs


def test_an_answer_names_a_system_that_guesses_and_an_image_that_trained_it(
    limited, client_of, png
):
    with client_of(build_app(limited, SETTINGS)) as client:
        answer = ask(client, png(1), include="csv")
        other = ask(client, png(2))
        first, second = answer["systems"]
        caution = GUESSES.caution(limited[1].name)
        assert answer["status"] == "ok"  # the image itself is not doubted
        assert [system["seen_in_training"] for system in answer["systems"]] == ["train"] * 2
        assert len(first["cautions"]) == 1
        assert second["cautions"][0] == caution
        assert len(second["cautions"]) == 2
        assert answer["cautions"][0] == caution
        assert len(answer["cautions"]) == 2  # one sentence names both systems that it trained
        assert all(run.name in answer["cautions"][1] for run in limited)
        assert [system["seen_in_training"] for system in other["systems"]] == ["no"] * 2
        assert other["cautions"] == [caution]
        facts = client.get("/v1/models").json()["systems"]
        assert [system["cautions"] for system in facts] == [[], [caution]]
        rows = list(csv.DictReader(io.StringIO(answer["csv"])))
        assert [row["seen_in_training"] for row in rows] == ["train"] * 2
        assert str(caution) in rows[1]["cautions"]


def test_the_figures_of_a_report_decide_before_those_of_validation(limited, client_of, tmp_path):
    model_id = limited[1].model.inference_id()
    report = report_of(tmp_path / "report", inference_id=model_id)  # AUROC 0.875, 0.775 to 0.975
    with client_of(build_app(limited, SETTINGS, report=report), lifespan=False) as client:
        facts = client.get("/v1/models").json()["systems"]
        assert [system["cautions"] for system in facts] == [[], []]
    assert limited[1].test_auroc == MeasuredAuroc(
        0.875, pytest.approx(0.775), pytest.approx(0.975), "test", 50
    )


def test_the_validation_figures_of_a_system_have_the_interval_of_its_caution(limited, client_of):
    with client_of(build_app(limited, SETTINGS), lifespan=False) as client:
        report = client.get("/v1/models").json()["systems"][1]["report"]
    (auroc,) = (figure for figure in report["figures"] if figure["metric"] == "auroc")
    assert (auroc["estimate"], auroc["ci_low"], auroc["ci_high"]) == (0.52, 0.43, 0.61)
