"""Units of work: small clips are packed, names stand for everything that moves a sample, results cross as text."""

import dataclasses
from typing import Any

import pytest

from mana_dist.data.config import SampleSettings
from mana_dist.data.degradation import BD
from mana_dist.data.manifest import Shard
from mana_dist.footage.expand import Clip
from mana_dist.ingest import units
from mana_dist.ingest.units import (
    PACK_BYTES,
    PACK_CLIPS,
    PACKS,
    VIDEO_WEIGHT,
    ClipResult,
    Unit,
    UnitResult,
    pack,
    split,
)
from mana_dist.video.strict import Segment

SETTINGS = SampleSettings()
MEGABYTE = 2**20


def video(uri: str = "s3://b/a.mp4", size: int | None = MEGABYTE) -> Clip:
    return Clip(uri=uri, files=None, bytes=size, modified=1.5, name=uri.rsplit("/", 1)[-1].removesuffix(".mp4"))


def septuplet(number: int, size: int = MEGABYTE) -> Clip:
    files = tuple(f"im{frame}.png" for frame in range(1, 8))
    return Clip(uri=f"/v/sequences/00001/{number:04}", files=files, bytes=size, modified=2.0, name=f"00001/{number:04}")


def test_septuplets_of_a_folder_share_units_of_bounded_size() -> None:
    clips = [septuplet(number) for number in range(128 * PACKS + 44)]
    packed = list(pack(clips, SETTINGS))
    assert [len(unit.clips) for unit in packed] == [128] * PACKS + [44]
    assert [clip for unit in packed for clip in unit.clips] == clips
    assert len({unit.name for unit in packed}) == PACKS + 1
    tiny = list(pack([septuplet(number, 1) for number in range(PACKS * PACK_CLIPS + 1)], SETTINGS))
    assert [len(unit.clips) for unit in tiny] == [PACK_CLIPS] * PACKS + [1]


def test_little_work_is_spread_over_many_units() -> None:
    assert [len(unit.clips) for unit in pack([video(f"/v/{n}.mp4", 9) for n in range(6)], SETTINGS)] == [1] * 6
    assert [len(unit.clips) for unit in pack([septuplet(n) for n in range(3 * PACKS)], SETTINGS)] == [3] * PACKS


def test_videos_weigh_more_than_pictures_and_never_share_a_unit_with_them() -> None:
    most = PACK_BYTES // VIDEO_WEIGHT
    large, small = [video("/v/a.mp4", most)] * PACKS, [video(f"/v/{name}.mp4", 9) for name in "bcd"]
    assert [
        [clip.name for clip in unit.clips] for unit in pack([*large, small[0], septuplet(1), *small[1:]], SETTINGS)
    ] == [
        *[["a"]] * PACKS,
        ["b", "c", "d"],
        ["00001/0001"],
    ]
    unknown = [video("http://h/a.mp4", None), video("http://h/b.mp4", None)]
    assert [len(unit.clips) for unit in pack(unknown, SETTINGS)] == [1, 1]


def test_a_unit_is_named_after_all_that_its_samples_depend_on() -> None:
    def name(clip: Clip | None = None, settings: SampleSettings = SETTINGS) -> str:
        return units.unit_name([clip or video()], settings)

    changed: dict[str, Any] = {
        "uri": "s3://c/a.mp4",
        "bytes": 7,
        "modified": 1.25,
        "start": 1,
        "stop": 9,
        "downscale": 2,
        "files": ("im1.png",),
        "lr": "s3://c/lr.mp4",
    }
    others = [name(dataclasses.replace(video(), **{key: value})) for key, value in changed.items()]
    of_settings: dict[str, Any] = {
        "degradation": BD,
        "scale": 2,
        "frames_per_sample": 5,
        "stride": 2,
        "patch": 64,
        "detect_cuts": False,
        "min_change": 0.0,
        "min_detail": 1.0,
        "min_motion": 0.5,
        "max_motion": 3.0,
    }
    of_clips = {"drop_near_duplicates": True, "max_blockiness": 2.0, "max_blur": 0.5}  # which change no sample
    assert set(of_settings) | set(of_clips) == {field.name for field in dataclasses.fields(SampleSettings)}
    assert name(settings=dataclasses.replace(SETTINGS, **of_clips)) == name()  # type: ignore[arg-type]
    others += [name(settings=dataclasses.replace(SETTINGS, **{key: value})) for key, value in of_settings.items()]
    assert len({name(), *others}) == 1 + len(others)
    assert name() == name()


@pytest.mark.parametrize("name", ["../../etc/passwd", "a b;rm -rf *", "...", "ümläut", "x" * 300, "a\nb"])
def test_names_are_safe_whatever_the_source_is_called(name: str) -> None:
    stem = units.unit_name([dataclasses.replace(video(), name=name)], SETTINGS)
    assert set(stem) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")
    assert not stem.startswith(".")
    assert len(stem) < 80


def test_segments_of_a_video_share_a_group_that_depends_on_where_it_was_cut() -> None:
    segments = [Segment(None, 0, 106), Segment(5000, 100, None)]
    first, second = split(video(), segments, SETTINGS)
    assert first.group == second.group
    assert (first.name, second.name) == (f"{first.group}-s00000", f"{first.group}-s00001")
    assert (first.segment, second.segment) == tuple(segments)
    other, _ = split(video(), [Segment(None, 0, 56), Segment(2500, 50, None)], SETTINGS)
    assert other.group != first.group
    assert split(video(), segments[:1], SETTINGS) == [units.whole([video()], SETTINGS)]


def test_units_and_results_cross_as_text() -> None:
    unit = split(video("s3://b/ä \n.mp4"), [Segment(None, 0, 9), Segment(3, 5, None)], SETTINGS)[1]
    assert Unit.from_json(unit.to_json()) == unit
    whole = units.whole([septuplet(1), septuplet(2)], SETTINGS)
    assert Unit.from_json(whole.to_json()) == whole
    shard = Shard("a-00000.parquet", 3, 2, 8, 12, 4567, "a")
    result = UnitResult("a", "a", (shard,), (ClipResult("ä", 9, 3, note="cut short"),), failure="no", fatal=True)
    assert UnitResult.from_json(result.to_json()) == result
    for text in ("", "{", "[]", '{"shards": 3}', '{"shards": [], "clips": [], "x": 1}'):
        with pytest.raises(ValueError, match=".+"):
            UnitResult.from_json(text)
