from mana_dist.config import Config, MlflowConfig
from mana_dist.model import ModelConfig
from mana_dist.registry import description

CONFIG = Config(model=ModelConfig(channels=8, encoder_blocks=1, decoder_blocks=1), mlflow=MlflowConfig())


def test_a_description_says_how_good_the_model_is_and_how_to_use_it() -> None:
    text = description.describe(CONFIG, "models:/mana-x4/3", {"psnr_rgb": 30.126, "neighbour_gain": 0.5})
    assert "PSNR 30.13 dB, neighbour gain +0.50 dB" in text
    assert "mana upscale in.mp4 out.mp4 --model models:/mana-x4/3" in text
    assert 'load_model("models:/mana-x4/3")' in text


def test_a_model_without_results_is_not_validated() -> None:
    assert "Not validated." in description.describe(CONFIG, "models:/mana-x4/3", {})
