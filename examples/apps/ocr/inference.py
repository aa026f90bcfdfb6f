"""OCR: finds the lines of text in a picture and reads them, on the CPU.

Three small ONNX models do it (find the lines, turn them upright, read them). They come in the wheel of
rapidocr-onnxruntime, so the app needs no download. `setup` loads them; every task afterwards finds them warm.
"""

import logging
import math
import tempfile
from pathlib import Path
from typing import Optional

from inferencesh import BaseApp, BaseAppInput, BaseAppOutput, BaseAppSetup, File
from PIL import Image, ImageDraw, ImageFont, ImageOps, UnidentifiedImageError
from pydantic import BaseModel, Field

logging.basicConfig(level=logging.INFO)
log = logging.getLogger("ocr")

MAX_PIXELS = 50_000_000  # a 50-megapixel scan; more would be a decompression bomb for a small machine
EMBER = (214, 69, 29)


class AppSetup(BaseAppSetup):
    """What the models are loaded with; another value means another instance."""

    min_confidence: float = Field(default=0.5, ge=0, le=1, description="Lines read with less are left out")
    box_threshold: float = Field(default=0.5, ge=0, le=1, description="How sure the detector must be of a line")
    unclip_ratio: float = Field(default=1.6, ge=1, le=4, description="How far boxes reach around the letters")
    max_side: int = Field(default=960, ge=64, le=4096, description="Pixels to which the detector scales a picture down")
    threads: int = Field(default=1, ge=1, le=64, description="CPU threads of each model")
    detect: bool = Field(default=True, description="Off: the whole picture is one line of text")
    orientation: bool = Field(default=True, description="Turn lines that stand upside down")


class AppInput(BaseAppInput):
    image: File = Field(description="The picture: PNG, JPEG, WebP, TIFF or BMP")
    annotate: bool = Field(default=True, description="Also give the picture back with the lines marked")


class Line(BaseModel):
    text: str
    confidence: float = Field(description="0 to 1")
    box: list[list[float]] = Field(description="Four corners [x, y] in pixels, clockwise from the top left")


class AppOutput(BaseAppOutput):
    text: str = Field(description="All lines, from top to bottom")
    lines: list[Line]
    width: int = Field(description="Pixels")
    height: int = Field(description="Pixels")
    annotated: Optional[File] = Field(default=None, description="The picture with a numbered box at each line")


class App(BaseApp):
    async def setup(self, config: AppSetup) -> None:
        from rapidocr_onnxruntime import RapidOCR  # here: loading the library is part of the load time

        self.config = config
        self.reader = RapidOCR(
            text_score=config.min_confidence,
            det_box_thresh=config.box_threshold,
            det_unclip_ratio=config.unclip_ratio,
            det_limit_type="max",
            det_limit_side_len=config.max_side,
            rec_batch_num=1,  # a batch is as wide as its longest line: on a CPU that only adds work
            intra_op_num_threads=config.threads,
        )
        self.work = tempfile.TemporaryDirectory(prefix="ocr-")
        log.info("models loaded: %s", config.model_dump())

    async def run(self, input_data: AppInput) -> AppOutput:
        """Read the text in a picture."""
        picture = open_picture(input_data.image)
        found, _ = self.reader(
            picture, use_det=self.config.detect, use_cls=self.config.orientation, use_rec=True
        )
        lines = self._lines(found or [], picture)
        log.info("read %d lines in a picture of %d x %d", len(lines), picture.width, picture.height)
        output = AppOutput(
            text="\n".join(line.text for line in lines), lines=lines, width=picture.width, height=picture.height
        )
        if input_data.annotate:
            name = Path(input_data.image.filename or "picture").stem
            path = Path(tempfile.mkdtemp(dir=self.work.name)) / f"{name}-annotated.png"
            annotated(picture, lines).save(path, compress_level=1)
            output.annotated = File(path=str(path))
        return output

    async def unload(self) -> None:
        self.work.cleanup()

    def _lines(self, found: list, picture: Image.Image) -> list[Line]:
        if self.config.detect:
            return [Line(box=box, text=text, confidence=round(float(sure), 4)) for box, text, sure in found]
        whole = [[0, 0], [picture.width, 0], [picture.width, picture.height], [0, picture.height]]
        return [
            Line(box=whole, text=text, confidence=round(float(sure), 4))
            for text, sure in found
            if float(sure) >= self.config.min_confidence
        ]


def open_picture(file: Optional[File]) -> Image.Image:
    """The picture, upright and in RGB; a ValueError says what is wrong with the file."""
    if file is None or not file.exists():
        raise ValueError("image: a picture is needed, and none was given")
    try:
        picture = Image.open(file.path)
        if picture.width * picture.height > MAX_PIXELS:
            size = f"{picture.width} x {picture.height}"
            raise ValueError(f"image: {size} pixels are too many; at most {MAX_PIXELS // 1_000_000} million")
        return ImageOps.exif_transpose(picture).convert("RGB")
    except UnidentifiedImageError:
        raise ValueError(f"image: {file.filename!r} is not a picture that can be read") from None
    except Image.DecompressionBombError as error:
        raise ValueError(f"image: {error}") from None
    except OSError as error:
        raise ValueError(f"image: {file.filename!r} is broken: {error}") from None


def annotated(picture: Image.Image, lines: list[Line]) -> Image.Image:
    """A copy with a numbered box at each line."""
    copy = picture.copy()
    draw = ImageDraw.Draw(copy)
    stroke = max(2, math.ceil(min(copy.size) / 300))
    for number, line in enumerate(lines, start=1):
        corners = [(x, y) for x, y in line.box]
        draw.line([*corners, corners[0]], fill=EMBER, width=stroke)
        left, top = corners[0]
        draw.text((left - 4 * stroke, top), str(number), fill=EMBER, anchor="ra", font=ImageFont.load_default(18))
    return copy
