"""``python -m pipelines.ingest``: videos and folders of frames into sharded training samples, on Ray Data."""
