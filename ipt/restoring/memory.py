"""How large a tile may be: what a network needs for a pixel, and what the machine has free."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from ipt.network.config import ModelConfig
from ipt.network.precision import uses_bf16
from ipt.network.task_network import TaskNetwork
from ipt.restoring.free_memory import free_memory
from ipt.restoring.tiles import BLEND

SHARE = 0.5  # of the free memory
KEPT = 2  # times what lives at once is what the C library holds, on the CPU; measured
MOST = 0.8e9  # bytes alive at once on the CPU: larger tiles are no faster, and other programs want memory too
TRIM_THRESHOLD, MMAP_MAX = -1, -4  # of mallopt(3)
MAPS = 7  # feature maps of the first level's width, expanded, that are alive at once; measured


def affordable_tile(config: ModelConfig, reach: int, device: torch.device, memory: int | None = None) -> int:
    """The side in pixels of a tile that fits into the free memory of `device`, at least what `reach` needs.

    Of the CPU's at most `memory` bytes: the share of one who is not alone (`ipt.restoring.budget`).
    """
    smallest = 2 * reach + BLEND + config.size_multiple
    if device.type == "cuda":
        free = torch.cuda.mem_get_info(device)[0] * SHARE
    else:
        free = min(free_memory() * SHARE / KEPT, (MOST * KEPT if memory is None else memory) / KEPT, MOST)
    side = int((free / bytes_per_pixel(config)) ** 0.5)
    return max(side // config.size_multiple * config.size_multiple, smallest)


def bytes_per_pixel(config: ModelConfig) -> float:
    """Working memory of the backbone for a pixel of the picture, in float32."""
    return 4 * MAPS * config.width * config.expansion / config.patch**2


def describe_machine(network: TaskNetwork) -> dict[str, str]:
    """What a network that lies where it would compute finds there, in words: device, precision, free memory, tile."""
    device = next(network.parameters()).device
    gpu = device.type == "cuda"
    free = torch.cuda.mem_get_info(device)[0] if gpu else free_memory()
    side = affordable_tile(network.config, network.backbone.reach, device)
    return {
        "device": torch.cuda.get_device_name(device) if gpu else f"CPU, {torch.get_num_threads()} threads",
        "precision": "bf16" if uses_bf16("auto", device) else "fp32",
        "free_memory": f"{free / 2**30:.1f} GiB",
        "tile": f"{side} x {side} pixels",
    }


def out_of_memory(error: Exception) -> bool:
    """Whether that is what `error` says: of Python, of torch on a GPU, on Linux or macOS, or on Windows."""
    signs = ("out of memory", "can't allocate memory", "not enough memory")
    return isinstance(error, MemoryError) or any(sign in str(error) for sign in signs)


@contextmanager
def kept_memory() -> Iterator[None]:
    """Inside the block the C library keeps what is freed, for what is asked for next; after it, all goes back.

    Else it fetches each large feature map from the system and returns it, and clearing those pages takes longer than
    computing what comes into them: tiles of two megapixels took 2.5 times as long. Does nothing where the C library is
    not glibc.
    """
    library: Any = None if sys.platform == "win32" else ctypes.CDLL(None)  # Windows opens no library without a name
    if not hasattr(library, "malloc_trim"):
        yield
        return
    for option, value in ((MMAP_MAX, 0), (TRIM_THRESHOLD, -1)):
        library.mallopt(option, value)
    try:
        yield
    finally:
        for option, value in ((MMAP_MAX, 65536), (TRIM_THRESHOLD, 128 * 1024)):  # glibc's own
            library.mallopt(option, value)
        library.malloc_trim(0)
