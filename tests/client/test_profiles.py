"""Both clients change the profiles of a server."""

from collections.abc import Iterator

import pytest
import torch
from safetensors.numpy import save

from steering_client import Conflict, InvalidArgument, NotFound, PreconditionFailed
from steering_profiles.models import LoadedModel
from steering_profiles.store import content_hash
from tests.api.profile_bodies import as_json
from tests.builders import build_model, build_profile
from tests.client.conftest import Call
from tests.serving import serving


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving(
        build_model("llama", dtype=torch.float32), tmp_path_factory.mktemp("profiles"), shipped=True, watched=True
    ) as url:
        yield url


def test_a_profile_with_tensors_is_put_replaced_and_deleted(call: Call, model: LoadedModel):
    first, second = (build_profile(model, "mine", intercept_scale=0.9, seed=seed) for seed in (0, 1))
    bodies = [(as_json(profile), save(dict(profile.tensors))) for profile in (first, second)]
    told = call("validate_profile", "mine", bodies[0][0], tensors=bodies[0][1])
    change = call("put_profile", "mine", bodies[0][0], tensors=bodies[0][1], only_new=True)
    assert change == told
    assert (change.content_hash, change.replaced, change.survives_restart) == (content_hash(first), None, True)
    with pytest.raises(PreconditionFailed) as caught:
        call("put_profile", "mine", bodies[1][0], tensors=bodies[1][1], only_new=True)
    assert (caught.value.status, caught.value.code) == (412, "precondition_failed")
    call("put_profile", "mine", bodies[1][0], tensors=bodies[1][1], if_hash=change.content_hash)
    assert call("complete", "x", profile="mine", max_tokens=1).steering.content_hash == content_hash(second)
    with pytest.raises(PreconditionFailed):
        call("delete_profile", "mine", if_hash=change.content_hash)
    assert call("delete_profile", "mine", if_hash=content_hash(second)).profile is None
    with pytest.raises(NotFound):
        call("delete_profile", "mine")


def test_a_disabled_profile_is_not_found_until_it_is_enabled(call: Call, model: LoadedModel):
    call("put_profile", "other", as_json(build_profile(model, "other", heads=[(0, 1, 2.0)])))
    assert call("disable_profile", "other").profile.enabled is False
    with pytest.raises(NotFound, match="other is disabled"):
        call("complete", "x", profile="other")
    assert call("enable_profile", "other").profile.enabled is True
    assert call("complete", "x", profile="other", max_tokens=1).text
    call("delete_profile", "other")


def test_what_cannot_be_changed_is_a_conflict_with_the_reason(call: Call):
    with pytest.raises(Conflict, match="is shipped with the server and cannot be deleted") as caught:
        call("delete_profile", "parentheses")
    assert (caught.value.status, caught.value.code) == (409, "profile_shipped")
    with pytest.raises(Conflict, match="layers is 3 here, 30 in the profile") as caught:
        call("put_profile", "parentheses", call("profile", "parentheses").profile)
    assert caught.value.code == "profile_mismatch"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"if_hash": "sha256:0", "only_new": True}, "only_new expects that there is no profile"),
        ({"if_hash": 'a"b'}, "if_hash is 'a\"b'; allowed: a content hash"),
        ({"if_hash": "a\nb"}, r"if_hash is 'a\\nb'; allowed: a content hash"),
    ],
    ids=str,
)
def test_conditions_that_cannot_be_sent_are_refused(call: Call, options: dict, says: str):
    with pytest.raises(InvalidArgument, match=says):
        call("put_profile", "mine", {}, **options)
