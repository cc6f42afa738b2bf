"""What is trained, analysed and compressed: the backbone with its task biases."""

from __future__ import annotations

import difflib
from collections.abc import Mapping

from torch import Tensor, nn

from ipt.network.backbone import Backbone
from ipt.network.config import ModelConfig
from ipt.network.modulation import modulate, modulated_layers, select


class TaskNetwork(nn.Module):
    """Restores each image of a batch with the weights of its own task."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = modulate(Backbone(config), len(config.tasks), config.rank, config.layers)
        self._selection = next(iter(modulated_layers(self.backbone).values())).selection

    def make_room(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Before weights of these shapes are loaded: build what the config does not tell. Here it tells all."""

    def forward(self, degraded: Tensor, index: Tensor | None, strength: float = 1.0) -> Tensor:
        """Restore `degraded` (B, 3, H, W), any H and W; `index` (B,) is each sample's place in `config.tasks`.

        Without an index the task-general backbone restores alone. Returns the shape of `degraded`, not clipped.
        """
        select(self._selection, index, len(self.config.tasks), strength)
        return self.backbone(degraded)

    def task_index(self, task: str) -> int:
        """The place of a task in the stacked biases; a ValueError names the tasks that the network knows."""
        if task not in self.config.tasks:
            close = difflib.get_close_matches(task, self.config.tasks, n=1)
            hint = f"did you mean '{close[0]}'?" if close else f"this model knows {', '.join(self.config.tasks)}"
            raise ValueError(f"task: unknown task '{task}'; {hint}")
        return self.config.tasks.index(task)
