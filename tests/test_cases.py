"""The cases' own inputs: what the other tests build on is there."""

from pathlib import Path


def test_the_cases_inputs_are_made(cases: Path) -> None:
    assert {"edge8.mkv", "cropped.mkv", "lost_packet.mp4", "one_pixel.mkv"} <= {file.name for file in cases.iterdir()}
