"""The Kubernetes manifest of the service: documented fields, and a configuration for Ray Serve and our builder."""

from importlib import import_module
from pathlib import Path

import pytest
from ray.serve.schema import ServeDeploySchema
from ruamel.yaml import YAML

from pipelines.serving.deployment import TOKEN, settings_from

ROOT = Path(__file__).parent.parent
# Fields of KubeRay's API reference for ray.io/v1 (docs/reference/api.md, release 1.4).
SERVICE = {
    "serviceUnhealthySecondThreshold", "deploymentUnhealthySecondThreshold", "serveService", "upgradeStrategy",
    "serveConfigV2", "rayClusterConfig", "excludeHeadPodFromServeSvc",
}  # fmt: skip


@pytest.fixture(scope="module")
def manifest():
    return YAML(typ="safe").load((ROOT / "docs/cluster/rayservice.yaml").read_text())


def test_the_manifest_has_known_fields_and_this_ray(manifest):
    assert (manifest["apiVersion"], manifest["kind"]) == ("ray.io/v1", "RayService")
    assert set(manifest["spec"]) <= SERVICE
    cluster = manifest["spec"]["rayClusterConfig"]
    assert f"\nray=={cluster['rayVersion']}\n" in (ROOT / "constraints.txt").read_text()


def test_the_configuration_is_one_of_ray_serve_and_of_the_builder(manifest, monkeypatch):
    monkeypatch.setenv(TOKEN, "open sesame")
    config = ServeDeploySchema.model_validate(YAML(typ="safe").load(manifest["spec"]["serveConfigV2"]))
    (application,) = config.applications
    module, name = application.import_path.split(":")
    assert callable(getattr(import_module(module), name))
    settings, replicas = settings_from(application.args)
    assert settings.model == "models:/instruct-ipt@champion"
    group = manifest["spec"]["rayClusterConfig"]["workerGroupSpecs"][0]
    assert group["minReplicas"] == group["replicas"] == replicas  # a CPU each


def test_every_node_has_one_image_and_the_token(manifest):
    cluster = manifest["spec"]["rayClusterConfig"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    containers = [group["template"]["spec"]["containers"][0] for group in groups]
    assert len({container["image"] for container in containers}) == 1
    assert all(container["env"] == containers[0]["env"] for container in containers)
    (token,) = (variable for variable in containers[0]["env"] if variable["name"] == TOKEN)
    assert "optional" not in token["valueFrom"]["secretKeyRef"]  # without the secret no pod starts
