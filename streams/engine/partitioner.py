"""Which partition a key belongs to."""

from functools import lru_cache

from aiokafka.partitioner import murmur2


@lru_cache(maxsize=1 << 16)
def partition_of(key: bytes, partitions: int) -> int:
    """Partition of a key as Java's producers, and `partitioner=murmur2_random`, choose it."""
    return int((murmur2(key) & 0x7FFFFFFF) % partitions)
