"""A model to use on your own photographs: the stages of this commit with params.release.yaml, in a folder of their own.

    python -m pipelines.release start FOLDER --photographs FOLDER [--overlay FILE ...]
    python -m pipelines.release decay FOLDER
    python -m pipelines.release ship FOLDER

`start` makes the folder, its data and begins the training, which lasts until it is stopped (Ctrl-C, or a machine that
is switched off) and goes on where it was when called again: as long as you like, in as many sessions as you like, on
another machine where the folder is copied there. `decay`, at any time: a finished model of what has been learnt so
far, measured and registered there; the training can go on. `ship` makes that one the model that comes with `ipt`
here (ipt/released), and registers it in this checkout's registry as well, under the alias `release`. All leave the
machine to whatever else runs on it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from pipelines.common.files import replace_folder
from pipelines.common.params import PARAMS_FILE, load_params
from pipelines.common.paths import METRICS
from pipelines.common.stage import command, run
from pipelines.registry.card import CARD, front_matter
from pipelines.registry.fetch import fetch_checkpoint
from pipelines.registry.versions import copy_version, registered
from pipelines.tracking.store import tracking_uri

OVERLAY = Path("params.release.yaml")
RELEASED = Path("ipt/released")
ALIAS = "release"  # of the shipped version in this checkout's registry
DECAYING = (("pipelines.train", "--decay"), ("pipelines.compress",), ("pipelines.evaluate",), ("pipelines.register",))


def start(folder: Path, photographs: Path | None, overlays: Sequence[Path] = ()) -> None:
    """Make `folder` a clone of this commit with the params of a release, unless it is one, and train there.

    `overlays` go over those of params.release.yaml, one after the other.
    """
    if not (folder / PARAMS_FILE).is_file():
        if photographs is None or not photographs.is_dir():
            raise FileNotFoundError(
                f"--photographs {photographs}: expected a folder of clean photographs to learn from "
                "(a few hundred or more, sharp and without noise)"
            )
        if folder.exists() and any(folder.iterdir()):
            raise FileExistsError(f"{folder}: has files and is no release; name a folder that is empty or not there")
        overlay = YAML().load(OVERLAY.read_text())
        overlay["prepare"]["sources"][0]["folder"]["path"] = str(photographs.resolve())
        with replace_folder(folder) as begun:  # killed half-way, a release is not begun with other params
            subprocess.run(["git", "clone", "--quiet", ".", str(begun)], check=True)
            call(begun, "dvc", "config", "--local", "cache.type", "reflink,hardlink,symlink")
            for over in (overlay, *(YAML().load(path.read_text()) for path in overlays)):
                write_overlaid(begun / PARAMS_FILE, over)
    elif photographs is not None or overlays:
        raise FileExistsError(
            f"{folder}: is begun already with the photographs and values that its {PARAMS_FILE} names"
        )
    load_params(folder / PARAMS_FILE)
    call(folder, "pipelines.repro", "understand", "analyze")
    # Else DVC keeps all data twice. Not what `decay` has left: of that it has no copy, and refuses.
    call(folder, "dvc", "checkout", "--quiet", "--relink", "prepare", "synthesize")
    call(folder, "pipelines.repro", "train")


def write_overlaid(path: Path, overlay: dict[str, Any]) -> None:
    """Put the values of `overlay` over those of the YAML file `path`: blocks key by key, anything else whole.

    New keys come last; a block that names all keys of the file's gives their order as well. Comments and layout stay;
    those of `overlay` come along where ruamel read it.
    """
    yaml = YAML()
    yaml.width, yaml.preserve_quotes = 120, True
    yaml.indent(mapping=2, sequence=4, offset=2)  # as it stands there
    tree = yaml.load(path.read_text())
    overlay_values(tree, overlay)
    with path.open("w") as file:
        yaml.dump(tree, file)


def overlay_values(tree: Any, overlay: dict[str, Any]) -> None:
    """As `write_overlaid`, in place."""
    for name, value in overlay.items():
        if isinstance(value, dict) and isinstance(tree.get(name), dict):
            overlay_values(tree[name], value)
        else:
            tree[name] = value
    if set(tree) == set(overlay):
        for name in overlay:
            tree[name] = tree.pop(name)


def decay(folder: Path) -> None:
    """A finished model in `folder`/models/compressed, out of the training that was begun there."""
    if not (folder / PARAMS_FILE).is_file():
        raise FileNotFoundError(f"{folder}: no release was begun here; begin one: python -m pipelines.release start")
    for words in DECAYING:
        call(folder, *words)


def ship(folder: Path) -> None:
    """Make what `decay` registered in `folder` the model that comes with `ipt`, and a version of this registry."""
    result = folder / METRICS / "register.json"
    if not result.is_file():
        raise FileNotFoundError(f"{result}: nothing is finished there; first: make release-decay")
    made = json.loads(result.read_text())
    scores = json.loads((folder / METRICS / "evaluate.json").read_text())
    params, here = load_params(folder / PARAMS_FILE), tracking_uri()  # before MLflow sets the folder's for all to come
    with tempfile.TemporaryDirectory() as temporary, contextlib.chdir(folder):
        again = f"python -m pipelines.release ship {folder}"
        with registered(made["model"], params.promote.alias, again) as there:
            card = there.text(made["version"], CARD)
            checkpoint = fetch_checkpoint(f"models:/{made['model']}/{made['version']}", Path(temporary))
            number = made["version"]
            if tracking_uri() == here:  # one server for both
                there.client.set_registered_model_alias(made["model"], ALIAS, str(number))
            else:
                number, _ = copy_version(there, number, here, params.register.experiment, ALIAS)
        files = {path.name: path.read_bytes() for path in checkpoint.iterdir()}
    told = {name: score["compressed"] for name, score in (scores["tasks"] | scores["real_pairs"]).items()}
    told.pop("overall", None)
    with replace_folder(RELEASED) as target:
        for name, content in files.items():
            (target / name).write_bytes(content)
        (target / "README.md").write_text(front_matter(made["model"], list(params.tasks), told) + card)
    print(f"release: {RELEASED} is version {number} of {made['model']} here, alias {ALIAS}; commit it")


def call(folder: Path, module: str, *arguments: str) -> None:
    """Run a module of the code in `folder`, in it, behind all else that runs; RuntimeError where it fails.

    A KeyboardInterrupt ends it and all that it started.
    """
    environment = os.environ | {"PYTHONPATH": str(folder.resolve())}  # before the code that is installed
    words = [sys.executable, "-m", module, *arguments]
    process = subprocess.Popen(words, cwd=folder, env=environment, start_new_session=True)
    _step_back(process.pid)
    try:
        code = process.wait()
    except KeyboardInterrupt:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGINT)  # as the terminal would, which knows this session alone
        process.wait()
        raise
    if code:
        raise RuntimeError(f"{module} in {folder} ended with exit status {code}; its reason stands above")


def _step_back(session: int) -> None:
    """Let a session of processes have what all others leave.

    Linux shares the processor out among sessions first (sched(7), autogroup): what is `nice` yields to its own alone.
    """
    with contextlib.suppress(OSError):  # another system, or one without such groups
        Path(f"/proc/{session}/autogroup").write_text("19")


def main() -> None:
    """Read the arguments, step back behind whatever else runs, and start or decay."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog=command(), description=__doc__, formatter_class=raw)
    parser.add_argument("what", choices=("start", "decay", "ship"))
    parser.add_argument("folder", type=Path, help="outside of this checkout")
    parser.add_argument("--photographs", type=Path, help="clean photographs to learn from; for the first call")
    parser.add_argument("--overlay", type=Path, action="append", default=[], help="values over params.release.yaml")
    given = parser.parse_args()
    os.nice(19)
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:  # and not what nohup has set
            signal.signal(number, signal.default_int_handler)  # what ends this ends what it has begun
    try:
        if given.what == "start":
            start(given.folder, given.photographs, given.overlay)
        elif given.what == "decay":
            decay(given.folder)
        else:
            ship(given.folder)
    except KeyboardInterrupt:
        print("release: stopped; the same command goes on from the last checkpoint", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    run(main)
