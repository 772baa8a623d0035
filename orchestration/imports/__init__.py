"""Results that other repositories have written, read as a RUN: `python -m orchestration.import_results`."""
