"""Workers that come, go, hang and fail, without the training losing a step."""
