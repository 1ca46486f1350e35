"""GGUF files of quantised weights: plain models once loaded."""

from pathlib import Path

import pytest
import torch
from transformers.quantizers import quantizer_gguf

from steering_profiles.export import export_lora, export_weights
from steering_profiles.models import load_meta_model, method_of
from steering_profiles.models.loading import ModelSource
from steering_profiles.models.projections import is_dense
from tests.builders import build_profile, steer
from tests.gguf import write_gguf
from tests.library.running import logits, steered_logits
from tests.quantised import load

HEADS = [(0, 1, 3.0), (1, 0, 0.0), (2, 3, -2.0)]
NEURONS = [(0, 5, 4.0), (1, 0, 0.0), (2, 39, -3.0)]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf")


def test_loaded_weights_are_plain_ones(file: Path):
    loaded = load(file, dtype="float32")
    assert method_of(loaded.model.config) is None
    assert all(is_dense(loaded.anatomy.neuron_output(layer)) for layer in range(3))
    assert load(file, dtype="float64").dtype == torch.float64


def test_loaded_weights_are_plain_ones_even_if_there_are_kernels_for_gguf(file: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(quantizer_gguf, "get_gguf_kernel", lambda: pytest.fail("its blocks would be kept"))
    assert is_dense(load(file, dtype="float32").anatomy.neuron_output(0))


def test_the_meta_model_has_no_quantisation(file: Path):
    assert load_meta_model(ModelSource(str(file)), with_tokenizer=False).quantisation is None


def test_a_profile_can_be_folded_into_the_weights(file: Path, tmp_path: Path):
    loaded = load(file, dtype="float32")
    profile = build_profile(loaded, heads=HEADS, neurons=NEURONS)
    folded = load(export_weights(loaded, profile, tmp_path / "out"), dtype="float32")
    expected = steered_logits(loaded, steer(profile))
    assert not torch.allclose(expected, logits(loaded), atol=0.1)
    torch.testing.assert_close(logits(folded), expected, atol=1e-3, rtol=1e-3)
    assert folded.identity.fingerprint == loaded.identity.fingerprint


def test_a_profile_can_be_exported_as_an_adapter(file: Path, tmp_path: Path):
    loaded = load(file, dtype="float32")
    out = export_lora(loaded, build_profile(loaded, heads=HEADS), tmp_path / "out")
    assert (out / "adapter_model.safetensors").is_file()
