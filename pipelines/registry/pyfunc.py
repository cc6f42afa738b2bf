"""The registered model as MLflow loads it: a table of images with a task or an instruction in, restored images out.

MLflow keeps this file and the `ipt` package beside the weights (models from code), so loading needs only torch,
numpy, opencv, pillow, psutil, safetensors and mlflow, and unpickles nothing.
"""

from __future__ import annotations

import base64
import json

import mlflow
import numpy as np
import pandas as pd
from mlflow.pyfunc import PythonModel

from ipt.model import InstructIPT
from ipt.photos.file_processes import FileProcesses
from ipt.restoring.budget import MemoryBudget, file_limits
from ipt.restoring.restore import plan_restoration, restore_tasks

CANNOT_RESTORE = (ValueError, MemoryError, RuntimeError)  # wrong input; a picture too large for this machine

MAX_BYTES = 32_000_000  # of a row's picture; of this and its pixels the service on Ray takes as many
MAX_PIXELS = 12_000_000


class InstructIPTModel(PythonModel):
    """Restores each row's `image` (an encoded file: bytes or base64 text) as its `task` or `instruction` asks.

    With neither, the image decides. `strength` scales the task's bias; none is 1. Returns a table with `image` (bytes
    of a file of the format that came, or those that came where nothing was done), `task` (what was done: names in
    order, "" for an image that was left as it is), `probabilities` (JSON: of each task, as the one who decided saw
    them) and `error`: a row that cannot be restored says why there and leaves the others alone. A picture of more than
    MAX_BYTES or MAX_PIXELS is refused so: the library takes larger ones.
    """

    def load_context(self, context) -> None:
        """Load the checkpoint folder that was registered, and start a process that reads and writes the files."""
        share = MemoryBudget.of_what_is_free().files_alone()
        self.files = FileProcesses(1, file_limits(share, MAX_PIXELS))
        self.model = InstructIPT.from_pretrained(context.artifacts["checkpoint"])

    def predict(self, context, model_input: pd.DataFrame, params=None) -> pd.DataFrame:
        """One output row per input row, in order."""
        rows = [self._restore(row) for row in model_input.to_dict("records")]
        columns = ["image", "task", "probabilities", "error"]
        return pd.DataFrame(rows, columns=columns, dtype=object)  # of text, None would become NaN, which is no JSON

    def _restore(self, row: dict) -> dict:
        try:
            data = _bytes(row.get("image"))
            strength = _number(row.get("strength"))
            photo = self.files.read_photo(data, MAX_PIXELS)
            wish = {name: _text(name, row.get(name)) for name in ("task", "instruction")}
            plan = plan_restoration(self.model, photo.levels, **wish)
            restored = restore_tasks(self.model, photo.levels, plan.tasks, strength=strength)
            unchanged = np.array_equal(restored, photo.levels)
            return {
                "image": self.files.restored_file(photo, restored, data, unchanged),
                "task": ", ".join(plan.tasks),
                "probabilities": json.dumps({name: round(value, 3) for name, value in plan.probabilities.items()}),
                "error": None,
            }
        except CANNOT_RESTORE as error:
            return {"image": None, "task": None, "probabilities": None, "error": " ".join(str(error).split())}


def _bytes(value: object) -> bytes:
    size = len(value) * 3 // 4 if isinstance(value, str) else len(value) if isinstance(value, bytes) else 0
    if size > MAX_BYTES:
        raise ValueError(f"image: {size} bytes; the limit is {MAX_BYTES}")
    if isinstance(value, str):
        try:
            return base64.b64decode(value, validate=True)
        except ValueError as error:
            raise ValueError(f"image: expected bytes or base64 text: {error}") from error
    if not isinstance(value, bytes):
        raise ValueError(f"image: expected bytes or base64 text of a file, got {_kind(value)}")
    return value


def _text(name: str, value: object) -> str | None:
    if _is_missing(value):
        return None
    if not isinstance(value, str):
        raise ValueError(f"{name}: expected text, got {_kind(value)}")
    return value or None


def _number(value: object) -> float:
    if _is_missing(value):
        return 1.0
    if isinstance(value, bool | np.bool) or not isinstance(value, int | float | np.number):
        raise ValueError(f"strength: expected a number, got {_kind(value)}")
    return float(value)


def _is_missing(value: object) -> bool:
    return value is None or value is pd.NA or (isinstance(value, float | np.floating) and np.isnan(value))


def _kind(value: object) -> str:
    return "nothing" if _is_missing(value) else type(value).__name__


mlflow.models.set_model(InstructIPTModel())
