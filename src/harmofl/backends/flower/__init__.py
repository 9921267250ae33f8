"""Flower backend, for sites in other buildings. The only package that imports `flwr`.

It packs and unpacks messages and decides nothing. Arrays are sent in NumPy's own format without pickle.
"""

import os

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")  # before Flower is imported: no telemetry by default
os.environ.setdefault("FLWR_DISABLE_UPDATE_CHECK", "1")

from harmofl.backends.flower.rounds import (
    FlowerRounds,
    client_app,
    pack_broadcast,
    pack_update,
    unpack_broadcast,
    unpack_update,
)

__all__ = ["FlowerRounds", "client_app", "pack_broadcast", "pack_update", "unpack_broadcast", "unpack_update"]
