"""The process of one piece of a clip's work, so that a crash of a decoder, or of the network, does not end the server.

``python -m mana_dist.serve.web_page.clip_job`` reads a task, a line of JSON, and writes lines of JSON. It shares the
machine's memory, disk and GPU with the server.
"""

import json
import sys
import time
from typing import Any

from mana_dist.child_task import end_with_parent
from mana_dist.errors import UserError, one_line

_INTERVAL = 0.2  # seconds between two lines of progress


def main(task: dict[str, Any]) -> None:
    """Do the task; its last line holds what came of it, or ``error``."""
    end_with_parent()
    try:
        _say((_upscale if task["kind"] == "upscale" else _inspect)(task))
    except UserError as error:
        _say({"error": one_line(error)})
        sys.exit(2)


def _inspect(task: dict[str, Any]) -> dict[str, Any]:
    """Return the clip's size, number of frames and rate, and write a picture of its first frame."""
    from mana_dist import pictures
    from mana_dist.serve.web_page import sample_clip
    from mana_dist.upscale.config import Settings
    from mana_dist.upscale.sources import survey_of
    from mana_dist.video.frame_stream import open_frames

    if task["sample"]:
        sample_clip.write(task["source"])
    try:
        found = survey_of(task["source"], Settings())
        if found.width * found.height <= task["pixels"]:  # larger ones are refused
            with open_frames(task["source"]) as stream:
                poster = pictures.to_png(next(stream.frames()).pixels)
            with open(task["poster"], "wb") as file:
                file.write(poster)
    except OSError as error:
        raise UserError(f"{task['source']}: cannot be read ({error.strerror or error})") from error
    return {"width": found.width, "height": found.height, "frames": found.frames, "rate": float(found.rate)}


def _upscale(task: dict[str, Any]) -> dict[str, Any]:
    from mana_dist.upscale import Settings, upscale

    said = 0.0

    def progress(done: int, total: int) -> None:
        nonlocal said
        if time.monotonic() - said > _INTERVAL:
            said = time.monotonic()
            _say({"done": done, "of": total})

    settings = Settings(**task["settings"])
    summary = upscale(
        task["source"], task["destination"], task["model"], settings, task["tracking_uri"], progress=progress
    )
    assert summary is not None  # the folder was empty
    size = {"out_width": summary.width, "out_height": summary.height, "done": summary.frames, "of": summary.frames}
    left_out = f"not carried over: {', '.join(summary.left_out)}" if summary.left_out else ""
    return size | {"notes": [line for line in (summary.note, left_out, summary.stopped) if line]}


def _say(values: dict[str, Any]) -> None:
    print(json.dumps(values), flush=True)


if __name__ == "__main__":
    main(json.loads(sys.stdin.readline()))
