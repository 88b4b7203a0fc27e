"""The HTTP interface: the answers of `cxr predict`, and one line for what gets none."""

import base64
import csv
import io
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.stats import binomtest

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.evaluation.metrics.registry import metric_title
from cxr_compare.evaluation.report.answer import EvaluatedOn, ReportOrigin
from cxr_compare.serving.answer import TABLE_COLUMNS
from cxr_compare.serving.run import Run
from cxr_compare.serving.web.limits import ServeSettings
from cxr_compare.serving.web.server import build_app
from cxr_compare.serving.web.systems import missed_together, report_figures
from tests.blank_answer import blank_answer
from tests.saved_report import write_figures
from tests.scripts.small_sets import cxr
from tests.stored_json import put_table

Png = Callable[[int], bytes]


def ask(client: Any, content: bytes, name: str = "a.png", **query: Any) -> Any:
    answer = client.post("/v1/analyze", params=query, files={"file": (name, content)})
    assert answer.status_code == 200, answer.text
    return answer.json()


def refusal(answer: httpx.Response) -> tuple[int, str]:
    """Status and code of an error, whose body says in one line what to do."""
    error = answer.json()["error"]
    assert answer.json().keys() == {"request_id", "error"}
    assert answer.json()["request_id"] == answer.headers["x-request-id"]
    assert "\n" not in error["message"]
    assert len(error["message"]) > 10
    return answer.status_code, error["code"]


def predicted(capsys: pytest.CaptureFixture[str], *arguments: object) -> list[dict[str, Any]]:
    """What `cxr predict --json` prints."""
    assert cxr("predict", *arguments, "--json", "--no-overlay") == 0
    return json.loads(capsys.readouterr().out)


SAME = (
    "kind", "finding", "decision", "undecided_because", "probability", "score", "policy",
    "threshold", "computed_decision", "boxes",
)  # fmt: skip


def test_an_answer_is_exactly_that_of_cxr_predict(
    client, exports, shared_data, tmp_path, png, capsys
):
    (tmp_path / "noise.png").write_bytes(png(5))
    colour = np.dstack([np.asarray(Image.open(tmp_path / "noise.png"))] * 3)
    colour[..., 1] //= 2
    Image.fromarray(colour).save(tmp_path / "colour.jpg")
    dicom = next(iter(sorted((shared_data / "rsna").rglob("*.dcm"))))
    decisions, warnings = set(), 0
    for path in (dicom, tmp_path / "noise.png", tmp_path / "colour.jpg"):
        expected = predicted(capsys, *exports, path)
        answer = ask(client, path.read_bytes(), path.name)
        for ours, theirs in zip(answer["systems"], expected, strict=True):
            assert {key: ours[key] for key in SAME} == {key: theirs[key] for key in SAME}
            decisions.add(ours["computed_decision"])
        assert set(expected[0]["warnings"]) <= {*answer["warnings"]}
        warnings += len(answer["warnings"])
        assert answer["image"]["name"] == path.name
    assert warnings
    assert "positive" in decisions


def test_answer_contains_findings_map_overlay_and_versions(client: Any, png: Png) -> None:
    answer = ask(client, png(1), include=["maps", "overlay"])
    assert ask(client, png(1), include="maps,overlay")["overlay_png"] == answer["overlay_png"]
    assert answer["image"] == {
        "name": "a.png", "width": 120, "height": 90, "format": "PNG", "bits": 8,
        "monochrome1": False, "view": None,
    }  # fmt: skip
    detector, classifier = answer["systems"]
    assert classifier["findings"] == {"lung_opacity": classifier["score"]}
    best = max(box["score"] for box in detector["boxes"])
    assert detector["findings"]["lung_opacity"] >= best
    assert detector["map"] is None
    values = np.array(classifier["map"]["values"])
    assert values.min() >= 0
    assert values.max() <= 1
    assert 0 < detector["threshold_probability"] < 1
    overlay = Image.open(io.BytesIO(base64.b64decode(answer["overlay_png"])))
    assert overlay.width > 3 * 400
    assert {"cxr-compare", "onnxruntime"} <= set(answer["versions"])
    assert "torch" not in answer["versions"]
    assert answer["research_use"] == "Research use only, not a medical device."
    assert "overlay_png" in ask(client, png(1))
    assert ask(client, png(1))["overlay_png"] is None


def test_answer_reports_disagreement_of_the_systems(client: Any, png: Png) -> None:
    for seed in range(3):
        answer = ask(client, png(seed))
        decisions = [system["decision"] for system in answer["systems"]]
        assert answer["disagreement"] == (decisions[0] != decisions[1])


def test_an_image_with_a_warning_is_doubtful_and_a_strict_server_refuses_it(
    client: Any, client_of: Any, served: list[Run], png: Png
) -> None:
    dark = io.BytesIO()
    Image.fromarray(np.full((90, 120), 9, np.uint8)).save(dark, format="PNG")
    doubtful, sound = ask(client, dark.getvalue()), ask(client, png(1))
    for answer, status in ((doubtful, "doubtful"), (sound, "ok")):
        assert {answer["status"], *(system["status"] for system in answer["systems"])} == {status}
    assert [system["decision"] for system in doubtful["systems"]] == [None, None]
    assert doubtful["systems"][0]["computed_decision"]
    assert doubtful["disagreement"] is None
    strict = ServeSettings(strict=True, allowed_hosts=("testserver",))
    with client_of(build_app(served, strict)) as other:
        refused = other.post("/v1/analyze", files={"file": ("a.png", dark.getvalue())})
        assert refusal(refused) == (422, "doubtful")
        assert doubtful["warnings"][0] in refused.json()["error"]["message"]
        assert [refused.json()["error"]["kind"]] == doubtful["warning_kinds"][:1] == ["other_image"]
        assert ask(other, png(1))["systems"] == sound["systems"]


def test_concurrent_answers_belong_to_their_images(client: Any, png: Png) -> None:
    alone = [ask(client, png(seed), str(seed)) for seed in range(12)]
    assert len({answer["systems"][1]["score"] for answer in alone}) == 12

    files = [{"files": {"file": (str(seed), png(seed))}} for seed in range(12)]
    together = [answer.json() for answer in client.post_together("/v1/analyze", files)]
    for one, many in zip(alone, together, strict=True):
        assert many["image"]["name"] == one["image"]["name"]
        for ours, theirs in zip(many["systems"], one["systems"], strict=True):
            assert ours["score"] == pytest.approx(theirs["score"], abs=1e-6)
            assert ours["decision"] == theirs["decision"]


def test_models_lists_the_systems_and_the_limits(client: Any) -> None:
    answer = client.get("/v1/models").json()
    detector, classifier = answer["systems"]
    assert (detector["system"], detector["kind"]) == ("RetinaNet", "boxes")
    assert (classifier["system"], classifier["backend"]) == ("CheXNet", "onnx")
    assert classifier["threshold"] == 0.5
    assert classifier["image_size"] == 64
    assert classifier["guard"]
    assert classifier["report_url"] is None
    assert answer["limits"] == {"bytes": 64 << 20, "pixels": 100_000_000}


@pytest.mark.parametrize(
    ("request_", "status", "code"),
    [
        ({"files": {"file": ("a.txt", b"no image")}}, 415, "type"),
        ({"files": {"file": ("a.png", b"\x89PNG\r\n\x1a\n" + bytes(40))}}, 422, "unreadable"),
        ({"files": {"file": ("a.png", b"")}}, 400, "empty"),
        ({"files": {"image": ("a.png", b"x")}}, 400, "no_file"),
        ({"files": [("file", ("a", b"x")), ("file", ("b", b"x"))]}, 400, "bad_form"),
        ({"files": {"file": ("a", b"x")}, "data": {"path": "/etc/passwd"}}, 400, "bad_form"),
        ({"content": b"x", "headers": {"Content-Type": "image/png"}}, 415, "not_multipart"),
        ({"content": b"x", "headers": {"Content-Type": "multipart/form-data"}}, 400, "bad_form"),
        ({"params": {"include": "everything"}}, 400, "bad_input"),
    ],
    ids=["text", "broken", "empty", "other field", "two files", "a field", "no form", "no boundary",
         "include"],
)  # fmt: skip
def test_what_gets_no_answer_gets_one_line(client, request_, status, code):
    assert refusal(client.post("/v1/analyze", **request_)) == (status, code)


def test_other_paths_and_methods_get_one_line(client: Any) -> None:
    assert refusal(client.get("/v1/nothing")) == (404, "not_found")
    assert refusal(client.get("/v1/analyze")) == (405, "method_not_allowed")
    for path in ("/page/..%2fapp.py", "/page/%2e%2e/app.py", "/report/x", "/examples/x", "/docs"):
        assert refusal(client.get(path)) == (404, "not_found")


def test_the_log_names_no_file_and_no_query(client, png, caplog):
    with caplog.at_level(logging.INFO, "cxr.serve"):
        answer = ask(client, png(0), "Doe^Jane.png", include="maps")
        client.get("/v1/Doe^Jane")
    assert answer["request_id"] in caplog.text
    assert "/v1/analyze 200" in caplog.text
    assert "Doe" not in caplog.text
    assert "maps" not in caplog.text


def test_internal_error_is_logged_without_its_message(client, png, caplog, monkeypatch):
    def fail(*_: object) -> None:
        raise ValueError("patient Doe^Jane")

    monkeypatch.setattr(Run, "answer", fail)
    answer = client.post("/v1/analyze", files={"file": ("a.png", png(0))})
    assert refusal(answer) == (500, "internal")
    assert answer.headers["x-request-id"] in answer.json()["error"]["message"]
    assert "ValueError at" in caplog.text
    assert "Doe" not in caplog.text + answer.text


def report_of(folder: Path, **facts: Any) -> Path:
    """A report of one system, as far as it is read."""
    rows = [
        {"metric": metric, "policy": policy, "estimate": value, "ci_low": value - 0.1,
         "ci_high": value + 0.1, "first": "A", "unit": "image", "subgroup": subgroup,
         "n_images": 50, "n_patients": 40, "n_positive": 9}
        for metric, policy, value, subgroup in (
            ("auroc", "", 0.75, "sex F"), ("auroc", "", 0.875, "all"),
            ("recall", "max_f1", 0.5, "all"), ("recall", "youden", 0.25, "all"),
            ("brier", "", 0.2, "all"),
        )
    ]  # fmt: skip
    origin = ReportOrigin(data_set=EvaluatedOn(name="Set"), systems={"A": facts})
    answer = blank_answer(
        {}, headline="A was better.", cautions=["Few images."], systems=["A"], provenance=origin
    )
    folder.mkdir()
    answer.write(folder / "answer.json")
    write_figures(rows, folder)
    (folder / "report.html").write_text("<p>Report</p>")
    (folder / "decisions.parquet").write_bytes(b"of patients")
    (folder / "figures").mkdir()
    (folder / "figures/roc.svg").write_text("<svg/>")
    (folder / "away.html").symlink_to("/etc/hostname")
    return folder


def test_a_report_gives_the_figures_of_its_systems_and_its_page(served, client_of, tmp_path):
    model_id = served[1].model.inference_id()
    folder = report_of(tmp_path / "report", inference_id=model_id)
    settings = ServeSettings(allowed_hosts=("testserver",))
    with client_of(build_app(served, settings, report=folder), lifespan=False) as client:
        detector, classifier = client.get("/v1/models").json()["systems"]
        assert detector["report_url"] is None
        assert detector["report"]["images"] == "validation"
        system_report = classifier["report"]
        assert (
            system_report["images"],
            system_report["n_images"],
            system_report["n_patients"],
        ) == ("test", 50, 40)
        figures = [(row["metric"], row["estimate"]) for row in system_report["figures"]]
        assert figures == [("auroc", 0.875), ("recall", 0.5)]
        assert system_report["cautions"] == ["Few images."]
        assert client.get(classifier["report_url"]).text == "<p>Report</p>"
        assert client.get("/report/figures/roc.svg").status_code == 200
        policy = client.get(classifier["report_url"]).headers["content-security-policy"]
        assert "script-src 'self' 'unsafe-inline'" in policy
        assert "connect-src" not in policy  # so that 'none' of the default holds
        assert "unsafe-inline" not in client.get("/").headers["content-security-policy"]
        for name in ("decisions.parquet", "answer.json", "away.html", "..%2freport%2freport.html"):
            assert client.get(f"/report/{name}").status_code == 404, name


def test_a_report_of_other_trainings_is_refused(served: list[Run], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--report .*report: .* A, "):
        report_figures(served, report_of(tmp_path / "report", inference_id="another"))
    same_training = report_of(tmp_path / "same", inference_id="x", training_id="of-run")
    patched = served[1].model.training_id
    assert patched() == "of-run"
    (_, figures) = report_figures(served, same_training)
    assert figures
    assert "not with this one" in figures.cautions[-1]


def test_what_all_systems_missed_is_counted_on_the_test_images_of_the_report(served, tmp_path):
    folder = report_of(tmp_path / "report", inference_id=served[0].model.inference_id())
    content = json.loads((folder / "answer.json").read_text())
    content["provenance"]["systems"]["B"] = {"inference_id": served[1].model.inference_id()}
    thresholds = [run.decision.thresholds["max_f1"].threshold for run in served]
    content["thresholds"] = {"A": {"max_f1": thresholds[0]}, "B": {"max_f1": thresholds[1] * 1.001}}
    (folder / "answer.json").write_text(json.dumps(content))
    rows = pd.DataFrame({
        "image_id": [f"i{n}" for n in range(12)] * 2, "system": ["A"] * 12 + ["B"] * 12,
        "label": ([1.0] * 10 + [0.0] * 2) * 2, "score": 0.5, "probability": np.nan,
        "patient_id": [f"p{n // 2}" for n in range(12)] * 2,
        "decision_max_f1": [False, False, *[True] * 8, False, True,
                            False, True, False, *[True] * 9],
    })  # fmt: skip
    put_table(rows, folder / "decisions.parquet", "decisions")
    missed = missed_together(served, folder)
    (share,) = missed.figures
    assert (missed.images, missed.data_set, missed.n_positive) == ("test", "Set", 10)
    assert share.estimate == 0.1
    assert 0 <= share.ci_low < 0.1 < share.ci_high < 0.6
    assert missed.cautions == []

    put_table(rows.assign(decision_max_f1=True), folder / "decisions.parquet", "decisions")
    (none,) = missed_together(served, folder).figures
    exact = binomtest(0, 5).proportion_ci(method="exact")  # patients as trials
    assert (none.estimate, none.ci_low, none.ci_high) == (0, 0, pytest.approx(exact.high))
    put_table(rows[:-12], folder / "decisions.parquet", "decisions")
    assert missed_together(served, folder) is None
    (folder / "decisions.parquet").unlink()
    assert missed_together(served, folder) is None


def test_decisions_at_another_threshold_are_not_reported_as_those_of_the_server(served, tmp_path):
    folder = report_of(tmp_path / "report", inference_id=served[0].model.inference_id())
    rows = pd.DataFrame({
        "image_id": ["a", "b"], "system": "A", "label": 1.0, "score": 0.5, "probability": np.nan,
        "patient_id": ["p", "q"], "decision_max_f1": [True, False],
    })  # fmt: skip
    put_table(rows, folder / "decisions.parquet", "decisions")
    threshold = served[0].decision.thresholds["max_f1"].threshold
    content = json.loads((folder / "answer.json").read_text())
    for evaluated, applies in ((threshold, True), (threshold * 1.1, False), (None, False)):
        content["thresholds"] = {"A": {"max_f1": evaluated}}
        (folder / "answer.json").write_text(json.dumps(content))
        missed = missed_together(served[:1], folder)
        assert (missed is not None and missed.images == "test") is applies


def test_the_table_of_an_answer_is_that_of_cxr_predict_and_no_spreadsheet_runs_it(client, png):
    assert ask(client, png(1))["csv"] is None
    answer = ask(client, png(1), "=1+1.png", include="csv")
    rows = list(csv.DictReader(io.StringIO(answer["csv"])))
    assert tuple(rows[0]) == TABLE_COLUMNS
    assert [row["image"] for row in rows] == ["'=1+1.png"] * 2
    for row, system in zip(rows, answer["systems"], strict=True):
        assert float(row["score"]) == system["score"]
        assert row["decision"] == system["decision"]
        assert row["boxes"].count(";") == max(0, len(system["boxes"]) - 1)


def test_pixels_at_full_depth_are_those_of_the_file(client: Any) -> None:
    ramp = np.arange(60 * 70, dtype=np.uint16).reshape(60, 70) + 500
    file = io.BytesIO()
    Image.fromarray(ramp).save(file, format="PNG")
    answer = client.post("/v1/pixels", files={"file": ("a.png", file.getvalue())})
    assert answer.headers["content-type"] == "application/octet-stream"
    assert [answer.headers[f"x-{name}"] for name in ("width", "height", "bits")] == [
        "70", "60", "16",
    ]  # fmt: skip
    values = np.frombuffer(answer.content, "<u2").reshape(60, 70)
    np.testing.assert_array_equal(values, ramp - 500)
    assert 0 <= float(answer.headers["x-low"]) < float(answer.headers["x-high"]) <= values.max()


def test_every_answer_has_its_id_and_the_headers_that_keep_a_browser_here(client: Any) -> None:
    answers = [client.get("/healthz"), client.get("/nothing"), client.post("/v1/analyze")]
    answers.append(client.get("/healthz", headers={"Host": "evil.example"}))
    assert [answer.status_code for answer in answers] == [200, 404, 415, 400]
    for answer in answers:
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["cache-control"] == "no-store"
        assert len(answer.headers["x-request-id"]) == 12
    assert len({answer.headers["x-request-id"] for answer in answers}) == 4


def test_localised_sensitivity_is_the_one_of_the_main_table_of_the_report(served, tmp_path):
    folder = report_of(tmp_path / "report", inference_id=served[1].model.inference_id())
    figures = pd.read_parquet(folder / "figures.parquet")
    rows = figures[figures["policy"] == "max_f1"].to_dict("records")
    strict = {**rows[0], "metric": "localised_sensitivity", "estimate": 0.25}
    write_figures([*figures.to_dict("records"), strict], folder)

    def localised() -> dict[str, float | None]:
        (_, figures) = report_figures(served, folder)
        assert figures
        named = [figure for figure in figures.figures if figure.metric.startswith("localised")]
        return {figure.title: figure.estimate for figure in named}

    assert localised() == {metric_title("localised_sensitivity"): 0.25}
