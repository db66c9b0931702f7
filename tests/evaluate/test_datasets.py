"""The field's layouts, and the LR frames that come with them."""

from pathlib import Path

import numpy as np
import pytest

from mana_dist.data.degradation import BD, BI, Degradation, degrade
from mana_dist.errors import UserError
from mana_dist.evaluate.datasets import Dataset, LrSource, find_datasets
from mana_dist.evaluate.scored_clips import find_clips
from tests.evaluate.footage import evaluate, frames_of, mean_of, write_folder, write_pair
from tests.video.videos import write_video
from tests.web_server import web_server


def find(root: Path, degradation: Degradation = BI, lr: LrSource = "auto") -> Dataset:
    (dataset,) = find_datasets([str(root)], degradation, lr)
    return dataset


def names(*roots: Path) -> list[tuple[str, str]]:
    clips = find_clips(find_datasets([str(root) for root in roots], BI, "auto"))
    return [(clip.dataset, clip.name) for clip in clips]


def vid4(root: Path) -> Path:
    """GT/, BIx4/, BDx4/ and what lies beside them in mmagic's Vid4."""
    for seed, clip in enumerate(("calendar", "walk")):
        frames = frames_of(3, seed)
        write_pair(root, f"GT/{clip}", f"BIx4/{clip}", frames)
        write_folder(root / "BDx4" / clip, degrade(frames, BD))
        write_folder(root / "BIx4up_direct" / clip, frames)
    (root / "meta_info_Vid4_GT.txt").write_text("calendar 3 (48,64,3)\nwalk 3 (48,64,3)\n")
    return root


def vimeo(root: Path, lr: str = "") -> Path:
    """Three septuplets, of which the test list has two; the frames' files are im1.png to im7.png."""
    for seed, name in enumerate(("00001/0001", "00001/0266", "00002/0266")):
        frames = frames_of(7, seed)
        write_folder(root / "sequences" / name, frames, "im{}.png", 1)
        if lr:
            write_folder(root / lr / name, degrade(frames, BI), "im{}.png", 1)
    (root / "sep_testlist.txt").write_text("00001/0266\n00002/0266\n\n")
    (root / "sep_trainlist.txt").write_text("00001/0001\n")
    return root


def test_gt_and_its_lr_folders(tmp_path: Path) -> None:
    root = vid4(tmp_path / "Vid4")
    for degradation, folder in ((BI, "BIx4"), (BD, "BDx4")):
        dataset = find(root, degradation)
        assert dataset.lr == f"given: {folder}"
        assert [(clip.path, clip.uri, clip.lr) for clip in dataset.clips] == [
            (name, f"{root}/GT/{name}", f"{root}/{folder}/{name}") for name in ("calendar", "walk")
        ]
    assert find(root, BI, "made").lr == "made"
    assert [clip.lr for clip in find(root, BI, "made").clips] == [None, None]


def test_given_lr_frames_are_used_and_not_made(tmp_path: Path) -> None:
    root = vid4(tmp_path / "Vid4")
    arguments = ["--data", str(root), "--method", "bicubic"]
    given, made = (evaluate(tmp_path / lr, *arguments, "--lr", lr) for lr in ("given", "made"))
    assert mean_of(given) == mean_of(made)  # they were made in the same way
    assert given["protocol"]["datasets"][0]["lr"] == "given: BIx4"
    assert made["protocol"]["datasets"][0]["lr"] == "made"
    for path in (root / "BIx4").rglob("*.png"):
        path.unlink()
    for clip in ("calendar", "walk"):
        (root / "BIx4" / clip).rmdir()
        write_folder(root / "BIx4" / clip, np.full((3, 12, 16, 3), 128, np.uint8))
    grey = evaluate(tmp_path / "grey", *arguments)
    assert mean_of(grey)["psnr_rgb"] < mean_of(made)["psnr_rgb"] - 1


def test_reds4_is_four_clips_of_reds(tmp_path: Path) -> None:
    for clip in ("000", "001", "011", "015", "020", "100"):
        write_pair(tmp_path / "REDS4", f"GT/{clip}", f"sharp_bicubic/{clip}", frames_of(2))
        write_pair(tmp_path / "REDS", f"train_sharp/{clip}", f"train_sharp_bicubic/X4/{clip}", frames_of(2))
    four = find(tmp_path / "REDS4")
    assert [clip.path for clip in four.clips] == ["000", "011", "015", "020"]
    assert four.lr == "given: sharp_bicubic"
    assert "2 others are left out" in four.notes[0]
    everything = find(tmp_path / "REDS")
    assert len(everything.clips) == 6
    assert everything.lr == "given: train_sharp_bicubic/X4"
    (tmp_path / "REDS").rename(tmp_path / "reds4")
    assert [clip.path for clip in find(tmp_path / "reds4").clips] == ["000", "011", "015", "020"]


def test_reds4_without_one_of_its_clips_is_refused(tmp_path: Path) -> None:
    for clip in ("000", "011", "020"):
        write_folder(tmp_path / "REDS4" / clip, frames_of(1))
    with pytest.raises(UserError, match="is called REDS4 and has no clip 015"):
        find(tmp_path / "REDS4")


def test_spmcs_has_truth_and_input4_in_each_clip(tmp_path: Path) -> None:
    root = tmp_path / "SPMCS"
    for clip in ("car05_001", "hdclub_003"):
        write_pair(root / clip, "truth", "input4", frames_of(2))
        write_folder(root / clip / "input2", frames_of(2)[:, ::2, ::2])
        write_folder(root / clip / "blur4", degrade(frames_of(2), BD))
    dataset = find(root)
    assert [(clip.path, clip.uri, clip.lr) for clip in dataset.clips] == [
        (name, f"{root}/{name}/truth", f"{root}/{name}/input4") for name in ("car05_001", "hdclub_003")
    ]
    assert [clip.lr for clip in find(root, BD).clips] == [f"{root}/{clip.path}/blur4" for clip in dataset.clips]
    assert names(root) == [("SPMCS", "car05_001"), ("SPMCS", "hdclub_003")]


@pytest.mark.parametrize("lr", ["", "sequences_LR", "BIx4", "../vimeo_matlabLRx4/sequences"])
def test_vimeo90k_is_the_centre_frame_of_its_test_list(tmp_path: Path, model: str, lr: str) -> None:
    root = vimeo(tmp_path / "vimeo", lr)
    dataset = find(root)
    assert dataset.lr == (f"given: {lr}" if lr and ".." not in lr else dataset.lr)
    assert dataset.lr.startswith("given: ") == bool(lr)
    assert names(root) == [("vimeo", "00001/0266"), ("vimeo", "00002/0266")]
    report = evaluate(tmp_path / "out", "--data", str(root), "--method", "bicubic", model)
    assert mean_of(report)["frames"] == 2
    assert report["protocol"]["datasets"][0]["frame_subset"] == "centre"
    # Of all seven frames the methods see, the centre is that of a run that scores all and leaves three out each end.
    for clip in dataset.clips:
        write_folder(tmp_path / "plain" / clip.path.replace("/", "-"), frames_of(7, 1 if "00001" in clip.path else 2))
    inner = evaluate(
        tmp_path / "inner",
        *["--data", str(tmp_path / "plain"), "--method", "bicubic", model],
        *["--frame-subset", "inner:3"],
    )
    for method in ("bicubic", model):
        assert mean_of(report, method) == mean_of(inner, method)


def test_vimeo90k_without_a_listed_septuplet_is_refused(tmp_path: Path) -> None:
    root = vimeo(tmp_path / "vimeo")
    (root / "sep_testlist.txt").write_text("00001/0266\n00009/0001\n")
    with pytest.raises(UserError, match="1 of the 2 septuplets in sep_testlist.txt .* the first of them 00009/0001"):
        find(root)


def test_clips_are_found_at_any_depth(tmp_path: Path) -> None:
    for name in ("00001/0001", "00001/0002", ".hidden/0001"):
        write_folder(tmp_path / "vim" / "sequences" / name, frames_of(2))
    assert names(tmp_path / "vim") == [("vim", "0001"), ("vim", "0002")]
    assert names(tmp_path / "vim" / "sequences" / "00001" / "0001") == [("0001", "0001")]


def test_names_grow_until_they_tell_clips_apart(tmp_path: Path) -> None:
    for name in ("a/x/walk", "a/y/walk", "b/walk", "c/b/walk"):
        write_folder(tmp_path / name, frames_of(1))
    assert names(tmp_path / "a") == [("a", "x/walk"), ("a", "y/walk")]
    assert names(tmp_path / "b", tmp_path / "a" / "x") == [("b", "b/walk"), ("x", "x/walk")]
    assert names(tmp_path / "b", tmp_path / "c" / "b") == [
        (f"{tmp_path.name}/b", f"{tmp_path.name}/b/walk"), ("c/b", "c/b/walk"),
    ]  # fmt: skip
    assert names(tmp_path / "b" / "walk", tmp_path / "a" / "x" / "walk") == [("b/walk", "b/walk"), ("x/walk", "x/walk")]


def test_videos_of_lr_frames_beside_videos(tmp_path: Path) -> None:
    for folder, frames in (("GT", frames_of(3)), ("BIx4", frames_of(3, height=12, width=16))):
        (tmp_path / "set" / folder).mkdir(parents=True)
        write_video(tmp_path / "set" / folder / "clip.mkv", frames)
    dataset = find(tmp_path / "set")
    assert [(clip.path, clip.lr) for clip in dataset.clips] == [("clip.mkv", f"{tmp_path}/set/BIx4/clip.mkv")]
    assert names(tmp_path / "set") == [("set", "clip")]


@pytest.mark.parametrize(
    ("count", "message"), [(2, "ends after 2 LR frames, .* does not"), (4, "more than the 3 frames")]
)
def test_videos_of_another_number_of_lr_frames(tmp_path: Path, count: int, message: str) -> None:
    write_video(tmp_path / "set" / "GT" / "a.mkv", frames_of(3))
    write_video(tmp_path / "set" / "BIx4" / "a.mkv", frames_of(count, height=12, width=16))
    with pytest.raises(UserError, match=f"BIx4/a.mkv: .*{message}.*or use --lr made"):
        evaluate(tmp_path / "out", "--data", str(tmp_path / "set"), "--method", "bicubic")


@pytest.mark.parametrize("lr", ["given", "auto"])
def test_mistakes_of_lr_frames_are_named(tmp_path: Path, lr: LrSource) -> None:
    few, half = tmp_path / "few", tmp_path / "half"
    write_folder(few / "GT" / "a", frames_of(3))
    write_folder(few / "BIx4" / "a", degrade(frames_of(2), BI))
    with pytest.raises(UserError, match=f"{few}/BIx4/a: 2 LR frames, but {few}/GT/a has 3"):
        find(few, BI, lr)
    write_pair(half, "GT/a", "BIx4/a", frames_of(1))
    write_folder(half / "GT" / "b", frames_of(1))
    with pytest.raises(UserError, match=f"{half}/BIx4: has no LR frames of {half}/GT/b"):
        find(half, BI, lr)
    assert len(find(half, BI, "made").clips) == 2


def test_lr_frames_that_are_asked_for_must_be_there(tmp_path: Path) -> None:
    root = tmp_path / "set"
    write_pair(root, "GT/a", "BIx4/a", frames_of(1))
    with pytest.raises(UserError, match=r"--lr given: .*set has no folder of BD LR frames \(BDx4\); use --lr made"):
        find(root, BD, "given")
    assert find(root, BD, "auto").lr == "made"
    with pytest.raises(UserError, match=r"--lr given: .*a has no folder of BI LR frames"):
        find(root / "GT" / "a", BI, "given")


def test_lr_frames_of_another_size_are_refused(tmp_path: Path) -> None:
    write_folder(tmp_path / "set" / "GT" / "a", frames_of(2, 0, 50, 66))
    write_folder(tmp_path / "set" / "BIx4" / "a", frames_of(2, 0, 13, 16))
    with pytest.raises(
        UserError, match="BIx4/a: LR frames of 16x13 do not match .*GT/a, whose frames of 66x50 need 16"
    ):
        evaluate(tmp_path / "out", "--data", str(tmp_path / "set"), "--method", "bicubic")


@pytest.mark.parametrize("name", ["BIx4", "BDx4/walk", "all"])
def test_lr_frames_are_never_taken_for_the_truth(tmp_path: Path, name: str) -> None:
    vid4(tmp_path / "all" / "Vid4")
    with pytest.raises(UserError, match="a folder of LR frames; name the dataset's own folder"):
        find(tmp_path / name if name == "all" else tmp_path / "all" / "Vid4" / name)


def test_a_layout_without_frames_and_a_name_twice(tmp_path: Path) -> None:
    (tmp_path / "GT").mkdir()
    with pytest.raises(UserError, match="recognised as GT, BIx4, BDx4 .*, but there is no ground truth in it"):
        find(tmp_path)
    write_folder(tmp_path / "clip", frames_of(1))
    with pytest.raises(UserError, match="--data names .*/clip/ twice"):
        find_datasets([f"{tmp_path}/clip", f"{tmp_path}/clip/"], BI, "auto")


def test_a_video_on_the_web(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.mkv", frames_of(3))
    with web_server() as served:
        served.files["/footage/clip.mkv"] = path.read_bytes()
        web = evaluate(tmp_path / "1", "--data", f"{served.url}/footage/clip.mkv", "--method", "bicubic")
    disk = evaluate(tmp_path / "2", "--data", str(path), "--method", "bicubic")
    assert web["methods"] == disk["methods"]
