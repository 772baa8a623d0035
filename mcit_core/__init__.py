"""Multimodal continual instruction tuning: projection, prompt-pool and averaging steps, one task after another."""
