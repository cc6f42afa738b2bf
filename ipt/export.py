"""Tasks of a model as ONNX files, for software without torch: one file a task, its bias merged into the backbone."""

from __future__ import annotations

import logging
import os
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from ipt.files import is_there, replace_file
from ipt.network.backbone import Backbone
from ipt.network.modulation import merge
from ipt.network.task_network import TaskNetwork

if TYPE_CHECKING:  # imported where they are used: they come with the extra `export`
    import onnx

NEEDED = ("onnx", "onnxscript", "onnxruntime")
OPSET, IR_VERSION = 18, 8  # of ONNX 1.13: the oldest that torch writes, the most that runtimes read
TOLERANCE = 1e-3  # greatest difference from torch, of values in [0, 1]
LONGEST = 4096  # pixels, side of a file for one size: more does not fit into most memories
TRIED = ((1, 75, 130), (2, 131, 61))  # batch, height, width of the check; none is a size that was traced
FOLDED = 2**26  # numbers in a weight that is stored as it is used, transposed

Size = tuple[int, int]  # height, width in pixels

# The network sees multiples of a size, the user does not; torch would settle such a padding for a few sizes only.
AROUND = """
around ({image} degraded, {image} found) => ({image} padded, {image} restored)
<int64[1] multiple = {{{multiple}}}, int64[6] before = {{0, 0, 0, 0, 0, 0}},
 int64[2] origin = {{0, 0}}, int64[2] sides = {{2, 3}}, float zero = {{0}}, float one = {{1}}>
{{
    size = Shape <start: int = 2> (degraded)
    negative = Neg (size)
    missing = Mod (negative, multiple)
    pads = Concat <axis: int = 0> (before, missing)
    padded = Pad <mode: string = "edge"> (degraded, pads)
    cut = Slice (found, origin, size, sides)
    restored = Clip (cut, zero, one)
}}
"""


@dataclass(frozen=True)
class Exported:
    """What became of one task."""

    task: str
    path: Path
    difference: float | None  # the greatest from torch at `tried`; None: the file was there already
    tried: tuple[tuple[int, int, int], ...] = ()  # batch, height, width

    def describe(self) -> str:
        """A line for a person."""
        if self.difference is None:
            return f"{self.path}: skipped, is there already (--overwrite replaces it)"
        sizes = ", ".join(f"{batch} of {width} x {height}" for batch, height, width in self.tried)
        return (
            f"{self.path}: {self.path.stat().st_size / 1000:.0f} kB, opset {OPSET}, "
            f"at most {self.difference:.1e} from torch (tried {sizes})"
        )


def parse_size(text: str) -> Size | None:
    """(height, width) of `512` or `640x480` (width first), None of `dynamic`; a ValueError says what is expected."""
    if text == "dynamic":
        return None
    match = re.fullmatch(r"(\d{1,5})(?:x(\d{1,5}))?", text, re.ASCII)
    width, height = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not (1 <= width <= LONGEST and 1 <= height <= LONGEST):
        raise ValueError(
            f"size: expected dynamic, a side (512) or WIDTHxHEIGHT (640x480) of 1 to {LONGEST} pixels, got {text!r}"
        )
    return height, width


def export_tasks(
    model: TaskNetwork,
    folder: Path,
    tasks: Sequence[str] = (),
    *,
    size: Size | None = None,
    name: str = "Instruct-IPT",
    overwrite: bool = False,
) -> Iterator[Exported]:
    """Write `<task>.onnx` for each of `tasks` (none: all of the model) into `folder`, one after the other.

    A file maps `degraded`, float32 (B, 3, H, W) RGB in [0, 1], to `restored`, the same shape, clipped to [0, 1]: any B,
    H and W, or with `size` one image of that height and width. `name` of the model stands in its metadata. Each file is
    run in ONNX Runtime beside torch before it gets its name. What is there already stays, unless `overwrite`.
    Raises RuntimeError where the extra `export` is not installed or a file differs by more than TOLERANCE, ValueError
    for an unknown task, OSError where `folder` cannot be written to; all but the difference before anything is made.
    """
    check_installed()
    indices = {task: model.task_index(task) for task in tasks or model.config.tasks}
    _check_targets(folder, list(indices))
    graph = None  # one for all tasks: tracing takes much longer than all the rest
    for task, index in indices.items():
        target = folder / f"{task}.onnx"
        if is_there(target) and not overwrite:
            yield Exported(task, target, None)
            continue
        network = merge(model.backbone, index).cpu().eval()
        graph = graph or trace(network, size)
        tried = TRIED if size is None else ((1, *size),)
        with replace_file(target) as temporary:
            temporary.write_bytes(_finished(graph, network, task, name).SerializeToString())
            difference = measure(temporary, network, tried)
            if not difference <= TOLERANCE:  # true for NaN too
                raise RuntimeError(
                    f"{target}: not written, differs from torch by {difference:.2g} in ONNX Runtime; expected at most "
                    f"{TOLERANCE}. Please report this with the model's config.json"
                )
        yield Exported(task, target, difference, tried)


def check_installed() -> None:
    """Raise RuntimeError with the command to type where a package of the extra `export` is missing."""
    if missing := [package for package in NEEDED if find_spec(package) is None]:
        raise RuntimeError(
            f"export: {', '.join(missing)} not installed; pip install 'instruct-ipt[export]', or in a checkout "
            "pip install -c constraints.txt -e '.[export]'"
        )


def _check_targets(folder: Path, tasks: list[str]) -> None:
    for task in tasks:
        if Path(f"{task}.onnx").name != f"{task}.onnx":
            raise ValueError(f"task: '{task}' is no name for a file; expected one without a path")
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if not there.is_dir():
        raise NotADirectoryError(f"{folder}: {there} is a file; expected a folder")
    if not os.access(there, os.W_OK):
        raise PermissionError(f"{folder}: no permission to write into {there}")


def trace(network: Backbone, size: Size | None) -> onnx.ModelProto:
    """The graph of a plain backbone, with the padding to its multiple before it, cutting and clipping behind it."""
    import onnx

    multiple = network.multiple
    if size is None:
        example = torch.zeros(2, 3, 4 * multiple, 5 * multiple)  # all different, and none 1, which would be settled
        rows, columns = (multiple * torch.export.Dim(name) for name in ("rows", "columns"))
        free = {0: torch.export.Dim("batch"), 2: rows, 3: columns}
        image = "float[batch, 3, height, width]"
    else:
        example = torch.zeros(1, 3, *(side + -side % multiple for side in size))
        free, image = {}, f"float[1, 3, {size[0]}, {size[1]}]"
    with _quiet():
        # Not torch.onnx.export alone: where torch cannot prove that all sizes work, that takes some in silence.
        program = torch.export.export(network, (example,), dynamic_shapes={"degraded": free})
        exported = torch.onnx.export(
            program,
            dynamo=True,
            opset_version=OPSET,
            input_names=["padded"],
            output_names=["found"],
            optimize=False,  # the weights of the other tasks have to find their places
            verbose=False,
        )
    assert exported is not None  # with dynamo it never is
    around = onnx.parser.parse_graph(AROUND.format(image=image, multiple=multiple))
    *pad, cut, clip = around.node
    inside = exported.model_proto.graph
    nodes = [*pad, *inside.node, cut, clip]
    weights = [*inside.initializer, *around.initializer]
    graph = onnx.helper.make_graph(
        nodes, "restore", around.input[:1], around.output[1:], weights, value_info=inside.value_info
    )
    for node in graph.node:  # they name lines of code on the machine that traced
        del node.metadata_props[:]
        node.doc_string = ""
    return onnx.helper.make_model(graph, opset_imports=exported.model_proto.opset_import, ir_version=IR_VERSION)


def _finished(graph: onnx.ModelProto, network: Backbone, task: str, name: str) -> onnx.ModelProto:
    """The traced graph with the weights of `network`, as few nodes as they allow, and what a reader has to know."""
    import onnx
    import onnxscript.optimizer

    model = onnx.ModelProto()
    model.CopyFrom(graph)
    places = {initializer.name: initializer for initializer in model.graph.initializer}
    for parameter, value in network.state_dict().items():
        places[parameter].CopyFrom(onnx.numpy_helper.from_array(value.numpy(), parameter))
    model = onnxscript.optimizer.optimize(model, input_size_limit=FOLDED, output_size_limit=FOLDED)
    del model.graph.value_info[:]
    model.producer_name, model.producer_version = "instruct-ipt", version("instruct-ipt")
    model.graph.name = task
    about = {
        "model": name,
        "task": task,
        "version": version("instruct-ipt"),
        "opset": str(OPSET),
        "input": "degraded: float32 (batch, 3, height, width), RGB, 0 to 1",
        "output": "restored: the same shape, RGB, 0 to 1 (clipped)",
        "reach": str(network.reach),  # what those need who cut large pictures
        "multiple": str(network.multiple),
        "model_license": "of the model card",
    }
    onnx.helper.set_model_props(model, about)
    onnx.checker.check_model(model, full_check=True)
    return model


@torch.inference_mode()
def measure(path: Path, network: Backbone, tried: Sequence[tuple[int, int, int]]) -> float:
    """The greatest difference of an ONNX file from `network`, over noise of each (batch, height, width) of `tried`."""
    import onnxruntime

    noise = torch.Generator().manual_seed(0)
    differences = []
    try:
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        for batch, height, width in tried:
            degraded = torch.rand(batch, 3, height, width, generator=noise)
            restored = session.run(["restored"], {"degraded": degraded.numpy()})[0]
            differences.append(np.abs(restored - network(degraded).clamp(0, 1).numpy()).max())
    except Exception as error:  # the exceptions of ONNX Runtime have no other base
        raise RuntimeError(f"export: ONNX Runtime {onnxruntime.__version__} does not run the file: {error}") from error
    return float(np.max(differences))


@contextmanager
def _quiet() -> Iterator[None]:
    """Inside the block torch keeps to itself what no user can change, such as that torchvision is not installed."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
