"""Either engine behind Ray Serve, with the real model; replicas that come and go with the load."""

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import httpx
import psutil
import pytest
import torch

from tests.builders import build_model
from tests.ray_serve.cluster import Running, saved, two_nodes
from tests.ray_serve.loads import Load

pytestmark = pytest.mark.timeout(900)

FOUR = "#print the string 123\nprint(str(str(str(123"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Running]:
    with pytest.MonkeyPatch.context() as patched:
        # What vLLM reads in processes of Ray's, which have the environment of the first one.
        for name, value in {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}.items():
            patched.setenv(name, value)
        with two_nodes() as running:
            yield running


def four(cluster: Running) -> list[str]:
    body = {"model": "base", "prompt": FOUR, "max_tokens": 1, "temperature": 0, "arms": ["baseline", "parentheses"]}
    answer = httpx.post(f"{cluster.url}/v1/completions", json=body, timeout=300)
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-steering"].startswith("baseline")
    return [choice["text"] for choice in answer.json()["choices"]]


def test_replicas_come_and_go_with_the_load(cluster: Running, tmp_path: Path) -> None:
    loaded = build_model("llama", dtype=torch.float32, context=1024)
    settings = {"model": str(saved(loaded, tmp_path / "model")), "served_name": "base", "max_num_seqs": 8}
    quick = {"upscale_delay_s": 0.5, "downscale_delay_s": 2, "metrics_interval_s": 0.5, "look_back_period_s": 1}
    scaling = {"min_replicas": 1, "max_replicas": 2, "target_ongoing_requests": 4, **quick}
    cluster.deploy(settings, {"autoscaling_config": scaling})
    assert len(cluster.replicas()) == 1
    load = Load(cluster.url, {})
    cluster.wait(lambda: len(cluster.replicas()) == 2)
    outcomes = load.outcomes()
    cluster.wait(lambda: len(cluster.replicas()) == 1)
    assert set(outcomes) == {"answered", "streamed"}


def test_four_parentheses_are_closed_by_the_steered_arm(cluster: Running) -> None:
    cluster.deploy({"served_name": "base"}, {"num_replicas": 1})
    assert four(cluster) == [")))", "))))"]


@pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed")
def test_on_vllm_too_and_a_replica_whose_vllm_ends_is_replaced(cluster: Running) -> None:
    arguments = {"enforce_eager": True, "block_size": 32}
    settings = {"engine": "vllm", "dtype": "float32", "max_model_len": 512, "max_num_seqs": 8, "vllm_args": arguments}
    cluster.deploy({**settings, "served_name": "base"}, {"num_replicas": 1})
    assert four(cluster) == [")))", "))))"]
    (before,) = cluster.replicas()
    own = psutil.Process().children(recursive=True)
    (core,) = [process for process in own if "VLLM::EngineCore" in " ".join(process.cmdline())]
    core.kill()
    cluster.wait(lambda: before not in cluster.replicas() and len(cluster.replicas()) == 1)
    cluster.wait(lambda: four(cluster) == [")))", "))))"])
