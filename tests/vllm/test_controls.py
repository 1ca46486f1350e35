"""Controls: with a part of the plugin removed, the answers are wrong, or vLLM does not start."""

from pathlib import Path

import pytest

from steering_profiles.models import LoadedModel
from tests.vllm.offline import TIE, NotStarted, Vllm, references
from tests.vllm.prompts import encoded, long

pytestmark = pytest.mark.timeout(900)

WITHOUT_SALT = """
    from steering_server.engines.vllm.plugin import prefix_cache
    prefix_cache.salted = lambda salt, *_: salt
"""
WITHOUT_NEURONS = """
    from steering_server.engines.vllm.plugin import modules
    modules.steer_neurons = lambda *_: None
"""
ASYNCHRONOUS = """
    from vllm.platforms import current_platform
    platform = type(current_platform)
    original = platform.check_and_update_config

    def check_and_update_config(config):
        original(config)
        config.scheduler_config.async_scheduling = True

    platform.check_and_update_config = staticmethod(check_and_update_config)
"""


def sabotage(folder: Path, code: str) -> dict[str, str]:
    """The environment in which every process of vLLM loads a second plugin, which runs ``code``."""
    (folder / "sabotage.py").write_text(f"def register():{code}")
    metadata = folder / "sabotage-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: sabotage\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[vllm.general_plugins]\nsabotage = sabotage:register\n")
    return {"SABOTAGE": str(folder)}


def test_without_the_salt_a_steered_request_reads_unsteered_keys(
    model: str, profiles: Path, embedded32: LoadedModel, tmp_path: Path
) -> None:
    prompt = encoded(embedded32.tokenizer, long())
    expected = references(embedded32, profiles, [(prompt, "neurons@2")], 1)[0].logprobs[0]
    with Vllm(model, profiles, tmp_path / "log", variables=sabotage(tmp_path, WITHOUT_SALT)) as broken:
        broken.run({"prompt": prompt})
        (output,) = broken.run({"prompt": prompt, "steering": "neurons@2"})
    assert output["cached"] == 256
    assert abs(output["logprobs"][0] - expected) > 100 * TIE


def test_a_module_that_does_not_read_its_table_stops_vllm(model: str, profiles: Path, tmp_path: Path) -> None:
    broken = Vllm(model, profiles, tmp_path / "log", variables=sabotage(tmp_path, WITHOUT_NEURONS))
    with pytest.raises(NotStarted, match="neurons of layer 3 is not steered by what vLLM runs"), broken:
        pass


def test_asynchronous_scheduling_is_switched_off_for_conditions(model: str, profiles: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with Vllm(model, profiles, log, variables=sabotage(tmp_path, ASYNCHRONOUS), max_num_seqs=2) as running:
        running.run({"prompt": [1, 2, 3], "steering": "completing", "max_tokens": 3})
    assert "asynchronous scheduling is off: profiles with a condition (bracketed, completing" in log.read_text()
