"""The IDX format: bytes in an array of any shape, after a short header."""

import math
import struct

import numpy as np

# What comes before the number of dimensions: two zeros, and the code of unsigned bytes.
_MAGIC = b"\0\0\x08"


def parse(content: bytes, name: str, ndim: int) -> np.ndarray:
    """Returns the array that an IDX file of unsigned bytes holds.

    Args:
      content: of the whole file: the magic number 0 0 8 `ndim`, the length of each dimension
        as four bytes, the most significant first, and the values in C order.
      name: of the file, for errors.
      ndim: the number of dimensions.

    Returns:
      uint8, read-only.

    Raises:
      ValueError: if it is another kind of file, or has more or fewer values than it says.

    Example:
      >>> parse(bytes([0, 0, 8, 1, 0, 0, 0, 2, 7, 5]), "labels", ndim=1)
      array([7, 5], dtype=uint8)
    """
    magic, start = _MAGIC + bytes([ndim]), 4 + 4 * ndim
    if content[:4] != magic or len(content) < start:
        raise ValueError(
            f"{name} must begin with the IDX magic number {magic.hex(' ')} and {ndim} lengths, got "
            f"{content[:4].hex(' ')} in {len(content)} bytes. Check that it is the file of that "
            "name, unpacked."
        )
    shape = struct.unpack_from(f">{ndim}I", content, 4)
    if len(content) - start != math.prod(shape):
        raise ValueError(
            f"{name} must hold an array of shape {shape}, {math.prod(shape)} bytes, got "
            f"{len(content) - start}. Get the file anew: it is truncated or altered."
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)
