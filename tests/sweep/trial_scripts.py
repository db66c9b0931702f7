"""Trials on a real Ray Tune that do what they are told: ``python -m tests.sweep.trial_scripts FOLDER PSNRS GRACE``.

A process of its own, since Ray takes its settings when it is first imported. PSNRS: JSON, of each trial the
validations, one a step; "die" instead of a number: it dies. FOLDER gets ``begun`` and ``done``, a trial's name a line.
Prints JSON: the error of each trial, empty if there was none.
"""

import json
import sys
import threading
from pathlib import Path

from mana_dist import ray_runtime
from mana_dist.storage.lease import Fence
from mana_dist.sweep.halving import Halving
from mana_dist.sweep.trial_messages import Report, Task
from mana_dist.sweep.trial_plan import make_plan
from mana_dist.sweep.tuning import run_trials
from mana_dist.sweep.variations import memory_sweep
from tests.sweep.outcomes import CONFIG

SLOTS = (0, 4, 8, 16)
NAMES = ("none-seed5", "4-seed5", "8-seed5", "16-seed5")
SECONDS_PER_STEP = 0.5
TOTAL = 1000
TRIAL = """
import json, os, sys, threading, time
from mana_dist.sweep.trial_messages import Report, from_line, report_line
folder, psnrs, seconds, total = {0!r}, json.loads({1!r}), {2!r}, {3!r}
task = from_line(sys.stdin.readline())
threading.Thread(target=lambda: (sys.stdin.read(), os._exit(1)), daemon=True).start()
def note(what):
    with open(os.path.join(folder, what), "a") as stream:
        stream.write(task.trial.name + chr(10))
note("begun")
for step, psnr in enumerate(psnrs[task.trial.name], 1):
    if psnr == "die":
        sys.exit("out of luck")
    print(report_line(Report(what="training", step=step, total=total, output_steps=step, psnr=psnr)), flush=True)
    time.sleep(seconds)
note("done")
"""


class Listener:
    """Keeps how trials ended."""

    def __init__(self) -> None:
        self.errors: dict[str, str] = {}
        self._lock = threading.Lock()  # as a listener may have: Tune must not try to save it

    def reported(self, name: str, report: Report) -> None:
        assert name in NAMES
        assert report.total == TOTAL

    def ended(self, name: str, error: str) -> None:
        assert name not in self.errors
        self.errors[name] = error

    def turn(self) -> None:
        pass


def main(folder: Path, psnrs: str, halving: Halving) -> None:
    script = folder / "trial.py"
    script.write_text(TRIAL.format(str(folder), psnrs, SECONDS_PER_STEP, TOTAL))
    plan = make_plan(CONFIG, memory_sweep(CONFIG, SLOTS), samples=1)
    tasks = [
        Task(trial=trial, sweep=Fence(str(folder / "sweep"), "sweep", "one"), parent="", tracking_uri="", judging=None)
        for trial in plan.trials
    ]
    ray_runtime.start_ray(cpus=2)
    listener = Listener()
    run_trials(tasks, 1, halving, listener, program=[str(script)])
    print(json.dumps(listener.errors))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], Halving(int(sys.argv[3])))
