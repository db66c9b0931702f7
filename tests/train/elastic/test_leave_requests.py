"""The desk between the driver and the workers."""

from mana_dist.train.elastic.leave_requests import _Desk


def test_workers_that_end_before_a_request_have_left() -> None:
    """Else the controller would wait for an answer that nobody is left to give."""
    desk = _Desk()
    desk.arrived()
    desk.left(40)
    desk.want("resize")
    assert desk.saved() == 40


def test_what_workers_before_have_saved_is_no_answer() -> None:
    desk = _Desk()
    desk.arrived()
    desk.want("resize")
    desk.left(12)
    desk.withdraw("resize")
    desk.arrived()
    desk.want("resize")
    assert desk.saved() is None


def test_it_is_wanted_until_all_have_withdrawn() -> None:
    desk = _Desk()
    desk.want("driver")
    desk.want("resize")
    desk.withdraw("resize")
    assert desk.is_wanted()
    desk.withdraw("driver")
    assert not desk.is_wanted()
