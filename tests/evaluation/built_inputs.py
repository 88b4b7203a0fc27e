"""Inputs of a comparison, built from a small base by recipes of `tests/cases/inputs.json`.

A recipe is ``{"base", "change", "as"}``: a table of the base, changes of it one after another, and
the form in which a user has it. A base is a table of `tests/cases/inputs.json`, with `image_id`.
"""

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd

EDGES = ["x1", "y1", "x2", "y2"]
SIZE = (200, 240)


def _sides(table):
    sizes = table.assign(width=table["x2"] - table["x1"], height=table["y2"] - table["y1"])
    return sizes.rename(columns={"x1": "x", "y1": "y"}).drop(columns=["x2", "y2"])


def _centre(table):
    x, y = (table["x1"] + table["x2"]) / 2, (table["y1"] + table["y2"]) / 2
    return _sides(table).drop(columns=["x", "y"]).assign(x_center=x, y_center=y)


def _cell(table, row, column, value):
    cells = table[column].astype(object)
    cells.iloc[row] = value
    return table.assign(**{column: cells})


def _swap(table, one, other):
    return table.assign(**{one: table[other], other: table[one]})


def _linear(table, columns, factor, shift=0):
    return table.assign(**{column: table[column] * factor + shift for column in columns})


def _again(table, rows, **values):
    return pd.concat([table, table.iloc[rows].assign(**values)], ignore_index=True)


CHANGES = {
    "rename": lambda table, names: table.rename(columns=names),
    "set": lambda table, column, values: table.assign(**{column: values}),
    "cell": _cell,  # row, column, value
    "drop": lambda table, columns: table.drop(columns=columns),
    "rows": lambda table, start, stop: table.iloc[start:stop],
    "at least": lambda table, column, least: table[table[column] >= least],
    "again": lambda table, rows: _again(table, rows),
    "again with": lambda table, rows, column, value: _again(table, rows, **{column: value}),
    "blank row": lambda table, image: pd.concat([table, pd.DataFrame({"image_id": [image]})]),
    "reverse": lambda table: table.iloc[::-1],
    "index": lambda table, start: table.set_axis(range(start, start + len(table))),
    "linear": _linear,  # columns, factor, what is added
    "swap": _swap,
    "map": lambda table, column, words: table.assign(
        **{column: [words[str(value)] for value in table[column]]}
    ),
    "name": lambda table, text: table.assign(
        image_id=[text.format(name) for name in table["image_id"]]
    ),
    "upper": lambda table: table.assign(image_id=table["image_id"].str.upper()),
    "numbers": lambda table, text: table.assign(
        image_id=[text.format(number) for number in range(1, len(table) + 1)]
    ),
    "floats": lambda table: table.assign(image_id=table["image_id"].astype(float)),
    "integers": lambda table: table.assign(image_id=table["image_id"].astype(int)),
    "text": lambda table, column, text: table.assign(
        **{column: [text.format(value) for value in table[column]]}
    ),
    "most": lambda table: table.assign(score=np.maximum(table["score"], 1 - table["score"])),
    "class by": lambda table, words: table.assign(
        predicted_class=np.where(table["score"] > 0.5, *words)
    ),
    "sides": _sides,
    "centre": _centre,
    "box text": lambda table: (
        table.assign(bbox=table[EDGES].to_numpy().tolist())
        .astype({"bbox": str})
        .drop(columns=EDGES)
    ),
    "join": lambda table, other: table.merge(other, how="left", on="image_id"),
}


class Inputs:
    """Builds the values of a recipe, with files in a folder."""

    def __init__(self, base, folder):
        self.folder, self.number = folder, 0
        self.tables = {
            name: pd.DataFrame(rows, columns=columns)
            for name, (columns, rows) in base["tables"].items()
        }
        self.ids = self.tables["labels"]["image_id"].tolist()

    def build(self, recipe):
        """The value of a recipe; a list, a text or nothing is itself."""
        if not isinstance(recipe, dict):
            return recipe
        table = self.tables[recipe["base"]]
        for name, *arguments in recipe.get("change", ()):
            if name == "join":
                arguments = [self.build(arguments[0])]
            table = CHANGES[name](table, *arguments)
        return getattr(self, "as_" + recipe.get("as", "frame"))(table, **recipe.get("with", {}))

    def path(self, suffix):
        self.number += 1
        return self.folder / f"f{self.number}{suffix}"

    def as_frame(self, table):
        return table

    def as_csv(self, table, sep=",", encoding="utf-8", header=True):
        path = self.path(".csv")
        table.to_csv(path, index=False, sep=sep, encoding=encoding, header=header)
        return str(path)

    def as_missing_file(self, table):
        return str(self.path(".csv"))

    def as_array(self, table, column="score", dtype=None):
        return table[column].to_numpy(dtype)

    def as_list(self, table, column="score"):
        return table[column].tolist()

    def as_column(self, table, column="score"):
        return table[[column]].to_numpy()

    def as_two_columns(self, table):
        return np.column_stack([1 - table["score"], table["score"]])

    def as_dictionary(self, table):
        return dict(zip(table["image_id"], table["score"], strict=True))

    def as_function(self, table):
        return print

    def as_masked(self, table):
        scores = table["score"].to_numpy()
        return np.ma.masked_array(scores, mask=np.arange(len(scores)) == 0)

    def as_complex(self, table):
        return table["score"].to_numpy() + 1j

    def as_series(self, table, column="score"):
        return table.set_index("image_id")[column]

    def as_rows(self, table, column="score"):
        return table[column]

    def as_two_levels(self, table):
        index = pd.MultiIndex.from_tuples([(image, 1) for image in table["image_id"]])
        return pd.Series(table["score"].to_numpy(), index)

    def as_coco_truth(self, table, changes=None, images=None, annotations=None, categories=()):
        """A COCO annotation file of all images, with the boxes of a table as lesions."""
        width, height = SIZE
        numbers = {name: number for number, name in enumerate(self.ids, start=1)}
        listed = [
            {"id": number, "file_name": f"{name}.png", "width": width, "height": height}
            for name, number in numbers.items()
        ]
        marks = [
            {"id": row + 1, "image_id": numbers[image], "category_id": 1, "bbox": box}
            for row, (image, box) in enumerate(_boxes_of(table))
        ]
        for mark in marks:
            mark.update(annotations or {})
        for number, values in (changes or {}).items():
            marks[int(number)].update(values)
        for image in listed:
            for key in images or ():
                del image[key]
        kinds = [{"id": 1, "name": "nodule"}, *categories]
        path = self.path(".json")
        path.write_text(json.dumps({"images": listed, "annotations": marks, "categories": kinds}))
        return str(path)

    def entries(self, table, by="id", keys=None, first=None, corners=False, file_name=False):
        """COCO results of a table, with further keys in all entries, or in the first."""
        numbers = {name: number for number, name in enumerate(self.ids, start=1)}
        entries = []
        for (image, box), score in zip(_boxes_of(table), table["score"], strict=True):
            x, y, width, height = box
            box = [x, y, x + width, y + height] if corners else box
            of_image = numbers[image] if by == "id" else f"{image}.png"
            entry = {"image_id": of_image, "category_id": 1, "bbox": box, "score": score}
            entry |= {"file_name": f"{image}.png"} if file_name else {}
            entries.append({**entry, **(keys or {})})
        if first is not None:
            entries[0] = {k: v for k, v in {**entries[0], **first}.items() if v != "none"}
        return entries

    def as_coco_list(self, table, **options):
        return self.entries(table, **options)

    def as_coco(self, table, within=None, twice=None, **options):
        entries = self.entries(table, **options)
        if twice is not None:
            entries += [{**entry, **twice} for entry in entries]
        path = self.path(".json")
        path.write_text(json.dumps({within: entries} if within else entries))
        return str(path)

    def outputs(self, table):
        for image in self.ids:
            rows = table[table["image_id"] == image]
            yield image, rows[EDGES].to_numpy(float), rows["score"].to_numpy(float)

    def as_torchvision(self, table, scores="all", skip=0):
        found = [
            {"boxes": boxes, "scores": values, "labels": np.ones(len(boxes), int)}
            for _, boxes, values in self.outputs(table)
        ]
        for number, output in enumerate(found):
            if scores == "none" or (scores == "some" and number % 2 == 0):
                del output["scores"]
        return found[skip:]

    def as_supervision(self, table):
        return [
            SimpleNamespace(xyxy=boxes, confidence=scores, class_id=np.zeros(len(boxes)), data={})
            for _, boxes, scores in self.outputs(table)
        ]

    def as_ultralytics(self, table):
        """Results in another order than the images, which their paths name."""
        found = []
        for image, boxes, scores in self.outputs(table):
            own = SimpleNamespace(xyxy=boxes, conf=scores, cls=np.zeros(len(boxes)))
            found.append(SimpleNamespace(boxes=own, path=f"/x/{image}.png", names={0: "nodule"}))
        return found[::-1]

    def as_yolo(self, table, confidence=True, kind=0, lines=None):
        folder = self.path("-yolo")
        folder.mkdir()
        for image, boxes, scores in self.outputs(table):
            sides = np.tile(SIZE, 2)
            centre = np.hstack([(boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]])
            rows = [
                " ".join(
                    [str(kind), *map(str, row.round(6)), *([str(score)] if confidence else [])]
                )
                for row, score in zip(centre / sides, scores, strict=True)
            ]
            if rows:
                (folder / f"{image}.txt").write_text("\n".join(rows))
        for image, line in (lines or {}).items():
            (folder / f"{image}.txt").write_text(line)
        return str(folder)


def _boxes_of(table):
    """Image and left, top, width and height of each row."""
    for row in table.itertuples():
        yield row.image_id, [row.x1, row.y1, row.x2 - row.x1, row.y2 - row.y1]
