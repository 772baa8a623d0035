"""What a stage is made from (its key) and what it leaves (its state)."""
