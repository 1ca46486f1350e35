"""What is asked of a component's projected logits on each prompt of a task."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from steering_profiles.tasks.task import Example, Task


@dataclass(frozen=True)
class AnswerTokens:
    """The tokens that are looked at on each prompt. ``tokens`` is the most of them that any prompt has."""

    tokens: Tensor
    """``[prompts, tokens]`` token ids; the first is the right answer, which also fills rows with fewer."""
    choices: Tensor
    """``[prompts, tokens]``, whether the answer is to be chosen over that token."""
    groups: tuple[str, ...]
    """The sub-tasks that have one answer each; empty for a task without such."""
    group: Tensor
    """``[prompts]``: the index of each prompt's group; all 0 for a task without sub-tasks."""
    columns: Tensor
    """``[prompts, groups]``: the column of ``tokens`` in which the answer of each group stands."""


def answer_tokens(task: Task, examples: Sequence[Example]) -> AnswerTokens:
    """Return what is asked on ``examples``, a part of ``task``."""
    answers = task.answers
    rows, choices, columns = [], [], []
    for example in examples:
        among = example.candidates or tuple(answers.values())
        row = list(dict.fromkeys((example.answer, *among, *answers.values())))
        rows.append(row)
        choices.append([token in among for token in row])
        columns.append([row.index(token) for token in answers.values()])
    width = max(map(len, rows))
    return AnswerTokens(
        tokens=torch.tensor([row + row[:1] * (width - len(row)) for row in rows]),
        choices=torch.tensor([choice + [False] * (width - len(choice)) for choice in choices]),
        groups=tuple(answers),
        group=torch.tensor([list(answers).index(example.group) if answers else 0 for example in examples]),
        columns=torch.tensor(columns, dtype=torch.long).view(len(examples), len(answers)),
    )
