"""The observer of a training: it passes events to the console, MLflow, Ray's metrics and the summary."""

from mana_dist.config import Config
from mana_dist.errors import one_line
from mana_dist.train.tracking import console_lines
from mana_dist.train.tracking.events import Event
from mana_dist.train.tracking.gauges import Gauges
from mana_dist.train.tracking.mlflow_run import Tracker
from mana_dist.train.tracking.summary import Summary


class Observer:
    """Passes every event to all that report it.

    Args:
        tracker: the MLflow run.
        config: the run.
        alone: see :class:`mana_dist.train.tracking.gauges.Gauges`.
    """

    def __init__(self, tracker: Tracker, config: Config, *, alone: bool = True) -> None:
        self._tracker = tracker
        self._gauges = Gauges(config, alone=alone)
        self._summary = Summary()

    def see(self, event: Event) -> None:
        """Report an event; never fails nor waits for a server."""
        for report in (_print, self._summary.add, self._tracker.log, self._gauges.set):
            try:
                report(event)
            except Exception as error:  # training goes on without its tracking
                console_lines.say(f"warning: {type(event).__name__} is not tracked: {one_line(error)}"[:500])

    def close(self) -> None:
        """Print the summary, and show no more metrics."""
        self._gauges.close()
        for line in self._summary.lines():
            console_lines.say(line)


def _print(event: Event) -> None:
    console_lines.say(console_lines.line(event))
