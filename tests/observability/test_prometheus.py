"""Prometheus reads a server's metrics, and the dashboard and the alerts ask for what there is."""

import json
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import torch
import yaml

from steering_server.limits import EngineLimits
from tests.builders import build_model, profiles_for
from tests.observability.prometheus import Prometheus, require, watching
from tests.observability.scraping import Scrape, until
from tests.serving import serving

DOCKER = Path(__file__).parents[2] / "docker"
DASHBOARD = json.loads((DOCKER / "grafana/dashboards/steering-server.json").read_text())
VARIABLES = {"$__rate_interval": "1m", "$model_name": ".*", "$profile": ".*"}
METRIC = re.compile(r"\b(?:(?:vllm|steering|http|process)[a-z0-9_]*:?[a-z0-9_]+|up)\b(?=[\s{\[)]|$)")


def expressions() -> list[str]:
    """Every expression of the dashboard, as Grafana would send it."""
    found = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
    for variable, value in VARIABLES.items():
        found = [expression.replace(variable, value) for expression in found]
    return found


def alerts() -> list[str]:
    groups = yaml.safe_load((DOCKER / "prometheus/alerts.yaml").read_text())["groups"]
    return [rule["expr"] for group in groups for rule in group["rules"]]


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """A server that has answered requests of all kinds, and a Prometheus that has seen them come."""
    require("prometheus")
    model = build_model("llama", dtype=torch.float32)
    limits = EngineLimits(max_queue=8, max_num_seqs=4)
    folder = tmp_path_factory.mktemp("watched")
    with (
        serving(model, folder / "profiles", profiles_for(model), limits=limits) as url,
        httpx.Client(base_url=url, timeout=60) as http,
    ):
        send(http)
        with watching(url, folder) as prometheus:
            until(lambda: prometheus.value("vllm:generation_tokens_total") is not None)
            send(http)
            # A rate needs two readings.
            tokens = Scrape(http).value("vllm:generation_tokens_total")
            until(lambda: prometheus.value("vllm:generation_tokens_total") == tokens)
            yield prometheus


def send(http: httpx.Client) -> None:
    body = {"prompt": "some words that come again", "max_tokens": 5, "ignore_eos": True}
    for more in ({}, {"arms": ["baseline", "heads", "heads+final"]}, {"model": "nope"}, {"n": 100}):
        http.post("/v1/completions", json=body | more)


def test_prometheus_reads_the_server_without_a_complaint(watched: Prometheus):
    (target,) = watched.targets()
    assert (target["health"], target["lastError"]) == ("up", "")


def test_prometheus_knows_what_the_server_said(watched: Prometheus):
    tokens = {one["metric"]["profile"]: float(one["value"][1]) for one in watched.query("vllm:generation_tokens_total")}
    assert tokens == {"baseline": 20, "heads": 10, "composed": 10}
    assert watched.value('http_requests_total{status="404"}') == 2
    assert watched.value("vllm:num_requests_running") == 0
    assert watched.value("time() - process_start_time_seconds") < time.time()
    assert watched.value("histogram_quantile(0.5, sum by (le) (vllm:time_to_first_token_seconds_bucket))") < 5


@pytest.mark.parametrize("expression", expressions())
def test_every_expression_of_the_dashboard_shows_something(expression: str, watched: Prometheus):
    assert watched.query(expression), "nothing is shown"


@pytest.mark.parametrize("expression", expressions() + alerts())
def test_every_expression_names_metrics_that_exist(expression: str, watched: Prometheus):
    named = set(METRIC.findall(expression))
    assert named
    assert named <= watched.names()


@pytest.mark.parametrize("expression", alerts())
def test_no_alert_is_raised_by_a_server_that_is_well(expression: str, watched: Prometheus):
    raised = [one for one in watched.query(expression) if "queue_full" not in str(one)]
    assert raised == []


def test_the_variables_of_the_dashboard_have_values(watched: Prometheus):
    queries = [one["query"]["query"] for one in DASHBOARD["templating"]["list"] if one["type"] == "query"]
    for query in queries:
        metric, label = re.fullmatch(r"label_values\((.+), (\w+)\)", query).groups()
        assert all(label in one["metric"] for one in watched.query(metric))
        assert watched.query(metric)


@pytest.mark.parametrize(("kind", "file"), [("config", "prometheus.yaml"), ("rules", "alerts.yaml")])
def test_promtool_accepts_the_files(kind: str, file: str):
    checked = subprocess.run(
        [require("promtool"), "check", kind, str(DOCKER / "prometheus" / file)], capture_output=True, text=True
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_grafana_finds_prometheus_and_the_dashboard():
    services = yaml.safe_load((DOCKER / "compose.yaml").read_text())["services"]
    mounts = dict(volume.split(":")[:2] for volume in services["grafana"]["volumes"])
    provisioning = DOCKER / "grafana/provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources/prometheus.yaml").read_text())["datasources"]
    (provider,) = yaml.safe_load((provisioning / "dashboards/steering-server.yaml").read_text())["providers"]
    assert source["url"] == "http://prometheus:9090"
    assert "prometheus" in services
    assert source["uid"] == DASHBOARD["templating"]["list"][0]["current"]["value"]
    assert mounts["./grafana/dashboards"] == provider["options"]["path"]
    assert mounts["./grafana/provisioning"] == "/etc/grafana/provisioning"
    assert services["grafana"]["profiles"] == services["prometheus"]["profiles"] == ["monitoring"]


def test_prometheus_asks_both_servers_of_the_compose_file_where_they_listen():
    config = yaml.safe_load((DOCKER / "prometheus/prometheus.yaml").read_text())
    (job,) = config["scrape_configs"]
    (found,) = job["dns_sd_configs"]
    services = yaml.safe_load((DOCKER / "compose.yaml").read_text())["services"]
    ours = {name: service for name, service in services.items() if "build" in service}
    assert set(found["names"]) == set(ours)
    assert {port.split(":")[-1] for service in ours.values() for port in service["ports"]} == {str(found["port"])}
    assert set(config["rule_files"]) == {"alerts.yaml"}
