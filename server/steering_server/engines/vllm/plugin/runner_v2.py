"""vLLM's second model runner, the default on GPUs. Its ``ModelState`` prepares the inputs of every step.

Tested with stand-ins for vLLM's objects only; it has not run on a GPU.
"""

from functools import wraps
from typing import Any

import torch

from steering_profiles.composition import UNSTEERED, Steering
from steering_server.engines.vllm.plugin.runner_v1 import _STEERER, make_steerer, steerer_of
from steering_server.engines.vllm.plugin.seams import V2_SEAMS, mark, marked, require_equal
from steering_server.engines.vllm.plugin.steerer import Steerer


def install() -> None:
    """Let every model state of this process be a steered one."""
    from vllm.triton_utils import HAS_TRITON

    if not HAS_TRITON:
        return  # vLLM refuses to run the second model runner then, and some of its modules cannot be imported
    import vllm
    from vllm.v1.worker.gpu import model_states

    original = model_states.resolve_model_state_cls  # a global that vLLM reads when it loads a model
    if marked(original):
        return
    require_equal(V2_SEAMS, str(vllm.__version__))

    @wraps(original)
    def resolve_model_state_cls(vllm_config: Any, model: Any) -> type[Any]:
        return steered(original(vllm_config, model))

    model_states.resolve_model_state_cls = mark(resolve_model_state_cls)


def steered(base: type[Any]) -> type[Any]:
    """Return a subclass of the model state ``base`` that sets the rows of every step."""

    def __init__(self: Any, vllm_config: Any, model: Any, encoder_cache: Any, device: Any) -> None:
        base.__init__(self, vllm_config, model, encoder_cache, device)
        # Adapters are in the model already; a speculator's model is another one.
        setattr(self, _STEERER, make_steerer(self, model))
        self.steering_slots = [UNSTEERED] * self.max_num_reqs
        self.steering_positions = torch.arange(self.max_num_tokens, device=device)

    def add_request(self: Any, req_index: int, new_req_data: Any) -> None:
        # Called again after preemption. A slot is overwritten by its next request, so nothing is done at the end.
        base.add_request(self, req_index, new_req_data)
        if (steerer := steerer_of(self)) is not None:
            self.steering_slots[req_index] = steerer.sequence_of(
                new_req_data.req_id, new_req_data.sampling_params
            ).steering

    def prepare_inputs(self: Any, input_batch: Any, req_states: Any) -> Any:
        if (steerer := steerer_of(self)) is not None:
            if input_batch.req_ids[0] in req_states.req_id_to_index:
                _fill(steerer, input_batch, self.steering_slots, self.steering_positions)
            else:
                steerer.rows.fill_dummy()
        return base.prepare_inputs(self, input_batch, req_states)

    def prepare_dummy_inputs(self: Any, num_reqs: int, num_tokens: int) -> Any:
        if (steerer := steerer_of(self)) is not None:
            steerer.rows.fill_dummy()
        return base.prepare_dummy_inputs(self, num_reqs, num_tokens)

    methods = (__init__, add_request, prepare_inputs, prepare_dummy_inputs)
    made: type[Any] = type(f"Steered{base.__name__}", (base,), {method.__name__: method for method in methods})
    return made


def _fill(steerer: Steerer, batch: Any, slots: list[Steering], positions: torch.Tensor) -> None:
    """Set the row of each token of a step, and row 0 for padding."""
    rows = steerer.rows_of([slots[slot] for slot in batch.idx_mapping_np[: batch.num_reqs]])
    buffer = steerer.rows.buffer
    of_sequence = torch.tensor(rows, dtype=torch.int64).to(buffer.device, non_blocking=True)
    tokens, sequences = batch.num_tokens, batch.num_reqs
    # By the starts on the device: drafts may move between sequences there, which the host does not see.
    ends = batch.query_start_loc[1 : sequences + 1].long()
    sequence = torch.searchsorted(ends, positions[:tokens], right=True).clamp_(max=sequences - 1)
    buffer[:tokens] = of_sequence[sequence]
    buffer[tokens : batch.num_tokens_after_padding] = 0
