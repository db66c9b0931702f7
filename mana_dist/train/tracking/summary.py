"""The summary of a training: its steps, its rates and the shares of its time."""

import time

from mana_dist.progress import duration
from mana_dist.train.tracking.events import Checkpointed, Event, Failed, Progress, Started, Validated


class Summary:
    """Adds up the events of one command, without earlier attempts of a resumed run."""

    def __init__(self) -> None:
        self._begun = time.monotonic()
        self._first_step: int | None = None
        self._last_step = 0
        self._samples = 0
        self._seconds = {"training": 0.0, "waiting for data": 0.0, "checkpoints": 0.0, "validation": 0.0}
        self._tflop = 0.0
        self._starts = 0
        self._failures = 0

    def add(self, event: Event) -> None:
        """Take an event into account."""
        match event:
            case Started():
                self._starts += 1
                if self._first_step is None:
                    self._first_step = event.step
                self._last_step = max(self._last_step, event.step)
            case Progress():
                waited = event.data_wait * event.seconds
                self._seconds["waiting for data"] += waited
                self._seconds["training"] += event.seconds - waited
                self._samples += event.samples
                self._tflop += event.tflops * event.seconds
                self._last_step = max(self._last_step, event.step)
            case Checkpointed():
                self._seconds["checkpoints"] += event.waited
            case Validated():
                self._seconds["validation"] += event.seconds
            case Failed():
                self._failures += 1
            case _:
                pass

    def lines(self) -> list[str]:
        """Return the summary's lines; none if no worker ever began."""
        if self._first_step is None:
            return []
        total = time.monotonic() - self._begun
        steps = self._last_step - self._first_step
        trained = self._seconds["training"] + self._seconds["waiting for data"]
        rate = f", {self._samples / total:.1f} samples/s"
        if trained:
            rate += f" ({self._samples / trained:.1f} samples/s and {self._tflop / trained:.3g} TFLOP/s while training)"
        parts = [f"{name} {seconds / total:.1%}" for name, seconds in self._seconds.items()]
        rest = max(total - sum(self._seconds.values()), 0.0)
        parts.append(f"starting, stopping and the rest {rest / total:.1%}")
        restarts = f"{self._starts - 1} restart(s), {self._failures} worker failure(s)"
        did = f"steps {self._first_step + 1} to {self._last_step} ({steps}), {self._samples} samples"
        return [f"summary: {did} in {duration(total)}{rate}; {restarts}", f"time: {', '.join(parts)}"]
