"""The registered pyfunc model: MLflow runs this file when it loads one ("models from code").

It imports only what ``SERVING_PACKAGES`` (:mod:`mana_dist.registry.versions`) lists, since it runs where mana_dist is
not installed: the package then comes from the copy beside the model.
"""

import base64
import io
import os
import warnings
from typing import Any

import numpy as np
import yaml
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel
from safetensors.torch import load_file

from mana_dist.model import Mana, ModelConfig
from mana_dist.model.inference import Frame, choose_device, super_resolve_window
from mana_dist.model.precision import precision_here

with warnings.catch_warnings():
    # MLflow warns about missing type hints while the class is made; the signature is more precise.
    warnings.filterwarnings("ignore", ".*Add type hints")

    class ManaModel(PythonModel):  # type: ignore[misc]  # MLflow comes without types
        """T low-resolution frames in, the super-resolved centre frame out."""

        def load_context(self, context: Any) -> None:
            """Read the weights; called by MLflow before the first prediction.

            ``mlflow.pyfunc.load_model(..., model_config={"device": "cpu", "precision": "fp32"})`` chooses the device
            and the precision; ``auto``, the default of both, takes a GPU if there is one, and bf16 where it is faster.
            """
            folder = context.artifacts["model"]
            with open(os.path.join(folder, "config.yaml"), encoding="utf-8") as stream:
                config = ModelConfig(**yaml.safe_load(stream)["model"])
            self.model = Mana(config).eval()
            self.model.load_state_dict(load_file(os.path.join(folder, "model.safetensors")))
            chosen = context.model_config or {}
            self.device = choose_device(chosen.get("device", "auto"))
            self.precision = precision_here(chosen.get("precision", "auto"), self.device).precision

        # The input has no annotation, since MLflow would make a schema of it; the registered signature is the schema.
        def predict(  # type: ignore[no-untyped-def]
            self, context: Any, model_input, params: dict[str, Any] | None = None
        ) -> Frame | str:
            """Super-resolve the centre frame of one window.

            Args:
                context: MLflow's; unused.
                model_input: (T, H, W, 3) uint8, RGB, consecutive frames; T is the model's.
                params: ``answer``: ``array``, or ``png`` for a PNG file in base64, which is far smaller over HTTP.

            Returns:
                (sH, sW, 3) uint8, RGB, s the model's scale, as an array or a PNG file.

            Raises:
                MlflowException: not T frames of three channels, or another ``answer``; over HTTP it is status 400.
            """
            answer = (params or {}).get("answer", "array")
            if answer not in ("array", "png"):
                raise MlflowException.invalid_parameter_value(f"params.answer must be array or png, got {answer!r}")
            try:
                frame = super_resolve_window(self.model, np.asarray(model_input), self.device, self.precision)
            except ValueError as error:
                raise MlflowException.invalid_parameter_value(str(error)) from error
            return _png(frame) if answer == "png" else frame


def _png(frame: Frame) -> str:
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(frame).save(stream, "PNG", compress_level=1)  # fast: large frames take seconds otherwise
    return base64.b64encode(stream.getvalue()).decode()


set_model(ManaModel())
