"""Argument-passing heads, found by patching."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch

from steering_profiles.errors import TaskError
from steering_profiles.fitting.argument_heads import FEWEST_CORRECT, ArgumentHeads, find_argument_heads, topic_pairs
from steering_profiles.fitting.components import Component
from steering_profiles.models import LoadedModel
from steering_profiles.reports import attention_patterns
from steering_profiles.tasks.task import Example

TOPIC = (2, 4)


@torch.no_grad()
def probabilities(loaded: LoadedModel, example: Example) -> torch.Tensor:
    return loaded.model(torch.tensor([example.prompt])).logits[0, -1].softmax(-1)


def ask(*topics: int, template: str = "{topic}", group: str = "x") -> list[Example]:
    """Return prompts that differ in their topic of two tokens, with arbitrary answers."""
    return [
        Example(group, "", (7, 9, topic, 3 * topic, 20, 21), 100 + topic, topic=TOPIC, template=template)
        for topic in topics
    ]


def answered(loaded: LoadedModel, examples: Sequence[Example]) -> list[Example]:
    """Return ``examples`` with the model's predictions as answers."""
    return [replace(example, answer=int(probabilities(loaded, example).argmax())) for example in examples]


def silence_all_but(loaded: LoadedModel, kept: Component) -> None:
    """Zero the output weights of all heads except ``kept``."""
    with torch.no_grad():
        for layer in range(loaded.anatomy.sizes.layers):
            weight = loaded.anatomy.head_output_weight(layer)
            for head in range(loaded.anatomy.sizes.heads):
                if Component("head", layer, head) != kept:
                    weight[head] = 0


@pytest.mark.parametrize("carrier", [Component("head", 0, 3), Component("head", 1, 2)], ids=str)
def test_the_only_head_that_passes_the_topic_on_has_the_whole_effect(tiny: LoadedModel, carrier: Component):
    silence_all_but(tiny, carrier)
    examples = ask(*range(10, 30))
    found = find_argument_heads(tiny, examples)
    assert (found.pairs, found.only_correct) == (20, False)
    assert len(found.heads) == tiny.anatomy.sizes.layers * tiny.anatomy.sizes.heads
    by_head = {head.component: head.effect for head in found.heads}
    # With this head's counterfactual output the model predicts as on the counterfactual prompt.
    falls = []
    for pair in topic_pairs(examples):
        own = probabilities(tiny, pair.clean)[pair.clean.answer]
        falls.append(float((own - probabilities(tiny, pair.counterfactual)[pair.clean.answer]) / own))
    assert by_head.pop(carrier) == pytest.approx(sum(falls) / len(falls))
    assert abs(sum(falls)) > 1e-3
    assert list(by_head.values()) == pytest.approx([0] * len(by_head))


def test_heads_are_ranked_by_effect(tiny: LoadedModel):
    effects = [head.effect for head in find_argument_heads(tiny, answered(tiny, ask(*range(10, 30)))).heads]
    assert effects == sorted(effects, reverse=True)
    assert effects[0] > 0


def test_attention_is_the_mean_weight_from_the_last_position_to_the_topic(tiny: LoadedModel):
    examples = [*ask(11, 12, 13), *ask(14, 15, template="other")]
    found = find_argument_heads(tiny, examples)
    heads = [head.component for head in found.heads]
    given = torch.zeros(len(heads))
    for example in examples:
        patterns = attention_patterns(tiny, heads, example, most=len(heads))
        given += torch.tensor([float(pattern.weights[-1, slice(*TOPIC)].sum()) for pattern in patterns])
    assert [head.attention for head in found.heads] == pytest.approx((given / len(examples)).tolist(), abs=1e-5)


def test_only_correctly_answered_pairs_are_used_if_there_are_enough(tiny: LoadedModel):
    right = distinct(answered(tiny, ask(*range(10, 60))))[:FEWEST_CORRECT]
    assert len(right) == FEWEST_CORRECT
    wrong = [replace(example, answer=(example.answer + 1) % 250) for example in ask(*range(60, 70))]

    def counted(examples: list[Example]) -> ArgumentHeads:
        return find_argument_heads(tiny, examples)

    found = counted(right + wrong)
    assert (found.pairs, found.only_correct) == (FEWEST_CORRECT, True)
    found = counted(right[1:] + wrong)
    assert (found.pairs, found.only_correct) == (FEWEST_CORRECT - 1 + len(wrong), False)


def distinct(examples: Sequence[Example]) -> list[Example]:
    return list({example.answer: example for example in examples}.values())


def test_at_most_the_given_number_of_pairs_is_patched(tiny: LoadedModel):
    found = find_argument_heads(tiny, answered(tiny, ask(*range(10, 60))), most_pairs=9)
    assert (found.pairs, found.only_correct) == (9, True)


def test_pairs_share_group_template_and_length_but_not_the_answer():
    longer = [replace(example, prompt=(5, *example.prompt)) for example in ask(70, 71)]
    same_answer = [replace(example, answer=1) for example in ask(80, 81, template="same")]
    examples = [*ask(10, 11, 12), *ask(20, 21, template="b"), *ask(30, 31, group="y"), *longer, *same_answer]
    pairs = topic_pairs(examples)
    assert len(pairs) == len(examples) - len(same_answer)
    for pair in pairs:
        one, other = pair.clean, pair.counterfactual
        assert (one.group, one.template, len(one.prompt)) == (other.group, other.template, len(other.prompt))
        assert one.answer != other.answer


def test_the_pairs_depend_on_the_seed():
    examples = ask(*range(10, 30))
    assert topic_pairs(examples, 1) == topic_pairs(examples, 1) != topic_pairs(examples, 2)


@pytest.mark.parametrize("unknown", [{"topic": None}, {"template": ""}], ids=str)
def test_prompts_without_a_known_topic_are_rejected(tiny: LoadedModel, unknown: dict[str, object]):
    examples = [replace(example, **unknown) for example in ask(10, 11, 12)]
    with pytest.raises(TaskError, match="none of 3 prompts has a known topic and a counterpart"):
        find_argument_heads(tiny, examples)
