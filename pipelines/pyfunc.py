"""The registered model as MLflow loads it: a table of images with a task or an instruction in, restored images out.

MLflow keeps this file and the `ipt` package beside the weights (models from code), so loading needs only torch,
numpy, opencv, safetensors and mlflow, and unpickles nothing.
"""

from __future__ import annotations

import base64

import cv2
import mlflow
import numpy as np
import pandas as pd

from ipt.checkpoint import load_model
from ipt.restore import plan_restoration, restore_tasks


class InstructIPTModel(mlflow.pyfunc.PythonModel):
    """Restores each row's `image` (an encoded file: bytes or base64 text) as its `task` or `instruction` asks.

    With neither, the image decides. Returns a table with `image` (PNG bytes), `task` (what was done: names in order,
    "" for an image that was left as it is) and `error`: a row that cannot be restored
    says why there and leaves the others alone.
    """

    def load_context(self, context) -> None:
        """Load the checkpoint folder that was registered."""
        self.model = load_model(context.artifacts["checkpoint"])

    def predict(self, context, model_input: pd.DataFrame, params=None) -> pd.DataFrame:
        """One output row per input row, in order."""
        return pd.DataFrame([self._restore(row) for row in model_input.to_dict("records")])

    def _restore(self, row: dict) -> dict:
        try:
            image = _decode(row["image"])
            named = {
                name: row.get(name) if isinstance(row.get(name), str) and row[name] else None
                for name in ("task", "instruction")
            }
            plan = plan_restoration(self.model, image, **named)
            return {
                "image": _encode(restore_tasks(self.model, image, plan.tasks)),
                "task": ", ".join(plan.tasks),
                "error": None,
            }
        except (ValueError, KeyError, TypeError) as error:
            return {"image": None, "task": None, "error": str(error)}


def _decode(data: bytes | str) -> np.ndarray:
    if isinstance(data, str):
        data = base64.b64decode(data, validate=True)
    levels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
    if levels is None:
        raise ValueError(f"image: expected an encoded picture such as PNG or JPEG, got {len(data)} bytes of else")
    return levels[..., ::-1].astype(np.float32) / 255


def _encode(image: np.ndarray) -> bytes:
    return cv2.imencode(".png", np.rint(image * 255).astype(np.uint8)[..., ::-1])[1].tobytes()


mlflow.models.set_model(InstructIPTModel())
