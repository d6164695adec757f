"""A picture of few colours as a data URI: one byte for each pixel, deflated."""

import base64
import struct
import zlib
from collections.abc import Sequence

Colour = tuple[int, int, int, int]  # red, green, blue, opacity; each to 255


def data_uri(pixels: Sequence[bytes], palette: Sequence[Colour]) -> str:
    """`pixels` are rows of indices into the palette."""
    header = struct.pack(">IIBBBBB", len(pixels[0]), len(pixels), 8, 3, 0, 0, 0)  # 8 bits, indexed
    chunks = (
        _chunk(b"IHDR", header),
        _chunk(b"PLTE", b"".join(bytes(colour[:3]) for colour in palette)),
        _chunk(b"tRNS", bytes(colour[3] for colour in palette)),
        _chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in pixels), 9)),
        _chunk(b"IEND", b""),
    )
    return "data:image/png;base64," + base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"".join(chunks)).decode()


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
