"""How large a tile may be: what a network needs for a pixel, and what the machine has free."""

from __future__ import annotations

import psutil
import torch

from ipt.network.config import ModelConfig
from ipt.restoring.tiles import BLEND

SHARE = 0.5  # of the free memory
MOST = 1.2e9  # bytes on the CPU: larger tiles are no faster, and other programs want memory too
MAPS = 7  # feature maps of the first level's width, expanded, that are alive at once; measured


def affordable_tile(config: ModelConfig, reach: int, device: torch.device) -> int:
    """The side in pixels of a tile that fits into the free memory of `device`, at least what `reach` needs."""
    smallest = 2 * reach + BLEND + config.size_multiple
    if device.type == "cuda":
        free = torch.cuda.mem_get_info(device)[0] * SHARE
    else:
        free = min(psutil.virtual_memory().available * SHARE, MOST)
    side = int((free / bytes_per_pixel(config)) ** 0.5)
    return max(side // config.size_multiple * config.size_multiple, smallest)


def bytes_per_pixel(config: ModelConfig) -> float:
    """Working memory of the backbone for a pixel of the picture, in float32."""
    return 4 * MAPS * config.width * config.expansion / config.patch**2
