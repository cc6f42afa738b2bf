"""Models that an earlier version registered still load, restore, are promoted and served.

tests/fixtures/registered_by_0.1.tar.xz is what MLflow kept of a model that `make repro` with the toy params of
tests/projects.py registered at the commit before the code moved into packages (its own copy of `ipt` included; weights
rounded to bfloat16, to be small).
"""

import dataclasses
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest

from ipt import InstructIPT, restore_image
from ipt.photos import read_photo
from pipelines.common.params import Floors, load_params
from pipelines.data.png import encode_png
from pipelines.promote import promote
from pipelines.registry.fetch import current_version
from pipelines.tracking.store import experiment_id, tracking

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
ARCHIVE = ROOT / "tests" / "fixtures" / "registered_by_0.1.tar.xz"


@pytest.fixture(scope="module")
def earlier(tmp_path_factory):
    """A repository's folder whose store has the model as the candidate `instruct-ipt`."""
    folder = tmp_path_factory.mktemp("earlier")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder / "model", filter="data")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.chdir(folder)
        with tracking("test") as client:
            experiment = experiment_id(client, "instruct-ipt")
            run = client.create_run(experiment).info.run_id
            client.log_text(run, "# card\n\n## Measured\nold numbers\n", "MODEL_CARD.md")
            client.set_terminated(run)
            logged = client.create_logged_model(experiment, "model", source_run_id=run)
            client.log_model_artifacts(logged.model_id, str(folder / "model"))
            client.finalize_logged_model(logged.model_id, "READY")
            client.create_registered_model("instruct-ipt")
            client.create_model_version("instruct-ipt", logged.artifact_location, run, model_id=logged.model_id)
            client.set_registered_model_alias("instruct-ipt", "candidate", "1")
        yield folder


@pytest.fixture(scope="module")
def picture():
    levels = np.random.default_rng(0).integers(0, 256, (40, 56, 3), np.uint8)
    return encode_png(levels)


@pytest.fixture(scope="module")
def restored(earlier, picture):
    """What today's code restores with the weights of then."""
    model = InstructIPT.from_pretrained("models:/instruct-ipt@candidate")
    levels = read_photo(picture).levels
    restored = restore_image(model, levels, task="derain")
    assert not np.array_equal(restored, levels)
    return restored


def test_it_carries_the_code_that_made_it():
    with tarfile.open(ARCHIVE) as archive:
        names = archive.getnames()
    assert "./code/ipt/modulation.py" in names  # where no such module is today
    assert not (ROOT / "ipt" / "modulation.py").exists()


def test_mlflow_loads_it_with_its_own_code_and_it_restores_as_todays(earlier, picture, restored):
    script = f"""
import mlflow, pandas as pd, sys
mlflow.set_tracking_uri("sqlite:///{earlier}/mlflow.db")
data = open("picture.png", "rb").read()
given = pd.DataFrame({{"image": [data], "task": ["derain"], "instruction": [None], "strength": [None]}})
model = mlflow.pyfunc.load_model("models:/instruct-ipt@candidate")
open("restored.png", "wb").write(model.predict(given)["image"][0])
import ipt
print(ipt.__file__)
"""
    (earlier / "picture.png").write_bytes(picture)
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=earlier, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert "/code/ipt/" in done.stdout
    then = read_photo(earlier / "restored.png").levels.astype(int)
    assert np.abs(then - restored).max() <= 1


def test_it_is_promoted_and_served(earlier, shards, picture, restored, serving):
    (earlier / "data").mkdir()
    (earlier / "data" / "shards").symlink_to(shards)
    real = load_params(ROOT / "params.yaml")
    floors = Floors(gain=-100.0, mean_gain=-100.0, instructions=0.0, seen=0.0, clean=0.0)  # it trained for 8 steps
    limits = dataclasses.replace(
        real.promote, clean_change=255.0, damage_loss=100.0, seconds_per_megapixel=1e6, floors=floors
    )
    params = dataclasses.replace(
        real,
        tasks={task: real.tasks[task] for task in ("denoise", "derain")},
        evaluate=dataclasses.replace(real.evaluate, tiles=3, real_pairs=()),
        promote=limits,
    )
    assert promote(params, None, dry_run=False)
    assert current_version("models:/instruct-ipt@champion") == "models:/instruct-ipt/1"
    with serving(earlier, model="models:/instruct-ipt@champion", threads=1) as service:
        status, headers, content = service.restore(picture, task="derain")
    assert (status, headers["x-model"]) == (200, "models:/instruct-ipt/1")
    assert np.abs(read_photo(content).levels.astype(int) - restored).max() <= 1
