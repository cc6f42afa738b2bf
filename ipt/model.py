"""InstructIPT: the backbone, its task biases, the reader of instructions and the estimator, wired together."""

from __future__ import annotations

import copy
import dataclasses
import difflib

import torch
from torch import Tensor, nn

from ipt.biases.adapters import add_task
from ipt.network.backbone import Backbone
from ipt.network.config import ModelConfig
from ipt.network.modulation import modulate, modulated_layers, select
from ipt.understanding.estimator import Estimator
from ipt.understanding.instruction import InstructionModel


class InstructIPT(nn.Module):
    """Restores each image of a batch with the weights of its own task."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = modulate(Backbone(config), len(config.tasks), config.rank, config.layers)
        # Trained apart, without the backbone.
        self.instruction = InstructionModel(len(config.tasks)).requires_grad_(False)
        self.estimator = Estimator(len(config.tasks)).requires_grad_(False)
        self._selection = next(iter(modulated_layers(self.backbone).values())).selection

    def forward(self, degraded: Tensor, index: Tensor | None, strength: float = 1.0) -> Tensor:
        """Restore `degraded` (B, 3, H, W), any H and W; `index` (B,) is each sample's place in `config.tasks`.

        Without an index the task-general backbone restores alone. Returns the shape of `degraded`, not clipped.
        """
        select(self._selection, index, len(self.config.tasks), strength)
        return self.backbone(degraded)

    def task_index(self, task: str) -> int:
        """The place of a task in the stacked biases; a ValueError names the tasks that the model knows."""
        if task not in self.config.tasks:
            close = difflib.get_close_matches(task, self.config.tasks, n=1)
            hint = f"did you mean '{close[0]}'?" if close else f"this model knows {', '.join(self.config.tasks)}"
            raise ValueError(f"task: unknown task '{task}'; {hint}")
        return self.config.tasks.index(task)

    @torch.no_grad()
    def understand(self, instruction: str) -> dict[str, float]:
        """The probability that a sentence asks for each task; several may be likely, or none.

        Raises ValueError for a sentence of more than `ipt.understanding.instruction.MAX_CHARACTERS` characters.
        """
        probabilities = self.instruction([instruction])[0]
        return dict(zip(self.config.tasks, probabilities.tolist(), strict=True))


def with_new_task(model: InstructIPT, task: str) -> InstructIPT:
    """A copy of `model` that knows one more task, which so far does what the common backbone does.

    Its other tasks restore as before, to the bit. Train the new bias (`ipt.biases.adapters.add_task` says how), and
    what reads instructions and pictures anew, for all tasks. Raises ValueError for a task that the model knows already.
    """
    if task in model.config.tasks:
        raise ValueError(f"task: the model knows '{task}' already (its tasks: {', '.join(model.config.tasks)})")
    extended = copy.deepcopy(model)
    add_task(extended.backbone)
    extended.config = dataclasses.replace(model.config, tasks=(*model.config.tasks, task))
    extended.instruction = InstructionModel(len(extended.config.tasks)).requires_grad_(False)
    extended.estimator = Estimator(len(extended.config.tasks)).requires_grad_(False)
    return extended
