"""Stages and commands, killed before each system call with which they write: each thing that they make is the old or
the new, and the next run ends with all of the new and nothing beside it. How: tests/crash_points.py."""

import pytest
from crash_points import MODELS, check_old_or_new, crash_points

pytestmark = pytest.mark.slow


STAGES = {  # their writing, with as little as can be before it: `make(1)` makes the old, `make(0)` the new
    "prepare": """
from pathlib import Path
import cv2
import numpy as np
import pandas  # here, as pyarrow imports it when it is first used
from ipt.photos import images
from pipelines.common.params import Folder, Prepare, Source
from pipelines.pictures import sources
from pipelines.prepare import prepare
sources._files = lambda: images  # read in this process: what kills it knows no other
def make(old):
    if old:
        Path("in").mkdir()
        for number in range(2):
            pixels = np.random.default_rng(number).integers(0, 256, (16, 16, 3), np.uint8)
            cv2.imwrite(f"in/{number}.png", pixels)
    side = 16 if old else 8
    source = Source(Folder("in", (1.0,)), None, None)
    prepare(Prepare((source,), side, side, 0.5, 0.0, 1.0, 0, 0.0, 4), 0, Path("out"))
""",
    "synthesize": """
from pathlib import Path
from types import SimpleNamespace
import numpy as np
import pandas
from pipelines import synthesize as stage
from pipelines.cluster.storage import Storage
from pipelines.common.params import Synthesize, Task
from pipelines.data.rows import CLEAN_COLUMNS, row_schema, write_rows
from pipelines.data.tiles import open_tiles
stage.spread = map  # what workers make comes one by one, as it does from Ray
task = Task(1, 1.0, [{"GaussianNoise": {"sigma": [5, 50]}}], ("denoise",))
rows = [{"image_id": str(n), "source": "s", "clean": np.full((16, 16, 3), n, np.uint8), "height": 16, "width": 16}
        for n in range(5)]
def make(old):
    Path("clean").mkdir(exist_ok=True)
    for split in ("train", "val"):
        if old:
            write_rows(Path("clean", f"{split}.parquet"), rows, row_schema(CLEAN_COLUMNS, 16, 16), 4)
    tiles = {split: open_tiles(Path("clean", f"{split}.parquet").resolve()) for split in ("train", "val")}
    params = SimpleNamespace(synthesize=Synthesize(1, 4, 4), seed=old)
    stage.synthesize("denoise", task, params, tiles, Path("out"), Storage("runs"))
""",
    "understand": MODELS
    + """
from types import SimpleNamespace
from pipelines import understand as stage
ray = SimpleNamespace(storage="runs", address="local")
stage.open_tiles = stage.score_held_out = stage.score_estimator = stage.labelled_images = lambda *given: None
def make(old):
    made = old_model if old else new
    stage.fit_instructions, stage.fit_estimator = (lambda params: made.instruction), (lambda *given: made.estimator)
    stage.understand(SimpleNamespace(seed=0, tasks=(), ray=ray), Path("clean"), Path("out"))
""",
    "compress": MODELS
    + """
from pipelines.compress import compress
from ipt.weights import save_weights
def make(old):
    for name in ("trained", "understanding"):
        Path(name).mkdir(exist_ok=True)
    if old:
        network = TaskNetwork(config)
        save_model(network, Path("trained"))
        save_weights(old_model.instruction, Path("understanding/instruction.safetensors"))
        save_weights(old_model.estimator, Path("understanding/estimator.safetensors"))
    compress(Path("trained"), Path("understanding"), 1 + old, Path("out"))
""",
    "analyze": """
from types import SimpleNamespace
import torch
from pipelines import analyze as stage
modulation = SimpleNamespace(rank="auto", layers="auto")
stage.load_params = lambda: SimpleNamespace(tasks=("derain",), modulation=modulation)
def make(old):
    told = {"rank": 1 + old, "candidates": 1, "bias_share": 0.1, "energy_kept": 0.9}
    found = stage.Choice(1 + old, ("a",)), {"a": [float(old)]}, torch.full((1, 2), float(old)), told
    stage.analyze_somewhere = lambda params: found
    stage.draw_heat_map = lambda tasks, scores, path: path.write_text(f"{old}" * 9)
    stage.main()
""",
    "evaluate": """
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
import numpy as np
from pipelines import evaluate as stage
few = SimpleNamespace(tiles=1, real_pairs=())
params = SimpleNamespace(tasks=("derain",), seed=0, ray=SimpleNamespace(storage="runs"), evaluate=few)
stage.load_params, stage.several_nodes = lambda: params, lambda ray: nullcontext(False)
stage.InstructIPT = SimpleNamespace(from_pretrained=lambda folder: None)
stage.load_checkpoint = stage.print_table = stage.print_sight_and_harm = lambda *given: None
stage.score_harm = stage.score_sight = lambda *given: {}
stage.restore_image = lambda model, degraded, task: degraded
def make(old):
    stage.COMPRESSED.mkdir(parents=True, exist_ok=True)
    degraded, clean = (np.full((8, 8, 3), level, np.float32) for level in (old / 2, 0.9))
    stage.load_validation = lambda *given: {"derain": [(degraded, clean)]}
    stage.evaluate = lambda *given: {"derain": {name: {"psnr": 30.0 + old} for name in ("degraded", "compressed")}}
    stage.seconds_per_megapixel = lambda models: {"compressed": 1.0 + old}
    stage.main()
""",
    "diffusion": """
import dataclasses
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
import torch
from crash_points import ROOT
from pipelines import diffusion as stage
from pipelines.common.params import load_params
params = load_params(ROOT / "params.yaml")
small = dataclasses.replace(params.diffusion, crop=8, channels=(8, 16), rank=(1, 1, 1, 0))
params = dataclasses.replace(params, diffusion=small)
design = stage.plan(params, Path("none"))[0]
denoisers = [stage.new_denoiser(small, design).eval() for _ in range(2)]
stage.load_params, stage.connected, stage.cpus_per_worker = lambda: params, nullcontext, lambda ray: 1
stage.plan, stage.run_name, stage.time = lambda *given: (design, None), lambda *given: "run", SimpleNamespace()
stage.register = lambda *given: {"model": "m", "version": 1}
def make(old):
    stage.time.perf_counter = lambda: float(old)
    pictures = {name: torch.full((8, 3, 8, 8), level) for name, level in (("samples", old / 2), ("real", 0.9))}
    stage.train = lambda *given: (None, denoisers[old], None)
    stage.measure = lambda *given: ({"distance": old}, pictures)
    stage.main()
""",
    "release ship": """
import contextlib
import json
from pathlib import Path
from types import SimpleNamespace
from pipelines import release as stage
client = SimpleNamespace(set_registered_model_alias=lambda *given: None)
params = SimpleNamespace(tasks={"derain": None}, promote=SimpleNamespace(alias="champion"))
stage.load_params, stage.tracking_uri = lambda path: params, lambda: "one for both"
stage.tempfile = SimpleNamespace(TemporaryDirectory=lambda: contextlib.nullcontext("."))
score = {"compressed": {"psnr": 30.5, "ssim": 0.91}}
made = {"evaluate": {"tasks": {"derain": score}, "real_pairs": {}}, "register": {"model": "m", "version": 1}}
def make(old):
    if old:
        for name in ("metrics", "0", "1"):
            Path("begun", name).mkdir(parents=True)
        for name, content in made.items():
            Path(f"begun/metrics/{name}.json").write_text(json.dumps(content))
        for name in "01":
            Path(f"begun/{name}/model.safetensors").write_text(name * 9)
            Path(f"begun/{name}/config.json").write_text(name * 9)
    there = SimpleNamespace(client=client, text=lambda *given: f"card {old}")
    stage.registered = lambda *given: contextlib.nullcontext(there)
    stage.fetch_checkpoint = lambda uri, folder: Path(f"{old}")
    stage.ship(Path("begun"))
""",
    "ipt export": MODELS
    + """
from types import SimpleNamespace
from ipt import export
export.check_installed, export.trace, export.measure = lambda: None, lambda *given: None, lambda *given: 0.0
def make(old):
    def finished(graph, network, task, name):
        return SimpleNamespace(SerializeToString=lambda: f"{task} {old}".encode() * 9)
    export._finished = finished
    list(export.export_tasks(new, Path("out"), overwrite=True))
""",
}
APART = {  # what is whole by itself, of stages that make more than one thing
    "analyze": ["metrics/modulation.json", "metrics/analyze.json", "plots/sensitivity.csv", "plots/sensitivity.png",
                "plots/spectrum.csv"],
    "evaluate": ["metrics/evaluate.json", "metrics/headline.json", "plots/restored/derain.png"],
    "diffusion": ["models/diffusion", "metrics/diffusion.json", "plots/diffusion"],
    "ipt export": ["out/denoise.onnx", "out/derain.onnx"],
}  # fmt: skip


@pytest.mark.parametrize("stage", STAGES)
def test_what_a_stage_makes(start, stage):
    check_old_or_new(crash_points(start, "make(0)", STAGES[stage], "make(1)"), *APART.get(stage, ()))
