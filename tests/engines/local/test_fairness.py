"""The queue is fair over clients: one client's many sequences do not hold up another's one."""

import threading
import time
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from steering_server.engines.local.backlog import Backlog
from steering_server.errors import EngineError, Overloaded
from steering_server.generation.requests import Chunk, GenerationRequest
from tests.builders import build_model
from tests.engines.local.running import GREEDY, PROMPTS, Running, running

LONG = replace(GREEDY, max_tokens=200, ignore_eos=True)


class Client:
    """One client's requests: what is generated for each, and when each ended."""

    def __init__(self, at_work: Running, name: str | None) -> None:
        self._engine = at_work.engine
        self._name = name
        self.results: list[Chunk] = []
        self.ended: list[float] = []
        self.order: list[int] = []
        self.all_ended = threading.Event()

    def send(self, count: int, sampling: Any = LONG, prompt: tuple[int, ...] = PROMPTS[0]) -> None:
        self.results = [Chunk() for _ in range(count)]

        def emit(index: int, report: Chunk | EngineError) -> None:
            assert isinstance(report, Chunk), report
            self.results[index] += report
            if report.finish_reason:
                self.ended.append(time.monotonic())
                self.order.append(index)
                if len(self.ended) == count:
                    self.all_ended.set()

        requests = [GenerationRequest(prompt, replace(sampling, seed=index)) for index in range(count)]
        self._engine.submit(requests, emit, self._name)


def test_one_clients_many_do_not_hold_up_anothers_one():
    with running(build_model("llama", dtype=torch.float32), max_num_seqs=4) as at_work:
        greedy, modest = Client(at_work, "greedy"), Client(at_work, "modest")
        greedy.send(32)
        while not greedy.results[0].tokens:
            time.sleep(0.01)
        modest.send(1, replace(LONG, max_tokens=20))
        assert modest.all_ended.wait(60)
        assert not greedy.ended, "it had to wait for a whole sequence of the other"
        assert greedy.all_ended.wait(120)


def test_a_sequence_that_gave_up_its_place_has_the_same_answer():
    loaded = build_model("llama", dtype=torch.float32)
    with running(loaded, max_num_seqs=2) as at_work:
        alone = Client(at_work, None)
        alone.send(4)
        assert alone.all_ended.wait(60)
        greedy, modest = Client(at_work, "greedy"), Client(at_work, "modest")
        greedy.send(4)
        while not greedy.results[1].tokens:
            time.sleep(0.01)
        modest.send(3, replace(LONG, max_tokens=30))
        assert greedy.all_ended.wait(60)
        assert modest.all_ended.wait(60)
    assert [one.tokens for one in greedy.results] == [one.tokens for one in alone.results]
    assert [one.tokens[:30] for one in alone.results[:3]] == [one.tokens for one in modest.results]


def test_another_clients_long_prompts_are_read_in_turns():
    limits = {"max_num_seqs": 16, "max_num_batched_tokens": 32, "max_num_batched_tokens_mixed": 32}
    with running(build_model("llama", dtype=torch.float32), prefix_cache=False, **limits) as at_work:
        greedy, modest = Client(at_work, "greedy"), Client(at_work, "modest")
        greedy.send(15, replace(GREEDY, max_tokens=1), prompt=(7,) * 400)
        modest.send(1, replace(GREEDY, max_tokens=1), prompt=(9,) * 60)
        assert modest.all_ended.wait(60)
        assert len(greedy.ended) <= 2
        assert greedy.all_ended.wait(60)


def test_one_client_leaves_room_in_the_queue_for_others():
    with running(build_model("llama", dtype=torch.float32), max_num_seqs=1, max_queue=20) as at_work:
        greedy, modest = Client(at_work, "greedy"), Client(at_work, "modest")
        greedy.send(1, replace(LONG, max_tokens=80))
        while not greedy.results[0].tokens:
            time.sleep(0.01)
        Client(at_work, "greedy").send(18, replace(LONG, max_tokens=10))
        with pytest.raises(Overloaded) as caught:
            Client(at_work, "greedy").send(1)
        assert caught.value.retry_after is not None
        modest.send(1, GREEDY)
        assert modest.all_ended.wait(60)


def test_without_clients_the_queue_is_fair_over_requests_and_nothing_is_preempted():
    with running(build_model("llama", dtype=torch.float32), max_num_seqs=2) as at_work:
        first, second = Client(at_work, None), Client(at_work, None)
        first.send(6, replace(LONG, max_tokens=40))
        while not first.results[1].tokens:
            time.sleep(0.01)
        second.send(1, replace(LONG, max_tokens=40))
        assert first.all_ended.wait(60)
        assert second.all_ended.wait(60)
        assert first.ended[1] <= second.ended[0] <= first.ended[3], "its turn comes when the first two are over"


def test_the_wait_is_told_from_the_sequences_that_finished_lately():
    backlog = Backlog()
    backlog.work_began(100.0)
    for second in range(1, 11):
        backlog.finished(100.0 + second)
    assert backlog.wait(30, running=4, now=110.0) == pytest.approx(30)


def test_before_any_has_finished_those_that_run_are_expected_to_take_as_long_again():
    backlog = Backlog()
    backlog.work_began(100.0)
    assert backlog.wait(4, running=4, now=120.0) == pytest.approx(20)


@given(st.lists(st.tuples(st.floats(0, 5), st.integers(1, 50)), min_size=1, max_size=50))
def test_those_that_were_refused_are_not_all_told_to_come_at_once(refused: list[tuple[float, int]]):
    backlog = Backlog()
    backlog.work_began(0.0)
    for second in range(10):
        backlog.finished(float(second))
    now, latest = 10.0, 0.0
    for pause, sequences in refused:
        now += pause
        alone = backlog.wait(sequences, 4, now)
        told = backlog.promise(sequences, 4, now, most=600.0)
        assert told >= min(alone, 600.0) - 1e-6
        assert now + told >= min(latest, now + 600.0) - 1e-6
        latest = now + told
