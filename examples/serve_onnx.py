"""Serve a file of be.export: rows of a CSV in, answers with their uncertainty out.

python examples/serve_onnx.py model.onnx rows.csv

It needs onnxruntime and NumPy, neither torch nor batchensemble. What the columns are and what the
outputs mean stands in the file's metadata.
"""

import csv
import json
import sys
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import onnxruntime

GAPS = {"", "NA", "N/A", "NaN", "nan", "None", "null", "NULL"}
TRUTH = {"True": 1.0, "TRUE": 1.0, "true": 1.0, "False": 0.0, "FALSE": 0.0, "false": 0.0}


class Model:
    """A file that predicts.

    Args:
        path: of the file, or its bytes.
    """

    def __init__(self, path: "str | bytes") -> None:
        self.session = onnxruntime.InferenceSession(path)
        about = self.session.get_modelmeta().custom_metadata_map["batchensemble"]
        self.about = json.loads(about)
        self.outputs = [each.name for each in self.session.get_outputs()]

    def predict(self, columns: "dict[str, np.ndarray]") -> "dict[str, np.ndarray]":
        """Return the outputs by name, for columns or other inputs by name."""
        return dict(zip(self.outputs, self.session.run(None, columns), strict=True))

    def predict_texts(self, rows: "list[dict[str, str]]") -> "dict[str, np.ndarray]":
        """Return the outputs for rows of a CSV."""
        columns = {}
        for column in self.about["columns"]:
            texts = [row[column["name"]].strip() for row in rows]
            if column["takes"] == "text":
                columns[column["name"]] = np.array(texts, dtype=object)
            else:
                read = seconds if column["takes"] == "seconds" else number
                columns[column["name"]] = np.array([read(text) for text in texts])
        return self.predict(columns)


def number(text: str) -> float:
    """Return a text as a number; NaN where it is missing."""
    return TRUTH[text] if text in TRUTH else float("nan" if text in GAPS else text)


def seconds(text: str) -> float:
    """Return a date such as 2026-01-31 or 2026-01-31 12:00 as seconds since 1970."""
    if text in GAPS:
        return float("nan")
    return datetime.fromisoformat(text).replace(tzinfo=timezone.utc).timestamp()


def main(path: str, table: str) -> None:
    """Print a line for each row."""
    model = Model(path)
    with Path(table).open(newline="", encoding="utf-8") as file:
        found = model.predict_texts(list(csv.DictReader(file)))
    names = model.about["class_names"]
    for row, mean in enumerate(found["mean"]):
        if "answer" in found and not found["answer"][row]:
            said = "no answer"
        elif names:
            said = f"{names[mean.argmax()]} ({mean.max():.0%})"
        else:
            said = f"{mean:.4g} ± {np.sqrt(found['total'][row]):.2g}"
        print(f"row {row + 1}: {said}, epistemic {found['epistemic'][row]:.3g}")


if __name__ == "__main__":
    main(*sys.argv[1:])
