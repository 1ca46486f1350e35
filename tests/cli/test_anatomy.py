"""``steer anatomy``: its output, from the config of a model only."""

from pathlib import Path

import pytest
import torch
from transformers import BloomConfig, PretrainedConfig
from typer.testing import CliRunner

from steering_profiles.errors import ModelLoadError, UnknownArchitecture
from steering_server.cli import app
from tests.families import build_family


def anatomy(folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("COLUMNS", "300")
    result = CliRunner().invoke(app, ["anatomy", str(folder)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.output


def config_alone(folder: Path, config: PretrainedConfig, **settings: object) -> Path:
    for name, value in settings.items():
        setattr(config, name, value)
    config.save_pretrained(folder)
    assert [path.name for path in folder.iterdir()] == ["config.json"]
    return folder


def config_of(case: str) -> PretrainedConfig:
    model = build_family(case).model
    model.config.architectures = [type(model).__name__]
    return model.config


def line(output: str, start: str) -> str:
    return next(line for line in output.splitlines() if line.strip("│ ").startswith(start))


def test_anatomy_shows_sizes_hooks_and_supported_effects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    output = anatomy(config_alone(tmp_path, config_of("llama")), monkeypatch)
    assert "LlamaForCausalLM" in line(output, "model")
    assert line(output, "layers").split() == ["layers", "3"]
    assert "4 of size 12, sharing the values of 2" in line(output, "heads")
    assert "into model.layers.*.mlp.down_proj" in output
    assert "out of model.layers.2.self_attn.v_proj" in line(output, "self-only attention")
    assert "out of model.layers.2.mlp" in line(output, "intercept")
    assert output.count("│ yes ") == 10


def test_anatomy_shows_norms_and_multipliers_between_a_component_and_the_residual_stream(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    gemma = anatomy(config_alone(tmp_path / "gemma", config_of("gemma2")), monkeypatch)
    assert "through post_attention_layernorm (heads)" in line(gemma, "to residual stream")
    assert "out of model.layers.2.post_feedforward_layernorm" in line(gemma, "intercept")
    granite = anatomy(config_alone(tmp_path / "granite", config_of("granite")), monkeypatch)
    assert "times 0.4" in line(granite, "to residual stream")
    opt = anatomy(config_alone(tmp_path / "opt", config_of("opt-350m")), monkeypatch)
    assert "on the residual stream, after self_attn_layer_norm" in line(opt, "to residual stream")


def test_unsupported_effects_have_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    experts = anatomy(config_alone(tmp_path / "moe", config_of("mixtral")), monkeypatch)
    assert "no: mixtral keeps its neurons in experts" in line(experts, "fitting neurons")
    falcon = anatomy(config_alone(tmp_path / "falcon", config_of("falcon-rw")), monkeypatch)
    assert "no: FalconForCausalLM computes attention by itself" in line(falcon, "serving by the engine")
    quantised = config_alone(
        tmp_path / "gptq", config_of("llama"), quantization_config={"quant_method": "gptq", "bits": 4}
    )
    assert "no: it is quantised (method gptq)" in line(anatomy(quantised, monkeypatch), "export as weights")


def test_quantised_weights_are_named_with_whether_they_can_be_loaded_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    plain = anatomy(config_alone(tmp_path / "some", config_of("llama")), monkeypatch)
    assert line(plain, "weights").split() == ["weights", "plain"]
    assert "loading here" not in plain
    settings = {"quant_method": "aqlm", "nbits_per_codebook": 16}
    missing = anatomy(config_alone(tmp_path / "a", config_of("llama"), quantization_config=settings), monkeypatch)
    assert "quantised (method aqlm)" in line(missing, "weights")
    assert "install it with: pip install aqlm[cpu]" in line(missing, "loading here")
    settings = {"quant_method": "bitsandbytes", "load_in_8bit": True}
    kept = anatomy(config_alone(tmp_path / "b", config_of("llama"), quantization_config=settings), monkeypatch)
    assert "yes" in line(kept, "loading here")
    assert "no: it is quantised (method bitsandbytes)" in line(kept, "export as LoRA")


@pytest.mark.skipif(torch.cuda.is_available(), reason="GPUs keep them as they are")
def test_weights_that_are_dequantised_on_loading_can_be_exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    settings = {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [128, 128]}
    output = anatomy(config_alone(tmp_path, config_of("llama"), quantization_config=settings), monkeypatch)
    assert "quantised (method fp8), made plain ones on loading" in line(output, "weights")
    assert "yes" in line(output, "export as weights")


def test_an_unknown_architecture_is_refused_and_the_known_ones_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folder = config_alone(tmp_path, BloomConfig(architectures=["BloomForCausalLM"]))
    with pytest.raises(UnknownArchitecture, match=r"BloomForCausalLM is not known.*LlamaForCausalLM"):
        anatomy(folder, monkeypatch)


def test_a_folder_without_a_config_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(ModelLoadError, match=r"has no config\.json"):
        anatomy(tmp_path, monkeypatch)
