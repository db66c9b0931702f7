"""BI: MATLAB's antialiased bicubic ``imresize`` (see :func:`mana_dist.data.resize.imresize`)."""

import numpy as np
from numpy.typing import NDArray

from mana_dist.data.degradation.degradation_kind import Degradation
from mana_dist.data.resize import IMRESIZE, ROUNDED, imresize

# Names of LR folders that do not say the degradation, which mostly is bicubic interpolation.
UNSAID = ("LR_bicubic/X4", "LRx4", "LR_x4", "LR/X4", "LR/x4", "LR", "X4", "x4", "lr/x4", "lr")


def _shrink(frame: NDArray[np.uint8], scale: int) -> NDArray[np.uint8]:
    return imresize(frame, frame.shape[0] // scale, frame.shape[1] // scale)


BI = Degradation(
    name="BI",
    version=1,
    definition=f"{IMRESIZE}, antialiased; borders mirrored, the edge pixel repeated; {ROUNDED}",
    shrink=_shrink,
    lr_folders=("BIx4", *UNSAID),
)
