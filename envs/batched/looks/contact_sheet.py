"""Contact sheets: many small camera pictures as one large one, to be looked at."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MARGIN = 4  # pixels around each picture
LABEL_SIZE = 12  # pixels, the height of letters
_PAPER, _INK = (255, 255, 255), (34, 34, 34)
_NOTHING = 48  # grey of pixels where depth is infinite or segmentation shows no geom


def colour_depth(depth: Tensor, near: float | None = None, far: float | None = None) -> Tensor:
    """Show depth by the colours of viridis: yellow is near, dark blue far, grey nothing.

    Args:
        depth: metres, float ``(N, H, W)``; what is infinite or not above 0 is nothing.
        near, far: depths of the ends of the scale; default: the least and the largest of all pixels.

    Returns:
        RGB, uint8 ``(N, H, W, 3)``, on the CPU.
    """
    import numpy as np
    from matplotlib import colormaps

    depth = depth.cpu()
    seen = torch.isfinite(depth) & (depth > 0)
    known = depth[seen]
    near = near if near is not None else float(known.min()) if len(known) else 0.0
    far = far if far is not None else float(known.max()) if len(known) else 1.0
    share = (torch.where(seen, depth, far) - near) / max(far - near, 1e-9)
    palette = torch.from_numpy((255 * colormaps["viridis"](np.linspace(1, 0, 256))[:, :3]).astype(np.uint8))
    colours = palette[(255 * share.clamp(0, 1)).round().long()]
    return torch.where(seen[..., None], colours, torch.tensor(_NOTHING, dtype=torch.uint8))


def colour_segmentation(segmentation: Tensor) -> Tensor:
    """Show geoms by colours that are always the same for an id, and far apart for neighbouring ids.

    Args:
        segmentation: ids of geoms, int ``(N, H, W)``; -1, shown grey, is nothing.

    Returns:
        RGB, uint8 ``(N, H, W, 3)``, on the CPU.
    """
    import colorsys

    segmentation = segmentation.cpu().long()
    palette = [(_NOTHING,) * 3]
    for i in range(int(segmentation.max()) + 1 if segmentation.numel() else 0):
        hue = i * (math.sqrt(5) - 1) / 2  # golden section: no two hues of a few ids are close
        rgb = colorsys.hsv_to_rgb(hue % 1, (0.45, 0.75)[i % 2], (0.95, 0.75)[i // 2 % 2])
        palette.append((round(255 * rgb[0]), round(255 * rgb[1]), round(255 * rgb[2])))
    return torch.tensor(palette, dtype=torch.uint8)[segmentation + 1]


def to_rgb(images: Tensor) -> Tensor:
    """Show images of any modality: RGB (uint8) as they are, depth (float), segmentation (int) in colours.

    Raises:
        ValueError: for another shape or dtype.
    """
    if images.dtype == torch.uint8 and images.ndim == 4 and images.shape[3] == 3:
        return images.cpu()
    if images.ndim == 3 and images.dtype.is_floating_point:
        return colour_depth(images)
    if images.ndim == 3 and images.dtype in (torch.int32, torch.int64):
        return colour_segmentation(images)
    raise ValueError(
        f"images are {images.dtype} of shape {tuple(images.shape)}; need RGB, uint8 (N, H, W, 3), depth, "
        "floating point (N, H, W), or segmentation, int32 (N, H, W)"
    )


def contact_sheet(
    images: Tensor | Sequence[Tensor],
    columns: int,
    labels: Sequence[str] | None = None,
    scale: int = 2,
) -> NDArray[np.uint8]:
    """Lay out pictures of one size in rows, from left to right, on white.

    Args:
        images: a batch of any modality (see `to_rgb`), or several one after the other; each batch of depth
            has a scale of its own.
        columns: pictures in a row.
        labels: one above each picture; an empty one is left out, a long one may reach over the next picture.
        scale: pixels of the sheet for each of a picture, whole.

    Returns:
        uint8, ``(height, width, 3)``.

    Raises:
        ValueError: without pictures, for different sizes, or when labels are not as many as pictures.

    Example:
        >>> contact_sheet(torch.zeros(6, 64, 64, 3, dtype=torch.uint8), columns=3, scale=1).shape
        (140, 208, 3)
    """
    import numpy as np
    from PIL import Image, ImageDraw, ImageFont

    batches = [to_rgb(batch) for batch in ([images] if isinstance(images, Tensor) else images)]
    sizes = {batch.shape[1:3] for batch in batches}
    pictures = [picture for batch in batches for picture in batch.numpy()]
    if len(sizes) != 1 or not pictures:
        raise ValueError(f"a contact sheet needs pictures of one size, not {sorted(map(tuple, sizes))}")
    if columns < 1 or scale < 1:
        raise ValueError(f"columns and scale must be at least 1, not {columns} and {scale}")
    if labels is not None and len(labels) != len(pictures):
        raise ValueError(f"{len(labels)} labels for {len(pictures)} pictures; give one for each")

    rows = -(-len(pictures) // columns)
    heads = [0] * rows  # rows without any label need no room for it
    if labels is not None:
        heads = [
            LABEL_SIZE + MARGIN if any(labels[r * columns : (r + 1) * columns]) else 0 for r in range(rows)
        ]
    height, width = (scale * size for size in pictures[0].shape[:2])
    size = (MARGIN + columns * (width + MARGIN), MARGIN + rows * (height + MARGIN) + sum(heads))
    sheet = Image.new("RGB", size, _PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(LABEL_SIZE)
    for i, picture in enumerate(pictures):
        row, column = divmod(i, columns)
        x = MARGIN + column * (width + MARGIN)
        y = MARGIN + row * (height + MARGIN) + sum(heads[:row])
        if labels is not None and labels[i]:
            draw.text((x, y - MARGIN // 2), labels[i], fill=_INK, font=font)
        enlarged = Image.fromarray(picture).resize((width, height), Image.Resampling.NEAREST)
        sheet.paste(enlarged, (x, y + heads[row]))
    return np.asarray(sheet)


def png_bytes(sheet: NDArray[np.uint8]) -> bytes:
    """A picture, uint8 ``(height, width, 3)``, as a PNG file's contents."""
    import io

    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(sheet).save(stream, format="PNG", optimize=True)
    return stream.getvalue()
