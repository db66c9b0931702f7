"""The description of a registered model's version: what it is, how good it was, and how to use it."""

from collections.abc import Mapping

from mana_dist.config import Config
from mana_dist.model.mana import parameter_count

_SCORES = {"psnr_rgb": "PSNR {:.2f} dB", "ssim_rgb": "SSIM {:.4f}", "neighbour_gain": "neighbour gain {:+.2f} dB"}


def describe(config: Config, uri: str, metrics: Mapping[str, float], measured_on: str) -> str:
    """Return the description, in Markdown.

    Args:
        config: of the model and its training.
        uri: ``models:/NAME/VERSION``.
        metrics: final results on held-out data.
        measured_on: the held-out data, in words.
    """
    model, schedule = config.model, config.schedule
    scale = "" if model.scale == 4 else f" --scale {model.scale}"
    steps = sum(stage.steps for stage in (schedule.stage1, schedule.stage2, schedule.stage3))
    scores = ", ".join(text.format(metrics[name]) for name, text in _SCORES.items() if name in metrics)
    return f"""\
Makes video {model.scale} times as wide and as high. {parameter_count(model):,} parameters, {model.channels} channels, \
windows of {model.frames} frames, attention `{model.attention}`; trained for up to {steps:,} steps of \
{config.data.batch_size} samples. {f"On {measured_on}, RGB: {scores}." if scores else "Not measured."} \
The run that it came from names its data, code and configuration.

```
mana upscale in.mp4 out.mp4 --model {uri}
mana evaluate --data HELD_OUT --method bicubic {uri} --out REPORT{scale}
```

```python
frames = ...  # ({model.frames}, H, W, 3) uint8: a window of LR frames
sr = mlflow.pyfunc.load_model("{uri}").predict(frames)  # ({model.scale}H, {model.scale}W, 3): its centre frame
```
"""
