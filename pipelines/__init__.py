"""Whole pipelines over Ray Data and the demonstration that runs all commands."""
