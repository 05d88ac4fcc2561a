"""Images that look alike, by perceptual hashes of 64 bits (pHash, of the package imagehash)."""

from __future__ import annotations

import collections

import numpy as np

# Bits in which the hashes of near copies differ at most.
DISTANCE = 4


def perceptual_hash(picture) -> int:
    """Returns the hash of a PIL image: signs of its lowest frequencies."""
    import imagehash

    bits = imagehash.phash(picture).hash.ravel()
    return int(np.packbits(bits).view(">u8")[0])


def flat(picture) -> bool:
    """Whether a PIL image is about one grey, whose hash would be that of noise."""
    return float(np.asarray(picture.convert("L")).std()) < 2.0


def near_groups(codes: np.ndarray) -> list[list[int]]:
    """Returns groups of the indices of hashes that differ in at most `DISTANCE` bits.

    Hashes that differ in 4 of 64 bits are equal in one of 5 bands of bits at least, so only
    those that share a band are compared.

    Args:
        codes: uint64 `(images,)`.
    """
    # Equal ones once only: of thousands of frames of a film every pair would be looked at.
    codes, places = np.unique(codes, return_inverse=True)
    parents = list(range(len(codes)))

    def root(place: int) -> int:
        while parents[place] != place:
            parents[place] = parents[parents[place]]
            place = parents[place]
        return place

    for band in np.array_split(np.arange(64, dtype=np.uint64), DISTANCE + 1):
        mask = np.uint64((1 << len(band)) - 1)
        keys = (codes >> band[0]) & mask
        order = np.argsort(keys, kind="stable")
        starts = np.flatnonzero(np.diff(keys[order])) + 1
        for members in np.split(order, starts):
            for number, place in enumerate(members[:-1]):
                others = members[number + 1 :]
                close = np.bitwise_count(codes[others] ^ codes[place]) <= DISTANCE
                for other in others[close]:
                    parents[root(int(other))] = root(int(place))
    groups = collections.defaultdict(list)
    for place, code in enumerate(places.tolist()):
        groups[root(code)].append(place)
    return [group for group in groups.values() if len(group) > 1]
