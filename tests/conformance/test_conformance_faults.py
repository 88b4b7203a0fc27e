"""Each fault that is put into a copy of pycocotools changes an answer to the cases of figures."""

import inspect
import json
import types
from pathlib import Path

import pytest
from pycocotools import cocoeval
from pycocotools.coco import COCO

from conformance.adapters.pycocotools import figures
from conformance.cases import questions
from conformance.check import answer

SOURCE = inspect.getsource(cocoeval)
FAULTS = json.loads((Path(__file__).parents[1] / "cases" / "coco_faults.json").read_text())["cases"]


def wrong_answers(source):
    """Values of the level `coco` that an evaluator with this source does not give."""
    module = types.ModuleType("pycocotools.changed")
    module.__package__ = "pycocotools"
    exec(compile(source, "cocoeval", "exec"), module.__dict__)  # noqa: S102 our own edits of it
    given = figures(COCO, module.COCOeval)
    answers = [answer(given, question) for question in questions() if "coco" in question.levels]
    return [each for each in answers if each.outcome != "equal"]


def test_a_copy_without_a_fault_gives_every_value():
    assert wrong_answers(SOURCE) == []


@pytest.mark.parametrize("fault", FAULTS, ids=[fault["name"] for fault in FAULTS])
def test_the_cases_show_a_fault(fault):
    assert fault["old"] in SOURCE
    wrong = wrong_answers(SOURCE.replace(fault["old"], fault["new"]))
    assert "other" in {each.outcome for each in wrong}, "a fault is a wrong number, and no crash"
