"""Identity of a model: the sizes and the fingerprint by which a profile recognises it."""

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from steering_profiles.models.anatomy import Anatomy
from steering_profiles.schema import ModelIdentity

# The settings that determine what a component computes. Settings of storage (dtype, quantisation) and generation are
# not included, so that a dequantised or half-precision copy is the same model.
_CONFIG_FIELDS = (
    "model_type",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "intermediate_size",
    "n_inner",
    "hidden_act",
    "activation_function",
    "vocab_size",
    "tie_word_embeddings",
    "attention_bias",
    "mlp_bias",
    "scale_attn_weights",
    "scale_attn_by_inverse_layer_idx",
    "reorder_and_upcast_attn",
)
# Settings of some architectures only. A config without a setting has no entry for it, so that its fingerprint does not
# change when a setting of another family is added here.
_FAMILY_FIELDS = (
    "alibi",
    "attention_multiplier",
    "attn_logit_softcapping",
    "bias",
    "do_layer_norm_before",
    "embedding_multiplier",
    "ffn_dim",
    "ffn_hidden_size",
    "final_logit_softcapping",
    "hidden_activation",
    "layer_types",
    "logits_scaling",
    "moe_intermediate_size",
    "multi_query",
    "new_decoder_architecture",
    "no_rope_layers",
    "num_experts",
    "num_experts_per_tok",
    "num_kv_heads",
    "num_local_experts",
    "parallel_attn",
    "qk_layernorm",
    "query_pre_attn_scalar",
    "residual_multiplier",
    "rotary_dim",
    "sliding_window",
    "use_bias",
    "use_parallel_residual",
    "use_qkv_bias",
    "word_embed_proj_dim",
)
_SAMPLES = 64  # values of each weight that go into the digest
_EPSILONS = ("rms_norm_eps", "layer_norm_epsilon")


def identify(
    name: str,
    architecture: str,
    config: PretrainedConfig,
    tokenizer: PreTrainedTokenizerBase | None,
    anatomy: Anatomy,
) -> ModelIdentity:
    """Return the identity of a model; without a tokenizer the fingerprint covers the config only."""
    sizes = anatomy.sizes
    return ModelIdentity(
        id=name,
        architecture=architecture,
        layers=sizes.layers,
        heads=sizes.heads,
        kv_heads=sizes.kv_heads,
        head_dim=sizes.head_dim,
        neurons=sizes.neurons,
        hidden_size=sizes.hidden_size,
        vocab_size=sizes.vocab_size,
        fingerprint=fingerprint(config, tokenizer),
    )


def fingerprint(config: PretrainedConfig, tokenizer: PreTrainedTokenizerBase | None) -> str:
    """Return ``sha256:...`` over the settings of config and tokenizer that determine the computation."""
    facts: dict[str, Any] = {field: getattr(config, field, None) for field in _CONFIG_FIELDS}
    # GGUF files store these in float32: 1e-05 is read as 9.999999747378752e-06.
    facts |= {field: float(f"{getattr(config, field, None) or 0:.4g}") for field in _EPSILONS}
    facts |= {field: getattr(config, field) for field in _FAMILY_FIELDS if hasattr(config, field)}
    facts["rope"] = getattr(config, "rope_parameters", None)
    facts["vocabulary"] = sorted(tokenizer.get_vocab().items()) if tokenizer is not None else None
    canonical = json.dumps(facts, sort_keys=True, separators=(",", ":"), default=str)
    return f"sha256:{hashlib.sha256(canonical.encode()).hexdigest()}"


def weights_digest(model: PreTrainedModel) -> str:
    """Return a hash over a few values of every weight, which distinguishes checkpoints of the same architecture.

    Weights that accelerate has offloaded to disk are not included.
    """
    digest = hashlib.sha256()
    for name, weight in model.named_parameters():
        digest.update(name.encode())
        if not weight.is_meta:
            for part in _dense_parts(weight.detach()):
                flat = part.flatten()
                picked = torch.linspace(0, len(flat) - 1, min(_SAMPLES, len(flat)), dtype=torch.float64).long()
                digest.update(flat[picked.to(flat.device)].double().cpu().numpy().tobytes())
    return digest.hexdigest()


def _dense_parts(tensor: Tensor) -> Iterator[Tensor]:
    """Yield the dense tensors of a tensor: itself, or the integers and scales of one quantised by torchao."""
    flatten = getattr(tensor, "__tensor_flatten__", None)
    if flatten is None:
        yield tensor
        return
    names, _ = flatten()
    for name in names:
        part = getattr(tensor, name)
        if isinstance(part, Tensor):
            yield from _dense_parts(part)
