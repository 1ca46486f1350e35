"""Which rows the tokens of a sequence have under conditions, whatever vLLM does with the sequence."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from steering_profiles.composition import Steering
from steering_profiles.errors import ConditionError
from steering_profiles.models import LoadedModel
from steering_profiles.steering import ProfileAtStrength, effect_of
from steering_server.engines.vllm.plugin.attaching import Rank
from steering_server.engines.vllm.plugin.conditions import _schedule_synchronously, combinations, require_tokens
from steering_server.engines.vllm.plugin.requests import requested_steering
from steering_server.engines.vllm.plugin.runner_v1 import _runs
from steering_server.engines.vllm.plugin.seams import BATCH_FIELDS
from steering_server.engines.vllm.plugin.sequences import RunningSequence, RunningSequences, StepTokens
from steering_server.engines.vllm.plugin.steerer import Steerer
from steering_server.errors import ConfigError, EngineError
from tests.builders import build_model, build_profile
from tests.engines.vllm.standins import served, vllm_config


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    return build_model("llama")


def bytes_of(token: int) -> bytes:
    return bytes([token])


@pytest.fixture
def bracket(loaded: LoadedModel) -> RunningSequence:
    """A sequence under a profile that takes effect inside of brackets."""
    profile = build_profile(loaded, heads=[(0, 1, 2.0)], when={"matches": r"\([^)]*"})
    return RunningSequence(Steering((ProfileAtStrength(profile),)), bytes_of)


def steered(
    sequence: RunningSequence, text: bytes, start: int, settled: int | None = None, prompt_length: int = 1
) -> str:
    """The tokens from ``start`` on that are steered, and a dot for the others; those from ``settled`` on are drafts."""
    ids = np.frombuffer(text, dtype=np.uint8).astype(np.int32)
    step = StepTokens(ids, start, len(ids) if settled is None else settled, prompt_length)
    runs = sequence.runs(len(ids) - start, lambda: step)
    assert all(not steering.conditions for steering, _ in runs)
    marks = "".join(("x" if len(steering) else ".") * count for steering, count in runs)
    return "".join(chr(text[start + at]) if mark == "x" else "." for at, mark in enumerate(marks))


def test_a_prompt_in_pieces_and_then_token_by_token(bracket: RunningSequence) -> None:
    text = b"f(ab)c(d"
    assert steered(bracket, text[:3], 0) == ".(a"
    assert steered(bracket, text[:6], 3) == "b.."
    assert [steered(bracket, text[: at + 1], at) for at in (6, 7)] == ["(", "d"]


def test_a_prompt_whose_beginning_is_in_the_prefix_cache_is_read_from_its_start(bracket: RunningSequence) -> None:
    assert steered(bracket, b"f(abc", 3) == "bc"


def test_drafts_are_tested_and_forgotten(bracket: RunningSequence) -> None:
    assert steered(bracket, b"f(a", 0) == ".(a"
    assert steered(bracket, b"f(ab)c", 3, settled=4) == "b.."
    # Both drafts were rejected: other tokens are in their place.
    assert steered(bracket, b"f(abd", 4) == "d"
    # Or accepted.
    assert steered(bracket, b"f(abd)e", 5, settled=5) == ".."
    assert steered(bracket, b"f(abd)e(", 7) == "("


def test_a_sequence_that_is_computed_again_has_the_same_rows(bracket: RunningSequence) -> None:
    text = b"f(ab)c(d"
    assert steered(bracket, text, 0) == ".(ab..(d"
    assert steered(bracket, text[:4], 0) == ".(ab"
    assert steered(bracket, text[:7], 4) == "..("
    assert steered(bracket, text + b")", 7) == "d."


def test_tokens_that_changed_are_read_again(bracket: RunningSequence) -> None:
    assert steered(bracket, b"f(ab", 0) == ".(ab"
    assert steered(bracket, b"f)abc", 4) == "."
    assert steered(bracket, b"(f", 0, settled=2) == "(f"


def test_a_condition_on_the_part_follows_the_length_of_the_prompt(loaded: LoadedModel) -> None:
    profile = build_profile(loaded, heads=[(0, 1, 2.0)], when={"part": "completion"})
    sequence = RunningSequence(Steering((ProfileAtStrength(profile),)), bytes_of)
    assert steered(sequence, b"abc", 0, prompt_length=3) == "..c"
    assert steered(sequence, b"abcd", 3, prompt_length=3) == "d"


def test_the_last_prompt_token_is_one_position_however_the_prompt_is_cut(loaded: LoadedModel) -> None:
    profile = build_profile(loaded, heads=[(0, 1, 2.0)], when={"part": "last_prompt_token"})
    sequence = RunningSequence(Steering((ProfileAtStrength(profile),)), bytes_of)
    assert steered(sequence, b"ab", 0, prompt_length=3) == ".."
    assert steered(sequence, b"abc", 2, prompt_length=3) == "c"
    assert steered(sequence, b"abcd", 3, prompt_length=3) == "."
    assert steered(sequence, b"abcd", 0, prompt_length=3) == "..c."


def test_a_token_that_is_not_known_is_an_error(bracket: RunningSequence) -> None:
    step = StepTokens(np.array([40, -1], dtype=np.int32), 1, 2, 1)
    with pytest.raises(EngineError, match="a token is not on the CPU yet"):
        bracket.runs(1, lambda: step)


def test_the_tokens_of_a_sequence_without_conditions_are_not_read(loaded: LoadedModel) -> None:
    steering = Steering((ProfileAtStrength(build_profile(loaded, heads=[(0, 1, 2.0)])),))
    (run,) = RunningSequence(steering, None).runs(5, lambda: pytest.fail("the tokens were asked for"))
    assert run == (steering, 5)


def test_sequences_are_kept_by_their_request_and_the_one_used_longest_ago_gives_way() -> None:
    made: list[Any] = []
    kept = RunningSequences(2, lambda params: made.append(params) or Steering(), None)  # type: ignore[func-returns-value]
    one, two = kept.of("1", "a"), kept.of("2", "b")
    assert kept.of("1", "a") is one
    kept.of("3", "c")
    assert kept.of("1", "a") is one
    assert kept.of("2", "b") is not two
    assert kept.of("1", params := object()) is not one  # another request of the same name
    assert made == ["a", "b", "c", "b", params]


@pytest.fixture
def steerer(loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> Steerer:
    """A steerer of two sequences and 16 tokens, without the modules of a model."""
    monkeypatch.setattr("steering_server.engines.vllm.plugin.steerer.attach", lambda *_: None)
    monkeypatch.setattr("steering_server.engines.vllm.plugin.steerer._bytes_of", lambda _: bytes_of)
    profiles = served(
        loaded,
        build_profile(loaded, "always", heads=[(0, 0, 2.0)]),
        build_profile(loaded, "bracket", heads=[(0, 1, 2.0)], when={"matches": r"\([^)]*"}),
        build_profile(loaded, "completion", heads=[(0, 2, 2.0)], when={"part": "completion"}),
    )
    return Steerer(
        torch.nn.Module(),
        profiles,
        sequences=2,
        tokens=16,
        dtype=torch.float32,
        device=torch.device("cpu"),
        rank=Rank(0, 1),
    )


def rows(steerer: Steerer, *asked: tuple[str | None, bytes, int, int]) -> list[list[int]]:
    """The rows of a step of sequences: label, text, start and length of the prompt."""
    texts = [text for _, text, _, _ in asked]
    ids = np.zeros((len(asked), 64), dtype=np.int32)
    for row, text in zip(ids, texts, strict=True):
        row[: len(text)] = np.frombuffer(text, dtype=np.uint8)
    names = [f"{n} {label}" for n, (label, *_) in enumerate(asked)]
    batch = SimpleNamespace(
        req_ids=names,
        token_ids_cpu=ids,
        num_computed_tokens_cpu=np.array([start for _, _, start, _ in asked]),
        num_tokens_no_spec=np.array([len(text) for text in texts]),
        num_prompt_tokens=np.array([length for *_, length in asked]),
    )
    params = {
        name: SimpleNamespace(sampling_params=SimpleNamespace(extra_args={"steering": label} if label else None))
        for name, (label, *_) in zip(names, asked, strict=True)
    }
    counts = np.array([len(text) - start for _, text, start, _ in asked])
    steerer.fill(_runs(SimpleNamespace(input_batch=batch, requests=params), steerer, counts))
    found = iter(steerer.rows.buffer.tolist())
    by_sequence = [[next(found) for _ in range(count)] for count in counts]
    assert set(found) <= {0}
    return by_sequence


def test_each_combination_of_conditions_that_occurs_has_a_row(steerer: Steerer) -> None:
    both, plain = rows(steerer, ("bracket+completion", b"f(a)b(c", 0, 4), (None, b"abc", 0, 3))
    assert both == [0, 1, 1, 2, 2, 3, 3]  # none, the bracket, the completion, both
    assert plain == [0, 0, 0]


def test_where_no_condition_holds_profiles_without_one_have_their_row(steerer: Steerer) -> None:
    mixed, always = rows(steerer, ("always+bracket", b"f(a)b", 0, 5), ("always", b"f(a", 0, 3))
    assert mixed == [1, 2, 2, 1, 1]
    assert len(set(always)) == 1
    assert not set(always) & {0, 2}


def test_all_combinations_of_all_sequences_fit_into_one_step(steerer: Steerer) -> None:
    one, two = (
        ("always+bracket+completion@1", b"f(a)b(c)", 0, 4),
        ("always+bracket+completion@2", b"f(a)b(c)", 0, 4),
    )
    first, second = rows(steerer, one, two)
    assert len({*first}) == len({*second}) == 4
    assert not {*first} & {*second}


def test_conditions_are_counted_by_the_profiles_that_are_served(loaded: LoadedModel) -> None:
    always = build_profile(loaded, heads=[(0, 0, 2.0)])
    some = [build_profile(loaded, heads=[(0, 0, 2.0)], when={"from_position": n}) for n in (1, 1, 2)]
    assert (combinations([always]), combinations([always, *some])) == (1, 4)
    scales = [(0, head, 2.0, {"from_position": head + 1}) for head in range(3)]
    assert combinations([build_profile(loaded, heads=scales), *some]) == 8


def test_each_condition_of_one_profile_has_its_rows(loaded: LoadedModel) -> None:
    inside, completing = {"matches": r"\([^)]*"}, {"part": "completion"}
    profile = build_profile(loaded, heads=[(0, 1, 2.0, inside), (0, 1, 3.0, completing), (0, 2, 2.0, completing)])
    sequence = RunningSequence(Steering((ProfileAtStrength(profile),)), bytes_of)
    text = b"f(a)b(c"
    step = StepTokens(np.frombuffer(text, dtype=np.uint8).astype(np.int32), 0, len(text), 4)
    runs = sequence.runs(len(text), lambda: step)
    assert [count for _, count in runs] == [1, 2, 2, 2]  # none, the bracket, the completion, both
    factors = [effect_of(steering, loaded.anatomy.sizes).heads.get(0) for steering, _ in runs]
    assert factors[0] is None
    assert [one.tolist() for one in factors[1:] if one is not None] == [
        [1.0, 2.0, 1.0, 1.0], [1.0, 3.0, 2.0, 1.0], [1.0, 6.0, 2.0, 1.0]
    ]  # fmt: skip


def test_a_row_for_a_steering_whose_conditions_were_not_tested_is_refused(
    steerer: Steerer, loaded: LoadedModel
) -> None:
    params = SimpleNamespace(extra_args={"steering": "bracket"})
    with pytest.raises(ConditionError, match="bracket: a condition is tested token by token"):
        steerer.rows_of([steerer.sequence_of("1", params).steering])


def runner(**changes: Any) -> Any:
    """What the plugin reads of a model runner."""
    batch = SimpleNamespace(**dict.fromkeys(BATCH_FIELDS))
    return SimpleNamespace(vllm_config=vllm_config("model", **changes), input_batch=batch)


def test_a_worker_that_schedules_asynchronously_does_not_start_with_conditions(loaded: LoadedModel) -> None:
    conditional = served(loaded, build_profile(loaded, "where", heads=[(0, 1, 2.0)], when={"from_position": 4}))
    require_tokens(runner(), conditional)
    asynchronous = runner(scheduler_config__async_scheduling=True)
    require_tokens(asynchronous, served(loaded, build_profile(loaded, heads=[(0, 1, 2.0)])))
    with pytest.raises(ConfigError, match=r"\(where\) need the tokens of a step .* start with --no-async-scheduling"):
        require_tokens(asynchronous, conditional)


def test_a_batch_without_the_tokens_stops_vllm(loaded: LoadedModel) -> None:
    conditional = served(loaded, build_profile(loaded, heads=[(0, 1, 2.0)], when={"from_position": 4}))
    other = runner()
    del other.input_batch.num_tokens_no_spec
    with pytest.raises(ConfigError, match="has no field num_tokens_no_spec, by which conditions are tested"):
        require_tokens(other, conditional)


@pytest.mark.parametrize(
    ("when", "second_runner", "stays"),
    [({"from_position": 4}, False, False), (None, False, True), ({"from_position": 4}, True, True)],
    ids=["a condition", "no condition", "the second runner, which refuses conditions"],
)
def test_asynchronous_scheduling_is_switched_off_where_conditions_are_served(
    loaded: LoadedModel,
    monkeypatch: pytest.MonkeyPatch,
    when: dict[str, object] | None,
    second_runner: bool,
    stays: bool,
) -> None:
    profiles = served(loaded, build_profile(loaded, heads=[(0, 1, 2.0)], when=when))
    monkeypatch.setattr("steering_server.engines.vllm.plugin.conditions.served_by", lambda _: profiles)
    config = vllm_config("model", scheduler_config__async_scheduling=True, use_v2_model_runner=second_runner)
    _schedule_synchronously(config)
    assert config.scheduler_config.async_scheduling is stays


def test_a_request_under_conditions_is_understood_as_any_other(loaded: LoadedModel) -> None:
    profiles = served(loaded, build_profile(loaded, "where", heads=[(0, 1, 2.0)], when={"from_position": 4}))
    assert requested_steering({"steering": "where@0.5"}, profiles).conditions
    assert not requested_steering({"steering": "where@0"}, profiles).conditions
