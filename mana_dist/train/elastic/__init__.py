"""Workers that come, go, hang and fail, and how a training goes on without losing a step."""
