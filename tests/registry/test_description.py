from dataclasses import replace

from mana_dist.config import Config, MlflowConfig
from mana_dist.model import ModelConfig
from mana_dist.registry import description

CONFIG = Config(model=ModelConfig(channels=8, encoder_blocks=1, decoder_blocks=1), mlflow=MlflowConfig())


def test_a_description_says_how_good_the_model_is_and_how_to_use_it() -> None:
    text = description.describe(CONFIG, "models:/mana-x4/3", {"psnr_rgb": 30.126, "neighbour_gain": 0.5}, "Vid4")
    assert "On Vid4, RGB: PSNR 30.13 dB, neighbour gain +0.50 dB." in text
    assert "--scale" not in text
    assert "mana upscale in.mp4 out.mp4 --model models:/mana-x4/3" in text
    assert 'load_model("models:/mana-x4/3")' in text


def test_a_model_without_results_is_not_validated() -> None:
    assert "Not measured." in description.describe(CONFIG, "models:/mana-x4/3", {}, "")


def test_the_commands_of_another_scales_model_name_the_scale() -> None:
    config = replace(CONFIG, model=replace(CONFIG.model, scale=2))
    text = description.describe(config, "models:/mana-x2/1", {}, "")
    assert "--method bicubic models:/mana-x2/1 --out REPORT --scale 2\n" in text
    assert "2 times as wide" in text
