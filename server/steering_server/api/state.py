"""What routes need of the application and of the request they serve."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from steering_server.api.arms import Arms
from steering_server.backends.base import Backend


@dataclass(frozen=True)
class AppState:
    """What lives as long as the application."""

    backend: Backend


def _state(request: Request) -> AppState:
    state: AppState = request.app.state.steering
    return state


State = Annotated[AppState, Depends(_state)]
"""Parameter type by which a route gets the application's state."""


def remember_arms(request: Request, arms: Arms) -> None:
    """Note which model the request names and what it steers with, for its log line."""
    request.scope["model"] = arms.model
    request.scope["steering"] = arms.header
