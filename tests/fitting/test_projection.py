"""The logit lens of heads and neurons, compared with direct computations."""

import pytest
import torch
from torch import Tensor

from steering_profiles.fitting.answer_tokens import AnswerTokens
from steering_profiles.fitting.projection import (
    PROMOTION_THRESHOLD,
    Projection,
    project_heads,
    project_neurons,
    record_activations,
    select_neurons,
)
from steering_profiles.models import LoadedModel, head_contributions, recorded
from steering_profiles.models.projections import input_major
from steering_profiles.tasks.task import Example
from tests.families import CASES, DENSE, build_family

EXAMPLES = [Example("x", "", prompt, 1) for prompt in [(5, 6, 7), (8, 9), (10, 11, 12), (13,)]]
TOKENS = torch.tensor([[3, 200, 17], [200, 3, 3], [9, 40, 41], [250, 1, 2]])


def answer_tokens(tokens: Tensor = TOKENS) -> AnswerTokens:
    nothing = torch.empty(len(tokens), 0, dtype=torch.long)
    return AnswerTokens(tokens, torch.ones_like(tokens, dtype=torch.bool), (), torch.zeros(len(tokens)), nothing)


@torch.no_grad()
def contributions(loaded: LoadedModel, prompt: tuple[int, ...], kind: str) -> tuple[Tensor, list[Tensor]]:
    """Return the contributions at the last position, ``[layers, components, hidden_size]``, and their sum."""
    added, totals = [], []
    count = loaded.anatomy.sizes.heads if kind == "head" else loaded.anatomy.sizes.neurons

    def record(module, args, output):
        activations = args[0][0, -1].unflatten(-1, (count, -1))
        rows = input_major(module).unflatten(0, (count, -1))
        added.append(torch.einsum("hk,hkd->hd", activations, rows))
        totals.append(output[0, -1] - (module.bias if module.bias is not None else 0))

    layers = loaded.anatomy.layers
    modules = [layer.head_output if kind == "head" else layer.neuron_output for layer in layers]
    handles = [module.register_forward_hook(record) for module in modules]
    loaded.model(torch.tensor([prompt]))
    for handle in handles:
        handle.remove()
    return torch.stack(added), totals


@torch.no_grad()
def the_long_way(loaded: LoadedModel, kind: str) -> tuple[Tensor, Tensor]:
    """Return the answer tokens' logits and whether they are promoted, for every component, from all logits."""
    gain, unembedding = loaded.anatomy.final_norm.weight, loaded.anatomy.unembedding.weight
    logits, promotes = [], []
    for example, tokens in zip(EXAMPLES, TOKENS, strict=True):
        added, _ = contributions(loaded, example.prompt, kind)
        of_all = (added * gain).flatten(0, 1) @ unembedding.T
        of_all = of_all - of_all.mean(dim=-1, keepdim=True)
        logits.append(of_all[:, tokens])
        promotes.append(of_all[:, tokens] >= PROMOTION_THRESHOLD * of_all.amax(dim=-1, keepdim=True))
    return torch.stack(logits, dim=1), torch.stack(promotes, dim=1)


def project(loaded: LoadedModel, kind: str) -> Projection:
    everything = {layer: torch.arange(loaded.anatomy.sizes.neurons) for layer in range(loaded.anatomy.sizes.layers)}
    recorded = record_activations(loaded, EXAMPLES, everything)
    if kind == "head":
        return project_heads(loaded, recorded, answer_tokens())
    return project_neurons(loaded, recorded, everything, answer_tokens())


@pytest.mark.parametrize("kind", ["head", "neuron"])
def test_contributions_of_components_add_up_to_that_of_their_layer(tiny: LoadedModel, kind: str):
    added, totals = contributions(tiny, EXAMPLES[0].prompt, kind)
    torch.testing.assert_close(added.sum(dim=1), torch.stack(totals))


@pytest.mark.parametrize("kind", ["head", "neuron"])
def test_projected_logits_are_contributions_times_the_centred_folded_unembedding(tiny: LoadedModel, kind: str):
    logits, promotes = the_long_way(tiny, kind)
    projection = project(tiny, kind)
    assert [component.kind for component in projection.components] == [kind] * len(logits)
    torch.testing.assert_close(projection.logits, logits.float(), atol=1e-4, rtol=1e-4)
    assert torch.equal(projection.promotes, promotes)
    assert promotes.any()
    assert not promotes.all()


def test_the_largest_logits_are_found_on_prompts_that_are_not_pilots(tiny: LoadedModel, monkeypatch):
    # With one token of one pilot prompt nearly all prompts need all logits.
    _, promotes = the_long_way(tiny, "head")
    monkeypatch.setattr("steering_profiles.fitting.projection._PILOTS", 1)
    monkeypatch.setattr("steering_profiles.fitting.projection._LARGEST_TOKENS", 1)
    assert torch.equal(project(tiny, "head").promotes, promotes)


def test_neurons_with_an_answer_among_their_largest_or_smallest_logits_are_selected(tiny: LoadedModel, monkeypatch):
    monkeypatch.setattr("steering_profiles.fitting.projection.STATIC_RANK", 3)
    gain, unembedding = tiny.anatomy.final_norm.weight, tiny.anatomy.unembedding.weight
    selected = select_neurons(tiny, answer_tokens())
    answers = set(TOKENS.flatten().tolist())
    for layer in range(tiny.anatomy.sizes.layers):
        written = (tiny.anatomy.neuron_output_weight(layer) * gain) @ unembedding.T
        expected = [
            neuron
            for neuron, order in enumerate(written.argsort(dim=-1).tolist())
            if answers & {*order[:3], *order[-3:]}
        ]
        assert selected[layer].tolist() == expected
        assert 0 < len(expected) < tiny.anatomy.sizes.neurons


def test_activations_are_those_of_the_last_position_in_prompt_order(tiny: LoadedModel):
    some = {1: torch.tensor([0, 7])}
    together = record_activations(tiny, EXAMPLES, some)
    for index, example in enumerate(EXAMPLES):
        alone = record_activations(tiny, [example], some)
        torch.testing.assert_close(together.z[:, index], alone.z[:, 0], atol=1e-6, rtol=1e-6)
        torch.testing.assert_close(together.m[1][index], alone.m[1][0], atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("case", CASES)
def test_heads_are_projected_with_the_norm_before_the_residual_stream(case: str):
    loaded = build_family(case)
    projected = project_heads(loaded, record_activations(loaded, EXAMPLES), answer_tokens())
    for index, example in enumerate(EXAMPLES):
        for layer, state in states_of(loaded, example).items():
            written = head_contributions(loaded.anatomy, layer, state)[0].float()
            lens = written @ loaded.anatomy.unembedding_weight()
            heads = [i for i, component in enumerate(projected.components) if component.layer == layer]
            tokens = answer_tokens().tokens[index]
            torch.testing.assert_close(projected.logits[heads, index], lens[:, tokens].float(), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("case", DENSE)
def test_neurons_are_projected_with_the_norm_before_the_residual_stream(case: str):
    loaded = build_family(case)
    anatomy = loaded.anatomy
    some = {layer: torch.arange(0, anatomy.sizes.neurons, 3) for layer in range(anatomy.sizes.layers)}
    projected = project_neurons(loaded, record_activations(loaded, EXAMPLES, some), some, answer_tokens())
    for index, example in enumerate(EXAMPLES):
        for layer, state in states_of(loaded, example).items():
            written = state.m[0].unsqueeze(-1) * anatomy.neuron_output_weight(layer) * state.mlp_scale[0]
            lens = written[some[layer]].float() @ anatomy.unembedding_weight()
            neurons = [i for i, component in enumerate(projected.components) if component.layer == layer]
            tokens = answer_tokens().tokens[index]
            torch.testing.assert_close(projected.logits[neurons, index], lens[:, tokens].float(), atol=1e-4, rtol=1e-4)


@torch.no_grad()
def states_of(loaded: LoadedModel, example: Example):
    with recorded(loaded.anatomy, range(loaded.anatomy.sizes.layers)) as states:
        loaded.model(torch.tensor([example.prompt]), use_cache=False)
    return states
