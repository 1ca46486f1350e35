"""The second model runner of vLLM, with stand-ins for its objects: no GPU is needed."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from steering_profiles.composition import Steering
from steering_profiles.models import LoadedModel
from steering_server.engines.vllm.plugin import runner_v2
from steering_server.engines.vllm.plugin.requests import requested_steering
from steering_server.engines.vllm.plugin.sequences import RunningSequence
from steering_server.engines.vllm.plugin.served import ServedProfiles
from steering_server.engines.vllm.plugin.tables import RowCache, TokenRows
from tests.builders import build_model, build_profile
from tests.engines.vllm.standins import served

CPU = torch.device("cpu")


class ModelState:
    def __init__(self, vllm_config: Any, model: Any, encoder_cache: Any, device: Any) -> None:
        self.max_num_reqs, self.max_num_tokens = 4, 32
        self.added: list[int] = []

    def add_request(self, req_index: int, new_req_data: Any) -> None:
        self.added.append(req_index)

    def prepare_inputs(self, input_batch: Any, req_states: Any) -> dict[str, Any]:
        return {"inputs": len(input_batch.req_ids)}

    def prepare_dummy_inputs(self, num_reqs: int, num_tokens: int) -> dict[str, Any]:
        return {"dummy": num_tokens}


class StandInSteerer:
    """The part of a steerer that needs no model of vLLM."""

    def __init__(self, profiles: ServedProfiles) -> None:
        self._served = profiles
        self._cache = RowCache(4, lambda row, steering: None)
        self.rows = TokenRows(32, CPU)

    def sequence_of(self, request: str, params: Any) -> RunningSequence:
        return RunningSequence(requested_steering(params.extra_args, self._served), None)

    def rows_of(self, steerings: list[Steering]) -> list[int]:
        return self._cache.rows_of(steerings)


@pytest.fixture
def state(monkeypatch: pytest.MonkeyPatch) -> Any:
    loaded: LoadedModel = build_model("llama")
    profiles = served(
        loaded, build_profile(loaded, "a", heads=[(0, 1, 2.0)]), build_profile(loaded, "b", heads=[(0, 2, 2.0)])
    )
    monkeypatch.setattr(runner_v2, "make_steerer", lambda owner, model: StandInSteerer(profiles))
    state = runner_v2.steered(ModelState)(None, None, None, CPU)
    for slot, steering in ((2, None), (0, "a"), (1, "b@0.5")):
        extra_args = None if steering is None else {"steering": steering}
        params = SimpleNamespace(extra_args=extra_args)
        state.add_request(slot, SimpleNamespace(req_id=str(slot), sampling_params=params))
    return state


def rows(state: Any) -> list[int]:
    buffer: torch.Tensor = runner_v2.steerer_of(state).rows.buffer  # type: ignore[union-attr]
    return buffer.tolist()


def batch(**changes: Any) -> Any:
    return SimpleNamespace(
        **{
            "req_ids": ["1", "2", "0"],
            "num_reqs": 3,
            "idx_mapping_np": np.array([1, 2, 0, 9]),
            "num_tokens": 7,
            "num_tokens_after_padding": 8,
            "query_start_loc": torch.tensor([0, 2, 3, 7], dtype=torch.int32),
            **changes,
        }
    )


RUNNING = SimpleNamespace(req_id_to_index={"1": 1, "2": 2, "0": 0})


def test_each_token_has_the_row_of_its_request(state: Any) -> None:
    runner_v2.steerer_of(state).rows.buffer.fill_(3)  # type: ignore[union-attr]
    assert state.added == [2, 0, 1]
    assert state.prepare_inputs(batch(), RUNNING) == {"inputs": 3}
    assert rows(state)[:8] == [1, 1, 0, 2, 2, 2, 2, 0]


def test_the_starts_on_the_device_say_which_tokens_a_request_has(state: Any) -> None:
    moved = batch(query_start_loc=torch.tensor([0, 1, 5, 7], dtype=torch.int32))
    state.prepare_inputs(moved, RUNNING)
    assert rows(state)[:7] == [1, 0, 0, 0, 0, 2, 2]


def test_a_slot_that_is_used_again_has_its_new_request(state: Any) -> None:
    state.add_request(1, SimpleNamespace(req_id="3", sampling_params=SimpleNamespace(extra_args=None)))
    state.prepare_inputs(batch(), RUNNING)
    assert rows(state)[:7] == [0, 0, 0, 1, 1, 1, 1]


def test_dummy_steps_are_unsteered_but_for_the_canary(state: Any) -> None:
    state.prepare_inputs(batch(), RUNNING)
    state.prepare_inputs(batch(req_ids=["_dummy_req_0"]), RUNNING)
    assert rows(state) == [0] * 32
    runner_v2.steerer_of(state).rows.dummy_row = 5  # type: ignore[union-attr]
    assert state.prepare_dummy_inputs(2, 8) == {"dummy": 8}
    assert rows(state) == [5] * 32
