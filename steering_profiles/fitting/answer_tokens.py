"""The tokens whose projected logits are compared on each prompt of a task: the answer and its alternatives."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from steering_profiles.tasks.task import Example, Task


@dataclass(frozen=True)
class AnswerTokens:
    """Token ids per prompt. ``tokens`` in the shapes is the largest number of tokens that a prompt has."""

    tokens: Tensor
    """``[prompts, tokens]``: token ids. The first is the correct answer, which also pads rows with fewer tokens."""
    choices: Tensor
    """``[prompts, tokens]``, bool: whether the token is one of the alternatives that the answer competes with."""
    groups: tuple[str, ...]
    """The sub-tasks, each with one answer; empty for a task without sub-tasks."""
    group: Tensor
    """``[prompts]``: index of each prompt's group; 0 for a task without sub-tasks."""
    columns: Tensor
    """``[prompts, groups]``: column of ``tokens`` that holds the answer of each group."""

    @classmethod
    def of(cls, task: Task, examples: Sequence[Example]) -> "AnswerTokens":
        """Return the answer tokens of ``examples``, which belong to ``task``."""
        answers = task.answers
        rows, choices, columns = [], [], []
        for example in examples:
            alternatives = example.candidates or tuple(answers.values())
            row = list(dict.fromkeys((example.answer, *alternatives, *answers.values())))
            rows.append(row)
            choices.append([token in alternatives for token in row])
            columns.append([row.index(token) for token in answers.values()])
        most = max(map(len, rows))
        return cls(
            tokens=torch.tensor([row + row[:1] * (most - len(row)) for row in rows]),
            choices=torch.tensor([choice + [False] * (most - len(choice)) for choice in choices]),
            groups=tuple(answers),
            group=torch.tensor([list(answers).index(example.group) if answers else 0 for example in examples]),
            columns=torch.tensor(columns, dtype=torch.long).view(len(examples), len(answers)),
        )
