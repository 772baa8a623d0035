"""Sweeps over continual-learning experiments: plan, run on Ray Tune, track in MLflow, report."""
