"""The requests between the driver and the workers."""

from mana_dist.train.elastic.leave_requests import _Requests


def test_workers_that_end_before_a_request_have_left() -> None:
    """Else the controller would wait for an answer that nobody is left to give."""
    requests = _Requests()
    requests.arrived()
    requests.left(40)
    requests.want("resize")
    assert requests.saved() == 40


def test_what_workers_before_have_saved_is_no_answer() -> None:
    requests = _Requests()
    requests.arrived()
    requests.want("resize")
    requests.left(12)
    requests.withdraw("resize")
    requests.arrived()
    requests.want("resize")
    assert requests.saved() is None


def test_it_is_wanted_until_all_have_withdrawn() -> None:
    requests = _Requests()
    requests.want("driver")
    requests.want("resize")
    requests.withdraw("resize")
    assert requests.is_wanted()
    requests.withdraw("driver")
    assert not requests.is_wanted()
