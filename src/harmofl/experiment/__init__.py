"""One experiment: its configuration, the training loop, the run directory, and the trained model."""
