"""The identity of a model depends on its config and tokenizer, not on how its weights are stored."""

from pathlib import Path

import pytest

from steering_profiles.models import DTYPES, LoadedModel, ModelSource, load_model
from steering_profiles.models.identity import fingerprint
from tests.builders import build_model, build_tokenizer


def test_the_sizes_are_the_models(tiny: LoadedModel):
    identity, sizes = tiny.identity, tiny.anatomy.sizes
    assert (identity.layers, identity.heads, identity.hidden_size) == (3, 4, 24)
    assert (identity.kv_heads, identity.head_dim) == ((2, 8) if "llama" in tiny.name else (4, 6))
    assert identity.neurons == (40 if "llama" in tiny.name else 96)
    assert identity.vocab_size == sizes.vocab_size == len(tiny.tokenizer)


def test_saving_and_loading_in_any_dtype_keep_the_fingerprint(tiny: LoadedModel, tmp_path: Path):
    tiny.model.float().save_pretrained(tmp_path)
    tiny.tokenizer.save_pretrained(tmp_path)
    prints = {load_model(ModelSource(model=str(tmp_path), dtype=dtype)).identity.fingerprint for dtype in DTYPES}
    assert prints == {tiny.identity.fingerprint}


def test_weights_do_not_change_the_fingerprint():
    assert build_model("llama", seed=1).identity == build_model("llama", seed=2).identity


def test_another_tokenizer_changes_the_fingerprint(tiny: LoadedModel):
    same, other = (fingerprint(tiny.model.config, build_tokenizer(closers)) for closers in (4, 2))
    assert same == tiny.identity.fingerprint != other


@pytest.mark.parametrize(
    ("family", "setting", "value"),
    [
        ("llama", "rope_parameters", {"rope_theta": 5.0, "rope_type": "default"}),
        ("llama", "hidden_act", "gelu"),
        ("llama", "rms_norm_eps", 1e-3),
        ("llama", "intermediate_size", 41),
        ("llama", "num_key_value_heads", 4),
        ("llama", "attention_bias", True),
        ("gpt2", "activation_function", "relu"),
        ("gpt2", "layer_norm_epsilon", 1e-3),
        ("gpt2", "scale_attn_by_inverse_layer_idx", True),
    ],
)
def test_a_setting_of_the_computation_changes_the_fingerprint(family: str, setting: str, value: object):
    loaded = build_model(family)
    setattr(loaded.model.config, setting, value)
    assert fingerprint(loaded.model.config, loaded.tokenizer) != loaded.identity.fingerprint


@pytest.mark.parametrize(("setting", "value"), [("use_cache", False), ("eos_token_id", 3), ("_name_or_path", "else")])
def test_a_setting_that_computes_nothing_keeps_the_fingerprint(setting: str, value: object):
    loaded = build_model("llama")
    setattr(loaded.model.config, setting, value)
    assert fingerprint(loaded.model.config, loaded.tokenizer) == loaded.identity.fingerprint


def test_rounding_epsilon_to_float32_keeps_the_fingerprint():
    loaded = build_model("llama")
    loaded.model.config.rms_norm_eps = 9.999999974752427e-07  # 1e-06, as a GGUF file gives it back
    assert fingerprint(loaded.model.config, loaded.tokenizer) == loaded.identity.fingerprint
