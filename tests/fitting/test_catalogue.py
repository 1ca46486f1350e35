"""What is known of a built-in task without a model agrees with the task itself."""

from collections.abc import Callable

import pytest

from steering_profiles.errors import TaskError
from steering_profiles.models import LoadedModel
from steering_profiles.tasks import TASKS, make_task, require_conditions, require_group_conditions, require_next_tokens


@pytest.mark.parametrize("name", TASKS)
def test_a_task_is_refused_without_a_model_for_what_it_is_refused_for_with_one(name: str, embedded: LoadedModel):
    task = make_task(name, embedded.tokenizer)
    assert refused(lambda: require_conditions(name)) == refused(lambda: task.require_conditions(True))
    assert refused(lambda: require_next_tokens(name, "x")) == refused(lambda: task.require_next_tokens("x"))
    assert refused(lambda: require_group_conditions(name)) == refused(task.require_group_conditions)
    assert (refused(lambda: require_conditions(name)) is None) == bool(task.conditions)


def refused(check: Callable[[], None]) -> str | None:
    try:
        check()
    except TaskError as exc:
        return str(exc)
    return None
