"""Stage: the trained model to the one that people use: task biases of a smaller rank, and what understands requests."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal

from ipt.biases.compress import LayerCompression, compress_biases
from ipt.biases.rank import backbone_numbers
from ipt.model import InstructIPT
from ipt.network.checkpoint import load_checkpoint, save_model
from ipt.network.modulation import modulated_layers, task_parameters
from ipt.network.task_network import TaskNetwork
from ipt.weights import load_weights, tensor_shapes
from pipelines.common.files import replace_folder, write_json
from pipelines.common.params import load_params
from pipelines.common.paths import COMPRESSED, METRICS, TRAINED, UNDERSTANDING
from pipelines.common.stage import run

REPORT = METRICS / "compress.json"


def compress(trained: Path, understanding: Path, rank: int | Literal["auto"], target: Path) -> dict:
    """Write the compressed checkpoint folder `target` and return the report by layer.

    `auto`, or a rank above the model's, leaves the biases as they are; all of the network is stored in half precision.
    """
    network = load_checkpoint(TaskNetwork, trained)
    most = network.config.rank
    compressed, layers = compress_biases(network, most if rank == "auto" else min(rank, most))
    model = InstructIPT(compressed.config)
    model.backbone.load_state_dict(compressed.backbone.state_dict())
    files = {part: understanding / f"{part}.safetensors" for part in ("instruction", "estimator")}
    shapes = {part: tensor_shapes(path) for part, path in files.items()}
    model.make_room({f"{part}.{name}": shape for part in shapes for name, shape in shapes[part].items()})
    for part, path in files.items():
        load_weights(model.get_submodule(part), path)
    with replace_folder(target) as folder:
        save_model(model, folder, half=True)
    return {
        "rank": compressed.config.rank,
        "backbone_parameters": backbone_numbers(compressed.backbone),
        "bias_parameters": sum(p.numel() for p in task_parameters(compressed)),
        "bias_bytes_before": sum(layer.bytes_before for layer in layers),
        "bias_bytes": sum(layer.bytes for layer in layers) // 2,  # stored in half precision
        "energy_kept": {
            task: _energy_kept(network, layers, number) for number, task in enumerate(network.config.tasks)
        },
        "file_bytes": sum(path.stat().st_size for path in target.iterdir()),
        "layers": [dataclasses.asdict(layer) | {"bytes": layer.bytes // 2} for layer in layers],
    }


def _energy_kept(network: TaskNetwork, layers: list[LayerCompression], task: int) -> float:
    """Share of a task's bias energy over all layers that is kept."""
    modulated = modulated_layers(network.backbone)
    kept = total = 0.0
    for layer in layers:
        bias = modulated[layer.layer]
        energy = float((bias.task_up[task] @ bias.task_down[task]).detach().square().sum())
        kept, total = kept + energy * layer.energy_kept[task], total + energy
    return round(kept / total, 4) if total else 1.0


def main() -> None:
    """Read params.yaml, compress models/trained into models/compressed and write the report."""
    report = compress(TRAINED, UNDERSTANDING, load_params().compress.rank, COMPRESSED)
    write_json(REPORT, report)
    print(
        f"compress: rank {report['rank']}, biases {report['bias_bytes_before'] / 1e3:.0f} -> "
        f"{report['bias_bytes'] / 1e3:.0f} kB, model in {COMPRESSED} ({report['file_bytes'] / 1e6:.1f} MB), "
        f"report by layer in {REPORT}"
    )


if __name__ == "__main__":
    run(main, __doc__)
