"""The registered pyfunc model: MLflow runs this file when it loads one ("models from code").

It imports only what mana_dist.registry.SERVING_PACKAGES lists, since it runs where mana_dist is not installed: the
package then comes from the copy beside the model.
"""

import os
import warnings
from typing import Any

import numpy as np
import yaml
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel
from safetensors.torch import load_file

from mana_dist.inference import Frame, super_resolve_window
from mana_dist.model import Mana, ModelConfig

with warnings.catch_warnings():
    # MLflow asks for type hints while the class is made; the signature says more than they could.
    warnings.filterwarnings("ignore", ".*Add type hints")

    class ManaModel(PythonModel):  # type: ignore[misc]  # MLflow comes without types
        """T low-resolution frames in, the super-resolved centre frame out."""

        def load_context(self, context: Any) -> None:
            """Read the weights; called by MLflow before the first prediction."""
            folder = context.artifacts["model"]
            with open(os.path.join(folder, "config.yaml"), encoding="utf-8") as stream:
                config = ModelConfig(**yaml.safe_load(stream)["model"])
            self.model = Mana(config).eval()
            self.model.load_state_dict(load_file(os.path.join(folder, "model.safetensors")))

        # The input has no annotation, since MLflow would make a schema of it; the registered signature is the schema.
        def predict(self, context: Any, model_input, params: dict[str, Any] | None = None) -> Frame:  # type: ignore[no-untyped-def]
            """Super-resolve the centre frame of one window.

            Args:
                context: MLflow's; not used.
                model_input: (T, H, W, 3) uint8, RGB, consecutive frames; T as the model was trained.
                params: not used.

            Returns:
                (4H, 4W, 3) uint8, RGB.

            Raises:
                ValueError: not T frames of three channels.
            """
            return super_resolve_window(self.model, np.asarray(model_input))


set_model(ManaModel())
