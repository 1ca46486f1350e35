"""The logit lens of a head, against the same thing computed the long way."""

import pytest
import torch

from steering_profiles.fitting.projection import head_outputs, project_heads
from steering_profiles.models import LoadedModel
from steering_profiles.models.anatomy import input_major
from steering_profiles.tasks.task import Example

EXAMPLES = [Example("x", "", prompt, 1) for prompt in [(5, 6, 7), (8, 9), (10, 11, 12), (13,)]]


@torch.no_grad()
def contributions(loaded: LoadedModel, prompt: tuple[int, ...]) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """What each head adds to the stream at the last position, ``[layers, heads, width]``, and what attention adds."""
    added, totals = [], []

    def record(module, args, output):
        z = args[0][0, -1].unflatten(-1, (loaded.anatomy.sizes.heads, -1))
        rows = input_major(module).unflatten(0, (loaded.anatomy.sizes.heads, -1))
        added.append(torch.einsum("hk,hkd->hd", z, rows))
        totals.append(output[0, -1] - (module.bias if module.bias is not None else 0))

    handles = [layer.head_output.register_forward_hook(record) for layer in loaded.anatomy.layers]
    loaded.model(torch.tensor([prompt]))
    for handle in handles:
        handle.remove()
    return torch.stack(added), totals


def test_the_heads_contributions_sum_to_what_attention_adds(tiny: LoadedModel):
    added, totals = contributions(tiny, EXAMPLES[0].prompt)
    torch.testing.assert_close(added.sum(dim=1), torch.stack(totals))


def test_projected_logits_are_the_contribution_through_the_centred_gain_folded_unembedding(tiny: LoadedModel):
    candidates = [3, 200, 17]
    projection = project_heads(tiny, EXAMPLES, candidates)
    gain, unembedding = tiny.anatomy.final_norm.weight, tiny.anatomy.unembedding.weight
    for index, example in enumerate(EXAMPLES):
        added, _ = contributions(tiny, example.prompt)
        logits = (added * gain) @ unembedding.T
        logits = (logits - logits.mean(dim=-1, keepdim=True)).float()
        torch.testing.assert_close(projection.candidates[:, :, index], logits[..., candidates], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(projection.maximum[:, :, index], logits.amax(-1), atol=1e-4, rtol=1e-4)


def test_head_outputs_are_those_of_the_last_position_in_the_order_of_the_prompts(tiny: LoadedModel):
    together = head_outputs(tiny, EXAMPLES)
    for index, example in enumerate(EXAMPLES):
        alone = head_outputs(tiny, [example])
        assert together[:, index].numpy() == pytest.approx(alone[:, 0].numpy(), abs=1e-6)
