"""Contact sheets: where pictures land, what colours mean, and the command that makes one."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from tutelage.envs.batched.looks.contact_sheet import (
    LABEL_SIZE,
    MARGIN,
    colour_depth,
    colour_segmentation,
    contact_sheet,
    png_bytes,
    to_rgb,
)

GREY = [48, 48, 48]


def test_places_by_hand():
    images = torch.stack([torch.full((2, 3, 3), value, dtype=torch.uint8) for value in (10, 20, 30)])
    sheet = contact_sheet(images, columns=2, scale=2)
    # Pictures of 4 x 6 pixels, margins of 4: two rows and two columns, the last place empty.
    assert sheet.shape == (4 + 2 * (4 + 4), 4 + 2 * (6 + 4), 3)
    expected = np.full(sheet.shape, 255, np.uint8)
    expected[4:8, 4:10], expected[4:8, 14:20], expected[12:16, 4:10] = 10, 20, 30
    assert np.array_equal(sheet, expected)


def test_labels_take_room_in_their_rows_alone():
    images = torch.zeros(4, 8, 8, 3, dtype=torch.uint8)
    plain = contact_sheet(images, 2, scale=1)
    labelled = contact_sheet(images, 2, labels=["rgb", "", "", ""], scale=1)
    head = LABEL_SIZE + MARGIN
    assert labelled.shape[0] == plain.shape[0] + head
    assert (labelled[:head] < 128).any()  # letters
    assert np.array_equal(labelled[head + MARGIN :], plain[MARGIN:])


def test_modalities_can_be_mixed():
    batches = [torch.zeros(2, 4, 4, 3, dtype=torch.uint8), torch.ones(2, 4, 4), torch.ones(2, 4, 4).int()]
    assert contact_sheet(batches, 2, scale=1).shape == (4 + 3 * 8, 4 + 2 * 8, 3)


def test_depth_colours():
    colours = colour_depth(torch.tensor([[[1.0, 2.0, 3.0, float("inf"), 0.0]]]))[0, 0]
    assert colours[0].tolist() == [253, 231, 36]  # the yellow end of viridis
    assert colours[2].tolist() == [68, 1, 84]  # its dark end
    assert colours[3].tolist() == colours[4].tolist() == GREY
    brightness = colours[:3].float().mean(1)
    assert brightness[0] > brightness[1] > brightness[2]
    fixed = colour_depth(torch.tensor([[[1.0, 2.0, 9.0]]]), near=1.0, far=3.0)[0, 0]
    assert torch.equal(fixed[1], colours[1])
    assert torch.equal(fixed[2], colours[2])
    assert colour_depth(torch.full((1, 2, 2), float("inf"))).unique().tolist() == [48]


def test_segmentation_colours():
    ids = torch.arange(-1, 40, dtype=torch.int32).view(1, 1, -1)
    colours = colour_segmentation(ids)[0, 0]
    assert colours[0].tolist() == GREY
    assert len(colours.unique(dim=0)) == 41
    few = colour_segmentation(torch.tensor([[[3, 0]]], dtype=torch.int32))[0, 0]
    assert torch.equal(few, colours[[4, 1]])  # whatever else is in the picture


def test_png():
    sheet = contact_sheet(torch.randint(0, 256, (2, 6, 6, 3), dtype=torch.uint8), 2)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(png_bytes(sheet)))), sheet)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: contact_sheet([], 2), "pictures of one size"),
        (lambda: contact_sheet([torch.zeros(1, 4, 4), torch.zeros(1, 5, 4)], 2), "one size"),
        (lambda: contact_sheet(torch.zeros(2, 4, 4), 2, labels=["a"]), "1 labels for 2 pictures"),
        (lambda: contact_sheet(torch.zeros(2, 4, 4), 0), "at least 1"),
        (lambda: to_rgb(torch.zeros(2, 4, 4, 3)), "need RGB"),
    ],
)
def test_wrong_pictures_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_views_command(tmp_path):
    """The whole of `tutelage views`: a PNG file, and the same picture in TensorBoard's log."""
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    from tutelage.experiments.tensorboard.event_log import event_files
    from tutelage.experiments.views import ViewsConfig, views

    config = ViewsConfig(
        "reach",
        out=tmp_path / "new" / "views.png",
        n=3,
        cameras=("front",),
        modalities=("rgb", "depth"),
        size=16,
        scale=1,
        tensorboard=tmp_path / "log",
    )
    made = np.asarray(Image.open(views(config)))
    assert made.shape == (4 + 2 * (16 + 4 + LABEL_SIZE + MARGIN), 4 + 3 * (16 + 4), 3)
    values = [
        value
        for path in event_files(tmp_path / "log")
        for event in EventFileLoader(str(path)).Load()
        for value in event.summary.value
    ]
    assert [value.tag for value in values] == ["views/reach"]
    # The loader turns images into tensors: width, height, and the file.
    shown = Image.open(io.BytesIO(values[0].tensor.string_val[2]))
    assert np.array_equal(np.asarray(shown), made)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task": "reech"}, "did you mean 'reach'"),
        ({"cameras": ("frnt",)}, "did you mean 'front'"),
        ({"modalities": ()}, "no modality is left"),
        ({"n": 0}, "n must be"),
        ({"steps": -1}, "steps must not be negative"),
        ({"device": "gpu"}, "--device must be cpu, cuda"),
        ({"device": "meta"}, "--device must be cpu, cuda"),
    ],
)
def test_views_refuses(tmp_path, options, message):
    from tutelage.experiments.views import ViewsConfig, views

    with pytest.raises(ValueError, match=message):
        views(ViewsConfig(**{"task": "reach", "out": tmp_path / "views.png", **options}))
    assert not (tmp_path / "views.png").exists()


def test_views_that_cannot_be_written(tmp_path, monkeypatch):
    from pathlib import Path

    from tutelage.experiments.views import ViewsConfig, views

    config = {"task": "reach", "n": 1, "cameras": ("front",), "modalities": ("depth",), "size": 8}
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"cannot make the folder .*file.*another file by --out") as caught:
        views(ViewsConfig(**config, out=tmp_path / "file" / "views.png"))
    assert "\n" not in str(caught.value)
    with pytest.raises(OSError, match=r"is a folder; give a file by --out, as .*views.png"):
        views(ViewsConfig(**config, out=tmp_path))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match=r"cannot write .*No space left on device.*another file by --out"):
        views(ViewsConfig(**config, out=tmp_path / "views.png"))
