"""Settings of the vLLM plugin, and the profiles that they select."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from steering_profiles.errors import ProfileMismatch
from steering_profiles.models import LoadedModel
from steering_profiles.store import save_profile
from steering_server.engines.vllm.plugin.modes import require_supported
from steering_server.engines.vllm.plugin.served import served_by
from steering_server.engines.vllm.plugin.settings import read_settings
from steering_server.errors import ConfigError
from tests.builders import build_model, build_profile
from tests.engines.vllm.standins import vllm_config


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    return build_model("llama")


@pytest.fixture(scope="module")
def model(loaded: LoadedModel, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("model")
    loaded.model.save_pretrained(folder)
    loaded.tokenizer.save_pretrained(folder)
    return str(folder)


def test_without_settings_the_shipped_profiles_are_served_and_the_canary_runs() -> None:
    settings = read_settings({})
    assert (settings.profiles, settings.shipped, settings.force, settings.canary) == (None, True, False, True)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"profile": "x"}, "additional_config.steering.profile is not a setting; allowed: profiles, shipped"),
        ({"canary": "no"}, "additional_config.steering.canary is 'no': Input should be a valid boolean"),
        ({"profiles": 3}, "additional_config.steering.profiles is 3: must be the path of a folder"),
        ("x", "additional_config.steering is 'x'"),
    ],
)
def test_an_invalid_setting_is_named(given: Any, message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        read_settings({"steering": given})
    assert message in str(refused.value)


def test_a_config_that_is_no_object_is_refused() -> None:
    with pytest.raises(ConfigError, match="additional_config is a list"):
        read_settings([])


def test_gated_profiles_are_listed_with_the_reason(model: str, loaded: LoadedModel, tmp_path: Path) -> None:
    save_profile(build_profile(loaded, "plain", heads=[(0, 1, 2.0)]), tmp_path)
    save_profile(build_profile(loaded, "gated", self_only_attention=1.0, gate=(0.1, 0.5)), tmp_path)
    served = served_by(vllm_config(model, {"steering": {"profiles": str(tmp_path), "shipped": False, "force": True}}))
    assert [profile.name for profile in served.usable] == ["plain"]
    assert "a gate needs two passes over the final layer" in str(served.cards["gated"].reason)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"use_v2_model_runner": True}, "second model runner has the tokens of a step on the GPU alone"),
        ({"model_config__skip_tokenizer_init": True}, "skip_tokenizer_init"),
        ({"model_config__tokenizer": "other"}, "tokenizer is other"),
        ({"model_config__enable_prompt_embeds": True}, "enable_prompt_embeds"),
    ],
)
def test_conditions_are_refused_where_the_tokens_or_their_text_are_not_known(
    model: str, loaded: LoadedModel, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    save_profile(build_profile(loaded, "plain", heads=[(0, 1, 2.0)]), tmp_path)
    save_profile(build_profile(loaded, "where", heads=[(0, 1, 2.0)], when={"ends_with": ["("]}), tmp_path)
    settings = {"steering": {"profiles": str(tmp_path), "shipped": False, "force": True}}
    assert [profile.name for profile in served_by(vllm_config(model, settings)).usable] == ["plain", "where"]
    served = served_by(vllm_config(model, settings, **changes))
    assert [profile.name for profile in served.usable] == ["plain"]
    reason = str(served.cards["where"].reason)
    assert reason.startswith("when (the text ends with '('): this vLLM cannot test a condition: ")
    assert message in reason


def test_the_shipped_profiles_are_not_usable_with_another_model(model: str) -> None:
    served = served_by(vllm_config(model))
    assert served.cards
    assert not served.usable
    assert all("architecture" in str(card.reason) or "layers" in str(card.reason) for card in served.cards.values())


def test_an_own_profile_for_another_model_stops_vllm(model: str, tmp_path: Path) -> None:
    save_profile(build_profile(build_model("gpt2"), "other", heads=[(0, 1, 2.0)]), tmp_path)
    with pytest.raises(ProfileMismatch, match="architecture"):
        served_by(vllm_config(model, {"steering": {"profiles": str(tmp_path)}}))


def test_a_model_that_is_not_known_is_served_unsteered(model: str, tmp_path: Path) -> None:
    config = json.loads((Path(model) / "config.json").read_text())
    config |= {"architectures": ["CohereForCausalLM"], "model_type": "cohere"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    served = served_by(vllm_config(str(tmp_path)))
    assert not served.usable
    assert served.unknown is not None
    profiles = tmp_path / "profiles"
    profiles.mkdir()
    with pytest.raises(ConfigError, match="profiles is given, but this model cannot be steered"):
        served_by(vllm_config(str(tmp_path), {"steering": {"profiles": str(profiles)}}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"model_config__revision": "old"}, "revision is 'old'"), ({"model_config__hf_overrides": {"a": 1}}, "{'a': 1}")],
)
def test_a_model_that_is_not_what_its_folder_says_is_served_unsteered(
    model: str, changes: dict[str, Any], message: str
) -> None:
    assert message in str(served_by(vllm_config(model, **changes)).unknown)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kv_transfer_config": object()}, "kv_transfer_config"),
        ({"parallel_config__use_ubatching": True}, "microbatches"),
        ({"parallel_config__prefill_context_parallel_size": 2}, "prefill_context_parallel_size"),
        ({"model_config__enable_sleep_mode": True}, "enable_sleep_mode"),
        ({"cache_config__kv_sharing_fast_prefill": True}, "kv_sharing_fast_prefill"),
        ({"model_config__runner_type": "pooling"}, "runner pooling"),
    ],
)
def test_modes_that_steering_does_not_work_with_are_refused(changes: dict[str, Any], message: str) -> None:
    require_supported(vllm_config("model"))
    with pytest.raises(ConfigError, match=message):
        require_supported(vllm_config("model", **changes))


def test_the_plugin_is_imported_without_vllm() -> None:
    modules = ("entry", "conditions", "endpoints", "front_end", "prefix_cache", "runner_v1", "runner_v2")
    imports = ", ".join(f"steering_server.engines.vllm.plugin.{module}" for module in modules)
    code = f"import sys, {imports}; print('vllm' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"
