"""Whole answers: right if greedy decoding generates all of their tokens, and then does not go on with them."""

import pytest

from steering_profiles.conditions import Condition
from steering_profiles.errors import TaskError
from steering_profiles.evaluation import Accuracy, FinalLayerReplay, TokenPredictor
from steering_profiles.models import LoadedModel
from steering_profiles.steering import Steering
from steering_profiles.tasks.task import Example
from steering_profiles.tokenization import Continuations
from tests.builders import build_profile, every_effect, greedy, steer

PROMPTS = [tuple((start + 7 * i) % 250 for i in range(5 + start % 3)) for start in range(0, 60, 3)]
ENDS = ("a", ")", "5", "(")


def whole(prompt: tuple[int, ...], answer: list[int], ends_with: str) -> Example:
    return Example("g", "", prompt, answer[0], rest=tuple(answer[1:]), ends_with=ends_with)


def asked(loaded: LoadedModel, steering: Steering) -> tuple[list[Example], list[bool]]:
    """Answers of one to four tokens, most of them those of greedy decoding; and whether they are what it generates."""
    continuations = Continuations(loaded.tokenizer)
    examples, right = [], []
    for index, prompt in enumerate(PROMPTS):
        length, ends_with = 1 + index % 4, ENDS[index // 4 % 4]
        generated = greedy(loaded, prompt, steering, length + 1)
        answer = generated[:length]
        if index % 5 == 0:
            answer[index % length] += 1
        examples.append(whole(prompt, answer, ends_with))
        right.append(answer == generated[:length] and not continuations.goes_on(ends_with, generated[-1]))
    return examples, right


@pytest.mark.parametrize("effect", ["plain", "heads", "self-only attention", "all"])
def test_a_whole_answer_is_right_where_greedy_decoding_generates_it_and_ends_there(tiny: LoadedModel, effect: str):
    steering = every_effect(tiny)[effect]
    examples, right = asked(tiny, steering)
    assert 3 < sum(right) < 19, "nearly all answers are the same, so this would prove little"
    with TokenPredictor(tiny) as predictor:
        assert predictor.correct(examples, steering) == right
        assert predictor.accuracy(examples, steering) == Accuracy({"g": (sum(right), len(right))})
    with TokenPredictor(tiny, FinalLayerReplay(tiny)) as predictor:
        assert predictor.correct(examples, steering) == predictor.correct(examples, steering) == right


def test_an_answer_that_the_model_goes_on_with_is_wrong(tiny: LoadedModel):
    """Of the same tokens, the character that the answer ends with decides."""
    (prompt,) = PROMPTS[:1]
    generated = greedy(tiny, prompt, tokens=3)
    text = tiny.tokenizer.decode(generated[2:])
    other = "(" if text[0] != "(" else ")"
    with TokenPredictor(tiny) as predictor:
        assert predictor.correct([whole(prompt, generated[:2], end) for end in (other, text[0])]) == [True, False]


def test_whole_answers_and_next_tokens_are_counted_side_by_side(tiny: LoadedModel):
    examples, right = asked(tiny, steer())
    likeliest = [greedy(tiny, prompt, tokens=1)[0] for prompt in PROMPTS]
    single = [Example("one", "", prompt, token + index % 2) for index, (prompt, token) in enumerate(
        zip(PROMPTS, likeliest, strict=True)
    )]  # fmt: skip
    mixed = [example for both in zip(examples, single, strict=True) for example in both]
    with TokenPredictor(tiny) as predictor:
        found = predictor.accuracy(mixed)
    assert found == Accuracy({"g": (sum(right), len(right)), "one": (10, 20)})


def test_a_condition_takes_the_answers_tokens_for_a_completion(tiny: LoadedModel):
    heads = build_profile(tiny, heads=[(0, 1, 1.5)])

    def where(condition: Condition) -> Steering:
        return steer(heads.model_copy(update={"when": condition}))

    examples, _ = asked(tiny, steer())
    with TokenPredictor(tiny) as predictor:
        completion = predictor.correct(examples, where(Condition(part="completion")))
        positions = [where(Condition(from_position=len(example.prompt) - 1)) for example in examples]
        alone = [predictor.correct([e], steering)[0] for e, steering in zip(examples, positions, strict=True)]
        assert completion == alone
        assert completion != predictor.correct(examples)
        assert completion != predictor.correct(examples, where(Condition(from_position=0)))


def test_probabilities_of_whole_answers_are_refused(tiny: LoadedModel):
    with TokenPredictor(tiny) as predictor, pytest.raises(TaskError, match="whole answers have none here"):
        predictor.answers([whole((5, 6), [7, 8], "8")])
