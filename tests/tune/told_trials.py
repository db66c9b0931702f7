"""Trials on a real Ray Tune that only do what they are told: ``python -m tests.tune.told_trials FOLDER PSNRS GRACE``.

A process of its own, since Ray takes its settings when it is first imported. PSNRS: JSON, of each trial the
validations, one a step; "die" instead of a number: it dies. FOLDER gets ``begun`` and ``done``, a trial's name a line.
Prints JSON: name and error of each trial.
"""

import dataclasses
import io
import json
import sys
from pathlib import Path

from mana_dist import ray_runtime
from mana_dist.sweep.board import Board
from mana_dist.sweep.plan import make_plan
from mana_dist.sweep.settings import memory_sweep
from mana_dist.sweep.task import Task
from mana_dist.sweep.tuning import Halving, run_trials
from tests.tune.outcomes import CONFIG

SLOTS = (0, 4, 8, 16)
NAMES = ("none-seed5", "4-seed5", "8-seed5", "16-seed5")
SECONDS_PER_STEP = 0.5
TRIAL = """
import json, os, sys, threading, time
from mana_dist.sweep.task import Report, from_line, report_line
folder, psnrs, seconds = {0!r}, json.loads({1!r}), {2!r}
task = from_line(sys.stdin.readline())
threading.Thread(target=lambda: (sys.stdin.read(), os._exit(1)), daemon=True).start()
def note(what):
    with open(os.path.join(folder, what), "a") as stream:
        stream.write(task.trial.name + chr(10))
note("begun")
for step, psnr in enumerate(psnrs[task.trial.name], 1):
    if psnr == "die":
        sys.exit("out of luck")
    print(report_line(Report(what="training", step=step, total=9, output_steps=step, psnr=psnr)), flush=True)
    time.sleep(seconds)
note("done")
"""


def main(folder: Path, psnrs: str, halving: Halving) -> None:
    script = folder / "trial.py"
    script.write_text(TRIAL.format(str(folder), psnrs, SECONDS_PER_STEP))
    plan = make_plan(CONFIG, memory_sweep(CONFIG, SLOTS), samples=1)
    tasks = [
        Task(trial=trial, sweep_folder=str(folder / "sweep"), parent="", tracking_uri="", judging=None)
        for trial in plan.trials
    ]
    ray_runtime.start_ray(cpus=2)
    board = Board([trial.name for trial in plan.trials], 1, io.StringIO())
    ended = run_trials(tasks, 1, halving, board, program=[str(script)])
    print(json.dumps([dataclasses.astuple(each) for each in ended]))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], Halving(int(sys.argv[3])))
