"""Sweeps over settings of the model: trainings on Ray Tune, a table of results, and the best one registered."""
