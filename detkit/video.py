"""Videos: frames in, drawn frames out, by the FFmpeg that comes with OpenCV.

Written is VP8 in WebM. OpenCV's wheels carry no encoder for H.264, HEVC or AV1; of those that they carry, browsers
play VP8 and VP9 alone (not MPEG-4 or Motion JPEG), players such as VLC and mpv play all, and VP8 is written five times
as fast as VP9 at the same quality. OpenCV neither reads nor writes sound.
"""

import errno
import math
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

import cv2
import numpy as np

from detkit.files import replacing
from detkit.types import Picture

SUFFIXES = frozenset(
    {".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".flv", ".3gp", ".ogv", ".mts", ".m2ts"}
)
WRITTEN = ".webm"
CODEC = "VP80"
SMALLEST = 8  # px a side; of smaller frames OpenCV writes none, without a word
USUAL_RATE = 25.0  # frames a second, of files that state none
CLOCK = 1000  # what OpenCV gives as the rate of a file that has none: the ticks of its clock
TOLERANCE = 0.5  # seconds by which a file may end before its stated length, as sound may last longer than the picture


class VideoReader:
    """The frames of a video file, once, each as an RGB picture, turned as the file's metadata say.

        with VideoReader(path) as video:
            for picture, seconds in video: ...

    `height`, `width`: of the frames. `rate`: frames a second, `states_rate`: whether the file says so. `frames`: how
    many the file states, None where it does not. Raises ValueError, naming the file, when no frame can be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.is_file():
            raise ValueError(f"there is no video {path}")
        with _quiet():
            # Absolute, so that no name is taken for a protocol such as concat: or for a pattern.
            self._capture = cv2.VideoCapture(str(path.absolute()), cv2.CAP_FFMPEG)
            self._next = self._read() if self._capture.isOpened() else None
        if self._next is None:
            self._capture.release()
            raise ValueError(f"cannot read the video {path}: {self._fault()}")
        self.height, self.width = self._next[0].shape[:2]
        stated = self._capture.get(cv2.CAP_PROP_FPS)
        self.states_rate = math.isfinite(stated) and 0 < stated < CLOCK
        self.rate = stated if self.states_rate else USUAL_RATE
        count = self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        self.frames = round(count) if self.states_rate and math.isfinite(count) and count > 0 else None
        self._end = 0.0

    def __enter__(self) -> "VideoReader":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._capture.release()

    def __iter__(self) -> Iterator[tuple[Picture, float]]:
        """Each frame, and the second at which it is shown."""
        while self._next is not None:
            picture, seconds = self._next
            yield picture, seconds
            self._end = seconds + 1 / self.rate
            with _quiet():
                self._next = self._read()

    @property
    def cut_short(self) -> str:
        """After the last frame: what is missing, '' where nothing is."""
        stated = (self.frames or 0) / self.rate
        if self._end + TOLERANCE >= stated:
            return ""
        return f"{self.path} ends at {self._end:.1f} of {stated:.1f} seconds: it is cut off or damaged"

    def _read(self) -> tuple[Picture, float] | None:
        found, frame = self._capture.read()
        if not found:
            return None
        seconds = self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
        return cv2.cvtColor(frame, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False), seconds

    def _fault(self) -> str:
        if self.path.stat().st_size == 0:
            return "it is an empty file"
        return "it has no frames, is damaged or cut off, or its codec is not known"


def count_frames(path: Path) -> int:
    """How many frames a video file states; 0 where it does not, or cannot be read."""
    try:
        with VideoReader(path) as video:
            return video.frames or 0
    except ValueError:
        return 0


@contextmanager
def write_video(path: Path, rate: float, height: int, width: int) -> Iterator[Callable[[Picture], None]]:
    """Context with a function that appends a frame (height, width, 3) to the WebM file `path`: whole or not at all.

    The encoder takes even sizes alone: an odd side gets one row or column more, a copy of the last. Raises ValueError
    where OpenCV cannot write such a video, OSError where not all of it reached the disk.
    """
    temporary = path.with_name(f".{path.stem}.tmp{path.suffix}")
    size = width + width % 2, height + height % 2
    with replacing(path, temporary):
        with _quiet():
            writer = cv2.VideoWriter(
                str(temporary.absolute()), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*CODEC), rate, size
            )
        if not writer.isOpened() or min(size) < SMALLEST:
            raise ValueError(
                f"cannot write {path}: OpenCV has no encoder for {width} x {height} px at {rate:g} frames/s"
            )
        frames = 0

        def write(picture: Picture) -> None:
            nonlocal frames
            bgr = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
            writer.write(cv2.copyMakeBorder(bgr, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE))
            frames += 1

        try:
            yield write
        finally:
            writer.release()
        _check_complete(temporary, path, frames)


def _check_complete(written: Path, path: Path, frames: int) -> None:
    """OpenCV does not say when a disk is full, and the head of the file states all frames even then."""
    with _quiet():
        capture = cv2.VideoCapture(str(written.absolute()), cv2.CAP_FFMPEG)
        found = 0
        while capture.grab():
            found += 1
        capture.release()
    if found != frames:
        raise OSError(errno.EIO, f"{found} of {frames} frames reached the disk; is it full?", str(path))


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what OpenCV and FFmpeg print about a file off the terminal: errors are told by us, once."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
