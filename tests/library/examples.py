"""An example profile with its model, and strategies for arbitrary profiles."""

from typing import Any

import numpy as np
from hypothesis import strategies as st

from steering_profiles.final_layer_fields import INTERCEPT_TENSOR, FinalLayer, Gate
from steering_profiles.schema import HeadScale, ModelIdentity, NeuronScale, Profile, Provenance

MODEL = ModelIdentity(
    id="some-model", architecture="LlamaForCausalLM", layers=4, heads=3, kv_heads=3, head_dim=2, neurons=8,
    hidden_size=6, vocab_size=50, fingerprint="sha256:0",
)  # fmt: skip

INTERCEPT = {INTERCEPT_TENSOR: np.ones(6, np.float32)}


def example(**changes: Any) -> Profile:
    """A valid profile, changed."""
    content: dict[str, Any] = {
        "name": "example", "description": "An example.", "method": "manual", "model": MODEL,
        "heads": (HeadScale(layer=1, head=2, scale=1.5),),
    }  # fmt: skip
    return Profile(**content | changes)


texts = st.text(st.characters(exclude_categories=["Cs"]))
scales = st.floats(-100, 100, allow_nan=False)
facts = st.dictionaries(texts, st.lists(st.floats(-1, 1) | st.integers() | texts | st.none() | st.booleans()))
provenances = st.builds(
    Provenance, tool_version=texts, command=texts, task=texts, seed=st.integers(-9, 9), grid=facts, chosen=facts,
    dev=facts, test=facts, split_sizes=st.dictionaries(texts, st.integers(0, 999)),
)  # fmt: skip


@st.composite
def bands(draw: st.DrawFn) -> Gate:
    """Any gate."""
    low, high = sorted(draw(st.lists(st.floats(0, 1), min_size=2, max_size=2, unique=True)))
    return Gate(low=low, high=high)


def profiles() -> st.SearchStrategy[Profile]:
    """Any profile of ``MODEL`` that changes something."""
    return _profiles().filter(lambda profile: not profile.changes_nothing)


@st.composite
def _profiles(draw: st.DrawFn) -> Profile:
    heads = draw(st.dictionaries(st.tuples(st.integers(0, 3), st.integers(0, 2)), scales))
    neurons = draw(st.dictionaries(st.tuples(st.integers(0, 3), st.integers(0, 7)), scales))
    intercept = draw(st.floats(-2, 2))
    self_only_attention = draw(st.floats(0, 1))
    gate = draw(st.none() | bands()) if self_only_attention or intercept else None
    tensor = np.array(draw(st.lists(st.floats(-9, 9, width=32), min_size=6, max_size=6)), dtype=np.float32)
    return Profile(
        name=draw(st.from_regex(r"[a-z0-9][a-z0-9._-]{0,10}", fullmatch=True).filter(lambda name: name != "baseline")),
        description=draw(texts),
        method=draw(st.sampled_from(["rasteer", "final-layer", "manual"])),
        model=MODEL,
        heads=tuple(HeadScale(layer=layer, head=head, scale=scale) for (layer, head), scale in heads.items()),
        neurons=tuple(NeuronScale(layer=layer, neuron=n, scale=scale) for (layer, n), scale in neurons.items()),
        final_layer=FinalLayer(self_only_attention=self_only_attention, intercept_scale=intercept, gate=gate),
        provenance=draw(st.none() | provenances),
        tensors={INTERCEPT_TENSOR: tensor} if intercept else {},
    )
