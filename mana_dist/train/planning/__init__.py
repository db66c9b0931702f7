"""What a training will take and what can be wrong with it, known before it starts."""
