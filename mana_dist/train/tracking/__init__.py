"""The reports of a training: to the console, to MLflow, to Ray's metrics, and its summary."""
