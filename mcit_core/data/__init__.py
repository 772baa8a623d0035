"""What a stage reads: features, their statistics, and the order of rows."""
