"""What rank 0 decides is known to all workers at the same step."""

import json
from pathlib import Path

import torch
import torch.distributed as dist

from mana_dist.errors import UserError
from mana_dist.train.elastic.consensus import Consensus
from tests.train.forked import run_workers

STEPS = 50


def worker(rank: int, world_size: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world_size)
    consensus = Consensus(timeout=60)
    heard = []
    for step in range(STEPS):
        # What the others say is not heard. A collective of training is on its way meanwhile.
        heard.append(consensus.exchange(step * step if rank == 0 else -1))
        dist.all_reduce(torch.ones(100))
    received = consensus.broadcast(UserError("stop") if rank == 0 else None)
    gathered = consensus.gather(rank * 10)
    Path(folder, f"{rank}.json").write_text(json.dumps([heard, str(received), gathered]))
    dist.barrier()
    dist.destroy_process_group()


def test_every_worker_hears_the_same_at_the_same_step(tmp_path: Path) -> None:
    run_workers(worker, 3, 3, str(tmp_path))
    for rank in range(3):
        heard, received, gathered = json.loads((tmp_path / f"{rank}.json").read_text())
        assert heard == [0] + [step * step for step in range(STEPS - 1)]  # one step later
        assert received == "stop"
        assert gathered == [0, 10, 20]
