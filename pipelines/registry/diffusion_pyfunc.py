"""The registered diffusion model as MLflow loads it: a table of n, seed and steps in, pictures out."""

from __future__ import annotations

from pathlib import Path

import cv2
import mlflow
import numpy as np
import pandas as pd
from diffusers import DDIMScheduler, UNet2DModel
from mlflow.pyfunc import PythonModel

from ipt.diffusion.denoiser import CONFIG, load_denoiser
from ipt.diffusion.denoising import sample_images

MOST_IMAGES = 1024  # of one row


class DiffusionModel(PythonModel):
    """Draws `n` pictures from `seed` in `steps` steps of DDIM for each row; the same row gives the same pictures.

    Returns a table with a row for each picture: `row` (of the input), `image` (PNG bytes) and `error`. An input row
    that cannot be served has one, with no image and the reason, and leaves the others alone.
    """

    def load_context(self, context) -> None:
        """Load the folder that was registered."""
        folder = Path(context.artifacts["checkpoint"])
        self.scheduler = DDIMScheduler.from_pretrained(folder / "scheduler")
        self.denoiser = UNet2DModel.from_pretrained(folder / "unet")  # in eval mode
        if (folder / "unet" / CONFIG).is_file():  # a plain denoiser has none
            self.denoiser = load_denoiser(self.denoiser, folder / "unet", self.scheduler)

    def predict(self, context, model_input: pd.DataFrame, params=None) -> pd.DataFrame:
        """A row for each picture, in the order of the input."""
        rows: list[dict[str, object]] = []
        for number, row in enumerate(model_input.to_dict("records")):
            try:
                rows += [{"row": number, "image": _encode(image), "error": None} for image in self._draw(row)]
            except (ValueError, KeyError, TypeError) as error:
                rows.append({"row": number, "image": None, "error": str(error)})
        return pd.DataFrame(rows, columns=["row", "image", "error"])

    def _draw(self, row: dict) -> np.ndarray:
        most = {"n": MOST_IMAGES, "seed": 2**63 - 1, "steps": self.scheduler.config.num_train_timesteps}
        values = {name: int(row[name]) for name in most}
        for name, value in values.items():
            low = 0 if name == "seed" else 1
            if not low <= value <= most[name]:
                raise ValueError(f"{name}: expected {low} to {most[name]}, got {value}")
        side = self.denoiser.config.sample_size
        images = sample_images(self.denoiser, self.scheduler, values["n"], side, values["seed"], values["steps"])
        return images.permute(0, 2, 3, 1).numpy()


def _encode(image: np.ndarray) -> bytes:
    return cv2.imencode(".png", np.rint(image * 255).astype(np.uint8)[..., ::-1])[1].tobytes()


mlflow.models.set_model(DiffusionModel())
