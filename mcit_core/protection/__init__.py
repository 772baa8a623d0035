"""What holds on to earlier tasks: projection, averaging, replay, regularisers, grouping."""
