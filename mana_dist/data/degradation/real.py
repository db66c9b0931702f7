"""``real``: footage of phones and from the web, moderately blurred, noisy and compressed.

The ranges lie inside those of Real-ESRGAN and RealBasicVSR (sigma of the blur 0.2 to 3, of the noise 1 to 30, Poisson
scale 0.05 to 3, grey 0.4), whose second orders and strongest noise are made for pictures that were spoilt many times.
Video compression comes last and always, as it does in footage.
"""

from mana_dist.data.degradation.degradation_kind import Degradation
from mana_dist.data.degradation.operations import Blur, Noise, Resize
from mana_dist.data.degradation.recipe import Recipe
from mana_dist.data.degradation.video_compression import VideoCompression

REAL = Degradation.of_recipe(
    Recipe(
        name="real",
        operations=(
            Blur(kinds=("isotropic", "anisotropic"), sigma=(0.4, 2.0), drift=64, chance=0.8),
            Resize(scale=(1.0, 2.0)),
            Noise(sigma=(1.0, 10.0), scale=(0.05, 1.0), drift=64, chance=0.8),
            Resize(scale=(1.0, 1.0)),
            VideoCompression(codecs={"h264": (18.0, 30.0)}, drift=64),
        ),
    )
)
