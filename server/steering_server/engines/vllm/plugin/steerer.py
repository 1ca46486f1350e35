"""What one worker needs to steer: tables in the model's modules, rows of steerings, and the row of each token."""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from steering_profiles.composition import Steering
from steering_profiles.steering.effects import Effect, effect_of
from steering_profiles.steering.table import require_no_conditions
from steering_profiles.tokenization import Vocabulary
from steering_server.engines.vllm.plugin.attaching import Rank, attach, is_reduced
from steering_server.engines.vllm.plugin.canary import require_steered
from steering_server.engines.vllm.plugin.conditions import combinations
from steering_server.engines.vllm.plugin.requests import requested_steering
from steering_server.engines.vllm.plugin.sequences import BytesOf, Run, RunningSequence, RunningSequences
from steering_server.engines.vllm.plugin.served import ServedProfiles
from steering_server.engines.vllm.plugin.settings import STAMP
from steering_server.engines.vllm.plugin.tables import RowCache, SteeringTables, TokenRows, fingerprint, parts_of

_REMEMBERED = 4  # steerings of requests that are kept, as a multiple of the sequences that can run


class Steerer:
    """The steering of one model in one worker."""

    def __init__(
        self,
        model: nn.Module,
        served: ServedProfiles,
        *,
        sequences: int,
        tokens: int,
        dtype: torch.dtype,
        device: torch.device,
        rank: Rank,
    ) -> None:
        """Put tables into ``model``; a step has at most so many sequences and tokens.

        Raises:
            ConfigError: a module is not where the model's family says, or is not built as expected.
        """
        self._served = served
        self._anatomy = served.known_anatomy
        # As many rows as a step can need, the identity before them and a spare one, for the canary, behind.
        rows = min(sequences * combinations(served.usable), max(sequences, tokens))
        self._spare = rows + 1
        self._tables = SteeringTables(rows + 2, dtype, device)
        self._subtracts = rank.size == 1 or rank.rank == 0 or is_reduced(model, self._anatomy)
        self.rows = TokenRows(tokens, device)
        attach(
            model,
            self._anatomy,
            parts_of(served.usable, self._anatomy.sizes.layers),
            self._tables,
            self.rows,
            rank,
        )
        self._cache = RowCache(rows, lambda row, steering: self._tables.write(row, self._effect(steering)))
        self._sequences = RunningSequences(_REMEMBERED * sequences, self._requested, _bytes_of(served))

    @property
    def tables(self) -> Mapping[Any, Tensor]:
        """The tables by part."""
        return self._tables.tables

    def stamp(self, additional_config: dict[str, Any]) -> None:
        """Add what is steered to vLLM's settings, which the key of its compile cache includes.

        Without it, code compiled without the plugin would be taken from the cache.
        """
        facts = repr((version("steering-server"), fingerprint(self._tables)))
        additional_config[STAMP] = hashlib.sha256(facts.encode()).hexdigest()

    def sequence_of(self, request: str, params: Any) -> RunningSequence:
        """Return the sequence of a request with these sampling parameters.

        The engine core has accepted them, so that an error here stops the engine rather than answer unsteered.

        Raises:
            RequestError: it cannot be applied.
        """
        return self._sequences.of(request, params)

    def fill(self, runs: Iterable[Run]) -> None:
        """Set the rows of a step: steerings, and the number of tokens that each is for, one after the other."""
        steerings, counts = zip(*runs, strict=True)
        self.rows.fill(self._cache.rows_of(steerings), np.asarray(counts))

    def rows_of(self, steerings: Sequence[Steering]) -> list[int]:
        """Return the table row of each steering of one step."""
        return self._cache.rows_of(steerings)

    def require_in_use(self, run: Callable[[], Any]) -> None:
        """Check that ``run``, a dummy step, is steered, see :func:`.require_steered`.

        Raises:
            ConfigError: it is not.
        """
        require_steered(self.tables, self.rows, self._spare, run)

    def _requested(self, params: Any) -> Steering:
        return requested_steering(params.extra_args if params is not None else None, self._served)

    def _effect(self, steering: Steering) -> Effect:
        require_no_conditions(steering)
        effect = effect_of(steering, self._anatomy.sizes)
        if effect.intercept is None:
            return effect
        # Of workers whose outputs are summed later, one alone subtracts.
        multiplier = self._anatomy.final_layer.mlp_joining.multiplier
        intercept = effect.intercept / multiplier if self._subtracts else None
        return Effect(effect.heads, effect.neurons, effect.self_only_attention, intercept)


def _bytes_of(served: ServedProfiles) -> BytesOf | None:
    """Return what tells the text of a token; None where no profile has a condition."""
    return None if served.tokenizer is None else Vocabulary(served.tokenizer).bytes_of
