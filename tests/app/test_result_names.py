"""Names in a zip of results: after the files that were sent, safe to unpack, each only once."""

import io
import zipfile
from pathlib import PurePosixPath, PureWindowsPath

import pytest
from hypothesis import given
from hypothesis.strategies import binary, lists, sampled_from, text, tuples

from app.api.result_names import result_names
from app.api.zip_stream import stream_zip
from app.core.tables import Operation

FORMATS = ("png", "webp", "jpeg", "tiff")


def images(*files: tuple[str, str]) -> list[Operation]:
    return [Operation(file_name=name, options={"output": output}) for name, output in files]


@pytest.mark.parametrize(
    ("sent", "output", "name"),
    [
        ("photo.png", "png", "photo.png"),
        ("photo.PNG", "jpeg", "photo.jpg"),
        ("roll 1/a.b.tif", "tiff", "roll 1/a.b.tif"),
        ("photo", "webp", "photo.webp"),
        ("IMG 2024.01.02", "png", "IMG 2024.01.02.png"),
        ("IMG 2024.01.02.TIFF", "png", "IMG 2024.01.02.png"),
        ("v1.5/photo", "png", "v1.5/photo.png"),
        ("../../etc/passwd.png", "png", "etc/passwd.png"),
        ("/root.png", "png", "root.png"),
        ("C:\\photos\\ä?.jpg", "jpeg", "C_/photos/ä_.jpg"),
        ("nul.png", "png", "_nul.png"),
        ("..", "png", "image.png"),
        ("", "png", "image.png"),
    ],
)
def test_a_result_is_named_after_its_file(sent: str, output: str, name: str) -> None:
    assert result_names(images((sent, output))) == [name]


def test_equal_names_are_told_apart() -> None:
    files = images(("a.png", "png"), ("A.jpg", "png"), ("a-2.png", "png"), ("a.tif", "tiff"), ("x/a.png", "png"))
    assert result_names(files) == ["a.png", "A-2.png", "a-2-2.png", "a.tif", "x/a.png"]
    dotted = images(("a.01", "png"), ("a.01.bmp", "png"), ("a.02", "png"))
    assert result_names(dotted) == ["a.01.png", "a.01-2.png", "a.02.png"]


NAMES = text() | lists(sampled_from(["a", "A", "..", ".", "/", "\\", ":", ".png", ".01", "con", " ", "\0"])).map(
    "".join
)


@given(lists(tuples(NAMES, sampled_from(FORMATS)), max_size=12))
def test_names_are_unique_and_stay_inside_wherever_they_are_unpacked(files: list[tuple[str, str]]) -> None:
    names = result_names(images(*files))
    assert len({name.casefold() for name in names}) == len(files)
    for name in names:
        assert not PurePosixPath(name).is_absolute()
        assert not PureWindowsPath(name).drive
        assert "con.png" not in {part.casefold() for part in PurePosixPath(name).parts}
        assert ".." not in PureWindowsPath(name).parts


@given(lists(binary(max_size=200), max_size=5))
def test_a_streamed_zip_holds_what_was_put_in(contents: list[bytes]) -> None:
    stream = stream_zip((f"folder/{number}.png", io.BytesIO(content)) for number, content in enumerate(contents))
    with zipfile.ZipFile(io.BytesIO(b"".join(stream))) as zipped:
        assert zipped.testzip() is None
        assert [zipped.read(entry) for entry in zipped.infolist()] == contents


def test_a_large_file_passes_in_small_pieces() -> None:
    pieces = list(stream_zip([("a.tif", io.BytesIO(bytes(5 << 20)))]))
    assert max(map(len, pieces)) < (1 << 20) + 100
