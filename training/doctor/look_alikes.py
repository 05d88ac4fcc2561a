"""Images that look alike, by perceptual hashes of 64 bits (pHash, of the package imagehash)."""

from __future__ import annotations

import collections
from typing import Any

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

# Bits in which the hashes of images that look alike differ at most.
DISTANCE = 4


def perceptual_hash(picture: Any) -> int | None:
    """Returns the hash of a PIL image: signs of its lowest frequencies.

    None where all pixels are about one grey: the hash would be that of noise.
    """
    import imagehash

    if np.asarray(picture.convert("L")).std() < 2:
        return None
    bits = imagehash.phash(picture).hash.ravel()
    return int(np.packbits(bits).view(">u8")[0])


def groups(codes: np.ndarray) -> list[list[int]]:
    """Returns groups of the indices of hashes that differ in at most `DISTANCE` bits.

    Hashes that differ in 4 of 64 bits are equal in one of 5 bands of bits at least, so only
    those that share a band are compared.

    Args:
        codes: uint64 `(images,)`.
    """
    # Equal ones once only: of thousands of frames of a film every pair would be looked at.
    codes, places = np.unique(codes, return_inverse=True)
    pairs = [np.empty((2, 0), np.int64)]
    for band in np.array_split(np.arange(64, dtype=np.uint64), DISTANCE + 1):
        keys = (codes >> band[0]) & np.uint64((1 << len(band)) - 1)
        order = np.argsort(keys, kind="stable")
        for members in np.split(order, np.flatnonzero(np.diff(keys[order])) + 1):
            for number, place in enumerate(members[:-1]):
                others = members[number + 1 :]
                others = others[np.bitwise_count(codes[others] ^ codes[place]) <= DISTANCE]
                pairs.append(np.stack([np.full_like(others, place), others]))
    ends = np.concatenate(pairs, axis=1)
    graph = coo_array((np.ones(ends.shape[1]), tuple(ends)), shape=(len(codes), len(codes)))
    found = collections.defaultdict(list)
    for place, root in enumerate(connected_components(graph, directed=False)[1][places].tolist()):
        found[root].append(place)
    return [group for group in found.values() if len(group) > 1]
