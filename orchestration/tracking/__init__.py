"""MLflow as a view of a RUN."""
