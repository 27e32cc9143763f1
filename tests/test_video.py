"""Videos: what is written is what was drawn, and every kind of broken file is one clear message."""

import json
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from detkit.types import Picture
from detkit.video import VideoReader, write_video
from tests.conftest import Outcome

Command = Callable[..., Outcome]

ROOT = Path(__file__).resolve().parents[1]


def frame(number: int, height: int, width: int) -> Picture:
    """Grey, brighter with each frame, with a red square that moves."""
    picture = np.full((height, width, 3), 40 + 5 * (number % 40), np.uint8)
    picture[8:24, 2 * number % 40 : 2 * number % 40 + 16] = (220, 20, 20)
    return picture


def make_video(path: Path, frames: int = 12, height: int = 48, width: int = 64, codec: str = "mp4v") -> Path:
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*codec), 10, (width, height))
    for number in range(frames):
        writer.write(np.ascontiguousarray(frame(number, height, width)[..., ::-1]))
    writer.release()
    return path


@pytest.mark.parametrize(("height", "width"), [(48, 64), (47, 63), (26, 41)])
def test_written_frames_come_back(height: int, width: int, tmp_path: Path) -> None:
    path = tmp_path / "with spaces and ü.webm"
    with write_video(path, 12.5, height, width) as write:
        for number in range(9):
            write(frame(number, height, width))
    with VideoReader(path) as video:
        assert (video.rate, video.states_rate, video.frames) == (12.5, True, 9)
        assert (video.height, video.width) == (height + height % 2, width + width % 2)
        shown = list(video)
        assert not video.cut_short
    assert [seconds for _, seconds in shown] == pytest.approx([number / 12.5 for number in range(9)], abs=2e-3)
    for number, (picture, _) in enumerate(shown):
        error = np.abs(picture[:height, :width].astype(int) - frame(number, height, width)).mean()
        assert error < 8, f"frame {number}"  # far less than between neighbours with colours swapped
    assert [item.name for item in tmp_path.iterdir()] == [path.name]


def test_an_exception_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), write_video(tmp_path / "a.webm", 10, 48, 64) as write:
        write(frame(0, 48, 64))
        assert list(tmp_path.iterdir())
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())


def test_what_was_there_stays_until_the_video_is_complete(tmp_path: Path) -> None:
    (tmp_path / "a.webm").write_text("before")
    with write_video(tmp_path / "a.webm", 10, 48, 64) as write:
        write(frame(0, 48, 64))
        assert (tmp_path / "a.webm").read_text() == "before"
    with VideoReader(tmp_path / "a.webm") as video:
        assert len(list(video)) == 1


def test_a_full_disk_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    noise = np.random.default_rng(0)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        with pytest.raises(OSError, match="full"), write_video(tmp_path / "a.webm", 25, 128, 128) as write:
            for _ in range(40):
                write(noise.integers(0, 256, (128, 128, 3), dtype=np.uint8))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(tmp_path.iterdir())


def test_no_folder_and_no_size_to_write(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), write_video(tmp_path / "none/a.webm", 10, 48, 64):
        pass
    for height, width in ((2, 64), (48, 100_000)):
        with (
            pytest.raises(ValueError, match=f"{width} x {height} px"),
            write_video(tmp_path / "a.webm", 10, height, width),
        ):
            pass
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", [b"", b"not a video", b"#EXTM3U\n#EXTINF:1,\n/etc/hosts\n"])
def test_no_video(content: bytes, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.mp4").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.mp4: it "):
        VideoReader(tmp_path / "a.mp4")
    with pytest.raises(ValueError, match=r"no video .*b\.mp4"):
        VideoReader(tmp_path / "b.mp4")
    assert capfd.readouterr().err == ""  # FFmpeg's own words


def test_a_video_without_frames(tmp_path: Path) -> None:
    make_video(tmp_path / "a.avi", frames=0, codec="MJPG")
    assert (tmp_path / "a.avi").stat().st_size > 1000
    with pytest.raises(ValueError, match="no frames"):
        VideoReader(tmp_path / "a.avi")


def test_a_truncated_video_says_where_it_ends(tmp_path: Path) -> None:
    whole = make_video(tmp_path / "a.avi", frames=40, codec="MJPG").read_bytes()
    (tmp_path / "a.avi").write_bytes(whole[: len(whole) // 2])
    with VideoReader(tmp_path / "a.avi") as video:
        count = len(list(video))
        assert 5 < count < 30
        assert f"ends at {count / 10:.1f} of 4.0 seconds" in video.cut_short
    mp4 = make_video(tmp_path / "a.mp4", frames=40).read_bytes()
    (tmp_path / "a.mp4").write_bytes(mp4[: len(mp4) // 2])  # its table is at the end
    with pytest.raises(ValueError, match="cut off"):
        VideoReader(tmp_path / "a.mp4")


def test_a_video_of_a_phone_held_upright_is_turned(tmp_path: Path) -> None:
    """The track header's matrix (ISO/IEC 14496-12, 8.3.2) turns the picture by 90 degrees clockwise."""
    content = make_video(tmp_path / "a.mp4", frames=2).read_bytes()
    one, minus = bytes.fromhex("00010000"), bytes.fromhex("ffff0000")
    rest = bytes(12) + bytes.fromhex("40000000")
    upright, turned = one + bytes(12) + one + rest, bytes(4) + one + bytes(4) + minus + bytes(4) + rest
    at = content.index(upright, content.index(b"tkhd"))
    (tmp_path / "a.mp4").write_bytes(content[:at] + turned + content[at + len(turned) :])
    with VideoReader(tmp_path / "a.mp4") as video:
        assert (video.height, video.width) == (64, 48)
        picture, _ = next(iter(video))
    red = picture.astype(int)[..., 0] - picture[..., 1]
    assert red[:16, 24:40].mean() > 100 > 20 > red[32:, :].mean()  # y 8..24 from the top is x 24..40 now


def test_no_frame_rate(tmp_path: Path) -> None:
    """A still picture in Matroska, without the time that each frame lasts: OpenCV says 1000 a second."""
    content = make_video(tmp_path / "a.mkv", frames=1, codec="MJPG").read_bytes()
    duration = content.index(bytes.fromhex("23e38384"))  # DefaultDuration of four bytes, after RFC 9559
    void = bytes.fromhex("ec86") + bytes(6)
    (tmp_path / "a.mkv").write_bytes(content[:duration] + void + content[duration + 8 :])
    with VideoReader(tmp_path / "a.mkv") as video:
        assert (video.rate, video.states_rate, video.frames) == (25.0, False, None)
        assert len(list(video)) == 1
        assert not video.cut_short


def test_the_demo_takes_videos_and_pictures(trained: Path, shapes: Path, tmp_path: Path, command: Command) -> None:
    folder = tmp_path / "clips"
    (folder / "deep").mkdir(parents=True)
    make_video(folder / "a.mp4", frames=3)
    odd = [Image.fromarray(frame(number, 33, 45)) for number in range(2)]  # OpenCV writes even sizes alone
    odd[0].save(folder / "deep/a.MOV", "gif", save_all=True, append_images=odd[1:], duration=100)
    out = tmp_path / "out"
    picture = shapes / "val2017/000001.png"
    done = command("demo", trained / "last.pth", folder, picture, "--output", out, "--score", "0.01")
    assert done.status == 0, done.err
    assert f"1 picture and 5 frames of 2 videos in {out}" in done.out
    assert "no sound" in done.out and "45 x 33" in done.out
    names = {"a.webm", "a.webm.json", "a-2.webm", "a-2.webm.json", "000001.png", "predictions.json", "images.json"}
    assert {path.name for path in out.iterdir()} == names
    content = json.loads((out / "a.webm.json").read_text())
    assert (content["height"], content["width"], content["frame_rate"]) == (48, 64, 10)
    assert [(row["frame"], row["seconds"]) for row in content["frames"]] == [(0, 0.0), (1, 0.1), (2, 0.2)]
    found = [row for item in content["frames"] for row in item["detections"]]
    assert found and all(set(row) == {"category_id", "bbox", "score"} and row["score"] >= 0.01 for row in found)
    with VideoReader(out / "a.webm") as video:
        assert (video.rate, video.frames, video.height, video.width) == (10, 3, 48, 64)
    assert command("demo", trained / "last.pth", folder, "--output", out).status == 2  # nothing is overwritten


def test_broken_videos_are_named_and_the_others_drawn(trained: Path, tmp_path: Path, command: Command) -> None:
    make_video(tmp_path / "good.mp4", frames=2)
    whole = make_video(tmp_path / "half.avi", frames=20, codec="MJPG").read_bytes()
    (tmp_path / "half.avi").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.mp4").write_text("not a video")
    done = command("demo", trained / "last.pth", tmp_path, "--output", tmp_path / "out")
    assert done.status == 2
    assert "2 of 3 files" in done.err and "text.mp4" in done.err and "half.avi ends at" in done.err
    drawn = {path.name for path in (tmp_path / "out").iterdir()}
    assert drawn == {"good.webm", "good.webm.json", "half.webm", "half.webm.json"}


def test_a_stopped_demo_leaves_no_half_video(trained: Path, tmp_path: Path) -> None:
    clip, out = make_video(tmp_path / "a.mp4", frames=2000), tmp_path / "out"
    command = [sys.executable, str(ROOT / "tools/demo.py"), str(trained / "last.pth"), str(clip), "--output", str(out)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 100
        while not (out.exists() and list(out.iterdir())) and process.poll() is None:
            assert time.monotonic() < deadline, "no video was begun"
            time.sleep(0.05)
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert not list(out.iterdir())
