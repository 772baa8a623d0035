"""Training: one step, one stage, one sequence, and their evaluation."""
