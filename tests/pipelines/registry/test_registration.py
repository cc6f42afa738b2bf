"""A registered model fetched for `ipt --model models:/...`, from a real MLflow on SQLite."""

import json
import shutil
from pathlib import Path

import mlflow
import pytest
import torch

from ipt import InstructIPT
from ipt.network.checkpoint import save_model
from ipt.weights import CheckpointError
from pipelines.common.params import load_params
from pipelines.registry import registration as registry
from pipelines.registry.fetch import checkpoint_in, fetch_checkpoint
from pipelines.registry.integrity import FILES
from pipelines.tracking.store import experiment_id, tracking

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[3]
PARAMS = load_params(ROOT / "params.yaml")


def test_a_registered_model_comes_back_by_alias_and_by_version(make_config, fill_parameters, tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    models = [fill_parameters(InstructIPT(make_config()), seed).eval() for seed in (0, 1)]
    with tracking("test") as client:
        experiment = experiment_id(client, "some")
        for number, model in enumerate(models):
            save_model(model, tmp_path / "model")
            with mlflow.start_run(experiment_id=experiment):
                logged = mlflow.pyfunc.log_model(
                    name="model",
                    python_model=str(Path(registry.__file__).with_name("pyfunc.py")),
                    artifacts={"checkpoint": str(tmp_path / "model")},
                    signature=registry.signature(),
                    pip_requirements=["torch"],
                )
            version = mlflow.register_model(logged.model_uri, "ipt")
            client.set_registered_model_alias("ipt", ("old", "best")[number], version.version)
    shutil.rmtree(tmp_path / "model")
    for uri, model in (("@best", models[1]), ("@old", models[0]), ("/2", models[1]), ("/1", models[0])):
        fetched = InstructIPT.from_pretrained(f"models:/ipt{uri}").state_dict()
        assert all(torch.equal(fetched[name], value) for name, value in model.state_dict().items())
    for uri in ("models:/ipt@worst", "models:/ipt/3", "models:/nobody@best"):
        with pytest.raises(RuntimeError, match=rf"MLflow at sqlite:///{tmp_path}/mlflow\.db: "):
            fetch_checkpoint(uri, tmp_path)


def registration(folder: Path, run_id: str | None, psnr: float) -> registry.Registration:
    shards = registry.Data("shards/derain", "data/shards/derain", "a" * 32 + ".dir")
    pairs = registry.Data("real_pairs/rain100l", "data/real_pairs/rain100l", "b" * 32 + ".dir")
    return registry.Registration(
        run_name="train-a", run_id=run_id, params=PARAMS, rows=[{"step": 1, "loss": 0.5}], learnt_from=[shards],
        summary=[
            registry.Measured({"psnr/derain/compressed": psnr}, shards),
            registry.Measured({"psnr/rain100l/compressed": psnr + 1}, pairs),
            registry.Measured({"file_bytes": 5.0}),
        ],
        reports=[], checkpoint=folder, code=Path(registry.__file__).with_name("pyfunc.py"), requirements=["torch"],
        example=None, card="# card", tags={}, model="ipt", signature=registry.signature(), again="the same",
    )  # fmt: skip


def test_each_versions_page_has_its_own_metrics_with_the_data_they_are_of(store, make_config):
    """Also of two versions in one run, as registering twice makes them."""
    save_model(InstructIPT(make_config()), store / "model")
    Path("ipt").symlink_to(ROOT / "ipt")  # goes into the registered model
    first = registry.register_model(registration(store / "model", None, 30.0))
    again = registry.register_model(registration(store / "model", first["run"], 20.0))
    assert first["run"] == again["run"]
    derain, pairs = ("shards/derain", "a" * 32 + ".dir"), ("real_pairs/rain100l", "b" * 32 + ".dir")
    with tracking("test") as client:
        names = {path.name for path in (store / "model").iterdir()}
        assert json.loads(client.get_model_version("ipt", "1").tags[FILES]).keys() == names
        for number, psnr in ((1, 30.0), (2, 20.0)):
            logged = client.get_logged_model(Path(client.get_model_version("ipt", str(number)).source).name)
            assert {(m.key, m.value, m.dataset_name, m.dataset_digest) for m in logged.metrics} == {
                ("psnr/derain/compressed", psnr, *derain),
                ("psnr/rain100l/compressed", psnr + 1, *pairs),
                ("file_bytes", 5.0, None, None),
                ("loss", 0.5, None, None),  # of the last step
            }
        inputs = client.get_run(first["run"]).inputs.dataset_inputs
    assert {(i.dataset.name, i.dataset.digest): {t.key: t.value for t in i.tags} for i in inputs} == {
        derain: {"mlflow.data.context": "training"},
        pairs: {},
    }
    assert len(inputs) == 2
    assert {mlflow.data.get_source(i.dataset).uri for i in inputs} == {"data/shards/derain", "data/real_pairs/rain100l"}


def test_what_arrived_otherwise_than_it_was_sent_is_no_version(store, make_config, flip_bit, monkeypatch):
    save_model(InstructIPT(make_config()), store / "model")
    Path("ipt").symlink_to(ROOT / "ipt")
    log = registry._log_model

    def log_badly(*arguments):
        logged = log(*arguments)
        flip_bit(checkpoint_in(Path(mlflow.artifacts.download_artifacts(logged.model_uri))) / "model.safetensors")
        return logged

    monkeypatch.setattr(registry, "_log_model", log_badly)
    with pytest.raises(CheckpointError, match=r"^models:/m-.*: model\.safetensors: .* damaged or changed"):
        registry.register_model(registration(store / "model", None, 30.0))
    with tracking("test") as client:
        assert not client.search_registered_models()
