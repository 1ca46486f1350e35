"""A Ray cluster of two nodes in this machine, with the application of ``deploy/ray/serve.yaml`` on it."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import ray
import yaml
from ray import serve
from ray.cluster_utils import Cluster
from ray.serve.context import _get_global_client
from ray.serve.schema import ServeDeploySchema

from steering_profiles.models import LoadedModel
from tests.serving import free_port

DEPLOYED = Path(__file__).parents[2] / "deploy" / "ray" / "serve.yaml"
_STORE = 100 * 2**20  # bytes of each node's object store
_REPLICA = "SERVE_REPLICA::steering#Engine#"


def saved(loaded: LoadedModel, folder: Path) -> Path:
    """Write a model to a folder, for replicas to load."""
    loaded.model.save_pretrained(folder)
    loaded.tokenizer.save_pretrained(folder)
    return folder


def configuration(settings: dict[str, Any], engine: dict[str, Any] | None = None) -> dict[str, Any]:
    """The file that users deploy, with other settings and, for the engine, other options of Ray Serve."""
    given: dict[str, Any] = yaml.safe_load(DEPLOYED.read_text())
    (application,) = given["applications"]
    application["args"] = {"insecure": True, **settings}
    ingress, engines = application["deployments"]
    # One ingress on each node, so that those of another node can be lost: a proxy asks the nearest.
    ingress |= {"num_replicas": 2, "max_replicas_per_node": 1, "ray_actor_options": {"num_cpus": 0.1}}
    engines["ray_actor_options"] = {"num_cpus": 0.1}
    engines.update(engine or {})
    if "num_replicas" in engines:
        del engines["autoscaling_config"]
    return given


class Running:
    """A running cluster."""

    def __init__(self, cluster: Cluster, node: Any, port: int) -> None:
        """Run on ``cluster``, whose node besides the first one is ``node``."""
        self._cluster = cluster
        self._node = node
        self._deployed: dict[str, Any] = {}
        self.url = f"http://127.0.0.1:{port}"

    def deploy(self, settings: dict[str, Any], engine: dict[str, Any] | None = None) -> None:
        """Deploy the application, or change it, and wait until it serves."""
        self._deployed = configuration(settings, engine)
        self._apply()
        self.wait(lambda: httpx.get(f"{self.url}/ready", timeout=60).status_code == 200)

    def scale(self, replicas: int) -> None:
        """Change the number of the engine's replicas."""
        (application,) = self._deployed["applications"]
        application["deployments"][1]["num_replicas"] = replicas
        self._apply()

    def _apply(self) -> None:
        client: Any = _get_global_client()
        client.deploy_apps(ServeDeploySchema.model_validate(self._deployed))
        self.wait(lambda: serve.status().applications["steering"].status == "RUNNING")

    def wait(self, condition: Any, seconds: float = 180) -> None:
        """Wait until ``condition`` is true; fail with the state of Ray Serve if it does not get so."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            try:
                if condition():
                    return
            except (httpx.HTTPError, KeyError, AssertionError):
                pass
            time.sleep(0.2)
        raise AssertionError(f"not in time: {serve.status()}")

    def replicas(self) -> dict[str, Any]:
        """Handles of the engine's replicas by the names that answers have."""
        named = ray.util.list_named_actors(all_namespaces=True)
        return {
            actor["name"].removeprefix(_REPLICA): ray.get_actor(actor["name"], actor["namespace"])
            for actor in named
            if actor["name"].startswith(_REPLICA)
        }

    def kill(self, replica: str) -> None:
        """End a replica's process at once."""
        ray.kill(self.replicas()[replica], no_restart=True)

    def lose_node(self) -> None:
        """End all processes of the second node at once."""
        self._cluster.remove_node(self._node, allow_graceful=False)


@contextmanager
def two_nodes() -> Iterator[Running]:
    """Run Ray on two nodes."""
    port = free_port()
    node = {"num_cpus": 8, "object_store_memory": _STORE}
    cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    try:
        second = cluster.add_node(**node)
        cluster.wait_for_nodes()
        ray.init(address=cluster.address, include_dashboard=False, log_to_driver=False)
        # One proxy: the nodes share an address here.
        serve.start(proxy_location="HeadOnly", http_options={"host": "127.0.0.1", "port": port})
        yield Running(cluster, second, port)
    finally:
        serve.shutdown()
        ray.shutdown()
        cluster.shutdown()
