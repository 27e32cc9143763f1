"""What `detkit demo` finds: drawn file by file, kept for the JSON files and the table at the end."""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from torch import Tensor

from detkit.cli.demo_files import IMAGES, PREDICTIONS, json_of
from detkit.cli.output import say
from detkit.cli.thresholds import above
from detkit.data.pictures import has_more, read_picture
from detkit.evaluation.coco import detection_rows
from detkit.files import write_atomically, write_json
from detkit.types import Detect, Detection, Picture
from detkit.video import VideoReader, write_video
from detkit.visualize import draw_detections, write_picture


class Findings:
    """Detects with `detect`, draws and keeps what reaches the threshold, one for all or one for each label (K,).

    `unread`: what was wrong with files.
    """

    def __init__(
        self, detect: Detect, classes: Sequence[str], category_ids: Sequence[int | None], threshold: float | Tensor
    ) -> None:
        self.detect, self.classes, self.category_ids, self.threshold = detect, classes, category_ids, threshold
        self.images: list[dict[str, Any]] = []
        self.rows: list[dict[str, Any]] = []
        self.unread: list[str] = []
        self._counts = Counter[str]()
        self._videos = self._frames = 0
        self._notes: dict[str, None] = {}

    def look_at_picture(self, number: int, file: Path, target: Path) -> None:
        """Detect on a picture file, which gets the id `number`, and draw to `target`."""
        try:
            picture = read_picture(file)
        except ValueError as error:
            self.unread.append(str(error))
            return
        if has_more(file):
            self._notes[f"note: {file} has several pictures, of which the first was taken; as a video all are"] = None
        detection = self._found(picture)
        write_picture(target, draw_detections(picture, detection, self.classes))
        self.images.append(
            {"id": number, "file_name": str(file), "height": picture.shape[0], "width": picture.shape[1]}
        )
        self.rows += detection_rows([detection], [number], self.category_ids)

    def look_at_video(self, file: Path, target: Path, advance: Callable[[], None]) -> None:
        """Detect on each frame of a video, draw to `target`, and write the detections beside it."""
        try:
            self._draw_video(file, target, advance)
        except ValueError as error:
            self.unread.append(str(error))

    def _draw_video(self, file: Path, target: Path, advance: Callable[[], None]) -> None:
        frames = []
        with VideoReader(file) as video, write_video(target, video.rate, video.height, video.width) as write:
            for number, (picture, seconds) in enumerate(video):
                detection = self._found(picture)
                write(draw_detections(picture, detection, self.classes))
                frames.append(self._frame(number, seconds, detection))
                advance()
        head = {"file_name": str(file), "height": video.height, "width": video.width, "frame_rate": video.rate}
        write_atomically(json_of(target), _frames_as_json(head, frames))
        self._videos, self._frames = self._videos + 1, self._frames + len(frames)
        self._note(video)

    def write(self, output: Path) -> None:
        """Write predictions.json and images.json of the pictures, where there were some."""
        if self.images or not (self._videos or self.unread):
            write_json(output / PREDICTIONS, self.rows)
            write_json(output / IMAGES, self.images)

    def check(self, files: int) -> None:
        """Raise ValueError that names what could not be read of so many files."""
        if self.unread:
            raise ValueError(f"{len(self.unread)} of {files} files could not be read: {'; '.join(self.unread)}")

    def print(self, console: Console, output: Path) -> None:
        """Print how many objects of each class were found, and what the drawn videos lack."""
        looked_at = [_count(len(self.images), "picture")] if self.images or not self._videos else []
        looked_at += [f"{_count(self._frames, 'frame')} of {_count(self._videos, 'video')}"] if self._videos else []
        say(console, f"{' and '.join(looked_at)} in {output}")
        table = Table("class", "found")
        for name, count in self._counts.most_common():
            table.add_row(escape(name), str(count))
        console.print(table)
        for note in self._notes:
            say(console, note)

    def _found(self, picture: Picture) -> Detection:
        (detection,) = self.detect([picture])
        detection = above(detection, self.threshold)
        self._counts.update(self.classes[label] for label in detection["labels"].tolist())
        return detection

    def _frame(self, number: int, seconds: float, detection: Detection) -> dict[str, Any]:
        rows = detection_rows([detection], [number], self.category_ids)
        found = [{key: value for key, value in row.items() if key != "image_id"} for row in rows]
        return {"frame": number, "seconds": round(seconds, 3), "detections": found}

    def _note(self, video: VideoReader) -> None:
        self._notes["note: drawn videos have no sound"] = None
        if not video.states_rate:
            self._notes[f"note: {video.path} states no frame rate; {video.rate:g} frames a second were taken"] = None
        if video.height % 2 or video.width % 2:
            self._notes[
                f"note: {video.path} is {video.width} x {video.height} px; the drawn video has even sides, by a row or "
                "column more"
            ] = None
        if video.cut_short:
            self.unread.append(f"{video.cut_short}; what is before that is drawn")


def _frames_as_json(head: dict[str, Any], frames: Sequence[dict[str, Any]]) -> str:
    """An object with a frame a line, as videos have many."""
    lines = ",\n".join(json.dumps(frame) for frame in frames)
    return json.dumps(head, ensure_ascii=False)[:-1] + f', "frames": [\n{lines}\n]}}\n'


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
