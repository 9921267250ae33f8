"""The sites of a round in other buildings: Flower carries the messages. The only folder that imports `flwr`.

It packs and unpacks what crosses the wire and decides nothing. Arrays travel as NumPy's own format without pickle.
"""

import os

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")  # before Flower is imported: nothing leaves the building unasked
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
