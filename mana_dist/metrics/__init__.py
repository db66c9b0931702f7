"""Full-reference image quality: PSNR, SSIM and LPIPS, with every choice that moves a number stated."""

from mana_dist.metrics.psnr_ssim import luma, psnr, psnr_y, ssim, ssim_y

__all__ = ["luma", "psnr", "psnr_y", "ssim", "ssim_y"]
