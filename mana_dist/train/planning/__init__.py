"""The plan, the costs and the checks of a training before it starts."""
