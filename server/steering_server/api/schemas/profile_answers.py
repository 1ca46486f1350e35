"""Response bodies of ``/v1/profiles``."""

from typing import Any, Literal

from steering_server.api.schemas.responses import ResponseBody, absent
from steering_server.generation.profiles import Storage


class ProfileObject(ResponseBody):
    """A profile and whether this server can apply it."""

    name: str
    object: Literal["profile"] = "profile"
    description: str
    method: str
    summary: str
    when: str | None = absent()
    """The condition under which it takes effect; left out where it does everywhere."""
    content_hash: str
    model: str
    """The model that the profile was fitted on."""
    model_name: str | None
    """The ``model`` of requests that steers with this profile; null if requests cannot use it."""
    shipped: bool
    storage: Storage
    """Where it is kept: in the package, in the operator's folder, or in memory, until the server ends."""
    enabled: bool
    """Whether requests may use it; an administrator can disable it."""
    usable: bool
    """Whether it fits the model."""
    forced: bool
    reason: str | None
    own_attention_range: tuple[float, float] | None
    """Range of strengths outside of which the share of self-only attention is limited; null if it is not changed."""
    side_effects: dict[str, Any] | None
    """Side effects by what was measured when the profile was fitted; null if nothing was. What has a ``kind`` is no
    text: ``last words`` of sentences, or ``minimal pairs`` of grammar."""
    has_report: bool
    """Whether ``GET /v1/profiles/NAME/report`` returns the report of its fit."""
    flags: list[str]
    """Texts whose NLL increases by more than the limit, such as ``prose +2.3%``, and last words or minimal pairs that
    lose more, such as ``last words -2.1 points``."""


class ProfileDetail(ProfileObject):
    """A profile with its whole content."""

    profile: dict[str, Any]


class ProfileFileFault(ResponseBody):
    """A file of the operator's folder that cannot be used."""

    file: str | None
    """Its name; null where it is the folder itself."""
    message: str
    kept: str | None
    """Content hash of the version of the profile that stays in use; null if there is none."""


class ProfileList(ResponseBody):
    """Answer of ``GET /v1/profiles``."""

    object: Literal["list"] = "list"
    data: list[ProfileObject]
    default: str
    """What is applied to requests that do not say it: ``baseline``, or profiles and their strength."""
    faults: list[ProfileFileFault]


class ProfileChange(ResponseBody):
    """Answer to a request that changes a profile, or checks a change."""

    object: Literal["profile.change"] = "profile.change"
    name: str
    content_hash: str | None
    """The version after the change; null if the profile is gone."""
    replaced: str | None
    """The version before the change; null if there was none."""
    survives_restart: bool
    """Whether the change is written to the operator's folder; otherwise it ends with the server."""
    profile: ProfileObject | None
    """The profile after the change; null if it is gone. Where the deleted one hid a shipped one, that."""
