"""What `import cxr_compare` guarantees: names, text or Path, objects that print one line."""

import ast
import builtins
import doctest
import inspect
import pydoc
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import pytest

import cxr_compare
from tests.scripts.small_sets import refusal

ROOT = Path(__file__).resolve().parents[1]


def public_callables() -> Iterator[tuple[str, Callable[..., Any]]]:
    """Every public function, and the class and static methods of every public class."""
    for name in cxr_compare.__all__:
        member = getattr(cxr_compare, name)
        if inspect.isclass(member):
            for key, value in vars(member).items():
                if not key.startswith("_") and isinstance(value, classmethod | staticmethod):
                    yield f"{name}.{key}", getattr(member, key)
        elif callable(member):
            yield name, member


def test_every_path_argument_takes_text():
    paths = {
        f"{name}({parameter.name})": str(parameter.annotation)
        for name, function in public_callables()
        for parameter in inspect.signature(function).parameters.values()
        if re.search(r"\bPath", str(parameter.annotation))  # a command's are all of any kind
    }
    assert {"DataSet.open(folder)", "Predictions.open(folder)"} <= {*paths}
    refused = [
        name
        for name, kind in paths.items()
        if not re.search(r"str \| ([\w.]+\.)?Path|Path \| str", kind)
    ]
    assert not refused


def public_functions() -> list[Callable[..., Any]]:
    """Every public function of the package, of its metrics, and of a report."""
    names = {cxr_compare: cxr_compare.__all__, cxr_compare.metrics: cxr_compare.metrics.__all__}
    names[cxr_compare.Result] = ["plot", "save", "cases", "overlay"]
    members = [getattr(module, name) for module, own in names.items() for name in own]
    return [member for member in members if inspect.isfunction(member)]


@pytest.mark.parametrize("function", public_functions(), ids=lambda function: function.__name__)
def test_an_unknown_keyword_is_answered_with_the_one_that_was_meant(function):
    keywords = [
        parameter.name
        for parameter in inspect.signature(function).parameters.values()
        if parameter.kind in (parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD)
        and parameter.name not in ("self", "progress")
    ]
    for keyword in keywords[-1:]:
        with pytest.raises(cxr_compare.InputError, match=f"'{keyword}x'.*'{keyword}'"):
            function(**{f"{keyword}x": None})
    with pytest.raises(cxr_compare.InputError, match="'q_q_q'"):
        function(q_q_q=None)


def test_patient_is_answered_with_patients():
    with pytest.raises(cxr_compare.InputError, match="did you mean 'patients'"):
        cxr_compare.compare({"A": [0.1, 0.9]}, truth=[0, 1], patient=["p", "q"])


SHOWN = {
    ("check", "data"): {"str", "Path", "HasFolder"},
    ("compare", "systems"): {"str", "Path", "HasFolder", "Sequence", "Mapping"},
    ("serve", "runs"): {"str", "Path", "HasFolder", "Sequence"},
    ("train", "set_"): {"str", "Sequence", "Mapping", "NoneType"},
}


def test_a_notebook_shows_what_paths_systems_runs_and_settings_may_be():
    for (name, parameter), kinds in SHOWN.items():
        annotation = inspect.signature(getattr(cxr_compare, name)).parameters[parameter].annotation
        members = [getattr(member, "__origin__", member) for member in get_args(annotation)]
        assert {member.__name__ for member in members} == kinds


def test_an_object_that_lies_in_no_folder_is_refused_as_a_path():
    from cxr_compare.data_prep.audit.audit import Audit

    with pytest.raises(cxr_compare.InputError, match=r"^Audit: "):
        cxr_compare.check(Audit((), {}))


@pytest.mark.parametrize("opens", [cxr_compare.DataSet, cxr_compare.Predictions])
def test_folder_as_text_is_refused_like_one_as_path(opens):
    messages = []
    for folder in ("no/such/folder", Path("no/such/folder")):
        with pytest.raises(cxr_compare.InputError) as refused:
            opens.open(folder)
        messages.append(str(refused.value))
    assert messages[0] == messages[1]


@pytest.mark.parametrize("name", ["DataSet", "Predictions", "Run", "Result"])
def test_a_folder_given_to_a_class_is_answered_with_the_right_call(name, tmp_path):
    for folder in ("out/data", Path("out/data")):
        with pytest.raises(cxr_compare.InputError, match=rf"{name}\.open\('out/data'\)$"):
            getattr(cxr_compare, name)(folder)


def test_editors_and_type_checkers_see_the_names_that_are_there():
    tree = ast.parse(Path(cxr_compare.__file__).with_suffix(".pyi").read_text())
    imported = {
        alias.asname: node.module
        for node in tree.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.asname
    }
    defined = {
        node.name: f"cxr_compare.scripts.commands.{node.name}"
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and node.name != "__getattr__"
    }
    assert imported | defined == cxr_compare._HOMES | {"metrics": "cxr_compare"}


@pytest.mark.parametrize("name", ["compare", "prepare", "predict"])
def test_help_begins_with_a_signature_that_fits_a_screen(name):
    text = pydoc.render_doc(getattr(cxr_compare, name), renderer=pydoc.plaintext)
    signature = text.partition(f"{name}(")[2].partition(" -> ")[0].splitlines()
    assert len(signature) <= 16
    assert signature[-1].endswith("progress: bool = False)")
    assert "cxr_compare." not in "".join(signature)


def test_every_public_name_is_described_in_a_line():
    for name in set(dir(cxr_compare)) - {"__version__"}:
        sentence = (inspect.getdoc(getattr(cxr_compare, name)) or "").partition("\n")[0]
        assert sentence.endswith("."), name


def test_metrics_are_functions_of_arrays_with_examples():
    from cxr_compare import metrics

    for name in metrics.__all__:
        member = getattr(metrics, name)
        if inspect.isfunction(member):
            example = (inspect.getdoc(member) or "").partition("Example:")[2]
            assert f"metrics.{name}(" in example, name  # by the name that a user imports
    assert metrics.average_precision([0, 1], [0.1, 0.9]) == 1.0


def test_every_command_is_a_function_of_the_same_definition():
    from cxr_compare.scripts.command_list import all_commands, command_function

    for name in all_commands():
        assert getattr(cxr_compare, name) is command_function(name)


def test_an_audit_shows_its_problems_as_a_table_and_escapes_them():
    from cxr_compare.data_prep.audit.audit import Audit
    from cxr_compare.data_prep.audit.problem import Problem

    problem = Problem("leak", "error", "patients <in> two roles", 2, ("a", "b"), "split again" * 9)
    audit = Audit((problem,), {"images": 1200})
    assert repr(audit) == "<Audit of 1,200 images: error 1, warning 0, info 0>"
    page = audit._repr_html_()
    assert "patients &lt;in&gt; two roles" in page
    assert "split again" * 9 in page  # a notebook would cut what pandas shows
    assert list(audit.table["examples"]) == ["a, b"]


def documented_calls() -> list[ast.Call]:
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    blocks = [
        b for page in pages for b in re.findall(r"```python\n(.*?)```", page.read_text(), re.S)
    ]
    nodes = [node for block in blocks for node in ast.walk(ast.parse(block))]
    return [node for node in nodes if isinstance(node, ast.Call)]


def test_documented_calls_fit_the_functions():
    n_calls = 0
    for call in documented_calls():
        package, _, name = ast.unparse(call.func).rpartition(".")
        if package == "cxr_compare":
            keywords = {keyword.arg: None for keyword in call.keywords if keyword.arg}
            inspect.signature(getattr(cxr_compare, name)).bind(*call.args, **keywords)
            n_calls += 1
    assert n_calls >= 5


def test_the_page_on_python_names_what_a_result_has():
    from cxr_compare.evaluation.report.result import Result

    page = (ROOT / "docs" / "python.md").read_text()
    rows = re.findall(r"^\| (`.*?) \|", page, re.M)
    names = [name for row in rows for name in re.findall(r"`(\w+)", row)]
    assert len(names) >= 12
    assert [n for n in names if n not in Result.__dict__ | Result.__annotations__] == []


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: cxr_compare.load("no/such/run"), "^no/such/run: .*cxr train"),
        (
            lambda: cxr_compare.list_configs("chexnet_small", set_={"training": {"epoch": 2}}),
            "training.epoch.*training.epochs",
        ),
        (lambda: cxr_compare.train("chexnet_small", data="no/data", out="out"), "no/data"),
        (lambda: cxr_compare.compare({}, data="no/data"), "no/data"),
        (lambda: cxr_compare.compare({"A": "no/system"}, data="no/data"), "no/data"),
    ],
    ids=["run", "key", "data of train", "data of compare", "system"],
)
def test_bad_input_raises_one_line_in_python_too(call, message):
    with pytest.raises(cxr_compare.InputError, match=message) as refused:
        call()
    assert "\n" not in str(refused.value)


Y = [0, 1] * 30
S = [number / 60 for number in range(60)]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: cxr_compare.compare(Y, {"A": S}), "compare: .*systems"),
        (lambda: cxr_compare.compare({"A": S}, truth=Y, policy=0.5), "threshold=T"),
        (lambda: cxr_compare.compare({"A": S}, truth=Y, policy=[print]), "expected a text"),
        (lambda: cxr_compare.compare({"A": S}, truth=Y, metrics=[3]), "expected names"),
        (lambda: cxr_compare.compare({"A": print}, truth=Y), "^A: is a .*scores or boxes"),
        (lambda: cxr_compare.compare({"A": [[1 - s, s] for s in S]}, truth=Y), "one column"),
        (lambda: cxr_compare.load(S), "path .* list"),
        (lambda: cxr_compare.predict(object(), "folder"), "path .* object"),
        (lambda: cxr_compare.train(print, data="data", out="out"), "config: .*name"),
        (lambda: cxr_compare.train("chexnet", data=[1], out="out"), "data=.*path"),
        (lambda: cxr_compare.tune(S), "tune: .*data=..."),
    ],
)
def test_a_natural_mistake_is_answered_in_one_line(call, message):
    with pytest.raises(cxr_compare.InputError, match=message) as error:
        call()
    assert "\n" not in str(error.value)
    assert "--" not in str(error.value)


@pytest.mark.parametrize(
    ("call", "words", "argument", "option"),
    [
        (lambda: cxr_compare.show(), "show", "machine=True", "--machine"),
        (
            lambda: cxr_compare.compare("a.csv"),
            "compare a.csv",
            "data=SET, or truth=FILE",
            "--data SET, or --truth FILE",
        ),
        (
            lambda: cxr_compare.compare("A=a.csv", truth="labels.csv"),
            "compare A=a.csv --truth labels.csv",
            "allow_shared_patients=True",
            "--allow-shared-patients",
        ),
        (
            lambda: cxr_compare.compare(["A=a.csv", "B=b.csv"], truth="labels.csv", unit="person"),
            "compare A=a.csv B=b.csv --truth labels.csv --images some",
            'unit="person": ',
            "--images some: ",
        ),
    ],
)
def test_a_message_names_what_was_called(
    call, words, argument, option, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    rows = [f"i{number},{number % 2},p,{role}" for number, role in enumerate(["val", "test"] * 4)]
    Path("labels.csv").write_text("\n".join(["image_id,label,patient_id,role", *rows]))
    for file in ("a.csv", "b.csv"):
        scores = [f"i{number},0.{number}" for number in range(8)]
        Path(file).write_text("\n".join(["image_id,score", *scores]))
    with pytest.raises(cxr_compare.InputError) as error:
        call()
    assert argument in str(error.value)
    assert "--" not in str(error.value)
    assert option in refusal(capsys, *words.split())


def test_boxes_of_images_as_truth_are_labels_and_true_boxes():
    targets = [{"boxes": [[1.0, 1.0, 9.0, 9.0]] * label, "labels": [1] * label} for label in Y]
    outputs = [{"boxes": [[1.0, 1.0, 8.0, 9.0]], "scores": [score], "labels": [1]} for score in S]
    result = cxr_compare.compare({"A": outputs}, truth=targets, replicates=100)
    same = cxr_compare.compare({"A": outputs}, truth=Y, boxes=targets, replicates=100)
    assert result.to_frame().equals(same.to_frame())


def test_a_figure_that_needs_a_threshold_is_found_by_its_name():
    with pytest.raises(AttributeError, match=r"estimate.'accuracy'.*threshold"):
        _ = cxr_compare.metrics.accuracy


def test_a_decision_and_a_decoded_image_print_one_line():
    import numpy as np

    from cxr_compare.data_prep.images.decoded_image import DecodedImage
    from cxr_compare.evaluation.thresholds import ThresholdChoice

    chosen = {
        "max_f1": ThresholdChoice("max_f1", 0.25, None),
        "youden": ThresholdChoice("youden", None, "one class only"),
    }
    decision = cxr_compare.Choices(
        target="opacity", chosen_on={"n_images": 1200}, thresholds=chosen
    )
    assert repr(decision) == "<Choices on opacity: max_f1 from 0.25; chosen on 1,200 images>"
    image = DecodedImage(np.zeros((3, 5), np.uint8), {}, header={"view": "PA"})
    assert repr(image) == "<DecodedImage: 5 x 3 px, view PA>"
    assert image._repr_png_().startswith(b"\x89PNG")


def test_figure_of_one_class_gives_the_reason_it_is_undefined():
    with pytest.warns(UserWarning, match="auroc is undefined: no image is positive or"):
        assert cxr_compare.metrics.auroc([1, 1], [0.1, 0.4]) is None
    with pytest.warns(UserWarning, match="average_precision is undefined: no image is positive"):
        assert cxr_compare.metrics.average_precision([0, 0], [0.1, 0.4]) is None
    with pytest.warns(UserWarning, match="auroc is undefined"):
        assert cxr_compare.metrics.auroc_difference([1, 1], [0.1, 0.4], [0.2, 0.3]) is None
    with pytest.warns(UserWarning, match="ap50 is undefined"):
        cxr_compare.metrics.box_average_precision([{"boxes": []}], [{"boxes": []}], ["a"])
    with pytest.warns(UserWarning, match="precision is undefined: no image is called positive"):
        cxr_compare.metrics.classification_metrics([0, 1], [0.1, 0.4], threshold=0.9)


def public_docstrings() -> Iterator[tuple[str, str]]:
    """Every public name of `cxr_compare` and `metrics`, and the methods of public classes."""
    from cxr_compare import metrics

    members = [(name, getattr(cxr_compare, name)) for name in cxr_compare._HOMES]
    members += [(f"metrics.{name}", getattr(metrics, name)) for name in metrics.__all__]
    for name, member in members:
        yield name, inspect.getdoc(member) or ""
        if inspect.isclass(member):
            for key, value in vars(member).items():
                if not key.startswith("_") and (callable(value) or isinstance(value, classmethod)):
                    yield f"{name}.{key}", inspect.getdoc(getattr(member, key)) or ""


def test_examples_import_every_name_that_they_use():
    lacking = {}
    for name, docstring in public_docstrings():
        examples = doctest.DocTestParser().get_examples(docstring)
        tree = ast.parse("".join(example.source for example in examples))
        nodes = list(ast.walk(tree))
        known = set(dir(builtins))
        for node in nodes:
            if isinstance(node, ast.Import | ast.ImportFrom):
                known |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                known.add(node.id)
            elif isinstance(node, ast.arg):
                known.add(node.arg)
        used = {node.id for node in nodes if isinstance(node, ast.Name)}
        if used - known:
            lacking[name] = used - known
        modules = {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
        assert not {module for module in modules if str(module).startswith("cxr_compare.")}, name
    assert not lacking
