"""For all tests."""

import signal


def pytest_configure() -> None:
    """What a shell starts in the background ignores SIGINT, and so would each command that a test interrupts."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
