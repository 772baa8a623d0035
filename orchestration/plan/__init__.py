"""What is to be trained, and in which order: decisions alone, without torch and Ray."""
