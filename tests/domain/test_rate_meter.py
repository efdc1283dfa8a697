"""How fast numbers grow."""

from domain.rate_meter import RateMeter


def test_the_first_look_and_one_at_the_same_moment_say_nothing() -> None:
    meter = RateMeter()
    assert meter.look(10.0, 5) is None
    assert meter.look(10.3, 500) is None


def test_the_growth_of_each_number_is_per_second() -> None:
    meter = RateMeter()
    meter.look(10.0, 100, 0)
    assert meter.look(12.0, 300, 7) == (100.0, 3.5)


def test_only_the_last_five_seconds_count() -> None:
    meter = RateMeter()
    for second in range(20):
        rates = meter.look(float(second), 1000 * min(second, 10))
    assert rates == (0.0,)
    assert meter.look(20.0, 10_500) == (100.0,)


def test_a_look_that_is_a_little_older_counts_if_there_is_no_newer_one() -> None:
    meter = RateMeter()
    meter.look(0.0, 0)
    assert meter.look(12.0, 120) == (10.0,)


def test_a_look_of_long_ago_does_not_count() -> None:
    meter = RateMeter()
    meter.look(0.0, 0)
    assert meter.look(15.1, 1000) is None
    assert meter.look(16.1, 1000) == (0.0,)


def test_looks_of_many_people_do_not_change_the_rate_and_need_no_memory() -> None:
    meter = RateMeter()
    for look in range(10_000):
        rates = meter.look(look / 1000, look)
    assert rates is not None
    assert abs(rates[0] - 1000) < 1
    assert len(meter._looks) < 20
