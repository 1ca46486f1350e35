"""vLLM's first model runner: on CPUs always, on GPUs where the second one is turned off or does not suit."""

from collections.abc import Iterator
from functools import partial, wraps
from typing import Any

import numpy as np

from steering_server.engines.vllm.plugin.attaching import Rank
from steering_server.engines.vllm.plugin.conditions import require_tokens
from steering_server.engines.vllm.plugin.modes import require_supported
from steering_server.engines.vllm.plugin.seams import CPU_SEAMS, mark, marked, require_equal
from steering_server.engines.vllm.plugin.sequences import Run, StepTokens
from steering_server.engines.vllm.plugin.served import read_settings_of, served_by
from steering_server.engines.vllm.plugin.steerer import Steerer

_STEERER = "steering_server_steerer"
_CANARY_TOKENS = 8


def steerer_of(runner: Any) -> Steerer | None:
    """Return the steerer of a model runner; None where no profile can be applied to its model."""
    found: Steerer | None = getattr(runner, _STEERER, None)
    return found


def install() -> None:
    """Wrap the model runner's and the workers' functions in this process."""
    from vllm.platforms import current_platform
    from vllm.v1.worker.gpu_model_runner import GPUModelRunner
    from vllm.v1.worker.gpu_worker import Worker

    runners, workers = [GPUModelRunner], [Worker]
    if current_platform.is_cpu():
        import vllm
        from vllm.v1.worker.cpu_model_runner import CPUModelRunner
        from vllm.v1.worker.cpu_worker import CPUWorker

        require_equal(CPU_SEAMS, str(vllm.__version__))
        runners.append(CPUModelRunner)
        workers.append(CPUWorker)
    for runner in runners:
        _wrap_loading(runner)
    _wrap_preparing(GPUModelRunner)
    for worker in workers:
        _wrap_warming_up(worker)


def _wrap_loading(runner: Any) -> None:
    original = runner.load_model
    if marked(original):
        return

    @wraps(original)
    def load_model(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        if steerer_of(self) is None:
            setattr(self, _STEERER, make_steerer(self, self.get_model()))

    runner.load_model = mark(load_model)


def make_steerer(runner: Any, model: Any) -> Steerer | None:
    """Put steering tables into the loaded model of a model runner; None where it has no usable profile.

    Raises:
        ConfigError: the model cannot be steered, or not with these settings of vLLM.
    """
    from vllm.distributed import get_tensor_model_parallel_rank, get_tensor_model_parallel_world_size

    vllm_config = runner.vllm_config
    served = served_by(vllm_config)
    if not served.usable:
        return None
    require_supported(vllm_config)
    require_tokens(runner, served)
    steerer = Steerer(
        model,
        served,
        sequences=runner.max_num_reqs,
        tokens=runner.max_num_tokens,
        dtype=runner.dtype,
        device=runner.device,
        rank=Rank(get_tensor_model_parallel_rank(), get_tensor_model_parallel_world_size()),
    )
    steerer.stamp(vllm_config.additional_config)
    return steerer


def _wrap_preparing(runner: Any) -> None:
    original = runner._prepare_inputs
    if marked(original):
        return

    @wraps(original)
    def _prepare_inputs(self: Any, scheduler_output: Any, num_scheduled_tokens: Any) -> Any:
        steerer = steerer_of(self)
        if steerer is not None:
            # The batch has its final order here, and vLLM has waited for the copies of the step before.
            steerer.fill(_runs(self, steerer, num_scheduled_tokens))
        return original(self, scheduler_output, num_scheduled_tokens)

    runner._prepare_inputs = mark(_prepare_inputs)


def _runs(runner: Any, steerer: Steerer, num_scheduled_tokens: np.ndarray) -> Iterator[Run]:
    """Yield the steerings of the tokens of a step, in the order of the batch."""
    for index, request in enumerate(runner.input_batch.req_ids):
        count = int(num_scheduled_tokens[index])
        sequence = steerer.sequence_of(request, runner.requests[request].sampling_params)
        yield from sequence.runs(count, partial(_tokens, runner.input_batch, index, count))


def _tokens(batch: Any, index: int, count: int) -> StepTokens:
    """Return the tokens of a sequence up to the end of a step that computes ``count`` of them."""
    start = int(batch.num_computed_tokens_cpu[index])
    return StepTokens(
        batch.token_ids_cpu[index, : start + count],
        start,
        int(batch.num_tokens_no_spec[index]),
        int(batch.num_prompt_tokens[index]),
    )


def _wrap_warming_up(worker: Any) -> None:
    original = worker.compile_or_warm_up_model
    if marked(original):
        return

    @wraps(original)
    def compile_or_warm_up_model(self: Any) -> Any:
        result = original(self)
        runner = self.model_runner
        _make_later_stage_ready(runner)
        steerer = steerer_of(runner) or steerer_of(getattr(runner, "model_state", None))
        if steerer is not None and read_settings_of(self.vllm_config).canary:
            for options in _dummy_steps(runner):
                steerer.require_in_use(partial(_dummy_output, runner, options))
        return result

    worker.compile_or_warm_up_model = mark(compile_or_warm_up_model)


def _dummy_steps(runner: Any) -> list[dict[str, Any]]:
    """Return the options of dummy steps that cover what vLLM runs: any batch, and where there are graphs, decoding."""
    second = hasattr(runner, "model_state")
    # Without attention its output would be whatever the memory holds.
    mixed: dict[str, Any] = {} if second else {"force_attention": True}
    graphs = runner.vllm_config.compilation_config.cudagraph_mode
    if runner.device.type == "cpu" or not graphs:
        return [mixed]
    return [mixed, {**mixed, "uniform_decode": True}]


def _dummy_output(runner: Any, options: dict[str, Any]) -> Any:
    return runner._dummy_run(_CANARY_TOKENS, **options)[0]


def _make_later_stage_ready(runner: Any) -> None:
    """Let a later stage of a pipeline make the buffer of its inputs.

    vLLM 0.32 makes it in the first dummy step, of which there is none on a CPU without compilation; the first real
    step then fails.
    """
    if getattr(runner, "intermediate_tensors", ...) is None and _stages(runner) > 1:
        runner._dummy_run(_CANARY_TOKENS, force_attention=True)


def _stages(runner: Any) -> int:
    return int(runner.vllm_config.parallel_config.pipeline_parallel_size)
