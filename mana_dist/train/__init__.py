"""The paper's three-stage training on Ray Train with DeepSpeed."""
