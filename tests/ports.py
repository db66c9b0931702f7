"""Ports for servers that are started after they were chosen, or again."""

import random
import socket

# Below the range from which the system takes ports for outgoing connections and above Ray's: until the server has it,
# and while it is down, nobody else comes by it.
_RANGE = range(20_000, 32_000)


def free_ports(count: int) -> list[int]:
    """Ports on loopback that nobody has now."""
    free: list[int] = []
    for port in random.sample(_RANGE, len(_RANGE)):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        free.append(port)
        if len(free) == count:
            return free
    raise AssertionError(f"no {count} free ports on loopback")
