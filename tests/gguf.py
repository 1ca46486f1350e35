"""A small GGUF file of quantised weights, written from a small Llama."""

from collections.abc import Mapping
from pathlib import Path

import gguf
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from tests.builders import CHAT_TEMPLATE, CONTEXT, build_tokenizer, randomised

_NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
_KINDS = {str: gguf.GGUFValueType.STRING, int: gguf.GGUFValueType.UINT16}
_WHOLE = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


def write_gguf(path: Path, *, facts: Mapping[str, str | int] | None = None, more_tokens: int = 0) -> Path:
    """Write a Llama of random weights, its matrices in blocks of 8-bit integers, and the tests' tokenizer.

    ``facts`` are more that the file says of itself; ``more_tokens`` are listed that the model has no embeddings for.
    """
    path.parent.mkdir(exist_ok=True)
    tokenizer = build_tokenizer()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT,
    )
    model = randomised(LlamaForCausalLM(config))
    writer = gguf.GGUFWriter(path, "llama")
    for key, value in (facts or {}).items():
        writer.add_key_value(key, value, _KINDS[type(value)])
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(config.vocab_size)
    vocabulary = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().__getitem__)
    vocabulary += [f"more{number}" for number in range(more_tokens)]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(vocabulary)
    writer.add_token_types(
        [gguf.TokenType.CONTROL if token == "<end>" else gguf.TokenType.NORMAL for token in vocabulary]
    )
    writer.add_token_merges([") )", ")) ))", ")) )"])
    writer.add_chat_template(CHAT_TEMPLATE)
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_bos_token_id(tokenizer.eos_token_id)
    for name, tensor in model.state_dict().items():
        values = tensor.float().numpy()
        if tensor.ndim == 2:
            kind = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(_name(name), gguf.quants.quantize(values, kind), raw_dtype=kind)
        else:
            writer.add_tensor(_name(name), values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _name(parameter: str) -> str:
    module, _, kind = parameter.rpartition(".")
    if module in _WHOLE:
        return f"{_WHOLE[module]}.{kind}"
    _, _, layer, rest = module.split(".", 3)
    return f"blk.{layer}.{_NAMES[rest]}.{kind}"
