"""Files that promise, hide or lack something, each made small; and a program that tries them all.

    python hostile_pictures.py

prints for each what became of it and how far the peak of memory rose, in MiB; its own address
space is limited, so that a decoder that asks for too much fails instead of the machine.
"""

import io
import json
import resource
import struct
import zlib

from PIL import Image

from data_pipeline.common.errors import BadRecordError
from data_pipeline.images.transforms import prepare

ADDRESS_SPACE = 3 << 30


def png_chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width: int, height: int, pixels: bytes, *chunks: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = [
        png_chunk(b"IHDR", header),
        *chunks,
        png_chunk(b"IDAT", pixels),
        png_chunk(b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def deflated(mebibytes: int) -> bytes:
    """So many MiB of zeros, a thousandth of that when compressed."""
    squeeze = zlib.compressobj(9)
    block = bytes(1 << 20)
    return b"".join([*(squeeze.compress(block) for _ in range(mebibytes)), squeeze.flush()])


def saved(kind: str, frames: int = 1, size: tuple[int, int] = (60, 40), **options) -> bytes:
    file = io.BytesIO()
    images = [Image.new("RGB", size, (n % 256, 9, 99)) for n in range(frames)]
    more = {"save_all": True, "append_images": images[1:]} if frames > 1 else {}
    images[0].save(file, kind, **more, **options)
    return file.getvalue()


def changed(data: bytes, place: int, new: bytes) -> bytes:
    return data[:place] + new + data[place + len(new) :]


def jpeg_claiming(width: int, height: int) -> bytes:
    data = saved("JPEG")
    frame = data.index(b"\xff\xc0")
    return changed(data, frame + 5, struct.pack(">HH", height, width))


def webp_claiming(width: int, height: int) -> bytes:
    """An animation's canvas, with one frame of another size."""
    data = saved("WEBP", frames=2, lossless=True)
    canvas = data.index(b"VP8X") + 12
    return changed(
        data, canvas, (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    )


def hostile_files() -> dict[str, bytes]:
    small = zlib.compress(b"\x00" * (3 * 40 + 1) * 30)
    bomb = deflated(100)
    jpeg, animation = saved("JPEG", size=(400, 300)), saved("GIF", frames=400)
    rows = b"\x00" * (3 * 9000 + 1)
    return {
        "nothing": b"",
        "text named .jpg": b"not found\n" * 1000,
        "png of 100000x100000": png(100_000, 100_000, small),
        "png of 12000x9000": png(12_000, 9_000, small),
        "png of 9000x9000, no data": png(9_000, 9_000, small),
        "png with more pixels than it says": png(40, 30, bomb),
        "png with a bomb for a colour profile": png(
            40, 30, small, png_chunk(b"iCCP", b"a\0\0" + bomb)
        ),
        "png with a bomb for a text": png(40, 30, small, png_chunk(b"zTXt", b"a\0\0" + bomb)),
        "png with a thousand texts": png(
            40, 30, small, *[png_chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(1 << 20)))] * 1000
        ),
        "jpeg of 65000x65000": jpeg_claiming(65_000, 65_000),
        "jpeg of 9000x9000, no data": jpeg_claiming(9_000, 9_000),
        "jpeg cut in half": jpeg[: len(jpeg) // 2],
        "gif of 65535x65535": changed(saved("GIF"), 6, b"\xff\xff\xff\xff"),
        "gif of 400 frames": animation,
        "gif of 400 frames, cut": animation[: len(animation) // 400],
        "tiff of 400 frames": saved("TIFF", frames=400),
        "bmp of 100000x100000": changed(saved("BMP"), 18, struct.pack("<ii", 100_000, 100_000)),
        "webp of 16000x16000": webp_claiming(16_000, 16_000),
        "webp cut": saved("WEBP", size=(400, 300))[:60],
        # Last, as it is accepted, and large.
        "png of 9000x9000, half": png(9_000, 9_000, zlib.compress(rows * 4_500)),
    }


def main() -> None:
    files = hostile_files()
    prepare(saved("PNG"), 336, "pad", "first")  # what every picture needs is not counted
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    for name, data in files.items():
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        try:
            answer = str(prepare(data, 336, "pad", name).shape)
        except BadRecordError as error:
            answer = str(error)
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(json.dumps([name, answer, (after - before) >> 10, len(data)]), flush=True)


if __name__ == "__main__":
    main()
