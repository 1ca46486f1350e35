"""Whether decoding can be captured: tried at start on the model itself, steered and unsteered, beside plain steps."""

import structlog
import torch
from torch import Tensor

from steering_profiles.composition import ProfileAtStrength, Steering
from steering_profiles.models import LoadedModel
from steering_profiles.schema import HeadScale, Profile
from steering_server.engines.local import decode_graphs
from steering_server.engines.local.decode_graphs import DecodeGraphs
from steering_server.engines.local.ragged import SequenceInput
from steering_server.engines.local.runner import Runner

_PROMPT = (1, 2, 3)
_TOLERANCE = {torch.float16: 0.02, torch.bfloat16: 0.1, torch.float32: 0.005}
"""Greatest difference of logits, as a share of the greatest logit; GPUs multiply float32 in TF32 at best."""

_log = structlog.get_logger("steering_server.engine")


def capture_if_possible(runner: Runner, loaded: LoadedModel, *, wanted: bool) -> str | None:
    """Let the runner replay captured decoding steps where that gives the right logits; return why not otherwise.

    Nothing may have been computed yet: the check uses slots of the KV cache, and clears them.
    """
    refused = decode_graphs.refusal(loaded) if wanted else "it was switched off (cuda_graphs is off)"
    if refused is not None:
        return refused
    row = runner.steering.acquire(_profile(loaded))
    try:
        expected = _decoded(runner, row)
        runner.capture_decoding(DecodeGraphs(loaded, runner.kv_cache, runner.steering, decode_graphs.cuda_graph))
        found = _decoded(runner, row)
    except Exception as exc:  # whatever a driver, a compiler or a model's code cannot do is done without graphs
        reason: str | None = f"a decoding step could not be captured: {type(exc).__name__}: {exc}".splitlines()[0]
    else:
        reason = _difference(expected, found, loaded.dtype)
    finally:
        runner.steering.release(row)
        for slot in (0, 1):
            runner.kv_cache.discard(slot)
    if reason is not None:
        runner.capture_decoding(None)
        _log.warning("cuda_graphs_unavailable", reason=reason)
    return reason


def _decoded(runner: Runner, row: int) -> Tensor:
    """Return the logits of two tokens after a prompt, unsteered and steered, each by itself and both together.

    What was captured for the first token is replayed for the second.
    """
    rows = (0, row)
    runner.run([_input(_PROMPT, 0, slot, rows[slot]) for slot in (0, 1)])
    computed = []
    for position, token in enumerate((4, 5), len(_PROMPT)):
        for slots in ((0,), (1,), (0, 1)):
            outputs = runner.run([_input((token,), position, slot, rows[slot]) for slot in slots])
            computed.append(outputs[0].batch_logits.float().clone())
    return torch.cat(computed)


def _input(tokens: tuple[int, ...], position: int, slot: int, row: int) -> SequenceInput:
    return SequenceInput(tokens, position, slot, row, logits_for=range(len(tokens)))


def _difference(expected: Tensor, found: Tensor, dtype: torch.dtype) -> str | None:
    tolerance = _TOLERANCE.get(dtype, 0.005) * expected.abs().max().item()
    difference = (expected - found).abs().max().item()
    if not difference <= tolerance:
        return f"captured decoding steps gave other logits: {difference:.3g} apart, {tolerance:.3g} allowed"
    unsteered, steered = found[0], found[1]
    if torch.equal(unsteered, steered) and not torch.equal(expected[0], expected[1]):
        return "captured decoding steps were not steered"
    return None


def _profile(loaded: LoadedModel) -> Steering:
    """Return a steering that changes a head of the first layer a lot."""
    heads = (HeadScale(layer=0, head=0, scale=-4.0),)
    profile = Profile(name="check", description="", method="manual", model=loaded.identity, heads=heads)
    return Steering((ProfileAtStrength(profile),))
