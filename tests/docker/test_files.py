"""What ``docker/`` says of the server, compared with the server."""

import re
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from steering_profiles import __version__
from steering_server.api.app import create_app
from steering_server.api.service import Service
from steering_server.cli import app as command_line
from steering_server.config import PREFIX, ServerSettings

DOCKER = Path(__file__).parents[2] / "docker"
_DEFAULT = re.compile(r" \(default: (?P<default>.*)\)$")


def serve_options() -> dict[str, Any]:
    """The options of ``steer serve``, by setting."""
    serve = typer.main.get_command(command_line).commands["serve"]
    return {option.name: option for option in serve.params if option.name != "help"}


def table_row(name: str, option: Any) -> str:
    flags = "/".join((*option.opts, *option.secondary_opts))
    default = _DEFAULT.search(option.help)
    meaning = _DEFAULT.sub("", option.help)
    return f"| `{flags}` | `{PREFIX}{name.upper()}` | {default['default'] if default else '-'} | {meaning} |"


def table() -> list[str]:
    return [table_row(name, option) for name, option in serve_options().items()]


def manifests() -> dict[str, Any]:
    return {each["kind"]: each for each in yaml.safe_load_all((DOCKER / "kubernetes.yaml").read_text())}


def container() -> dict[str, Any]:
    (only,) = manifests()["Deployment"]["spec"]["template"]["spec"]["containers"]
    return only


def test_every_setting_is_a_flag_and_a_variable():
    assert set(serve_options()) == set(ServerSettings.model_fields)


def test_the_readme_lists_every_flag_and_variable():
    lines = (DOCKER / "README.md").read_text().splitlines()
    assert [line for line in lines if line.startswith("| `--")] == table()


def test_the_defaults_that_are_told_are_the_defaults():
    for name, option in serve_options().items():
        default, told = ServerSettings.model_fields[name].default, _DEFAULT.search(option.help)
        if isinstance(default, int | float) and not isinstance(default, bool):
            assert told is not None, name
            assert float(told["default"]) == default


def test_every_variable_that_is_named_is_a_setting():
    known = {PREFIX + name.upper() for name in ServerSettings.model_fields}
    for file in sorted(DOCKER.iterdir()):
        named = set(re.findall(rf"\b{PREFIX}[A-Z_]+\b", file.read_text()))
        assert named <= known, file.name


@pytest.mark.parametrize("probe", ["startupProbe", "livenessProbe", "readinessProbe"])
def test_kubernetes_asks_what_the_server_answers(probe: str):
    asked = container()[probe]["httpGet"]
    assert asked["path"] == ("/ready" if probe == "readinessProbe" else "/health")
    assert asked["path"] in create_app(Service()).openapi()["paths"]
    assert asked["port"] in {port["name"] for port in container()["ports"]}


def test_kubernetes_waits_longer_than_the_server_does():
    pod = manifests()["Deployment"]["spec"]["template"]["spec"]
    grace = {each["name"]: each["value"] for each in container()["env"]}["STEER_SHUTDOWN_GRACE"]
    assert pod["terminationGracePeriodSeconds"] > float(grace)


def test_kubernetes_puts_no_variables_of_its_own_beside_ours():
    """It would set STEER_PORT=tcp://... for a service that somebody names steer."""
    pod = manifests()["Deployment"]["spec"]["template"]["spec"]
    assert pod["enableServiceLinks"] is False
    assert container()["resources"]["limits"]["memory"]


def test_a_pod_is_found_by_its_service():
    service, deployment = manifests()["Service"]["spec"], manifests()["Deployment"]["spec"]
    labels = deployment["template"]["metadata"]["labels"]
    assert service["selector"].items() <= labels.items()
    assert deployment["selector"]["matchLabels"].items() <= labels.items()
    assert service["ports"][0]["targetPort"] in {port["name"] for port in container()["ports"]}


def test_the_image_is_labelled_with_the_version():
    assert f"ARG VERSION={__version__} " in (DOCKER / "Dockerfile").read_text()


def test_compose_has_the_server_and_a_gpu_profile_of_it():
    compose = yaml.safe_load((DOCKER / "compose.yaml").read_text())
    plain, gpu = compose["services"]["server"], compose["services"]["server-gpu"]
    assert "profiles" not in plain
    assert gpu["profiles"] == ["gpu"]
    for service in (plain, gpu):
        assert service["read_only"] is True
        assert service["stop_grace_period"] == "40s"
        assert {mount.split(":")[1] for mount in service["volumes"]} == {"/cache", "/profiles"}
