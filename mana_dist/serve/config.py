"""The arguments of the Serve app."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from mana_dist.model_names import PRETRAINED


class ServeOptions(BaseModel):
    """What ``serve run mana_dist.serve:app KEY=VALUE ...``, or ``args`` in a Serve configuration, can say.

    Attributes:
        model: ``pretrained``, the model in the package; a model folder's URI (``./pretrained`` for one of that name);
            ``models:/NAME/VERSION`` or ``models:/NAME@ALIAS``. An alias is looked up once, when the app is built: all
            replicas serve the same weights until it is deployed anew.
        tracking_uri: MLflow's, for ``models:/`` names; by default as in all commands.
        device: ``auto`` takes a GPU for every replica where the cluster has any.
        precision: ``auto`` is bf16 where the processors of the replicas gain by it, else fp32.
        memory: MiB that the activations of one call of the network may take; what needs more is done in tiles.
        cpus: CPU cores, and so compute threads, of every replica of the model.
        replicas: copies of the model.
        max_batch: windows that are upscaled in one call, if they come together and are of one size.
        batch_wait: seconds that the first window of a batch waits for others.
        max_queued: requests that may wait for a replica, with those that are just being handed to one; the next is
            answered 503.
        max_request: MiB of a request's body; a longer one is answered 413.
        max_pixels: of one frame that comes in; a larger one is answered 413.
        page: whether people with a video get a page at ``/``.
        page_models: further models, separated by commas, of which the page lets people choose.
        page_upload: MiB of a clip that the page takes.
        page_frames: of a clip that the page upscales at a time, at most.
        page_seconds: that upscaling a clip may take; then the next has its turn.
        page_keep: seconds after which the page deletes a clip that nobody began to upscale, or that is finished, with
            all that was made of it.
        page_clips: that the page holds at a time.
        page_clips_each: of these for one address.
        page_client_header: the header in which the proxy in front of the server names the client's address, like
            ``X-Forwarded-For`` (its last entry counts); by default it is the connection's own.
    """

    model_config = ConfigDict(extra="forbid")

    model: str = PRETRAINED
    tracking_uri: str | None = None
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    memory: int = Field(default=2048, ge=1)
    cpus: int = Field(default=1, ge=1)
    replicas: int = Field(default=1, ge=1)
    max_batch: int = Field(default=8, ge=1)
    batch_wait: float = Field(default=0.02, ge=0)
    max_queued: int = Field(default=32, ge=1)
    max_request: int = Field(default=64, ge=1)
    max_pixels: int = Field(default=1920 * 1088, ge=1)
    page: bool = False
    page_models: str | None = None
    page_upload: int = Field(default=512, ge=1)
    page_frames: int = Field(default=300, ge=1)
    page_seconds: float = Field(default=3600, gt=0)
    page_keep: float = Field(default=3600, gt=0)
    page_clips: int = Field(default=24, ge=1)
    page_clips_each: int = Field(default=6, ge=1)
    page_client_header: str | None = None
