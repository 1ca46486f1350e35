"""A small model of each architecture family, made from its config alone: adding a family is one line of ``CASES``."""

from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from steering_profiles.models import LoadedModel, assemble
from tests.builders import build_tokenizer, randomised

WINDOW = 6
"""Tokens that a layer with a sliding window sees: fewer than the prompts of the tests have."""

# Grouped-query attention, and a head_dim that is not hidden_size / heads, wherever the config has them.
_LLAMA: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "tie_word_embeddings": False,
}
_WIDE = {"head_dim": 12}
_PLAIN = _LLAMA | {"num_key_value_heads": 4}
_SLIDING = {"sliding_window": WINDOW}
_GEMMA = _LLAMA | _WIDE | {"tie_word_embeddings": True}
_GEMMA_SCORES = _SLIDING | {"query_pre_attn_scalar": 12}
_GEMMA3 = _GEMMA | _GEMMA_SCORES | {"sliding_window_pattern": 2}
_GEMMA3_TEXT = _GEMMA3 | {"vocab_size": len(build_tokenizer())}
_VISION = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}
_OPT = {
    "hidden_size": 32,
    "ffn_dim": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
}
_FALCON = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "ffn_hidden_size": 40, "alibi": False}
_MULTIPLIERS = {
    "residual_multiplier": 0.4,
    "embedding_multiplier": 3.0,
    "attention_multiplier": 0.2,
    "logits_scaling": 2.0,
}
_EXPERTS = {"num_experts_per_tok": 2}
_QWEN3_EXPERTS = _EXPERTS | {"num_experts": 4, "moe_intermediate_size": 16}

CASES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "gpt2": ("gpt2", "gpt2", {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 128}),
    "opt": ("opt", "opt", _OPT | {"word_embed_proj_dim": 32}),
    "opt-350m": ("opt-post-norm", "opt", _OPT | {"word_embed_proj_dim": 20, "do_layer_norm_before": False}),
    "pythia": ("gpt-neox", "gpt_neox", _PLAIN | {"use_parallel_residual": True}),
    "gpt-neox-sequential": ("gpt-neox", "gpt_neox", _PLAIN | {"use_parallel_residual": False}),
    "gptj": ("gptj", "gptj", {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 128, "rotary_dim": 4}),
    "falcon-40b": ("falcon", "falcon", _FALCON | {"new_decoder_architecture": True, "num_kv_heads": 2, "bias": True}),
    "falcon-7b": ("falcon", "falcon", _FALCON | {"multi_query": True, "parallel_attn": True}),
    "falcon-rw": ("falcon-rw", "falcon", _FALCON | {"multi_query": False, "parallel_attn": False, "alibi": True}),
    "llama": ("llama", "llama", _LLAMA | _WIDE),
    "llama-biases": ("llama", "llama", _LLAMA | {"attention_bias": True, "mlp_bias": True}),
    "mistral": ("mistral", "mistral", _LLAMA | _WIDE | _SLIDING),
    "qwen2": ("qwen2", "qwen2", _LLAMA | _SLIDING | {"use_sliding_window": True, "max_window_layers": 1}),
    "qwen3": ("qwen3", "qwen3", _LLAMA | _WIDE),
    "gemma": ("gemma", "gemma", _GEMMA),
    "gemma2": ("gemma2", "gemma2", _GEMMA | _GEMMA_SCORES | {"attn_logit_softcapping": 2.0}),
    "gemma3": ("gemma3", "gemma3_text", _GEMMA3),
    "gemma3-with-vision": ("gemma3-with-vision", "gemma3", {"text_config": _GEMMA3_TEXT, "vision_config": _VISION}),
    "phi": ("phi", "phi", _LLAMA),
    "phi3": ("phi3", "phi3", _LLAMA | _SLIDING | {"pad_token_id": None}),
    "stablelm": ("stablelm", "stablelm", _LLAMA | {"use_qkv_bias": True}),
    "stablelm-parallel": ("stablelm", "stablelm", _LLAMA | {"use_parallel_residual": True, "qk_layernorm": True}),
    "starcoder2": ("starcoder2", "starcoder2", _LLAMA | _SLIDING),
    "olmo": ("olmo", "olmo", _LLAMA),
    "olmo2": ("olmo2", "olmo2", _LLAMA),
    "olmo3": ("olmo3", "olmo3", _LLAMA | _SLIDING),
    "smollm3": ("smollm3", "smollm3", _LLAMA | {"no_rope_layer_interval": 2, "pad_token_id": None}),
    "granite": ("granite", "granite", _LLAMA | _MULTIPLIERS),
    "mixtral": ("mixtral", "mixtral", _LLAMA | _EXPERTS | {"num_local_experts": 4}),
    "qwen3-moe": ("qwen3-moe", "qwen3_moe", _LLAMA | _WIDE | _QWEN3_EXPERTS),
}
"""By name: the family, the model type of transformers, and the settings of a small config."""

EXPERTS = ("mixtral", "qwen3-moe")
DENSE = tuple(case for case in CASES if case not in EXPERTS)


def build_family(case: str, *, dtype: torch.dtype = torch.float64, seed: int = 0, **changes: Any) -> LoadedModel:
    """A small model of random weights of a family, with ``changes`` to its config."""
    _, model_type, settings = CASES[case]
    settings = settings | changes
    tokenizer = build_tokenizer()
    config = AutoConfig.for_model(
        model_type,
        vocab_size=len(tokenizer),
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
        **settings | changes,
    )
    torch.manual_seed(seed)
    # Grouped products of experts, the default, are not there in float64.
    model = AutoModelForCausalLM.from_config(config, dtype=dtype, experts_implementation="eager")
    return assemble(f"tiny-{case}", randomised(model).eval(), tokenizer)
