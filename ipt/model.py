"""InstructIPT: the network, the reader of instructions and the estimator, wired together."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Self

import torch

from ipt import RELEASED
from ipt.network.checkpoint import load_checkpoint, save_model
from ipt.network.config import ModelConfig
from ipt.network.task_network import TaskNetwork
from ipt.pretrained import checkpoint_folder
from ipt.understanding.estimator import MOST_WIDTH, Estimator
from ipt.understanding.instruction import MOST_BUCKETS, MOST_READERS, InstructionModel


class InstructIPT(TaskNetwork):
    """A network that also reads what is asked for, and sees what an image needs.

    Both are trained apart, without the network: its training, analysis and compression use TaskNetwork.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.instruction = InstructionModel(len(config.tasks)).requires_grad_(False)
        self.estimator = Estimator(len(config.tasks)).requires_grad_(False)

    def make_room(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """As many readers of instructions as the weights have, as large and knowing as much; an estimator as wide.

        Those of before were fewer and smaller, and it was narrower.
        """
        readers = {name.split(".")[2] for name in shapes if name.startswith("instruction.readers.")}
        known = any(name.endswith(".meaning.weight") for name in shapes)
        buckets, *_ = (*shapes.get("instruction.readers.0.pieces.weight", ()), self.instruction.buckets)
        here = len(self.instruction.readers), self.instruction.knows_words, self.instruction.buckets
        fits = 0 < len(readers) <= MOST_READERS and 0 < buckets <= MOST_BUCKETS
        if fits and (len(readers), known, buckets) != here:
            built = InstructionModel(len(self.config.tasks), len(readers), knows_words=known, buckets=buckets)
            self.instruction = built.requires_grad_(False)
        *_, width = (self.estimator.width, *shapes.get("estimator.score.weight", ()))
        if 0 < width <= MOST_WIDTH and width != self.estimator.width:
            self.estimator = Estimator(len(self.config.tasks), width).requires_grad_(False)

    @torch.no_grad()
    def understand(self, instruction: str) -> dict[str, float]:
        """The probability that a sentence asks for each task; several may be likely, or none.

        Raises ValueError for a sentence of more than `ipt.understanding.instruction.MAX_CHARACTERS` characters.
        """
        return self.read(instruction)[1]

    def read(self, instruction: str) -> tuple[tuple[str, ...], dict[str, float]]:
        """The tasks that a sentence asks for most probably, none, one or two, in the order in which they are restored;
        and what `understand` gives. Raises as that does.
        """
        (asked,), probabilities = self.instruction.read([instruction])
        named = dict(zip(self.config.tasks, probabilities[0].tolist(), strict=True))
        return tuple(self.config.tasks[place] for place in asked), named

    @classmethod
    def from_pretrained(cls, source: Path | str = RELEASED, device: torch.device | str = "cpu") -> Self:
        """Load a model for inference: the released one, a checkpoint folder, or one of an MLflow registry.

        `source` is `instruct-ipt` (what comes with this package), a folder, or a name that an installed package
        fetches (models:/NAME@ALIAS). Raises CheckpointError where a file is missing, damaged or changed or the weights
        do not fit the config, ValueError for a name that nothing installed reads, and what the fetching raises.
        """
        with checkpoint_folder(str(source)) as folder:
            return load_checkpoint(cls, folder, device)

    def save_pretrained(self, folder: Path | str, *, half: bool = False) -> None:
        """Write what `from_pretrained` reads into `folder`, which is made when absent; `half` as in `save_model`."""
        save_model(self, Path(folder), half=half)
