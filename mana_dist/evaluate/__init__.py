"""Evaluation of super-resolution methods under one stated protocol."""
