"""RapidOCR, as its README says to use it, on drawn text: rapidocr_app.py ENGINE FOLDER writes FOLDER/result.json."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from engine import choose, prove
from PIL import Image, ImageDraw, ImageFont


def page(size: tuple[int, int], lines: list[tuple[int, int, int, str]], ink: str, paper: str) -> Image.Image:
    """Text at (x, y) in a height of pixels, in the font that comes with Pillow."""
    image = Image.new("RGB", size, paper)
    draw = ImageDraw.Draw(image)
    for x, y, height, text in lines:
        draw.text((x, y), text, font=ImageFont.load_default(height), fill=ink)
    return image


def pages() -> dict[str, np.ndarray]:
    """Images as OpenCV has them: [height, width, 3], uint8, blue first."""
    words = [(20, 20, 32, "Hello world, 1234567890"), (20, 100, 32, "The quick brown fox")]
    receipt = [
        (30, 20, 40, "RECEIPT"), (30, 90, 24, "2 x Coffee, black      7.40"), (30, 130, 24, "1 x Croissant          2.95"),
        (30, 170, 24, "Total                 10.35"), (30, 240, 18, "Thank you! Visit www.example.org soon."),
    ]  # fmt: skip
    images = {
        "plain": page((480, 200), words, "black", "white"),
        "receipt": page((520, 300), receipt, "#202060", "#f0f0e0"),
        "light on dark": page((640, 120), [(20, 30, 48, "Status: READY (42%)")], "#e0ffe0", "#102030"),
        "upside down": page((480, 200), words, "black", "white").rotate(180),
        "slanted": page((480, 200), words, "black", "white").rotate(6, expand=True, fillcolor="white"),
        "large": page(
            (1300, 900),
            [(80, 90 * i + 20, 36, f"Line {i}: {'abcdefghij'[i:]} = {i * 7919}") for i in range(9)],
            "black",
            "white",
        ),
        "blank": Image.new("RGB", (320, 240), "white"),
    }
    arrays = {name: np.asarray(image)[:, :, ::-1].copy() for name, image in images.items()}
    noise = np.random.default_rng(0).normal(0, 12, arrays["plain"].shape)
    arrays["noisy"] = np.clip(arrays["plain"] + noise, 0, 255).astype(np.uint8)
    return arrays


def main(engine: str, folder: Path) -> None:
    choose(engine)
    from rapidocr import RapidOCR

    ocr = RapidOCR()
    found = {}
    for name, image in pages().items():
        result = ocr(image)
        found[name] = {
            "texts": list(result.txts or ()),
            "scores": [float(s) for s in result.scores or ()],
            "boxes": [] if result.boxes is None else np.asarray(result.boxes).tolist(),
        }
    (folder / "result.json").write_text(json.dumps(found, indent=1))
    prove(engine)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
