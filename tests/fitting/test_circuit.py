"""The circuit baseline: patching with the KV cache equals patching in full forward passes."""

import pytest
import torch

from steering_profiles.errors import TaskError
from steering_profiles.fitting.circuit import rank_by_patching
from steering_profiles.fitting.components import Component
from steering_profiles.models import LoadedModel
from steering_profiles.tasks import parentheses
from steering_profiles.tasks.task import Example, Pair
from tests.builders import build_tokenizer


@torch.no_grad()
def last_logits(loaded: LoadedModel, prompt: tuple[int, ...]) -> torch.Tensor:
    return loaded.model(torch.tensor([prompt])).logits[0, -1]


def pairs_that_flip(loaded: LoadedModel) -> list[Pair]:
    """Return pairs with different predictions, which are taken as the answers; prompts have two lengths."""
    pairs = []
    for first in range(30):
        clean, counterfactual = (first, 6, 7, 8)[: 3 + first % 2], (first, 9, 100, 101, 11)
        right, other = (int(last_logits(loaded, prompt).argmax()) for prompt in (clean, counterfactual))
        if right != other:
            pairs.append(Pair(Example("a", "", clean, right), Example("b", "", counterfactual, other)))
    assert len(pairs) >= 4
    return pairs[:6]


@torch.no_grad()
def effect(loaded: LoadedModel, pair: Pair, layer: int, head: int) -> float:
    """Return the paper's effect of one head on one pair, from full forward passes."""
    width, found = loaded.anatomy.sizes.head_dim, {}
    module = loaded.anatomy.layers[layer].head_output
    part = slice(head * width, (head + 1) * width)

    def keep(_, args):
        found["z"] = args[0][0, -1, part].clone()

    def put(_, args):
        z = args[0].clone()
        z[0, -1, part] = found["z"]
        return (z,)

    handle = module.register_forward_pre_hook(keep)
    last_logits(loaded, pair.counterfactual.prompt)
    handle.remove()
    plain = last_logits(loaded, pair.clean.prompt).softmax(-1)
    handle = module.register_forward_pre_hook(put)
    patched = last_logits(loaded, pair.clean.prompt).softmax(-1)
    handle.remove()
    fall = (plain - patched)[pair.clean.answer] / plain[pair.clean.answer]
    rise = (patched - plain)[pair.counterfactual.answer] / plain[pair.counterfactual.answer]
    return float(fall + rise) / 2


def test_heads_are_ranked_by_the_mean_effect_of_patching_them(tiny: LoadedModel):
    pairs, sizes = pairs_that_flip(tiny), tiny.anatomy.sizes
    heads = [Component("head", layer, head) for layer in range(sizes.layers) for head in range(sizes.heads)]
    effects = {c: sum(effect(tiny, pair, c.layer, c.index) for pair in pairs) for c in heads}
    assert rank_by_patching(tiny, pairs) == sorted(heads, key=lambda c: -effects[c])


def test_pairs_with_a_wrong_clean_answer_are_not_used(tiny: LoadedModel):
    pairs = pairs_that_flip(tiny)
    wrong = [Pair(Example("a", "", p.clean.prompt, p.counterfactual.answer), p.counterfactual) for p in pairs]
    assert rank_by_patching(tiny, pairs + wrong) == rank_by_patching(tiny, pairs)


def test_pairs_that_do_not_change_the_answer_are_rejected(tiny: LoadedModel):
    pair = pairs_that_flip(tiny)[0]
    with pytest.raises(TaskError, match="none of the 1 counterfactual"):
        rank_by_patching(tiny, [Pair(pair.clean, pair.clean)])


def test_the_counterfactual_of_a_parentheses_prompt_has_one_more_to_close():
    task = parentheses(build_tokenizer())
    pair = next(pair for pair in task.pairs if pair.clean.group == "))")
    number = pair.clean.text.split()[3]
    assert pair.counterfactual.text == f"#print the string {number}\nprint(str(({number}"
    assert pair.counterfactual.group == ")))"
    assert {pair.clean.group for pair in task.pairs} == {")", "))", ")))"}
    assert {pair.clean.text for pair in task.pairs} <= {example.text for example in task.train}
