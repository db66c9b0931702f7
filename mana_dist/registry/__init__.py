"""Finished models: as a folder, and as versions in the MLflow registry."""
