"""A small artefact, and the keys that sign it or do not, for tests of the registry."""

from __future__ import annotations

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sinks.registry.artefact import pack

KEY = Ed25519PrivateKey.from_private_bytes(b"k" * 32)
STRANGER = Ed25519PrivateKey.from_private_bytes(b"s" * 32)
TRUSTED = [STRANGER.public_key(), KEY.public_key()]
FACTS = {"schema": 3, "trained_at": "2017-05-01T04:00:00+00:00", "rows": 120_000, "loss": 0.25}
ARRAYS = {
    "weights": np.arange(6, dtype=np.float32).reshape(2, 3),
    "bias": np.array(0.5),
    "names": np.array(["log_rate", "größe"]),
    "none": np.zeros((0, 4), dtype=np.int64),
}
MODEL = pack(ARRAYS, FACTS, KEY)
