"""The event log of a run, for TensorBoard.

Events are written here directly, record by record, instead of through torch's `SummaryWriter`, because
runs are killed and resumed:

- every file opens with a session start that tells TensorBoard which steps are void. Its Python loader
  ignores the *first* session start that it meets, so a file without one makes the next resumption's purge
  come to nothing, and the curve splits;
- file names are numbered so that loaders read them in the order in which they were made. The usual names
  (second, host, process) are in no order when a run resumes within a second or on another machine;
- a full disk shows itself once, in the call that wrote, and the file ends with a whole record.
"""

from __future__ import annotations

import io
import re
import struct
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import google_crc32c
import numpy as np
from numpy.typing import NDArray

_BUFFER_BYTES = 1 << 20


class Band(NamedTuple):
    """A chart of one tag with its interval, which is logged as ``<tag>/lower`` and ``<tag>/upper``."""

    tag: str


Layout = Mapping[str, Mapping[str, Sequence[str] | Band]]
"""Custom-scalar layout: category -> chart title -> regular expressions of tags (one line each), or a band."""


def masked_crc32c(data: bytes) -> int:
    """The checksum of event files: CRC-32C, rotated and shifted so that data may hold checksums."""
    crc = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def event_files(folder: Path) -> list[Path]:
    """Event files in the order in which loaders read them."""
    return sorted(path for path in folder.glob("*tfevents*") if path.is_file())


def _next_event_file(folder: Path) -> Path:
    """A name after all those in the folder; a clock that was set back does no harm."""
    numbers = [
        int(m[1]) for path in event_files(folder) if (m := re.search(r"tfevents\.(\d{10})\.", path.name))
    ]
    number = max([int(time.time()), *(n + 1 for n in numbers)])
    return folder / f"events.out.tfevents.{number:010d}.tutelage"


class RunLog:
    """The TensorBoard log of one run; its name there is the folder's path relative to the log directory.

    Args:
        folder: the run's folder, made when it is not there. A new event file is begun in it.
        purge_step: when resuming, the first step that is void: TensorBoard drops everything logged in this
            folder at this step and later. After a checkpoint at step `s`, taken when all of step `s` was
            logged, that is ``s + 1``. None begins anew: whatever was logged here before is void.
        flush_seconds: events wait in memory at most so long, or until the next event after that.
        began: seconds since 1970 that TensorBoard takes for the start of the run, by which it orders runs
            and hands out its seven colours; None for now.

    Call `flush` before a checkpoint is put in its place: what is lost with a kill is then logged again by
    the resumed run. The first write that fails raises; the log is then closed, and later calls do nothing,
    so that whatever is saved on the way out is not disturbed.

    Steps of one tag must not go backwards within a log: TensorBoard's fast loader drops what is later.

    Raises:
        OSError: from any method that writes, once, when the disk is full or the folder not writable.

    Example:
        >>> import tempfile
        >>> log = RunLog(Path(tempfile.mkdtemp()) / "ppo" / "random" / "seed-0")
        >>> log.scalars({"evaluation/uniform/return": 1.5}, step=1000)
        >>> log.close()
    """

    def __init__(
        self,
        folder: str | Path,
        purge_step: int | None = None,
        flush_seconds: float = 10.0,
        began: float | None = None,
    ) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog, SourceMetadata

        self.folder, self.flush_seconds = Path(folder), flush_seconds
        self.folder.mkdir(parents=True, exist_ok=True)
        self.path = _next_event_file(self.folder)
        self._file: io.FileIO | None = io.FileIO(self.path, "x")
        self._buffer = bytearray()
        self._flushed = time.monotonic()
        source, began = SourceMetadata(writer="tutelage"), time.time() if began is None else began
        self._append(Event(wall_time=began, file_version="brain.Event:2", source_metadata=source))
        start = SessionLog(status=SessionLog.START)
        self._append(Event(wall_time=began, step=purge_step or 0, session_log=start))
        self.flush()

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Log numbers by tag, e.g. ``{"evaluation/uniform/return": 12.0}``; NaN and infinities are marked."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        self.summary(
            [Summary.Value(tag=tag, simple_value=float(value)) for tag, value in values.items()], step
        )

    def image(self, tag: str, image: NDArray[np.uint8], step: int) -> None:
        """Log a picture, shape ``(height, width, 3)``, uint8."""
        from PIL import Image

        stream = io.BytesIO()
        Image.fromarray(_checked_frame(image, tag)).save(stream, format="PNG")
        self._encoded_image(tag, stream.getvalue(), image.shape, step)

    def clip(self, tag: str, frames: Sequence[NDArray[np.uint8]], step: int, fps: float = 25.0) -> None:
        """Log a clip, frames ``(height, width, 3)`` of uint8, as a GIF; it plays in the Images tab."""
        from tutelage.experiments.tensorboard.clips import encode_gif

        frames = [_checked_frame(frame, tag) for frame in frames]
        self._encoded_image(tag, encode_gif(frames, fps), frames[0].shape, step)

    def text(self, tag: str, text: str, step: int = 0) -> None:
        """Log Markdown for the Text tab."""
        self.summary([_text_value(tag, "text", [text.encode()], (1,))], step)

    def hparams(self, values: Mapping[str, bool | int | float | str | None]) -> None:
        """Log this run's hyperparameters for the HParams tab; None is left out.

        Columns of results are the scalars of the run, the last value of each; for a grid,
        `tutelage.experiments.tensorboard.grid_log.GridLog.hparams` names those to show.
        """
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.plugins.hparams import metadata
        from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionStartInfo

        info = SessionStartInfo(start_time_secs=time.time())
        for name, value in values.items():
            if isinstance(value, bool | np.bool_):
                info.hparams[name].bool_value = bool(value)
            elif isinstance(value, int | float | np.number):
                info.hparams[name].number_value = float(value)
            elif value is not None:
                info.hparams[name].string_value = str(value)
        data = HParamsPluginData(session_start_info=info, version=metadata.PLUGIN_DATA_VERSION)
        described = metadata.create_summary_metadata(data)
        self.summary(
            [
                Summary.Value(
                    tag=metadata.SESSION_START_INFO_TAG, metadata=described, tensor=metadata.NULL_TENSOR
                )
            ],
            0,
        )

    def layout(self, layout: Layout, closed: Collection[str] = ()) -> None:
        """Log which charts the Custom Scalars tab shows; TensorBoard merges the layouts of all runs.

        The last one counts, of those that a run logs.

        Args:
            layout: the charts.
            closed: categories that are folded up at first.
        """
        from tensorboard.plugins.custom_scalar import layout_pb2

        message = layout_pb2.Layout()
        for category, charts in layout.items():
            box = message.category.add(title=category, closed=category in closed)
            for title, content in charts.items():
                chart = box.chart.add(title=title)
                if isinstance(content, Band):
                    tag = content.tag
                    chart.margin.series.add(value=tag, lower=f"{tag}/lower", upper=f"{tag}/upper")
                else:
                    chart.multiline.tag.extend(f"^{regex}$" for regex in content)
        value = _text_value("custom_scalars__config__", "custom_scalars", [message.SerializeToString()], ())
        self.summary([value], 0)

    def summary(self, values: Iterable[Any], step: int) -> None:
        """Log summary values in TensorBoard's own form, for plugins that have no method here."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        self._append(Event(wall_time=time.time(), step=int(step), summary=Summary(value=values)))
        if len(self._buffer) > _BUFFER_BYTES or time.monotonic() - self._flushed > self.flush_seconds:
            self.flush()

    def flush(self) -> None:
        """Write everything logged so far to the file."""
        self._flushed = time.monotonic()
        if self._file is None or not self._buffer:
            return
        whole = self._file.tell()
        rest = memoryview(bytes(self._buffer))
        self._buffer.clear()
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            file, self._file = self._file, None
            with file:
                file.truncate(whole)
            raise OSError(
                error.errno,
                f"cannot write TensorBoard events ({error.strerror}); make room or mend the folder, then "
                "give the same command again: the run resumes from its last checkpoint",
                str(self.path),
            ) from error

    def close(self) -> None:
        """Flush and close; a second call does nothing."""
        self.flush()
        if self._file is not None:
            self._file.close()
            self._file = None

    def __enter__(self) -> RunLog:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _encoded_image(self, tag: str, data: bytes, shape: tuple[int, ...], step: int) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary

        picture = Summary.Image(height=shape[0], width=shape[1], colorspace=3, encoded_image_string=data)
        self.summary([Summary.Value(tag=tag, image=picture)], step)

    def _append(self, event: Any) -> None:
        """Put one record into the buffer: length, its checksum, the event, its checksum."""
        if self._file is None:
            return
        data = event.SerializeToString()
        length = struct.pack("<Q", len(data))
        checksums = [struct.pack("<I", masked_crc32c(part)) for part in (length, data)]
        self._buffer += length + checksums[0] + data + checksums[1]


def _checked_frame(image: NDArray[np.uint8], tag: str) -> NDArray[np.uint8]:
    image = np.asarray(image)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(
            f"image {tag!r} is {image.dtype} of shape {image.shape}; need uint8 (height, width, 3)"
        )
    return image


def _text_value(tag: str, plugin: str, strings: list[bytes], shape: tuple[int, ...]) -> Any:
    """A summary value of strings, for the plugins that read those."""
    from tensorboard.compat.proto import summary_pb2, tensor_pb2, tensor_shape_pb2, types_pb2

    dims = [tensor_shape_pb2.TensorShapeProto.Dim(size=size) for size in shape]
    tensor = tensor_pb2.TensorProto(
        dtype=types_pb2.DT_STRING,
        string_val=strings,
        tensor_shape=tensor_shape_pb2.TensorShapeProto(dim=dims),
    )
    described = summary_pb2.SummaryMetadata(plugin_data={"plugin_name": plugin})
    return summary_pb2.Summary.Value(tag=tag, tensor=tensor, metadata=described)
