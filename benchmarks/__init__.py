"""Measurements, printed as ratios between things run side by side."""
