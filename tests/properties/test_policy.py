"""Retry policies for any numbers: waits never shrink, never exceed the slow one, and end when they should."""

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from config.policy import RetryPolicy
from config.settings import Delivery, Jobs

DURATIONS = st.timedeltas(timedelta(microseconds=1), timedelta(days=30))
POLICIES = st.builds(
    RetryPolicy,
    quick=st.integers(0, 10_000),
    first=DURATIONS,
    slow=DURATIONS,
    give_up_after=DURATIONS,
    attempts=st.none() | st.integers(1, 100),
)
NO_TIME = timedelta(0)


def without_limit(policy: RetryPolicy) -> RetryPolicy:
    return RetryPolicy(policy.quick, policy.first, policy.slow, policy.give_up_after)


@given(POLICIES, st.integers(1, 20_000))
def test_waits_never_shrink_and_never_exceed_the_slow_one(policy: RetryPolicy, attempts: int) -> None:
    first, second = (without_limit(policy).delay(number, NO_TIME) for number in (attempts, attempts + 1))
    assert first is not None
    assert second is not None
    assert timedelta(0) < first <= second <= policy.slow


@given(POLICIES, st.integers(1, 20_000))
def test_quick_waits_double_until_the_slow_one_is_reached(policy: RetryPolicy, attempts: int) -> None:
    first, second = (without_limit(policy).delay(number, NO_TIME) for number in (attempts, attempts + 1))
    assert first is not None
    assert second == (policy.slow if attempts >= policy.quick else min(2 * first, policy.slow))


@given(POLICIES, st.integers(1, 200), DURATIONS)
def test_it_gives_up_after_its_time_or_its_attempts_and_not_before(
    policy: RetryPolicy, attempts: int, age: timedelta
) -> None:
    over = age >= policy.give_up_after or (policy.attempts is not None and attempts >= policy.attempts)
    assert (policy.delay(attempts, age) is None) == over


@given(st.integers(1, 50))
def test_a_reading_is_tried_as_often_as_the_settings_say(attempts: int) -> None:
    policy = Jobs(attempts=attempts).policy
    made = 1
    while policy.delay(made, NO_TIME) is not None:
        made += 1
    assert made == attempts


@given(st.integers(0, 5000), st.integers(1, 5000))
def test_a_destination_is_tried_for_the_days_that_the_settings_say_however_many_attempts_these_are(
    quick: int, attempts: int
) -> None:
    settings = Delivery(quick_retries=quick, give_up_days=2)
    assert settings.policy.delay(attempts, timedelta(days=2) - timedelta(seconds=1)) is not None
    assert settings.policy.delay(attempts, timedelta(days=2)) is None
