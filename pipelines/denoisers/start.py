"""A plain denoiser to go on from: a folder as diffusers writes its pipelines, checked before anything is trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ipt.diffusion.denoiser import CONFIG
from ipt.weights import load_weights
from pipelines.common.params import Diffusion

if TYPE_CHECKING:
    from diffusers import DDPMScheduler, UNet2DModel

KEY = "params.yaml.diffusion.start"


def read_start(settings: Diffusion) -> tuple[UNet2DModel, DDPMScheduler]:
    """The network of the pipeline in the folder `settings.start`, and a scheduler to train it with.

    Only safetensors are read. Raises ValueError for what is not a pipeline of an unconditional UNet2DModel, or one with
    biases already, another prediction type, another size or no pictures of three channels.
    """
    folder = Path(settings.start)
    index = _read_json(folder / "model_index.json")
    kind = index.get("unet")
    if kind != ["diffusers", "UNet2DModel"] or "scheduler" not in index:
        raise ValueError(f"{KEY}: {folder}: expected a pipeline of a UNet2DModel and a scheduler, got unet: {kind}")
    if (folder / "unet" / CONFIG).exists():
        raise ValueError(
            f"{KEY}: {folder}: expected a plain denoiser, this one has biases by noise level; rank: 0 trains one"
        )
    built, noise = (_read_json(folder / part) for part in ("unet/config.json", "scheduler/scheduler_config.json"))
    if "prediction_type" not in noise:  # DDPM would take another scheduler, such as of flow matching, for epsilon
        got = noise.get("_class_name")
        raise ValueError(f"{KEY}: {folder}: expected a scheduler that says what is predicted, got {got}")
    from diffusers import DDPMScheduler, UNet2DModel

    try:
        # Not `from_pretrained`: that fills in weights that are missing, with random ones.
        network, scheduler = UNet2DModel.from_config(built), DDPMScheduler.from_config(noise)
        load_weights(network, folder / "unet" / "diffusion_pytorch_model.safetensors")
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RuntimeError) as error:
        raise ValueError(f"{KEY}: {folder}: cannot be loaded: {error}") from error
    _check(network, scheduler, settings)
    return network, scheduler


def _check(network: UNet2DModel, scheduler: DDPMScheduler, settings: Diffusion) -> None:
    """Raise ValueError where the network is for other pictures or predictions than the settings."""
    config, side = network.config, settings.crop
    size = config.sample_size if isinstance(config.sample_size, int) else tuple(config.sample_size or ())
    for what, expected, got in (
        ("prediction type diffusion.prediction", settings.prediction, scheduler.config.prediction_type),
        ("size diffusion.crop", side, side if size == (side, side) else size),
        ("channels", (3, 3), (config.in_channels, config.out_channels)),
        ("no classes", (None, None), (config.class_embed_type, config.num_class_embeds)),
    ):
        if got != expected:
            raise ValueError(f"{KEY}: {settings.start}: expected {what} = {expected}, got {got}")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{KEY}: {path}: expected the folder of a diffusers pipeline, as its `save_pretrained` writes it: {error}"
        ) from error
    if not isinstance(content, dict):
        raise ValueError(f"{KEY}: {path}: expected a JSON object, got {type(content).__name__}")
    return content
