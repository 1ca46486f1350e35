"""Small models of random weights, a tokenizer for them, and profiles that fit them: built, not downloaded."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from steering_profiles.conditions import Condition
from steering_profiles.final_layer_fields import (
    INTERCEPT_TENSOR,
    ConditionalFinalLayer,
    FinalLayer,
    Gate,
    intercept_tensor,
)
from steering_profiles.models import LoadedModel, assemble
from steering_profiles.schema import HeadScale, NeuronScale, Profile
from steering_profiles.steering import UNSTEERED, ProfileAtStrength, Steering, attach

Scaled = tuple[int, int, float] | tuple[int, int, float, Mapping[str, object]]

FAMILIES = ("llama", "gpt2")
CONTEXT = 512
CLOSERS = (")", "))", ")))", "))))")
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def build_tokenizer(closers: int = len(CLOSERS)) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer: one token per byte, per run of up to ``closers`` parentheses, and for the end of text."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {symbol: index for index, symbol in enumerate([*alphabet, *CLOSERS[1:closers], "<end>"])}
    merges = {"))": (")", ")"), "))))": ("))", "))"), ")))": ("))", ")")}
    tokenizer = Tokenizer(
        models.BPE(vocab=vocabulary, merges=[pair for made, pair in merges.items() if made in vocabulary])
    )
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken("<end>", special=True)])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>")
    fast.chat_template = CHAT_TEMPLATE
    return fast


def build_sentencepiece_tokenizer(*, appends_end: bool = False) -> PreTrainedTokenizerFast:
    """A tokenizer as Llama 2's is: words that begin with their space, and bytes for what the vocabulary does not have.

    ``<s>`` stands before every text and, where it ``appends_end``, ``</s>`` behind.
    """
    letters = sorted({*"abcdefghijklmnopqrstuvwxyz()0123456789.,"})
    words = {"▁" + letter: ("▁", letter) for letter in letters} | {"th": ("t", "h"), "the": ("th", "e")}
    words |= {"▁th": ("▁t", "h"), "▁the": ("▁th", "e"), "))": (")", ")"), "))))": ("))", "))"), ")))": ("))", ")")}
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{code:02X}>" for code in range(256)), "▁", *letters, *words]
    tokenizer = Tokenizer(
        models.BPE(
            vocab={piece: index for index, piece in enumerate(pieces)},
            merges=list(words.values()),
            unk_token="<unk>",
            byte_fallback=True,
            fuse_unk=True,
        )
    )
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens([AddedToken(name, special=True) for name in ("<unk>", "<s>", "</s>")])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>" if appends_end else "<s> $A", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def build_model(
    family: str,
    *,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
    layers: int = 3,
    tokenizer: PreTrainedTokenizerFast | None = None,
    context: int = CONTEXT,
) -> LoadedModel:
    """A small model of random weights, wide enough apart that prompts and steering change its choices."""
    tokenizer = tokenizer or build_tokenizer()
    torch.manual_seed(seed)
    model: PreTrainedModel
    if family == "llama":
        # Grouped-query attention, and a head_dim that is not hidden_size / heads.
        model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=len(tokenizer),
                hidden_size=24,
                intermediate_size=40,
                num_hidden_layers=layers,
                num_attention_heads=4,
                num_key_value_heads=2,
                head_dim=8,
                max_position_embeddings=context,
                eos_token_id=tokenizer.eos_token_id,
                bos_token_id=None,
                tie_word_embeddings=False,
            )
        )
    else:
        model = GPT2LMHeadModel(
            GPT2Config(
                vocab_size=len(tokenizer),
                n_embd=24,
                n_layer=layers,
                n_head=4,
                n_positions=context,
                eos_token_id=tokenizer.eos_token_id,
                bos_token_id=None,
            )
        )
    return assemble(f"tiny-{family}", randomised(model).to(dtype).eval(), tokenizer)


@torch.no_grad()
def randomised(model: PreTrainedModel) -> PreTrainedModel:
    """Give every weight of ``model`` a random value and return it."""
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1:
            parameter.normal_(0.0, 0.25)
        elif name.endswith("bias"):
            parameter.normal_(0.0, 0.1)  # at 0, as they are made, they would hide a mistake in them
        else:
            parameter.normal_(1.0, 0.25)  # the gains of norms
    return model


def build_profile(
    loaded: LoadedModel,
    name: str = "test",
    *,
    heads: Sequence[Scaled] = (),
    neurons: Sequence[Scaled] = (),
    self_only_attention: float = 0.0,
    intercept_scale: float = 0.0,
    gate: tuple[float, float] | None = None,
    final_layers: Sequence[tuple[float, float, Mapping[str, object]]] = (),
    when: Mapping[str, object] | None = None,
    seed: int = 0,
) -> Profile:
    """A profile for ``loaded`` with the given scales and, if ``intercept_scale`` is not 0, a random intercept.

    A scale is layer, head or neuron, factor and, if it has one, its own condition. A conditional final layer is
    self-only attention, the scale of its intercept, and its condition; that in place N has the intercept of seed N.
    """
    width = loaded.anatomy.sizes.hidden_size
    named = [(INTERCEPT_TENSOR, intercept_scale, seed)]
    named += [(intercept_tensor(at), scale, at) for at, (_, scale, _) in enumerate(final_layers)]
    return Profile(
        name=name,
        description="A profile for tests.",
        method="manual",
        model=loaded.identity,
        heads=tuple(HeadScale(layer=one[0], head=one[1], scale=one[2], when=_when(one)) for one in heads),
        neurons=tuple(NeuronScale(layer=one[0], neuron=one[1], scale=one[2], when=_when(one)) for one in neurons),
        final_layer=FinalLayer(
            self_only_attention=self_only_attention,
            intercept_scale=intercept_scale,
            gate=None if gate is None else Gate(low=gate[0], high=gate[1]),
        ),
        final_layers=tuple(
            ConditionalFinalLayer(
                self_only_attention=share, intercept_scale=scale, when=Condition.model_validate(condition)
            )
            for share, scale, condition in final_layers
        ),
        when=None if when is None else Condition.model_validate(when),
        tensors={
            name: np.random.default_rng(drawn).normal(size=width).astype(np.float32)
            for name, scale, drawn in named
            if scale
        },
    )


def _when(scaled: Scaled) -> Condition | None:
    return None if len(scaled) == 3 else Condition.model_validate(scaled[3])


def profiles_for(model: LoadedModel) -> list[Profile]:
    """The profiles ``heads`` and ``final``, which the servers of many tests have."""
    return [
        build_profile(model, "heads", heads=[(0, 1, 4.0), (1, 2, -2.0), (2, 0, 3.0)]),
        build_profile(model, "final", self_only_attention=1.0, intercept_scale=0.9),
    ]


def steer(*profiles: Profile, strength: float = 1.0) -> Steering:
    """Apply profiles at one strength."""
    return Steering(tuple(ProfileAtStrength(profile, strength) for profile in profiles))


def every_effect(loaded: LoadedModel) -> dict[str, Steering]:
    """One steering per kind of effect, a fraction of one, and all of them together."""
    last = loaded.anatomy.sizes.layers - 1
    heads = build_profile(loaded, "heads", heads=[(0, 1, 3.0), (1, 0, -1.0), (last, 3, 2.5)])
    neurons = build_profile(loaded, "neurons", neurons=[(0, 2, 4.0), (1, 7, 0.0), (last, 11, 6.0)])
    own = build_profile(loaded, "own", self_only_attention=1.0)
    intercept = build_profile(loaded, "intercept", intercept_scale=0.7)
    return {
        "plain": UNSTEERED,
        "heads": steer(heads),
        "neurons": steer(neurons),
        "self-only attention": steer(own),
        "intercept": steer(intercept),
        "half": steer(heads, strength=0.5),
        "all": steer(heads, neurons, own, intercept),
    }


@torch.no_grad()
def greedy(
    loaded: LoadedModel,
    prompt: Sequence[int],
    steering: Steering = UNSTEERED,
    tokens: int = 12,
    guess: Sequence[int] = (),
) -> list[int]:
    """Greedy decoding the slow, obvious way: the whole text again for every token, by the stock model.

    A right ``guess`` of the completion takes one pass: each of its tokens is compared with the likeliest at its place.
    """
    handle = attach(loaded)

    def likeliest(text: Sequence[int]) -> list[int]:
        with handle.applied([steering]):
            logits = loaded.model(torch.tensor([text]), use_cache=False).logits[0]
        return [int(token) for token in logits.argmax(dim=-1)]

    completion = completed(likeliest, prompt, tokens, guess)
    handle.remove()
    return completion


def completed(
    likeliest: Callable[[Sequence[int]], list[int]], prompt: Sequence[int], tokens: int, guess: Sequence[int]
) -> list[int]:
    """Extend ``prompt`` by ``tokens`` tokens, each of which is ``likeliest`` after those before it.

    ``likeliest`` returns the likeliest token after each token of a text.
    """
    text, end = [*prompt, *guess][: len(prompt) + tokens], len(prompt) + tokens
    right = len(prompt)
    while right < end:
        found = likeliest(text)
        while right < len(text) and text[right] == found[right - 1]:
            right += 1
        if right < end:
            text = [*text[:right], found[right - 1]]
            right += 1
    return text[len(prompt) :]
