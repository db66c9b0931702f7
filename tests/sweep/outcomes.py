"""Made-up trials and outcomes."""

from mana_dist.config import Config, DataConfig, RunConfig, ScheduleConfig, StageConfig
from mana_dist.model import ModelConfig
from mana_dist.sweep.trial_outcomes import Outcome, Status
from tests.evaluate.evaluations import scores

CONFIG = Config(
    model=ModelConfig(channels=8, encoder_blocks=1, decoder_blocks=1, window=3, memory_slots=4),
    schedule=ScheduleConfig(
        stage1=StageConfig(steps=10), stage2=StageConfig(steps=4), stage3=StageConfig(steps=6, lr=1e-5)
    ),
    data=DataConfig(path="samples", batch_size=4, crop=12),
    run=RunConfig(name="sweep", storage="/runs", workers=2, seed=5),
)


def finished(psnr: float, step_seconds: float = 1.0, memory: int = 2**30, other: float | None = None) -> Outcome:
    """On dataset ``a``, and on ``b`` where ``other`` is given; LPIPS is a hundredth of PSNR."""
    found = {"a": scores(psnr, lpips=psnr / 100)}
    mean = psnr
    if other is not None:
        found["b"] = scores(other, lpips=other / 100)
        mean = (psnr + other) / 2
    return Outcome(
        status=Status.FINISHED,
        model="/model",
        mlflow_run_id="1",
        scores=found,
        mean=scores(mean, lpips=mean / 100),
        step_seconds=step_seconds,
        memory_bytes=memory,
        seconds=9.0,
    )
