"""Which files `detkit demo` looks at, and where it draws them."""

import glob
from collections.abc import Iterator, Sequence
from pathlib import Path

from detkit import video
from detkit.data.pictures import SUFFIXES

PREDICTIONS, IMAGES = "predictions.json", "images.json"


def is_video(file: Path) -> bool:
    """Whether a file is to be read as a video, by its name."""
    return file.suffix.lower() in video.SUFFIXES


def json_of(drawn: Path) -> Path:
    """Where the detections of a drawn video go."""
    return drawn.with_name(f"{drawn.name}.json")


def find_files(sources: Sequence[str], output: Path) -> list[Path]:
    """The pictures and videos that files, folders (with all below) and patterns name, each once.

    What lies in the folder `output`, drawn by an earlier call, is left out unless it is named itself.
    Raises ValueError for a source without any.
    """
    found: dict[Path, None] = {}
    for source in sources:
        if not source:
            raise ValueError("one of the pictures has an empty name: is a variable of your shell not set?")
        files = [
            file for file in _expand(source) if str(file) == source or output.resolve() not in file.resolve().parents
        ]
        if not files:
            endings = ", ".join(sorted(SUFFIXES | video.SUFFIXES))
            if Path(source).is_dir():
                raise ValueError(f"the folder {source!r} has no pictures or videos; they end in {endings}")
            raise ValueError(f"no picture or video {source!r}: expected a file, a folder or a pattern of {endings}")
        found |= dict.fromkeys(files)
    if not found:
        raise ValueError("no pictures or videos given: name files, folders or patterns")
    return list(found)


def _expand(source: str) -> Iterator[Path]:
    path = Path(source)
    if path.is_file():
        yield path
        return
    candidates = path.rglob("*") if path.is_dir() else map(Path, glob.glob(source, recursive=True))  # noqa: PTH207 (it takes absolute patterns)
    yield from sorted(
        file for file in candidates if file.is_file() and file.suffix.lower() in SUFFIXES | video.SUFFIXES
    )


def target_files(files: Sequence[Path], output: Path) -> list[Path]:
    """Where each drawing goes: the file's name in `output`, numbered where names repeat.

    Raises ValueError where anything would be overwritten, or `output` cannot be a folder.
    """
    blocking = next((path for path in (output, *output.parents) if path.is_file()), None)
    if blocking is not None:
        raise ValueError(f"--output {output}: {blocking} is a file, and a folder is needed; give another name")
    taken: set[str] = set()
    targets = []
    for file in files:
        suffix = _drawn_suffix(file)
        name, number = f"{file.stem}{suffix}", 2
        while name.lower() in taken:  # some file systems do not tell A.jpg from a.jpg
            name, number = f"{file.stem}-{number}{suffix}", number + 1
        taken.add(name.lower())
        targets.append(output / name)
    results = [json_of(target) for target in targets if is_video(target)] + [output / PREDICTIONS, output / IMAGES]
    existing = [target for target in (*targets, *results) if target.exists()]
    if existing:
        raise ValueError(f"{existing[0]} exists already and is not overwritten: choose another --output folder")
    return targets


def _drawn_suffix(file: Path) -> str:
    if is_video(file):
        return video.WRITTEN
    return file.suffix.lower() if file.suffix.lower() in (".jpg", ".jpeg", ".png") else ".png"
