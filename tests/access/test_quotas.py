"""A key is held to its requests and tokens a minute and its sequences at once, and what it is told to wait is true."""

import pytest

from steering_server.access.keys import ApiKey
from steering_server.access.quotas import Meter, Usage
from steering_server.errors import RateLimited


class Clock:
    """A clock that tests turn."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def meter(clock: Clock, usage: Usage | None = None, **limits: int) -> Meter:
    return Meter(ApiKey(name="ci", sha256="0" * 64, **limits), usage or Usage(), clock)


def refusal(call) -> RateLimited:
    with pytest.raises(RateLimited) as caught:
        call()
    return caught.value


def reserve(one: Meter, *amounts: int | None) -> None:
    with one.reserve(*amounts):
        pass


def test_requests_beyond_the_limit_are_refused_until_the_time_that_is_told(clock: Clock):
    one = meter(clock, requests_per_minute=2)
    one.count_request()
    clock.now += 10
    one.count_request()
    refused = refusal(one.count_request)
    assert (refused.code, refused.retry_after) == ("rate_limit_exceeded", 50)
    clock.now += 49
    refusal(one.count_request)
    clock.now += 1
    one.count_request()


def test_what_is_left_and_when_all_of_it_is_again(clock: Clock):
    one = meter(clock, requests_per_minute=3, tokens_per_minute=100)
    one.count_request()
    clock.now += 20
    one.count_request()
    with one.reserve(1, 10, 30) as reservation:
        during = one.allowances
        reservation.completion_tokens = 5
    assert (during["tokens"].limit, during["tokens"].left) == (100, 60)
    after = one.allowances
    assert (after["requests"].limit, after["requests"].left, after["requests"].resets_in) == (3, 1, 60)
    assert (after["tokens"].left, after["tokens"].resets_in) == (85, 60)
    clock.now += 60
    assert [(each.left, each.resets_in) for each in one.allowances.values()] == [(3, 0), (100, 0)]
    assert meter(clock).allowances == {}


def test_refused_requests_do_not_count(clock: Clock):
    one = meter(clock, requests_per_minute=1)
    one.count_request()
    for _ in range(5):
        clock.now += 10
        refusal(one.count_request)
    clock.now += 10
    one.count_request()


def test_tokens_are_charged_at_once_and_given_back_when_they_were_not_used(clock: Clock):
    one = meter(clock, tokens_per_minute=100)
    with one.reserve(1, 10, 80) as reservation:
        refused = refusal(lambda: reserve(one, 1, 10, 10))
        assert refused.retry_after == 60
        assert "10 are left and this request can use 20" in str(refused)
        reservation.completion_tokens = 5
    reserve(one, 1, 10, 75)
    refusal(lambda: reserve(one, 1, 1, 85))


def test_a_request_without_a_limit_of_its_own_takes_what_is_left(clock: Clock):
    one = meter(clock, tokens_per_minute=100)
    with one.reserve(1, 10, None) as reservation:
        refusal(lambda: reserve(one, 1, 1, 1))
        reservation.completion_tokens = 20
    reserve(one, 1, 10, 60)


def test_a_request_that_never_fits_is_not_told_to_come_back(clock: Clock):
    assert refusal(lambda: reserve(meter(clock, tokens_per_minute=100), 1, 50, 51)).retry_after is None
    assert refusal(lambda: reserve(meter(clock, max_sequences=2), 3, 1, 1)).retry_after is None


def test_a_request_that_was_refused_after_all_is_not_charged(clock: Clock):
    one = meter(clock, tokens_per_minute=100)
    with one.reserve(1, 10, 90) as reservation:
        reservation.is_void = True
    reserve(one, 1, 10, 90)


def test_sequences_at_once_are_counted_until_their_request_ends(clock: Clock):
    one = meter(clock, max_sequences=3)
    with one.reserve(2, 1, 1):
        clock.now += 4
        refused = refusal(lambda: reserve(one, 2, 1, 1))
        assert "may have 3 sequences at once, has 2, and this request would add 2" in str(refused)
        reserve(one, 1, 1, 1)
    reserve(one, 3, 1, 1)


def test_the_wait_for_sequences_is_the_time_that_the_latest_requests_took(clock: Clock):
    one = meter(clock, max_sequences=1)
    with one.reserve(1, 1, 1):
        clock.now += 30
    with one.reserve(1, 1, 1):
        clock.now += 10
        assert refusal(lambda: reserve(one, 1, 1, 1)).retry_after == 20


def test_what_was_used_counts_when_the_keys_limits_change(clock: Clock):
    usage = Usage()
    meter(clock, usage, requests_per_minute=5).count_request()
    refusal(meter(clock, usage, requests_per_minute=1).count_request)
