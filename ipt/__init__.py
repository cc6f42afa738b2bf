"""The model: torch, numpy and safetensors only.

Images are float32 RGB in [0, 1]: (H, W, 3) in numpy, (B, 3, H, W) in torch. There are three: clean, degraded, restored.
"""

from ipt.checkpoint import load_model, save_model
from ipt.config import ModelConfig, preset_config
from ipt.model import InstructIPT
from ipt.restore import restore_image

__all__ = ["InstructIPT", "ModelConfig", "load_model", "preset_config", "restore_image", "save_model"]
