"""Explanations of a layer, compared with direct computations."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from steering_profiles.errors import FitError, ModelError
from steering_profiles.fitting import Explanation, explain
from steering_profiles.fitting.decomposition import decompose, r2, record_layer
from steering_profiles.fitting.explanation import AnswerLogit
from steering_profiles.models import LoadedModel
from steering_profiles.tasks.task import Example, Task
from steering_profiles.tokenization import Vocabulary


def ask(first: int, count: int) -> tuple[Example, ...]:
    topics = range(first, first + count)
    return tuple(
        Example("x", "", (7, topic, 20, 3 * topic % 250), 100 + topic, topic=(1, 2), template="t") for topic in topics
    )


def task() -> Task:
    return Task("things", 5, ("x",), train=ask(10, 20), dev=ask(40, 6), test=ask(60, 9), left_out=("one thing",))


def lens(loaded: LoadedModel) -> torch.Tensor:
    """``[hidden_size, vocab]`` float64: the unembedding with the norm's gain folded in, centred over the vocabulary."""
    weight = loaded.anatomy.unembedding.weight.detach() * loaded.anatomy.final_norm.weight.detach()
    return (weight - weight.mean(dim=0)).T


def test_the_decomposition_is_fitted_on_train_and_r2_is_given_per_split(tiny: LoadedModel):
    found = explain(tiny, task(), 1, ridge=0.2)
    expected = decompose(record_layer(tiny, task().train, 1), ridge=0.2)
    torch.testing.assert_close(found.decomposition.heads, expected.heads)
    torch.testing.assert_close(found.decomposition.intercept, expected.intercept)
    assert found.prompts == {"train": 20, "dev": 6, "test": 9}
    assert found.r2["train"] == pytest.approx(expected.r2)
    for split, examples in (("dev", task().dev), ("test", task().test)):
        assert found.r2[split] == pytest.approx(r2(expected, record_layer(tiny, examples, 1)))
    assert (found.task, found.seed, found.layer, found.ridge) == ("things", 5, 1, 0.2)


@pytest.mark.parametrize("split", ["train", "dev", "test"])
def test_the_parts_of_the_answer_logit_follow_the_formula(tiny: LoadedModel, split: str):
    examples = {"train": task().train, "dev": task().dev, "test": task().test}[split]
    found, record = explain(tiny, task(), 1, argument_heads=False), record_layer(tiny, examples, 1)
    fitted, logits = found.decomposition, found.answer_logits[split]
    parts = np.zeros(len(fitted.heads) + 2)
    whole = 0.0
    for index, example in enumerate(examples):
        column = lens(tiny)[:, example.answer]
        inputs = [*(w * a for w, a in zip(fitted.heads, record.heads[index], strict=True))]
        inputs += [fitted.residual_stream * record.residual_stream[index], fitted.intercept]
        parts += [float(part @ column) / len(examples) for part in inputs]
        whole += float(record.mlp[index] @ column) / len(examples)
    # The logit lens computes in float32.
    assert [*logits.heads, logits.residual_stream, logits.intercept] == pytest.approx(parts.tolist(), abs=1e-5)
    assert logits.total == pytest.approx(whole, abs=1e-5)
    assert abs(logits.residual) > 1e-3


def test_shares_are_relative_to_the_sum_of_absolute_parts():
    logits = AnswerLogit(heads=(1.0, 2.0), residual_stream=-1.0, intercept=-4.0, residual=2.0)
    assert logits.shares == {"heads": 0.3, "residual stream": -0.1, "intercept": -0.4, "residual": 0.2}
    assert logits.total == 0
    assert set(AnswerLogit((0.0,), 0.0, 0.0, 0.0).shares.values()) == {0.0}


def test_the_intercepts_tokens_have_the_largest_and_smallest_lens_logits(tiny: LoadedModel):
    found = explain(tiny, task(), 1, argument_heads=False)
    logits = found.decomposition.intercept @ lens(tiny)
    order = logits.argsort(descending=True).tolist()
    for tokens, expected in ((found.top, order[:10]), (found.bottom, order[:-11:-1])):
        assert [token.text for token in tokens] == [Vocabulary(tiny.tokenizer).text_of(token) for token in expected]
        assert [token.logit for token in tokens] == pytest.approx(logits[expected].tolist(), abs=1e-5)


def test_the_last_layer_is_the_default(tiny: LoadedModel):
    assert explain(tiny, task(), argument_heads=False).layer == 2


def test_at_most_the_given_number_of_prompts_per_split_is_used(tiny: LoadedModel):
    def fitted(found: Explanation) -> torch.Tensor:
        return found.decomposition.heads

    fewer = explain(tiny, task(), most_prompts=8)
    assert fewer.prompts == {"train": 8, "dev": 6, "test": 8}
    of_eight = explain(tiny, replace(task(), train=task().train[:8]), argument_heads=False)
    torch.testing.assert_close(fitted(fewer), fitted(of_eight))
    assert fewer.argument_heads is not None
    assert fewer.argument_heads.pairs == 8


def test_a_task_without_topics_is_explained_without_argument_heads(tiny: LoadedModel):
    plain = replace(task(), train=tuple(replace(example, topic=None) for example in task().train))
    found = explain(tiny, plain, 0)
    assert found.argument_heads is None
    assert found.left_out[0] == "one thing"
    assert found.left_out[1].startswith("argument-passing heads: none of 20 prompts has a known topic")


@pytest.mark.parametrize("split", ["dev", "test"])
def test_an_error_names_the_split(tiny: LoadedModel, split: str):
    with pytest.raises(FitError, match=f"{split}: the MLP's output is the same on all 1 prompts"):
        explain(tiny, replace(task(), **{split: ask(70, 1)}), argument_heads=False)


def test_a_layer_or_ridge_out_of_range_is_rejected_before_anything_is_run(tiny: LoadedModel):
    tiny.anatomy.layers[0].block.register_forward_pre_hook(lambda module, args: 1 / 0)
    with pytest.raises(ModelError, match="layer is 7; allowed for tiny"):
        explain(tiny, task(), 7)
    with pytest.raises(FitError, match=r"ridge is -1\.0; allowed"):
        explain(tiny, task(), ridge=-1.0)


def test_too_few_prompts_are_rejected_before_anything_is_run(tiny: LoadedModel):
    tiny.anatomy.layers[0].block.register_forward_pre_hook(lambda module, args: 1 / 0)
    with pytest.raises(FitError, match=r"5 prompts are too few to decompose the MLP .* 4 heads; at least 6"):
        explain(tiny, task(), most_prompts=5)
