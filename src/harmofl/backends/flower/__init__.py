"""Flower backend, for sites in other buildings; the only package that imports `flwr`. It only carries bytes."""

import os

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")  # before Flower is imported: no telemetry by default
os.environ.setdefault("FLWR_DISABLE_UPDATE_CHECK", "1")
