"""Text inside compressed pixels: comments, application data, and bytes behind the end of a frame.

JPEG (ISO 10918-1, 14495-1) and JPEG 2000 (ISO 15444-1) streams may carry comments and EXIF blocks, which no header
attribute tells of. Their payload is overwritten with zeros, length kept, and what follows the end marker is cut off;
the coded image itself stays byte for byte. A marker that no decoder needs is refused: decoders skip what they do not
know, so that any text may stand there.
"""

from __future__ import annotations

__all__ = ["scrub_frame"]

_SOI, _EOI, _SOS, _COM = 0xD8, 0xD9, 0xDA, 0xFE
_J2K_SOT, _J2K_SOD, _J2K_COM, _J2K_EOC = 0x90, 0x93, 0x64, 0xD9
# SOF, DHT, DAC, SOS, DQT, DNL, DRI; SOF55 and LSE of JPEG-LS
_JPEG = {*range(0xC0, 0xD0), *range(0xDA, 0xDE), 0xF7, 0xF8} - {0xC8}
_J2K_TILE = {0x52, 0x53, 0x58, *range(0x5C, 0x60), 0x61}  # COD, COC, PLT, QCD, QCC, RGN, POC, PPT
_J2K = {0x50, 0x51, 0x55, 0x56, 0x57, 0x59, 0x60, 0x63, *_J2K_TILE}  # CAP, SIZ, TLM, PRF, PLM, CPF, PPM, CRG


def scrub_frame(frame: bytes) -> bytes:
    """Return a compressed frame without comments and trailing bytes.

    Args:
        frame: one frame of JPEG, JPEG-LS, JPEG 2000 or HTJ2K.

    Raises:
        ValueError: the stream contradicts itself, or holds unknown segments: nobody can say where text may hide.

    Example:
        >>> scrub_frame(bytes.fromhex("ffd8 fffe 0006 4a616e65 ffda 0002 1234 ffd9") + b"Jane").hex()
        'ffd8fffe000600000000ffda00021234ffd9'
    """
    if frame[:2] == b"\xff\xd8":
        return _even(_scrub_jpeg(bytearray(frame)))
    if frame[:2] == b"\xff\x4f":
        return _even(_scrub_j2k(bytearray(frame)))
    raise ValueError("neither JPEG nor JPEG 2000")


def _even(data: bytearray) -> bytes:
    return bytes(data) + b"\0" * (len(data) % 2)


def _scrub_jpeg(data: bytearray) -> bytearray:
    at, is_ls = 2, False
    while True:
        if data[at : at + 2] == b"\xff\xff":  # fill byte
            at += 1
            continue
        if data[at : at + 2] == bytes((0xFF, _EOI)):
            return data[: at + 2]
        marker, stop = _segment(data, at, len(data), {_COM, *range(0xE0, 0xF0), *_JPEG})
        is_ls = is_ls or marker == 0xF7
        if marker not in _JPEG:
            _blank(data, at + 4, stop, marker)
        at = _skip_entropy(data, stop, is_ls) if marker == _SOS else stop


def _segment(data: bytearray, at: int, limit: int, known: set[int]) -> tuple[int, int]:
    """Return the marker that stands somewhere, and where its segment ends."""
    if at + 4 > limit:
        raise ValueError("no end marker")
    if data[at] != 0xFF:
        raise ValueError("no marker where one belongs")
    marker, stop = data[at + 1], at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    if marker not in known:
        raise ValueError("a marker that no image needs")
    if not at + 4 <= stop <= limit:
        raise ValueError("a segment reaches beyond the frame")
    return marker, stop


def _blank(data: bytearray, start: int, stop: int, marker: int) -> None:
    """Overwrite a comment or an application block, save for what tells the decoder the colour space."""
    kept = {0xE0: (b"JFIF\0", 14), 0xE8: (b"mrfx", 5), 0xEE: (b"Adobe", 12)}.get(marker)
    if kept and data[start : start + len(kept[0])] == kept[0]:
        start += kept[1]
    data[start:stop] = bytes(max(stop - start, 0))


def _skip_entropy(data: bytearray, at: int, is_ls: bool) -> int:
    """Return where the next real marker stands: 0xFF is stuffed by a zero byte (JPEG) or a zero bit (JPEG-LS)."""
    while (at := data.find(0xFF, at)) >= 0 and at + 1 < len(data):
        follows = data[at + 1]
        stuffed = follows < 0x80 if is_ls else follows == 0
        if not stuffed and follows != 0xFF and not 0xD0 <= follows <= 0xD7:
            return at
        at += 1 if follows == 0xFF else 2
    raise ValueError("no end marker")


def _scrub_j2k(data: bytearray) -> bytearray:
    at = 2
    while data[at : at + 2] != bytes((0xFF, _J2K_EOC)):
        marker, stop = _segment(data, at, len(data), {_J2K_COM, _J2K_SOT, *_J2K})
        if marker == _J2K_COM:
            data[at + 6 : stop] = bytes(max(stop - at - 6, 0))
        at = _scrub_tile_part(data, at) if marker == _J2K_SOT else stop
    return data[: at + 2]


def _scrub_tile_part(data: bytearray, start: int) -> int:
    """Blank the comments in the header of one tile-part and return where the next begins."""
    length = int.from_bytes(data[start + 6 : start + 10], "big")
    end = start + length if length else data.rfind(b"\xff\xd9")
    if not start + 12 <= end <= len(data):
        raise ValueError("a tile-part reaches beyond the frame")
    at = start + 12
    while data[at : at + 2] != bytes((0xFF, _J2K_SOD)):
        marker, stop = _segment(data, at, end, {_J2K_COM, *_J2K_TILE})
        if marker == _J2K_COM:
            data[at + 6 : stop] = bytes(max(stop - at - 6, 0))
        at = stop
    return end
