"""Every choice that moves a number, as data; written beside every number."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How an evaluation's numbers come about.

    Attributes:
        data: URIs of the clips or of folders of clips.
        degradation: name of the way in which LR is made of HR.
        degradation_version: changes whenever that way's LR values do.
        frames: which frames of each clip count; ``all``, or START:STOP (STOP excluded). Clips are cut to these
            frames before anything else, so windows do not see frames outside.
        lpips: the metric's version and trunk, or why there is none.
        padding: the rule for windows beyond a clip's ends.
        device: where the methods ran.
        colour: how a video's frames become RGB; folders of pictures are RGB as they are.
        scale: HR side over LR side.
        size: what is done to frames whose sides do not divide by the scale.
        quantised: what methods give before they are compared.
        border_crop: HR pixels left out along each border.
        psnr: definition.
        ssim: definition.
        luma: what the Y-channel values are computed on.
        mean: the order of averaging.
        infinite_psnr: how it is written.
        mana_dist: this package's version.
    """

    data: list[str]
    degradation: str
    degradation_version: int
    frames: str
    lpips: str
    padding: str
    device: str
    mana_dist: str
    colour: str = "matrix and range as tagged; untagged: BT.709 from 720 lines, else BT.601; limited range"
    scale: int = 4
    size: str = "HR cropped to multiples of 4 at the bottom and the right"
    quantised: str = "uint8, clamped, rounded half up"
    border_crop: int = 0
    psnr: str = "RGB: one MSE over all pixels and channels, peak 255"
    ssim: str = "RGB: mean of channels; Gaussian 11x11, sigma 1.5, K1 0.01, K2 0.03, L 255, valid region"
    luma: str = "MATLAB rgb2ycbcr (BT.601, 16..235), not rounded, peak 255"
    mean: str = "over frames, then over clips"
    infinite_psnr: str = "null (some frame equals the ground truth)"
