"""A minute's window: no minute holds more than the limit, and the wait that is told is true."""

from hypothesis import given
from hypothesis import strategies as st

from steering_server.access.windows import MINUTE, MinuteWindow

LIMIT = 10
PAUSES = st.lists(st.tuples(st.integers(0, 90), st.integers(1, LIMIT)), max_size=60)


@given(PAUSES)
def test_no_minute_holds_more_than_the_limit(attempts: list[tuple[int, int]]):
    window, now, charged = MinuteWindow(), 0.0, []
    for pause, amount in attempts:
        now += pause
        if window.wait(amount, LIMIT, now) == 0:
            window.charge(amount, now)
            charged.append((now, amount))
        last_minute = sum(each for at, each in charged if at + MINUTE > now)
        assert window.used(now) == last_minute <= LIMIT


@given(PAUSES, st.integers(1, LIMIT))
def test_after_the_wait_and_not_before_the_amount_fits(attempts: list[tuple[int, int]], amount: int):
    window, now = MinuteWindow(), 0.0
    for pause, each in attempts:
        now += pause
        if window.wait(each, LIMIT, now) == 0:
            window.charge(each, now)
    wait = window.wait(amount, LIMIT, now)
    if wait:
        assert window.wait(amount, LIMIT, now + wait - 0.001) > 0
    assert window.wait(amount, LIMIT, now + wait) == 0


def test_a_charge_can_be_corrected_while_it_counts_and_is_forgotten_later():
    window = MinuteWindow()
    charge = window.charge(8, 0.0)
    window.correct(charge, 3, 1.0)
    assert window.used(1.0) == 3
    assert window.used(MINUTE) == 0
    window.correct(charge, 100, MINUTE + 1)
    assert window.used(MINUTE + 1) == 0
