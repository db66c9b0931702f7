"""What a training reports: to the console, to MLflow, to Ray's metrics, and at its end."""
