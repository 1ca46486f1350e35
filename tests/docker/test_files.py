"""``docker/`` and docs/deployment.md, compared with the server."""

import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from steering_profiles import __version__
from steering_server.api.app import create_app
from steering_server.api.lifecycle import LAST_WORDS_SECONDS
from steering_server.api.service import Service
from steering_server.cli.access import open_gate
from steering_server.cli.listening import listen
from steering_server.config import PREFIX, ServerSettings, load_settings
from steering_server.errors import ConfigError

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"
DEPLOYMENT = ROOT / "docs" / "deployment.md"


def manifests() -> dict[str, Any]:
    return {each["kind"]: each for each in yaml.safe_load_all((DOCKER / "kubernetes.yaml").read_text())}


def container() -> dict[str, Any]:
    (only,) = manifests()["Deployment"]["spec"]["template"]["spec"]["containers"]
    return only


def instructions(name: str) -> list[str]:
    """Return the arguments of every instruction ``name`` in the Dockerfile."""
    joined = re.sub(r"\\\n\s*", "", (DOCKER / "Dockerfile").read_text())
    return [line.removeprefix(f"{name} ") for line in joined.splitlines() if line.startswith(f"{name} ")]


def build_arguments() -> dict[str, str]:
    return dict(word.split("=", 1) for line in instructions("ARG") for word in shlex.split(line))


def image_variables() -> dict[str, str]:
    """Those of the image without a model."""
    plain, _ = instructions("ENV")
    return dict(word.split("=", 1) for word in shlex.split(plain))


def compose_services() -> dict[str, Any]:
    """The services that are our server."""
    services = yaml.safe_load((DOCKER / "compose.yaml").read_text())["services"]
    return {name: service for name, service in services.items() if "build" in service}


def pod() -> dict[str, Any]:
    return manifests()["Deployment"]["spec"]["template"]["spec"]


def use(variables: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> ServerSettings:
    """The settings of a server that is started with ``variables``."""
    for name, value in variables.items():
        if name.startswith(PREFIX):
            monkeypatch.setenv(name, value)
    return load_settings()


def test_every_package_is_among_what_the_image_is_built_of():
    found = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]["find"]
    folders = {
        folder.relative_to(ROOT).parts[0]
        for where in found["where"]
        for pattern in found["include"]
        for folder in (ROOT / where).glob(pattern)
        if (folder / "__init__.py").exists()
    }
    assert folders == {"steering_profiles", "steering_ab", "server"}
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert folders | {"client", "pyproject.toml", "constraints.txt"} <= kept


def test_every_variable_in_the_files_is_a_setting():
    known = {PREFIX + name.upper() for name in ServerSettings.model_fields}
    for file in (*sorted(file for file in DOCKER.rglob("*") if file.is_file()), DEPLOYMENT):
        named = set(re.findall(rf"\b{PREFIX}[A-Z_]+\b", file.read_text()))
        assert named <= known, file.name


@pytest.mark.parametrize("probe", ["startupProbe", "livenessProbe", "readinessProbe"])
def test_the_probes_of_kubernetes_ask_routes_of_the_server(probe: str):
    asked = container()[probe]["httpGet"]
    assert asked["path"] == ("/ready" if probe == "readinessProbe" else "/health")
    assert asked["path"] in create_app(Service()).openapi()["paths"]
    assert asked["port"] in {port["name"] for port in container()["ports"]}


def test_kubernetes_waits_longer_than_the_server_does(monkeypatch: pytest.MonkeyPatch):
    settings = use(image_variables() | {each["name"]: each["value"] for each in container()["env"]}, monkeypatch)
    (_, pause) = container()["lifecycle"]["preStop"]["exec"]["command"]
    assert pod()["terminationGracePeriodSeconds"] > int(pause) + settings.shutdown_grace + LAST_WORDS_SECONDS


def test_compose_and_the_document_wait_longer_than_the_server_does(monkeypatch: pytest.MonkeyPatch):
    least = use(image_variables(), monkeypatch).shutdown_grace + LAST_WORDS_SECONDS
    for service in compose_services().values():
        assert float(service["stop_grace_period"].removesuffix("s")) > least
    (stop,) = re.findall(r"docker stop -t (\d+)", DEPLOYMENT.read_text())
    assert float(stop) > least


def test_all_files_name_the_port_that_the_image_listens_on(monkeypatch: pytest.MonkeyPatch):
    settings = use(image_variables(), monkeypatch)
    assert settings.host == "0.0.0.0"
    assert instructions("EXPOSE") == [str(settings.port)]
    assert [port["containerPort"] for port in container()["ports"]] == [settings.port]
    for service in compose_services().values():
        assert [mapping.split(":")[-1] for mapping in service["ports"]] == [str(settings.port)]


def test_all_files_name_the_folders_of_the_image(monkeypatch: pytest.MonkeyPatch):
    (declared,) = instructions("VOLUME")
    volumes = set(yaml.safe_load(declared))
    settings = use(image_variables(), monkeypatch)
    assert str(settings.profiles) in volumes
    assert str(settings.cache_dir.parent) in volumes
    assert {mount["mountPath"] for mount in container()["volumeMounts"]} == volumes | {"/tmp", "/keys"}
    assert {mount["name"] for mount in container()["volumeMounts"]} == {volume["name"] for volume in pod()["volumes"]}
    for service in compose_services().values():
        assert {mount.split(":")[1] for mount in service["volumes"]} == volumes | {"/keys"}
        assert service["tmpfs"] == ["/tmp"]


def test_the_image_serves_others_only_with_keys(monkeypatch: pytest.MonkeyPatch):
    settings = use(image_variables(), monkeypatch)
    assert not settings.insecure
    with listen(settings.host, 0) as listener, pytest.raises(ConfigError, match="there are no API keys"):
        open_gate(settings, listener)


def test_compose_does_without_keys_only_where_this_machine_alone_reaches_the_server():
    for service in compose_services().values():
        if service.get("environment", {}).get("STEER_INSECURE") == "true":
            assert all(mapping.startswith("127.0.0.1:") for mapping in service["ports"])


def test_kubernetes_serves_with_keys_from_a_secret(monkeypatch: pytest.MonkeyPatch):
    settings = use(image_variables() | {each["name"]: each["value"] for each in container()["env"]}, monkeypatch)
    assert not settings.insecure
    mounts = {mount["name"]: mount["mountPath"] for mount in container()["volumeMounts"]}
    assert str(settings.api_keys_file.parent) == mounts["keys"]
    (secret,) = [volume["secret"] for volume in pod()["volumes"] if volume["name"] == "keys"]
    assert not secret.get("optional", False), "without the secret the pod must not start"
    assert f"generic {secret['secretName']} " in DEPLOYMENT.read_text()


def test_all_files_name_the_user_of_the_image():
    (user,) = instructions("USER")
    security = pod()["securityContext"]
    assert user == f"{security['runAsUser']}:{security['runAsGroup']}" == f"{security['fsGroup']}:{security['fsGroup']}"
    assert security["runAsNonRoot"] is True


def test_the_health_check_asks_for_readiness():
    (check,) = instructions("HEALTHCHECK")
    asked = re.findall(r"STEER_PORT'\]}(/[a-z]+)", check)
    assert asked == ["/ready"]
    assert set(asked) <= set(create_app(Service()).openapi()["paths"])


def test_the_document_lists_every_build_argument():
    rows = re.findall(r"^\| ((?:`[A-Z_]+`(?:, )?)+) \| (.*?) \|", DEPLOYMENT.read_text(), re.MULTILINE)
    listed = {name: default.strip("`") for names, default in rows for name in re.findall(r"[A-Z_]+", names)}
    defaults = build_arguments()
    assert set(listed) == set(defaults)
    assert listed["WEIGHTS"] == defaults["WEIGHTS"]
    assert defaults["BASE_IMAGE"] == f"docker.io/library/{listed['BASE_IMAGE']}"


def test_commands_and_compose_name_files_arguments_and_images_that_exist():
    document = DEPLOYMENT.read_text()
    for file in re.findall(r"(?:-f|apply -f) (\S+)", document):
        assert (ROOT / file).is_file(), file
    named = set(re.findall(r"--build-arg (\w+)", document))
    for service in compose_services().values():
        build = service["build"]
        assert (DOCKER / build["context"] / build["dockerfile"]).is_file()
        named |= set(build.get("args", {}))
    assert named <= set(build_arguments())
    images = {service["image"] for service in compose_services().values()}
    assert set(re.findall(r"steering-server:\w+", document)) == images
    assert container()["image"] in images


def test_kubernetes_adds_no_variables_of_its_own():
    """It would set STEER_PORT=tcp://... for a service that somebody names steer."""
    assert pod()["enableServiceLinks"] is False
    assert container()["resources"]["limits"]["memory"]


def test_the_service_selects_the_pod():
    service, deployment = manifests()["Service"]["spec"], manifests()["Deployment"]["spec"]
    labels = deployment["template"]["metadata"]["labels"]
    assert service["selector"].items() <= labels.items()
    assert deployment["selector"]["matchLabels"].items() <= labels.items()
    assert service["ports"][0]["targetPort"] in {port["name"] for port in container()["ports"]}


def test_the_image_is_labelled_with_the_version():
    assert f"ARG VERSION={__version__} " in (DOCKER / "Dockerfile").read_text()


def test_compose_has_the_server_and_a_gpu_profile_of_it():
    plain, gpu = compose_services()["server"], compose_services()["server-gpu"]
    assert "profiles" not in plain
    assert gpu["profiles"] == ["gpu"]
    assert plain["read_only"] is gpu["read_only"] is True
