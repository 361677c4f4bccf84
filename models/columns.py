"""Small column operations that profiles and decisions share: runs, ranks, saturating sums."""

import numpy as np


def starts(sorted_keys: np.ndarray) -> np.ndarray:
    """Bool (n,): where a run of equal values begins."""
    out = np.ones(len(sorted_keys), np.bool_)
    out[1:] = sorted_keys[1:] != sorted_keys[:-1]
    return out


def rank_in_run(sorted_keys: np.ndarray) -> np.ndarray:
    """Int64 (n,): 0, 1, 2 … within each run of equal values."""
    index = np.arange(len(sorted_keys))
    begin = np.maximum.accumulate(np.where(starts(sorted_keys), index, 0)) if len(sorted_keys) else index
    return np.asarray(index - begin)


def running_sum(values: np.ndarray, sorted_keys: np.ndarray) -> np.ndarray:
    """Inclusive prefix sum of integers within each run of equal values, int64 (n,) or (n, k)."""
    total = np.cumsum(values, axis=0, dtype=np.int64)
    begin = np.flatnonzero(starts(sorted_keys))
    lengths = np.diff(np.append(begin, len(values)))
    return np.asarray(total - np.repeat(total[begin] - values[begin], lengths, axis=0))


def running_max(values: np.ndarray, sorted_keys: np.ndarray) -> np.ndarray:
    """Inclusive prefix maximum within each run, int64 (n,); values in [0, 2^43)."""
    lift = np.cumsum(starts(sorted_keys), dtype=np.int64) << 43
    return np.asarray(np.maximum.accumulate(values + lift) - lift)


def saturating(base: np.ndarray, amounts: np.ndarray, keys: np.ndarray, maximum: int) -> np.ndarray:
    """What each amount adds to the counter that it meets.

    Parameters
    ----------
    base
        Value of each amount's counter before any of them, int64 (n,).
    amounts
        Not negative, int64 (n,), in the order in which they come.
    keys
        Number of each amount's counter, int64 (n,).
    maximum
        Where a counter stops.

    Returns
    -------
    int64 (n,), each at most its amount: a counter at its maximum takes nothing more, so that adding in
    one go or in parts gives the same.
    """
    amounts = np.minimum(amounts, maximum)  # or sums of huge ones overflow
    if base.max(initial=0) + amounts.sum() <= maximum:
        return np.asarray(amounts)  # whatever counters they meet
    order = np.argsort(keys, kind="stable")
    sums = running_sum(amounts[order], keys[order])
    before = base[order]
    added = np.minimum(before + sums, maximum) - np.minimum(before + sums - amounts[order], maximum)
    out = np.empty_like(added)
    out[order] = added
    return np.asarray(out)
