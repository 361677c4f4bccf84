"""Avro's binary form of single values, where bytes are put together from pieces that repeat.

fastavro writes whole values of a schema; a record that is mostly known bytes is ten times as fast in pieces.
"""

_ONE_BYTE = [bytes([number << 1]) for number in range(64)]


def long(number: int) -> bytes:
    """Avro `int` or `long`: zig-zag, seven bits a byte. Raises ValueError if negative or too large."""
    if not 0 <= number < 1 << 63:
        raise ValueError(f"{number} is no number that is written here")
    if number < 64:
        return _ONE_BYTE[number]
    number <<= 1
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def sized(content: bytes) -> bytes:
    """Avro `bytes`, or `string` of UTF-8 bytes: how many, and the bytes."""
    return long(len(content)) + content
