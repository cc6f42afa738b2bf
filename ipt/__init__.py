"""The model, and what restores photographs with it: torch, OpenCV and Pillow; no pipeline.

Images are float32 RGB in [0, 1]: (H, W, 3) in numpy, (B, 3, H, W) in torch. There are three: clean, degraded, restored.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ipt.model import InstructIPT
    from ipt.network.config import ModelConfig, preset_config
    from ipt.restoring.restore import restore_image

__all__ = [
    "InstructIPT",
    "ModelConfig",
    "preset_config",
    "restore_image",
]

RELEASED = "instruct-ipt"  # the name of the model that comes with the package
_HOMES = {
    "InstructIPT": "model",
    "ModelConfig": "network.config",
    "preset_config": "network.config",
    "restore_image": "restoring.restore",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for: `ipt.photos` alone then costs no import of torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'ipt' has no attribute '{name}'")
    return getattr(import_module(f"ipt.{_HOMES[name]}"), name)
