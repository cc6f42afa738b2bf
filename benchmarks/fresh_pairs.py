"""Pairs with damage made anew: squares of photographs, damaged on all cores, kept on the device to cut crops from."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from degradations.recipe import degrade
from ipt.photos.images import read_image
from ipt.pixels import to_levels, to_unit
from pipelines.common.params import Params
from pipelines.training.groups import leave_alone

FLAT = 3.0  # grey levels: a square whose standard deviation is below shows nothing
POOL = 40  # blocks of squares that the device keeps


def read_photographs(folder: Path, scales: tuple[float, ...], smallest: int) -> list[np.ndarray]:
    """The photographs of a folder at each scale, uint8 (H, W, 3), those smaller than `smallest` left out."""
    pictures = []
    for path in sorted(folder.iterdir()):
        image = read_image(path)
        for scale in scales:
            side = [round(length * scale) for length in image.shape[:2]]
            if min(side) >= smallest:
                kind = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
                pictures.append(to_levels(cv2.resize(image, side[::-1], interpolation=kind)))
    return pictures


def draw_square(pictures: list[np.ndarray], side: int, rng: np.random.Generator) -> np.ndarray:
    """A square, float32 in [0, 1], out of any of the pictures; not a flat one, if there is another to be found."""
    for _ in range(10):
        picture = pictures[rng.integers(len(pictures))]
        top, left = (int(rng.integers(length - side + 1)) for length in picture.shape[:2])
        square = picture[top : top + side, left : left + side]
        if square.std() > FLAT:
            break
    return to_unit(square)


class Blocks(IterableDataset[Tensor]):
    """Endless blocks of pairs, uint8 (tasks, each, 2, side, side, 3), degraded before clean; block b depends on b."""

    def __init__(self, pictures: list[np.ndarray], params: Params, each: int, side: int) -> None:
        self.pictures, self.params, self.each, self.side = pictures, params, each, side

    def block(self, number: int) -> np.ndarray:
        """Block `number`."""
        rng = np.random.default_rng([self.params.seed, number])
        pairs = np.empty((len(self.params.tasks), self.each, 2, self.side, self.side, 3), np.uint8)
        for of_task, task in zip(pairs, self.params.tasks.values(), strict=True):
            for pair in of_task:
                clean = draw_square(self.pictures, self.side, rng)
                pair[0], pair[1] = to_levels(degrade(clean, task.recipe, rng)[0]), to_levels(clean)
        for group in pairs.transpose(1, 2, 0, 5, 3, 4):  # (each, 2, tasks, 3, side, side): a view
            leave_alone(group[0], group[1], range(len(pairs)), self.params.ingest.left_alone, rng)
        return pairs

    def __iter__(self) -> Iterator[Tensor]:
        info = get_worker_info()
        first, step = (info.id, info.num_workers) if info else (0, 1)
        for number in itertools.count(first, step):
            yield torch.from_numpy(self.block(number))


class Pool:
    """The latest blocks, on the device; crops are cut from it at random places and turned at random."""

    def __init__(self, blocks: Iterator[Tensor], device: torch.device, seed: int) -> None:
        self.blocks, self.device, self.next = blocks, device, 0
        self.generator = torch.Generator(device).manual_seed(seed)
        self.pairs = torch.stack([next(blocks) for _ in range(POOL)], 1).to(device)  # (T, P, each, 2, S, S, 3)

    def renew(self) -> None:
        """Put the next block in the place of the oldest."""
        self.pairs[:, self.next] = next(self.blocks).to(self.device, non_blocking=True)
        self.next = (self.next + 1) % POOL

    def draw(self, each: int, side: int) -> tuple[Tensor, Tensor]:
        """Degraded and clean, float32 (tasks * each, 3, side, side) in [0, 1], task by task."""
        tasks, blocks, in_block = self.pairs.shape[:3]
        pairs = self.pairs.flatten(1, 2)
        count = tasks * each

        def below(limit: int) -> Tensor:
            return torch.randint(limit, (count,), generator=self.generator, device=self.device)

        task = torch.arange(tasks, device=self.device).repeat_interleave(each)
        offsets = torch.arange(side, device=self.device)
        rows = below(pairs.shape[3] - side + 1)[:, None] + offsets
        columns = below(pairs.shape[4] - side + 1)[:, None] + offsets
        chosen = below(blocks * in_block)
        crops = pairs[task[:, None, None], chosen[:, None, None], :, rows[:, :, None], columns[:, None, :]]
        images = crops.permute(3, 0, 4, 1, 2).float().div_(255)  # (2, B, 3, side, side)
        for turn in range(8):  # every eighth sample alike: their order is random already
            part = images[:, turn::8]
            images[:, turn::8] = torch.rot90(part.flip(-1) if turn > 3 else part, turn % 4, (-2, -1)).contiguous()
        return images[0], images[1]
