"""A model as a file for other runtimes: ONNX, or torch's own exported program.

>>> from mana_dist.export import export
>>> exported = export("pretrained", "mana.onnx")
>>> exported.difference  # the largest from the network, on the windows that it was checked with
"""

from typing import TYPE_CHECKING

from mana_dist.lazy import lazily

if TYPE_CHECKING:
    from mana_dist.export.export_model import Exported, export

__all__ = ["Exported", "export"]

__getattr__ = lazily(__name__, {".export_model": "Exported export"})
