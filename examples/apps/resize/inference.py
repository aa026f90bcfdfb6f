"""Resize: a picture in, a picture out. What the setup says is loaded once; what the input says changes each time."""

import tempfile
from pathlib import Path
from typing import Literal, Optional

from inferencesh import BaseApp, BaseAppInput, BaseAppOutput, BaseAppSetup, File, ImageMeta, OutputMeta
from PIL import Image, ImageOps, UnidentifiedImageError
from pydantic import Field

MAX_PIXELS = 100_000_000  # what the result may have; keeps a small machine alive


class AppSetup(BaseAppSetup):
    """What every picture of this instance is made with."""

    filter: Literal["nearest", "bilinear", "bicubic", "lanczos"] = Field(default="lanczos", description="Resampling")
    quality: int = Field(default=90, ge=1, le=100, description="Of JPEG and WebP")


class AppInput(BaseAppInput):
    image: File = Field(description="Any picture that Pillow reads")
    width: Optional[int] = Field(default=None, ge=1, le=20_000, description="Pixels; alone, the height follows")
    height: Optional[int] = Field(default=None, ge=1, le=20_000, description="Pixels; alone, the width follows")
    format: Literal["png", "jpeg", "webp"] = Field(default="png", description="Of the picture that comes back")


class AppOutput(BaseAppOutput):
    image: File
    width: int
    height: int


class App(BaseApp):
    async def setup(self, config: AppSetup) -> None:
        self.filter = Image.Resampling[config.filter.upper()]
        self.quality = config.quality

    async def run(self, input_data: AppInput) -> AppOutput:
        """Resize a picture."""
        picture = self._open(input_data.image)
        size = self._size(picture.size, input_data.width, input_data.height)
        if input_data.format == "jpeg":
            picture = picture.convert("RGB")  # JPEG knows no transparency
        result = picture.resize(size, self.filter)
        path = Path(tempfile.mkdtemp()) / f"{Path(input_data.image.filename or 'picture').stem}.{input_data.format}"
        result.save(path, quality=self.quality)
        print(f"{picture.width}x{picture.height} -> {result.width}x{result.height}, {path.stat().st_size} bytes")
        meta = ImageMeta(width=result.width, height=result.height, count=1)
        return AppOutput(
            image=File(path=str(path)),
            width=result.width,
            height=result.height,
            output_meta=OutputMeta(outputs=[meta]),
        )

    def _open(self, image: File) -> Image.Image:
        try:
            return ImageOps.exif_transpose(Image.open(image.path))
        except (UnidentifiedImageError, Image.DecompressionBombError) as error:
            raise ValueError(f"'{image.filename}' cannot be read as a picture: {error}") from error

    def _size(self, have: tuple[int, int], width: Optional[int], height: Optional[int]) -> tuple[int, int]:
        if width is None and height is None:
            raise ValueError("Say a width, a height, or both.")
        wide = width or max(1, round(have[0] * height / have[1]))
        high = height or max(1, round(have[1] * width / have[0]))
        if wide * high > MAX_PIXELS:
            raise ValueError(f"{wide} x {high} is more than {MAX_PIXELS:,} pixels; ask for less.")
        return wide, high
