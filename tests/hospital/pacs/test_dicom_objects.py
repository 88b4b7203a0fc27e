"""Answers as DICOM: what is written is read back, by pydicom, highdicom and dicom3tools."""

from __future__ import annotations

import io
import shutil
import subprocess
import warnings
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pydicom
import pydicom.sr._concepts_dict
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom import uid
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag

pytest.importorskip("highdicom", reason="needs the extra hospital")

import highdicom as hd

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.images.image import read_image
from cxr_compare.data_prep.sources.descriptions import public_sets
from cxr_compare.evaluation.overlays.contours import ActivationGrid
from cxr_compare.evaluation.overlays.image_prediction import ImagePrediction
from cxr_compare.hospital.answers.dicom import dicom
from cxr_compare.hospital.dicom_objects.finding_codes import PRIVATE_SCHEME, finding_code
from cxr_compare.hospital.dicom_objects.result_identity import Algorithm, result_uid, to_bytes
from cxr_compare.hospital.dicom_objects.secondary_capture import overlay_capture, secondary_capture
from cxr_compare.hospital.dicom_objects.source_header import Source, read_source
from cxr_compare.hospital.dicom_objects.structured_report import (
    DECISION,
    PROBABILITY,
    SCORE,
    TARGET,
    THRESHOLD,
    structured_report,
)
from cxr_compare.networks.public_checkpoints import XRAYVISION_FINDINGS
from cxr_compare.scripts.cli import run_command
from cxr_compare.scripts.commands.predict import predict
from cxr_compare.serving.answer import BOX_COLUMNS, COLOUR, Answer
from cxr_compare.serving.guard import Warned
from tests.serving.radiographs import radiograph
from tests.small_dicom import as_file

MADE = datetime(2026, 11, 22, 1, 2, 3)
DETECTOR = Algorithm("RetinaNet", "0123456789abcdef", "torch fp32", "max_f1", 0.25)
CLASSIFIER = Algorithm("CheXNet", "fedcba9876543210", "openvino int8", "max_f1", 0.5)


def boxes(*rows: tuple[str, float, float, float, float, float]) -> pd.DataFrame:
    return pd.DataFrame(list(rows), columns=list(BOX_COLUMNS))


BOXES = boxes(
    ("lung_opacity", 2.5, 4.25, 10.0, 20.0, 0.8123456789), ("hernia", 16.0, 2.0, 32.0, 40.0, 0.3)
)
FOUND_ANSWER = Answer(
    image="a.dcm",
    system="RetinaNet",
    kind="boxes",
    finding="Lung opacity",
    score=0.8123456789,
    probability=0.64,
    policy="max_f1",
    threshold=0.25,
    computed_decision=True,
    boxes=BOXES,
)
CLEAR = Answer(
    image="a.dcm",
    system="CheXNet",
    kind="scores",
    finding="Pneumonia",
    score=0.1,
    probability=0.05,
    policy="max_f1",
    threshold=0.5,
    computed_decision=False,
    boxes=boxes(),
)


def with_values(answer: Answer, **values: object) -> Answer:
    """Return the answer with other values."""
    return answer.model_copy(update=values)


UNDECIDED = with_values(
    CLEAR,
    computed_decision=None,
    probability=None,
    threshold=None,
    undecided_because="it was not tuned",
)
ONE_BOX = with_values(FOUND_ANSWER, boxes=BOXES[:1])
DOUBTFUL = with_values(FOUND_ANSWER, warnings=(Warned("looks like a lateral view"),))
RGB = np.random.default_rng(0).integers(0, 256, (24, 50, 3), np.uint8)


def raw(keyword: str, value: bytes, charset: str | None = None) -> Callable[[], Dataset]:
    """A header with an element's bytes as a file holds them, which need not be valid."""

    def make() -> Dataset:
        source = radiograph()
        tag = Tag(keyword)
        vr = pydicom.datadict.dictionary_VR(keyword)
        source[tag] = RawDataElement(tag, vr, len(value), value, 0, False, True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            encodings = pydicom.charset.convert_encodings(charset and charset.split("\\"))
        source.set_original_encoding(False, True, encodings)
        return source

    return make


def report(source: Dataset, *answers: Answer) -> Dataset:
    algorithms = [DETECTOR if answer.kind == "boxes" else CLASSIFIER for answer in answers]
    return structured_report(Source.from_header(source), answers, algorithms, made=MADE)


def read_back(instance: Dataset) -> Dataset:
    return pydicom.dcmread(io.BytesIO(to_bytes(instance)))


def groups_of(instance: Dataset) -> tuple[list, list]:
    """Measurement groups of the whole image, and of boxes, as highdicom reads them."""
    content = hd.sr.srread(io.BytesIO(to_bytes(instance))).content
    assert isinstance(content, hd.sr.MeasurementReport)
    boxes = content.get_planar_roi_measurement_groups()
    return content.get_image_measurement_groups(), boxes


def measured(group: hd.sr.Template) -> dict[str, float]:
    return {measurement.name.value: measurement.value for measurement in group.get_measurements()}


def said(group: hd.sr.Template, name: hd.sr.CodedConcept) -> tuple[str, str]:
    (evaluation,) = group.get_qualitative_evaluations(name)
    return evaluation.value.value, evaluation.value.meaning


def texts(dataset: Dataset) -> list[str]:
    texts_here = [dataset.TextValue] if "TextValue" in dataset else []
    return texts_here + [t for item in dataset.get("ContentSequence", ()) for t in texts(item)]


@pytest.fixture(scope="module")
def both() -> Dataset:
    """The report of a positive and a negative answer."""
    return report(radiograph(), FOUND_ANSWER, CLEAR)


def test_highdicom_reads_back_the_same_boxes_scores_and_decisions(both: Dataset) -> None:
    images, boxes = groups_of(both)
    reports, clear = images
    assert measured(reports) == {
        SCORE.value: 0.8123456789, PROBABILITY.value: 0.64, THRESHOLD.value: 0.25
    }  # fmt: skip
    assert (said(reports, TARGET), said(reports, DECISION)[1]) == (
        ("112001", "Opacity"),
        "Positive",
    )
    assert (said(clear, TARGET), said(clear, DECISION)[1]) == (
        ("233604007", "Pneumonia"),
        "Negative",
    )
    for box, group in zip(BOXES.itertuples(), boxes, strict=True):
        corners = [
            [box.x1, box.y1], [box.x2, box.y1], [box.x2, box.y2], [box.x1, box.y2], [box.x1, box.y1]
        ]  # fmt: skip
        assert group.roi.graphic_type.value == "POLYLINE"
        np.testing.assert_array_equal(group.roi.value, np.array(corners, np.float32))
        assert measured(group) == {SCORE.value: box.score}
        assert group.finding_type == finding_code(box.finding)
        assert said(group, DECISION)[1] == "Positive"
        image = group.roi.ContentSequence[0].ReferencedSOPSequence[0]
        assert image.ReferencedSOPInstanceUID == "1.2.3.4"


def test_a_report_names_its_systems_and_claims_no_diagnosis(both: Dataset) -> None:
    sent = read_back(both)
    assert (sent.VerificationFlag, sent.PreliminaryFlag) == ("UNVERIFIED", "PRELIMINARY")
    assert sent.CompletionFlag == "COMPLETE"
    lines = texts(sent)
    assert "Research use only, not a medical device." in lines
    for algorithm in (DETECTOR, CLASSIFIER):
        assert algorithm.name in lines
        assert f"model {algorithm.model_id}" in lines
        assert f"computed by {algorithm.engine}" in lines


def test_who_reads_findings_alone_takes_no_negative_answer_for_one() -> None:
    images, boxes = groups_of(report(radiograph(), CLEAR))
    assert boxes == []
    assert [group.finding_type for group in images] == [None]


def test_undecided_answer_is_reported_as_undecided() -> None:
    sent = report(radiograph(), ONE_BOX, UNDECIDED)
    assert sent.CompletionFlag == "PARTIAL"
    assert "CheXNet is undecided: it was not tuned" in texts(read_back(sent))
    _, undecided = groups_of(sent)[0]
    assert said(undecided, DECISION)[1] == "Indeterminate"
    assert measured(undecided) == {SCORE.value: 0.1}


def test_an_answer_that_a_warning_speaks_against_is_none_and_keeps_its_score() -> None:
    sent = report(radiograph(), DOUBTFUL, CLEAR)
    (doubtful, clear), boxes = groups_of(sent)
    assert (said(doubtful, DECISION)[1], said(clear, DECISION)[1]) == ("Indeterminate", "Negative")
    assert boxes == []
    assert measured(doubtful)[SCORE.value] == DOUBTFUL.score
    assert sent.CompletionFlag == "PARTIAL"
    lines = texts(read_back(sent))
    assert "looks like a lateral view" in lines
    assert "RetinaNet gives no answer (status doubtful): see the warnings" in lines


def test_a_box_that_rounding_took_beyond_the_border_ends_there() -> None:
    wide = with_values(FOUND_ANSWER, boxes=boxes(("mass", -0.001, 0.0, 32.001, 40.001, 0.5)))
    _, (box,) = groups_of(report(radiograph(), wide))
    assert box.roi.value[:, 0].tolist() == [0, 32, 32, 0, 0]
    assert box.roi.value[:, 1].tolist() == [0, 0, 40, 40, 0]


def test_both_objects_are_in_the_study_of_the_patient_in_separate_series() -> None:
    source = radiograph()
    made = [read_back(report(source, CLEAR)), read_back(capture(source))]
    for dataset in made:
        for keyword in (
            "StudyInstanceUID", "PatientID", "PatientName", "PatientBirthDate", "PatientSex",
            "StudyID", "StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName",
        ):  # fmt: skip
            assert dataset.get(keyword) == source.get(keyword), keyword
        assert dataset.Manufacturer == "cxr-compare"
        assert "research use only" in dataset.SeriesDescription
        assert dataset.InstanceNumber == 7
    series = {source.SeriesInstanceUID, *(dataset.SeriesInstanceUID for dataset in made)}
    assert len(series) == 3
    assert [dataset.Modality for dataset in made] == ["SR", "OT"]


def capture(source: Dataset) -> Dataset:
    return secondary_capture(Source.from_header(source), RGB, [DETECTOR], made=MADE)


def test_the_capture_shows_the_overlay_and_says_that_text_is_burned_in() -> None:
    sent = read_back(capture(radiograph()))
    np.testing.assert_array_equal(sent.pixel_array, RGB)
    assert (sent.BurnedInAnnotation, sent.ConversionType) == ("YES", "WSD")
    assert sent.ImageType[:2] == ["DERIVED", "SECONDARY"]
    assert "Research use only" in sent.ImageComments
    assert "RetinaNet (model 0123456789abcdef" in sent.DerivationDescription
    assert sent.SourceImageSequence[0].ReferencedSOPInstanceUID == "1.2.3.4"
    assert "LossyImageCompression" not in sent


def test_a_capture_of_a_lossy_source_says_so() -> None:
    source = radiograph()
    source.file_meta.TransferSyntaxUID = uid.JPEGBaseline8Bit
    assert capture(source).LossyImageCompression == "01"


def test_no_name_of_a_file_is_burned_into_the_overlay() -> None:
    answer = with_values(FOUND_ANSWER, pixels=np.full((40, 32), 90, np.uint8))
    one, other = (
        overlay_capture(
            Source.from_header(radiograph()),
            [with_values(answer, image=name)],
            [DETECTOR],
            made=MADE,
        )
        for name in ("Doe_Jane.dcm", "x.dcm")
    )
    assert one.PixelData == other.PixelData
    assert len(np.unique(one.pixel_array)) > 50  # something is drawn


def test_nothing_is_drawn_of_an_answer_that_a_warning_speaks_against() -> None:
    grey = np.full((40, 32), 90, np.uint8)
    grid = ActivationGrid(np.full((2, 2), 5.0), (0, 0, 32, 40), (1.0,))
    shown = ImagePrediction(
        "A", COLOUR, 0.8, boxes=np.array([[4, 4, 20, 20, 0.8]]), grid=grid, contours=(0.5,),
        point=(12.0, 12.0),
    )  # fmt: skip
    for warned, drawn in (((), True), ((Warned("odd"),), False)):
        answer = with_values(FOUND_ANSWER, warnings=warned, pixels=grey, prediction=shown)
        sent = overlay_capture(Source.from_header(radiograph()), [answer], [DETECTOR], made=MADE)
        image, caption = sent.pixel_array[:512, :420], sent.pixel_array[:512, 420:830]
        assert (image[6:500, 10:400] == 90).all()
        assert (caption[10:500, 10:400] != 90).any() == drawn


def test_what_is_sent_twice_is_one_instance(both: Dataset) -> None:
    assert to_bytes(both) == to_bytes(report(radiograph(), FOUND_ANSWER, CLEAR))
    assert both.SOPInstanceUID == result_uid("1.2.3.4", "sr", [DETECTOR, CLASSIFIER])
    assert capture(radiograph()).SOPInstanceUID == result_uid("1.2.3.4", "sc", [DETECTOR])


def test_whatever_changes_an_answer_makes_another_instance() -> None:
    tuned = replace(DETECTOR, threshold=0.3)
    uids = {
        result_uid(source, kind, systems)
        for source in ("1.2.3.4", "1.2.3.5")
        for kind in ("sr", "sc")
        for systems in (
            [DETECTOR],
            [tuned],
            [replace(DETECTOR, policy="sensitivity_90")],
            [CLASSIFIER],
            [DETECTOR, CLASSIFIER],
            [replace(DETECTOR, model_id="0" * 16)],
        )
    }
    assert len(uids) == 24
    assert all(uid.is_valid and uid.startswith("2.25.") for uid in uids)


def changed(**changes: object) -> Callable[[], Dataset]:
    return partial(radiograph, **changes)


ODD = {
    "plain": (changed(), {}),
    "MONOCHROME1": (changed(PhotometricInterpretation="MONOCHROME1"), {}),
    "no StudyID, sex or number": (
        changed(StudyID=None, PatientSex=None, InstanceNumber=None),
        {"StudyID": "", "PatientSex": "", "InstanceNumber": 1},
    ),
    "nothing of patient and study": (
        changed(**dict.fromkeys((
            "PatientID", "PatientName", "PatientBirthDate", "StudyDate", "StudyTime",
            "AccessionNumber", "ReferringPhysicianName",
        ))),
        {"PatientID": "", "PatientName": "", "StudyDate": ""},
    ),
    "empty dates": (changed(StudyDate="", PatientBirthDate=""), {"PatientBirthDate": ""}),
    "dates with dots": (raw("StudyDate", b"2026.01.02"), {"StudyDate": "20260102"}),
    "no such day": (raw("StudyDate", b"20261350"), {"StudyDate": ""}),
    "a time in words": (raw("StudyTime", b"noon"), {"StudyTime": ""}),
    "sex of another word": (raw("PatientSex", b"FEMALE"), {"PatientSex": ""}),
    "a weight of zero": (changed(PatientWeight=0), {"PatientWeight": None}),
    "an accession number too long": (raw("AccessionNumber", b"A" * 18), {"AccessionNumber": ""}),
    "an age without unit": (raw("PatientAge", b"51"), {"PatientAge": None}),
    "a number too large": (raw("InstanceNumber", b"99999999999"), {"InstanceNumber": 1}),
    "a name of one part": (changed(PatientName="Anonymous"), {"PatientName": "Anonymous"}),
    "a name of six parts": (raw("PatientName", b"A^B^C^D^E^F"), {"PatientName": ""}),
    "a Latin-1 name": (
        raw("PatientName", "Müller^Jörg".encode("latin-1"), "ISO_IR 100"),
        {"PatientName": "Müller^Jörg"},
    ),
    "a Japanese name": (
        raw("PatientName", b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B", "\\ISO 2022 IR 87"),
        {"PatientName": "Yamada^Tarou=山田^太郎"},
    ),
    "an unknown character set": (raw("PatientName", b"Doe^J", "NONE 1"), {"PatientName": "Doe^J"}),
    "frames where one is allowed": (changed(NumberOfFrames=2), {}),
    "several frames": (
        changed(
            SOPClassUID=uid.MultiFrameGrayscaleByteSecondaryCaptureImageStorage, NumberOfFrames=2
        ),
        {},
    ),
    "a digital X-ray that states its geometry": (
        changed(
            SOPClassUID=uid.DigitalXRayImageStorageForPresentation, Modality="DX",
            ImagerPixelSpacing=[0.14, 0.14], PatientOrientation=["L", "F"],
        ),
        {},
    ),
    "a modality of its own": (changed(Modality="XX", BodyPartExamined=None), {}),
}  # fmt: skip


@pytest.mark.parametrize("case", ODD)
def test_odd_sources_give_valid_objects(case: str, tmp_path: Path) -> None:
    make, expected = ODD[case]
    source = make()
    for instance in (report(source, ONE_BOX), capture(source)):
        sent = read_back(instance)
        for keyword, value in expected.items():
            sent_value = sent.get(keyword)
            assert sent_value is None if value is None else sent_value == value, keyword
        assert errors_of(instance, tmp_path) == []


def errors_of(instance: Dataset, folder: Path) -> list[str]:
    """What dicom3tools finds wrong with an object; nothing where they are not installed."""
    if shutil.which("dciodvfy") is None:
        return []
    path = folder / "made.dcm"
    path.write_bytes(to_bytes(instance))
    done = subprocess.run(["dciodvfy", "-new", path], capture_output=True, text=True, check=False)
    lines = (done.stdout + done.stderr).splitlines()
    assert {"ComprehensiveSR", "SCImage"} & set(lines)  # it says what it checks
    return [line for line in lines if line.startswith("Error")]


REFUSED = {
    "no study": (changed(StudyInstanceUID=None), "StudyInstanceUID .*missing"),
    "a series that is no UID": (raw("SeriesInstanceUID", b"abc"), "SeriesInstanceUID .*valid"),
    "a study below no root": (changed(StudyInstanceUID="20260101"), "is not valid"),
    "a patient id of two values": (raw("PatientID", b"P1\\Doe"), "PatientID .*64 characters"),
    "a patient id too long": (raw("PatientID", b"P" * 66), "PatientID .*64 characters"),
    "no size": (changed(Rows=None), "DICOM source: .*Rows"),
    "a retired kind of object": (
        changed(SOPClassUID="1.2.840.10008.5.1.4.1.1.6"),
        "Ultrasound Image Storage",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_source_that_nothing_can_be_filed_with_is_refused(case: str) -> None:
    make, message = REFUSED[case]
    with pytest.raises(InputError, match=message) as refused:
        report(make(), CLEAR)
    assert "Doe" not in str(refused.value)


def test_a_kind_of_object_that_highdicom_knows_not_gets_an_overlay() -> None:
    source = radiograph(SOPClassUID="1.2.840.113619.4.2", PatientAge="051Y")
    sent = read_back(capture(source))
    assert sent.SourceImageSequence[0].ReferencedSOPClassUID == "1.2.840.113619.4.2"
    assert sent.PatientAge == "051Y"


@given(
    keyword=st.sampled_from([
        "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime",
        "StudyID", "PatientAge", "PatientWeight", "StudyDescription", "Modality", "InstanceNumber",
        "NumberOfFrames", "ImagerPixelSpacing", "PatientOrientation", "StudyInstanceUID",
    ]),
    value=st.binary(max_size=70) | st.text("0129.-+e^=\\ \x00:YMF", max_size=18).map(str.encode),
    charset=st.sampled_from([None, "ISO_IR 100", "ISO_IR 192", "\\ISO 2022 IR 87"]),
)  # fmt: skip
@settings(max_examples=60)
def test_a_header_of_any_bytes_gives_an_object_or_one_line(keyword, value, charset):
    try:
        sent = read_back(capture(raw(keyword, value, charset)()))
    except InputError:
        assert keyword in ("PatientID", "StudyInstanceUID")  # all others can be left out
    else:
        assert len(str(sent)) > 1000  # which decodes every value


def test_uids_that_the_data_set_lacks_are_taken_from_the_meta_radiograph() -> None:
    source = radiograph(SOPInstanceUID=None)
    source.file_meta.MediaStorageSOPInstanceUID = "1.2.3.9"
    sent = capture(source)
    assert sent.SourceImageSequence[0].ReferencedSOPInstanceUID == "1.2.3.9"


def test_what_is_no_overlay_or_no_answer_is_refused() -> None:
    with pytest.raises(InputError, match=r"overlay: .*uint8 \(h, w, 3\).*\(24, 50\)"):
        secondary_capture(Source.from_header(radiograph()), RGB[..., 0], [DETECTOR])
    with pytest.raises(InputError, match=r"structured report: 0 .* 1 systems"):
        structured_report(Source.from_header(radiograph()), [], [DETECTOR])


def test_codes_of_findings_have_their_dicom_meaning() -> None:
    listed: dict[tuple[str, str], set[str]] = {}
    for scheme in ("DCM", "SCT"):
        for by_keyword in pydicom.sr._concepts_dict.concepts[scheme].values():
            for value, (meaning, _) in by_keyword.items():
                listed.setdefault((scheme, value), set()).add(meaning)
    for finding in {
        *public_sets()["nih"].findings,
        *public_sets()["vindr"].boxed,
        *XRAYVISION_FINDINGS,
        "covid_19",
    }:
        code = finding_code(finding)
        assert len(code.value) <= 16, finding
        assert len(code.meaning) <= 64, finding
        scheme = code.scheme_designator
        if scheme != PRIVATE_SCHEME:
            # SNOMED CT holds more than DICOM's context groups, which pydicom knows.
            fallback = {code.meaning} if scheme == "SCT" else set()
            assert code.meaning in listed.get((scheme, code.value), fallback), finding


def test_finding_of_any_name_has_a_distinct_code() -> None:
    names = ["a_very_long_name_of_a_finding", "a_very_long_name_of_another", "Ödem", "積水", "x"]
    codes = [finding_code(name) for name in names]
    assert len({code.value for code in codes}) == len(names)
    assert all(len(code.value) <= 16 and code.value.isascii() for code in codes)
    assert finding_code(names[0]) == finding_code(names[0])
    assert finding_code("Pleural effusion") == finding_code("pleural_effusion")


def exposed(path: Path, **changes: object) -> Path:
    """A DICOM file of squares of random grey."""
    pixels = np.kron(
        np.random.default_rng(1).integers(0, 256, (10, 8), np.uint8), np.ones((10, 10), np.uint8)
    )
    path.write_bytes(as_file(radiograph(pixels, **changes)))
    return path


def test_cxr_dicom_writes_both_objects_of_every_dicom_image(systems, tmp_path, capsys):
    folder, _ = systems["boxes"]
    image_file = exposed(tmp_path / "a.dcm")
    Image.fromarray(np.zeros((40, 32), np.uint8)).save(tmp_path / "b.png")
    for name in ("a-sr.dcm", "a-sc.dcm"):  # of an earlier call: no input, and written anew
        (tmp_path / name).write_bytes(b"broken")
    assert run_command(dicom, folder, tmp_path, out=tmp_path, device="cpu") == 0
    assert f"DICOM objects of 1 image: {tmp_path} (1 no DICOM)" in capsys.readouterr().err
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"a.dcm", "b.png", "a-sc.dcm", "a-sr.dcm"}
    (answer_a,) = predict(folder, image_file, device="cpu")
    (image,), boxes = groups_of(pydicom.dcmread(tmp_path / "a-sr.dcm"))
    assert measured(image)[SCORE.value] == answer_a.score
    assert [measured(box)[SCORE.value] for box in boxes] == answer_a.boxes["score"].tolist()
    assert errors_of(pydicom.dcmread(tmp_path / "a-sc.dcm"), tmp_path) == []


def test_an_image_without_study_gets_no_dicom_objects(systems, tmp_path, capsys):
    folder, _ = next(iter(systems.values()))
    image = exposed(tmp_path / "a.dcm", StudyInstanceUID=None)
    with pytest.raises(InputError, match="none of 1 file "):
        run_command(dicom, folder, image, out=tmp_path / "out", device="cpu")
    shown = capsys.readouterr()
    assert f"{image}: DICOM source: " in shown.err
    assert "StudyInstanceUID" in shown.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("share", ["few", pytest.param("all", marks=pytest.mark.long)])
def test_every_real_x_ray_gets_both_objects_without_an_error(share, shared_data, tmp_path):
    every = [*(shared_data / "rsna").rglob("*.dcm"), *(shared_data / "dicom_odd").iterdir()]
    names = ("gdcm-CR-MONO1", "RG3_RLE", "covid-chest", "0004cfab-14fd-4e49-80ba-63a80b6bddd6")
    files = [path for path in every if share == "all" or any(w in path.name for w in names)]
    made, refused = 0, 0
    for path in files:
        try:
            height, width = read_image(path).pixels.shape
        except InputError:
            continue
        box = boxes(("lung_opacity", 0.0, 1.5, float(width), float(height), 0.75))
        source = read_source(path)
        try:
            sent = report(source, with_values(FOUND_ANSWER, boxes=box))
        except InputError:
            refused += 1
            continue
        _, (read,) = groups_of(sent)
        assert read.roi.value.max(axis=0).tolist() == [width, height]
        assert sent.StudyInstanceUID == source.StudyInstanceUID
        assert errors_of(sent, tmp_path) == []
        assert errors_of(capture(source), tmp_path) == []
        made += 1
    assert (made, refused) == ((749, 3) if share == "all" else (4, 0))
