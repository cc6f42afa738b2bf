"""Copies of this repository with toy params, for tests of the whole pipeline."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from ruamel.yaml import YAML

from benchmarks.local_checkout import copy_checkout, edit_params

REPOSITORY = Path(__file__).parent.parent


class Project:
    """A copy of this repository in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.token = ""  # of a Ray cluster that its commands join
        copy_checkout(REPOSITORY, folder)

    def environment(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW", "RAY", "DVC", "GIT"))}
        token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self.token} if self.token else {}
        own = {"PATH": f"{Path(sys.executable).parent}:{kept['PATH']}", "PYTHONPATH": str(self.folder)}
        return kept | token | own

    def call(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment(),
            capture_output=True,
            text=True,
            check=False,
            timeout=900,
        )
        assert not check or done.returncode == 0, f"{command}\n{done.stdout[-6000:]}\n{done.stderr[-6000:]}"
        return done

    def start(self, *command: str, stderr: int | None = None) -> subprocess.Popen[str]:
        """A command that runs beside the test, in a process group of its own."""
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env=self.environment(),
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            start_new_session=True,
        )

    def repro(self, *arguments: str) -> str:
        """Output of `make repro`'s command."""
        done = self.call(sys.executable, "-m", "pipelines.repro", *arguments)
        return done.stdout + done.stderr

    def edit(self, change) -> None:
        """Apply `change` to the tree of params.yaml."""
        edit_params(self.folder, change)

    def json(self, name: str) -> dict:
        return json.loads((self.folder / name).read_text())

    def locked(self) -> dict[str, str]:
        """Hash of each output in dvc.lock."""
        stages = YAML(typ="safe").load((self.folder / "dvc.lock").read_text())["stages"]
        return {out["path"]: out["md5"] for stage in stages.values() for out in stage["outs"]}


def toy(tree) -> None:
    """Params that run in seconds."""
    for name in ("deblur", "dehaze", "desnow"):
        del tree["tasks"][name]
    tree["prepare"].update(
        sources=[{"builtin": {"scales": [0.25]}}, {"dead_leaves": {"images": 4, "size": 128}}],
        tile=64,
        stride=64,
    )
    tree["synthesize"].update(variants=1, tiles_per_shard=8, row_group_rows=4)
    tree["understand"].update(sentence_steps=10, sentences_per_step=16, tiles=128, tile_steps=20, clean_tiles=20)
    tree["ingest"].update(crop=32)
    tree["analyze"].update(common_steps=8, bias_steps=8, tiles=2)
    tree["train"].update(
        steps=8,
        groups_per_step=2,
        warmup_steps=2,
        log_every=2,
        validate_every=4,
        validate_tiles=2,
        checkpoint_every=2,
    )
    tree["ray"].update(workers=2, cpus_per_worker=1)
    tree["evaluate"].update(tiles=3, real_pairs=[])
