"""Pairs on disk, and where the service is."""

import json
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from app.api.schemas.wire import NAME_PATTERN
from drtl_client import Client, errors, find_service, model_name, pairs_in
from drtl_client.pairs import as_parts


def make_pairs(folder: Path, clean: list[str], distorted: list[str]) -> Path:
    for kind, names in (("clean", clean), ("distorted", distorted)):
        (folder / kind).mkdir(parents=True)
        for name in names:
            Image.new("RGB", (80, 72), (90, 120, 60)).save(folder / kind / name, "PNG")  # Formats are told by content.
    return folder


def test_pairs_are_matched_by_stem_whatever_the_suffix(tmp_path: Path) -> None:
    pairs = pairs_in(make_pairs(tmp_path, ["b.png", "a.png"], ["a.jpg", "b.JPG"]))
    assert [(pair.name, pair.clean.name, pair.distorted.name) for pair in pairs] == [
        ("a", "a.png", "a.jpg"),
        ("b", "b.png", "b.JPG"),
    ]


def test_names_that_suffixes_put_in_another_order_still_find_their_partner(tmp_path: Path) -> None:
    pairs = pairs_in(make_pairs(tmp_path, ["a.jpg", "a.k.png"], ["a.png", "a.k.png"]))
    assert {(pair.name, pair.clean.name, pair.distorted.name) for pair in pairs} == {
        ("a", "a.jpg", "a.png"),
        ("a.k", "a.k.png", "a.k.png"),
    }


def test_pairs_without_a_common_name_are_matched_by_order_and_sent_under_one(tmp_path: Path) -> None:
    folder = make_pairs(tmp_path, ["gt1.png", "gt2.png"], ["lr1.jpg", "lr2.jpg"])
    assert [(pair.clean.stem, pair.distorted.stem) for pair in pairs_in(folder)] == [("gt1", "lr1"), ("gt2", "lr2")]
    names = [(part.field, part.name) for part in as_parts(folder)]
    assert names == [("clean", "gt1.png"), ("distorted", "gt1.jpg"), ("clean", "gt2.png"), ("distorted", "gt2.jpg")]


def test_files_of_the_same_name_in_different_folders_stay_apart(tmp_path: Path) -> None:
    pairs = [(tmp_path / scene / "clean.png", tmp_path / scene / "phone.png") for scene in ("a", "b")]
    assert [part.name for part in as_parts(pairs)] == ["001.png", "001.png", "002.png", "002.png"]


@pytest.mark.parametrize(
    ("clean", "distorted", "complaint"),
    [
        (["a.png", "b.png"], ["a.png"], "without a partner: b"),
        (["a.png", "b.png"], ["a.png", "c.png"], "without a partner: b, c"),
        (["a.png"], ["notes.txt"], "has no images"),
        (["a.png"], ["a.HEIC"], r"distorted: a.HEIC: not a format that the service reads"),
        (["a.png", "b.nef"], ["a.png", "b.nef"], r"clean: b.nef: not a format"),
        (["a.bmp", "a.png", "b.png"], ["a.png", "b.png"], "clean: more than one image is named a$"),
        (["a.png", "b.png"], ["a.jpg", "b.jpg", "b.png"], "distorted: more than one image is named b$"),
        (["a.bmp", "a.png"], ["a.jpg", "a.png"], "clean: more than one image is named a$"),
        (["x.bmp", "x.png"], ["a.png", "b.png"], "clean: more than one image is named x$"),
    ],
)
def test_files_without_a_partner_are_named(
    tmp_path: Path, clean: list[str], distorted: list[str], complaint: str
) -> None:
    with pytest.raises(errors.BadFolder, match=complaint):
        pairs_in(make_pairs(tmp_path, clean, distorted))


def test_what_images_were_made_from_may_lie_beside_them(tmp_path: Path) -> None:
    folder = make_pairs(tmp_path, ["a.png", "a.nef"], ["a.png", "a.HEIC"])
    assert [pair.name for pair in pairs_in(folder)] == ["a"]


def test_hidden_files_are_no_images(tmp_path: Path) -> None:
    folder = make_pairs(tmp_path, ["001.png", "._001.png", ".raw.nef"], ["001.png", "._001.png", "._002.jpg"])
    assert [pair.name for pair in pairs_in(folder)] == ["001"]
    assert [part.name for part in as_parts(folder)] == ["001.png", "001.png"]


def test_a_folder_without_pairs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(errors.BadFolder, match="has no folder named clean"):
        pairs_in(tmp_path)


def test_a_folder_that_is_none_is_told_by_its_own_name(tmp_path: Path) -> None:
    with pytest.raises(errors.NoFolder, match=f"^there is no folder {tmp_path}/nowhere$"):
        pairs_in(tmp_path / "nowhere")
    (tmp_path / "file").write_text("")
    with pytest.raises(errors.NoFolder, match=f"^{tmp_path}/file is not a folder$"):
        pairs_in(tmp_path / "file")


def test_folders_may_be_capitalised_where_that_leaves_one(tmp_path: Path) -> None:
    folder = make_pairs(tmp_path, ["a.png"], ["a.png"])
    (folder / "clean").rename(folder / "Clean")
    (folder / "distorted").rename(folder / "DISTORTED")
    (folder / "Distorted").write_text("no folder")
    (pair,) = pairs_in(folder)
    assert (pair.clean, pair.distorted) == (folder / "Clean/a.png", folder / "DISTORTED/a.png")
    (folder / "CLEAN").mkdir()
    with pytest.raises(errors.BadFolder, match=r"has CLEAN and Clean; name one of them clean$"):
        pairs_in(folder)
    (folder / "CLEAN").rename(folder / "clean")
    with pytest.raises(errors.BadFolder, match="clean has no images"):  # By its exact name it is the one.
        pairs_in(folder)


def test_a_pair_of_three_is_refused() -> None:
    with pytest.raises(errors.BadFolder, match="a clean and a distorted"):
        as_parts([(b"1", b"2", b"3")])  # type: ignore[list-item]  # Three, on purpose.


@settings(deadline=None)
@given(st.text(alphabet=st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), max_size=90))
def test_every_folder_gives_a_name_that_the_service_accepts(name: str) -> None:
    assert re.fullmatch(NAME_PATTERN, model_name(Path("/pairs") / name))


@pytest.mark.parametrize("suffix", [".zip", ".ZIP", ".Zip", ""])
def test_a_zip_gives_its_name_without_the_suffix(suffix: str) -> None:
    assert model_name(f"/pairs/Old Scanner{suffix}") == "old-scanner"


def test_the_argument_beats_the_variable_beats_the_running_service(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DRTL_DATA_DIR", str(tmp_path))
    monkeypatch.delenv("DRTL_URL", raising=False)
    with pytest.raises(errors.NoService, match="no service runs"):
        find_service(None)
    (tmp_path / "service.json").write_text(json.dumps({"url": "http://announced:1"}))
    assert find_service(None) == "http://announced:1"
    monkeypatch.setenv("DRTL_URL", "http://variable:2/")
    assert find_service(None) == "http://variable:2"
    assert find_service("http://argument:3") == "http://argument:3"


@pytest.mark.parametrize(
    "given", ["foo", "localhost:8000", "ftp://service", "http://", "https:///v1", "http://a:b", "/v1"]
)
def test_an_address_without_a_scheme_or_a_host_is_named_as_none(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(errors.BadAddress, match=re.escape(repr(given))):
        Client(given)
    monkeypatch.setenv("DRTL_URL", given)
    with pytest.raises(errors.BadAddress, match=re.escape(repr(given))):
        find_service()
