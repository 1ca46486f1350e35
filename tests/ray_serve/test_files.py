"""``deploy/ray/``, compared with KubeRay's schema, with the settings of the server and with pyproject.toml."""

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml

from steering_server.config import ServerSettings, load_settings

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy" / "ray"
SCHEMA = json.loads(Path(__file__).with_name("rayservice.schema.json").read_text())
"""See its ``$comment``."""


def service() -> Any:
    return yaml.safe_load((DEPLOY / "kuberay.yaml").read_text())


def serve_configs() -> dict[str, Any]:
    """What Ray Serve is given, by the file that has it."""
    return {
        "serve.yaml": yaml.safe_load((DEPLOY / "serve.yaml").read_text()),
        "kuberay.yaml": yaml.safe_load(service()["spec"]["serveConfigV2"]),
    }


def faults(manifest: Any) -> list[str]:
    return [
        f"{list(error.instance_path)}: {error.message}"
        for error in jsonschema_rs.validator_for(SCHEMA).iter_errors(manifest)
    ]


def test_kuberay_accepts_the_service():
    assert faults(service()) == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["spec", "rayClusterConfig", "workerGroupSpecs", 0, "maxReplica"], 3),
        (["spec", "rayClusterConfig", "workerGroupSpecs", 0, "replicas"], "two"),
        (["spec", "serveConfigV2"], {"applications": []}),
        (["spec", "rayClusterConfig", "headGroupSpec", "template", "spec", "containers", 0, "imagePolicy"], "Always"),
    ],
)
def test_the_schema_refuses_what_kuberay_would(path: list[Any], value: Any):
    manifest = service()
    *parents, last = path
    owner = manifest
    for name in parents:
        owner = owner[name]
    owner[last] = value
    assert faults(manifest)


@pytest.mark.parametrize("file", ["serve.yaml", "kuberay.yaml"])
def test_the_application_is_given_settings_of_the_server(file: str):
    (application,) = serve_configs()[file]["applications"]
    assert application["args"].keys() <= ServerSettings.model_fields.keys()
    load_settings(**application["args"])
    assert application["import_path"] == "steering_server.ray_serve.building:application"
    assert [each["name"] for each in application["deployments"]] == ["Ingress", "Engine"]


def test_kubernetes_waits_longer_than_the_server_does():
    grace = ServerSettings.model_fields["shutdown_grace"].default
    (workers,) = service()["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    assert workers["template"]["spec"]["terminationGracePeriodSeconds"] > grace + 5


def test_workers_have_room_for_their_replicas_and_the_files_that_settings_name():
    (workers,) = service()["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    (container,) = workers["template"]["spec"]["containers"]
    (application,) = serve_configs()["kuberay.yaml"]["applications"]
    ingress, engine = (each["ray_actor_options"] for each in application["deployments"])
    requests = container["resources"]["requests"]
    assert ingress["num_cpus"] + engine["num_cpus"] <= int(requests["cpu"])
    assert engine["num_gpus"] == int(requests["nvidia.com/gpu"])
    mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert application["args"]["profiles"] in mounts
    assert str(Path(application["args"]["api_keys_file"]).parent) in mounts
    assert {m["name"] for m in container["volumeMounts"]} == {v["name"] for v in workers["template"]["spec"]["volumes"]}


def test_only_without_others_on_the_network_are_there_no_keys():
    for file, config in serve_configs().items():
        insecure = config["applications"][0]["args"].get("insecure", False)
        assert insecure is (config["http_options"]["host"] == "127.0.0.1"), file


def test_all_files_name_one_version_of_ray():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    (least,) = re.findall(r"ray\[serve\]>=(\d+\.\d+)", extras["ray"][0])
    assert service()["spec"]["rayClusterConfig"]["rayVersion"].startswith(f"{least}.")
    assert f"rayproject/ray:{least}." in (DEPLOY / "Dockerfile").read_text()
