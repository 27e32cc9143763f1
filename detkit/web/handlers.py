"""What the components of the page call, and the updates that they get back."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from detkit.predict import Detector
from detkit.types import Detect
from detkit.web import words
from detkit.web.examples import Example
from detkit.web.reading import MAX_PICTURES, read_file
from detkit.web.session import Choice, Session

Updates = list[Any]  # in the order of the outputs in layout.py


class Handlers:
    """A visitor's session and the number of the picture in view travel with each call; nothing of it is kept here.

    `detect` is what runs on pictures: the detector itself, or its closer look (slices, augmentation).
    """

    def __init__(self, detector: Detector, detect: Detect, examples: Sequence[Example], folder: Path) -> None:
        self.detector, self.detect, self.examples, self.folder = detector, detect, examples, folder
        known = [label for label, number in enumerate(detector.category_ids) if number is not None]
        self.labels = {detector.classes[label]: label for label in known}

    def from_files(
        self,
        paths: list[str] | None,
        session: Session | None,
        score: float,
        classes: list[str],
        progress: gr.Progress = gr.Progress(),  # noqa: B008 (how gradio is asked for a bar)
    ) -> Updates:
        """Detect on uploaded files, and empty the place where they were dropped: it is free for the next."""
        files = [Path(path) for path in paths or []]
        over = [f"{file.name}: {MAX_PICTURES} files are taken at once" for file in files[MAX_PICTURES:]]
        taken = progress.tqdm(files[:MAX_PICTURES], desc="detecting", unit="pictures")
        pictures = ((read_file(file), file.name) for file in taken)
        return [*self._detect(pictures, over, session, score, classes), None]

    def from_camera(self, path: str | None, session: Session | None, score: float, classes: list[str]) -> Updates:
        """Detect on a picture that the camera took."""
        pictures = [] if path is None else [(read_file(Path(path)), "camera")]
        return self._detect(pictures, [], session, score, classes)

    def from_example(self, event: gr.SelectData, session: Session | None, score: float, classes: list[str]) -> Updates:
        """Detect on an example."""
        example = self.examples[int(event.index)]
        return self._detect([(example.data, example.name)], [], session, score, classes)

    def _detect(
        self,
        pictures: Iterable[tuple[bytes, str]],
        over: Sequence[str],
        before: Session | None,
        score: float,
        classes: list[str],
    ) -> Updates:
        """A session in place of the one before, whose first picture is in view."""
        session = Session.open(self.folder)
        try:
            for data, name in pictures:
                session.add(self.detect, data, name)
        except BaseException:
            session.close()
            raise
        if before is not None:
            before.close()
        thumbnails = [found.thumbnail for found in session.found]
        shown = gr.Gallery(thumbnails, visible=len(thumbnails) > 1, selected_index=0 if thumbnails else None)
        return [session, 0, words.refusals([*session.refused, *over]), shown, *self.show(session, 0, score, classes)]

    def turn_to(self, event: gr.SelectData, session: Session, score: float, classes: list[str]) -> Updates:
        """Another picture of the session."""
        return [int(event.index), *self.show(session, int(event.index), score, classes)]

    def show(self, session: Session | None, number: int, score: float, classes: list[str]) -> Updates:
        """The drawn picture, what is on it, and the downloads; the model does not run."""
        if session is None or not session.found:
            return [None, "", *self._downloads()]
        found, choice = session.found[number], Choice(score, frozenset(self.labels[name] for name in classes))
        view = session.show(number, choice, self.detector)
        drawn = gr.Image(str(view.drawn), label=found.name)
        several = len(session.found) > 1
        return [drawn, words.summary(found, choice, self.detector), *self._downloads(*view[: 3 if several else 2])]

    def _downloads(self, *files: Path) -> Iterator[gr.DownloadButton]:
        for file in files:
            yield gr.DownloadButton(value=str(file), visible=True)
        for _ in range(3 - len(files)):
            yield gr.DownloadButton(value=None, visible=False)
