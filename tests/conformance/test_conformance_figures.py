"""The figures of `conformance/figures` by this program, and by independent ones beside it."""

import json
from functools import cache

import numpy as np
import pandas as pd
import pytest

import cxr_compare
from conformance import cases, run
from conformance.cases import RATES
from cxr_compare import InputError, metrics
from tests.cases import CONFORMANCE, load
from tests.oracles import figures as oracles
from tests.oracles import levels

FILES = [f"figures/{path.name}" for path in sorted((CONFORMANCE / "figures").glob("*.json"))]
CORNERS = ["image_id", "x1", "y1", "x2", "y2"]
RANKED = ("ap50", "ap", "froc_mean", "pointing_accuracy", "rsna_score")
OF_BOXES = {*RANKED, *(f"froc_at_{rate}" for rate in RATES)}
DRAWS = 20_000
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # the reason of an undefined figure


@pytest.mark.parametrize("case", load(*FILES))
def test_a_case_has_its_figures(case):
    for name, figure in case["figures"].items():
        for way, value in ways(name, case["data"]).items():
            assert agrees(value, figure), f"{name} by {way}: {value}"


@pytest.mark.parametrize("case", load(*FILES))
def test_independent_programs_give_the_figures_of_a_case(case):
    for name, figure in case["figures"].items():
        value = oracles.figure(name, case["data"])
        assert agrees(value, figure), f"{name}: {value}"


@pytest.mark.parametrize("case", load(*FILES))
def test_pycocotools_gives_what_a_case_says(case):
    said = {name: figure["pycocotools"] for name, figure in case["figures"].items()}
    said = {name: value for name, value in said.items() if value is not None}
    theirs = oracles.pycocotools(case["data"]) if said else {}
    for name, value in said.items():
        assert theirs[name] == (value if isinstance(value, str) else pytest.approx(value, abs=1e-9))


@pytest.mark.parametrize("case", load(*FILES))
def test_a_value_has_the_levels_whose_rules_give_it(case):
    for name, figure in case["figures"].items():
        assert figure["levels"] == levels.of_value(name, case), name


@pytest.mark.parametrize(
    "program",
    [
        "pycocotools",
        *(
            pytest.param(name, marks=pytest.mark.release)
            for name in (
                "cxr_compare",
                "faster_coco_eval",
                "scikit_learn",
                "supervision",
                "torchmetrics",
            )
        ),
    ],
)
def test_the_page_of_peers_has_the_answers_of_a_program(program):
    page = (CONFORMANCE.parent / "docs" / "peers.md").read_text(encoding="utf-8")
    asked = run.ask(program, cases.questions())
    rows = [line for line in run.page([asked]).splitlines() if line.startswith(f"| {asked.name} ")]
    assert rows
    assert set(rows) <= set(page.splitlines())
    assert run.unexplained(asked) == []


@pytest.mark.parametrize("order", [["a", "b"], ["b", "a"]])
def test_a_comparison_ranks_ties_by_image_id_in_whatever_order_the_rows_stand(order, tmp_path):
    score = [[image, 0, 0, 10, 10, 0.5] for image in order]
    tables = {
        "boxes.csv": pd.DataFrame(score, columns=[*CORNERS, "score"]),
        "truth.csv": pd.DataFrame({"image_id": order, "label": [int(i == "b") for i in order]}),
        "true_boxes.csv": pd.DataFrame([["b", 0, 0, 10, 10]], columns=CORNERS),
    }
    for name, table in tables.items():
        table.to_csv(tmp_path / name, index=False)
    for boxes, truth, true_boxes in (tables.values(), [tmp_path / name for name in tables]):
        result = cxr_compare.compare({"D": boxes}, truth=truth, boxes=true_boxes, replicates=100)
        assert figures_of(result)["ap50"] == pytest.approx(0.5)


def agrees(value, figure):
    if value is None or figure["value"] is None:
        return value is None and figure["value"] is None
    return value == pytest.approx(figure["value"], abs=figure["tolerance"], rel=0)


def ways(name, data):
    """A figure by each public way to it: by its function, by `estimate`, by a comparison."""
    metric, _, threshold = name.partition("@")
    at = {"threshold": float(threshold)} if threshold else {}
    if "classes" in data:
        return by_class(name, data)
    if metric in OF_BOXES:
        return of_boxes(metric, data, at)
    if "draws" in data:
        return of_draws(metric, data)
    if "systems" in data:
        return {"auroc_difference": of_two(metric, data)}
    if "labels" in data:
        return of_images(metric, data, at)
    return {"compare": of_detector(json.dumps(data), at.get("threshold")).get(metric)}


def tables(data):
    """Predicted and true boxes of a case."""
    kinds = ["finding"] if "classes" in data else []
    boxes = pd.DataFrame(data["boxes"], columns=[*CORNERS, "score", *kinds])
    truth = pd.DataFrame(data["truth"], columns=[*CORNERS, *kinds])
    if "crowd" in data:
        truth["crowd"] = data["crowd"]
    return boxes, truth


def of_boxes(metric, data, at):
    boxes, truth = tables(data)
    images = data["images"]
    if metric in ("ap50", "ap"):
        found = {"box_average_precision": metrics.box_average_precision(boxes, truth, images)}
        found = {way: values[metric] for way, values in found.items()}
    elif metric.startswith("froc"):
        rate = RATES.get(metric.removeprefix("froc_at_"))
        curve = metrics.froc(boxes, truth, images)
        found = {"froc": froc_of(curve, [rate] if rate else RATES.values())}
    elif metric == "rsna_score":
        found = {"rsna_score": metrics.rsna_score(boxes, truth, images, **at)}
    else:
        found = {}
    if metric != "rsna_score" and is_comparable(data):
        found["compare"] = of_detector(json.dumps(data), None)[metric]
    return found


def is_comparable(data):
    """True for lesions and boxes of listed images, whose ties rank in the order of their ids."""
    listed = {row[0] for row in [*data["truth"], *data["boxes"]]} <= set(data["images"])
    has_both = data["truth"] and data["boxes"] and "crowd" not in data
    return has_both and listed and data["images"] == sorted(data["images"])


def froc_of(curve, rates):
    """Mean over rates of the highest sensitivity within each."""
    if not len(curve.sensitivity):
        return None
    within = [curve.sensitivity[curve.false_positives_per_image <= rate].max() for rate in rates]
    return float(np.mean(within))


def by_class(name, data):
    """A figure of each class, or its mean over the classes of which it is defined."""
    metric, _, kind = name.partition("/")
    found = {"compare": of_findings(json.dumps(data), metric)}
    if metric == "ap50":
        boxes, truth = tables(data)
        with pytest.raises(InputError) as refused:
            metrics.box_average_precision(boxes, truth, data["images"])
        assert all(each in str(refused.value) for each in data["classes"])
        parts = {
            each: [table[table["finding"] == each] for table in (boxes, truth)]
            for each in data["classes"]
        }
        found["box_average_precision"] = {
            each: metrics.box_average_precision(*part, data["images"])[metric]
            for each, part in parts.items()
        }
    if kind:
        return {way: values[kind] for way, values in found.items()}
    means = {way: mean_of_known(values.values()) for way, values in found.items()}
    return means | of_mean(json.dumps(data), metric)


@cache
def findings(text):
    """One comparison of all classes."""
    data = json.loads(text)
    boxes, true_boxes = tables(data)
    truth = pd.DataFrame({"image_id": data["images"]})
    for kind in data["classes"]:
        sick = true_boxes.loc[true_boxes["finding"] == kind, "image_id"]
        truth[kind] = truth["image_id"].isin(sick).astype(int)
    return cxr_compare.compare(
        {"D": boxes}, truth=truth, boxes=true_boxes, target=data["classes"], replicates=100
    )


def of_findings(text, metric):
    """A figure of each class; None for a class that the comparison leaves out."""
    results = findings(text).results
    return {
        kind: figures_of(results[kind])[metric] if kind in results else None
        for kind in json.loads(text)["classes"]
    }


def of_mean(text, metric):
    """The mean over classes that the comparison gives; none if their figures have no interval."""
    macro = findings(text).macro.query("second == ''")
    values = macro.loc[macro["metric"] == metric, "estimate"].dropna()
    return {"macro": float(values.iloc[0])} if len(values) else {}


def mean_of_known(values):
    return float(np.mean([value for value in values if value is not None]))


def figures_of(result):
    """Figures of the first system on all images, by metric."""
    rows = result.to_frame().query("second == ''").set_index("metric")
    return rows["estimate"].map(lambda value: None if np.isnan(value) else value).to_dict()


def of_images(metric, data, at):
    labels, scores = (
        pd.Series(data[key], data["images"], dtype=float) for key in ("labels", "scores")
    )
    patients = pd.Series(data["patients"]) if "patients" in data else None
    if metric in ("auroc_low", "auroc_high"):
        one = metrics.estimate("auroc", labels, scores)
        return {"estimate": none_if_nan(one.ci_low if metric == "auroc_low" else one.ci_high)}
    if metric == "brier":  # of calibrated probabilities alone
        return {}
    one = metrics.estimate(metric, labels, scores, patients=patients, replicates=100, **at)
    found = {"estimate": none_if_nan(one.estimate)}
    if at:
        found["classification_metrics"] = metrics.classification_metrics(labels, scores, **at)[
            metric
        ]
    if metric in ("auroc", "average_precision"):
        found["function"] = getattr(metrics, metric)(labels, scores)
    return found


def none_if_nan(value):
    return None if np.isnan(value) else value


@cache
def of_detector(text, threshold):
    """Image-level figures of a case's boxes by a comparison, by name."""
    data = json.loads(text)
    boxes, true_boxes = tables(data)
    sick = set(true_boxes["image_id"])
    labels = pd.Series([int(image in sick) for image in data["images"]], index=data["images"])
    policy = {"policy": [f"threshold={threshold}"]} if threshold else {}
    result = cxr_compare.compare(
        {"D": boxes}, truth=labels, boxes=true_boxes, replicates=100, **policy
    )
    return figures_of(result)


def of_two(metric, data):
    labels = pd.Series(data["labels"])
    first, second = (
        pd.Series(data["systems"][name], dtype=float).reindex(labels.index) for name in "AB"
    )
    if metric in ("auroc_A", "auroc_B"):
        return metrics.auroc(labels, first if metric == "auroc_A" else second)
    by_image = metric.endswith("_by_image")
    patients = pd.Series(data["patients"]) if "patients" in data and not by_image else None
    gap = metrics.auroc_difference(labels, first, second, patients)
    if gap is None:
        return None
    values = {
        "auroc_difference": gap.estimate,
        "auroc_difference_se": gap.error,
        "auroc_difference_p": gap.p_value,
        "auroc_difference_low": gap.ci_low if gap.has_interval else None,
        "auroc_difference_high": gap.ci_high if gap.has_interval else None,
    }
    return values[metric.removesuffix("_by_image")]


def of_draws(metric, data):
    """Figures of a bootstrap: by listed resamples of the public bootstrap, and by its intervals."""
    if metric.startswith("draws_of_") or metric.endswith("_mean_of_draws"):
        return {"cluster_bootstrap": float(drawn(json.dumps(data))[metric].mean())}
    end = "estimate"
    if metric.endswith(("_low", "_high")):
        metric, _, end = metric.rpartition("_")
        end = f"ci_{end}"
    labels = pd.Series(data["labels"])
    patients = pd.Series(data["patients"])
    if metric == "average_precision":
        scores = pd.Series(data["scores"])
        one = metrics.estimate("average_precision", labels, scores, patients=patients)
        return {"estimate": getattr(one, end)}
    return {"compare": difference(json.dumps(data))[end]}


@cache
def difference(text):
    """Average precision of the first system minus that of the second, by a comparison."""
    data = json.loads(text)
    systems = {name: pd.Series(scores) for name, scores in data["systems"].items()}
    result = cxr_compare.compare(
        systems, truth=pd.Series(data["labels"]), patients=pd.Series(data["patients"])
    )
    rows = result.to_frame().query("metric == 'average_precision' and second != ''")
    return rows.iloc[0].to_dict()


@cache
def drawn(text):
    """Values of figures in each resample of the patients by `metrics.cluster_bootstrap`."""
    data = json.loads(text)
    patients = sorted(set(data["patients"].values()))
    systems = list(data.get("systems", {"": data.get("scores")}).values())

    @cache
    def figure(weights):
        times = dict(zip(patients, weights, strict=True))
        images = [i for i in data["images"] for _ in range(times[data["patients"][i]])]
        labels = [data["labels"][image] for image in images]
        values = [metrics.average_precision(labels, [s[i] for i in images]) for s in systems]
        return values[0] - values[1] if len(values) == 2 else values[0]

    name = "average_precision" + "_difference" * (len(systems) == 2)

    def statistic(weights):
        return {
            f"{name}_mean_of_draws": np.array([figure(tuple(row)) for row in weights.tolist()]),
            "draws_of_three_patients": (weights == 1).all(axis=1).astype(float),
            "draws_of_one_patient": (weights == len(patients)).any(axis=1).astype(float),
        }

    return metrics.cluster_bootstrap(statistic, metrics.Resamples(len(patients), DRAWS))
