"""The Serve app: the HTTP front, and replicas of the model that work in batches."""

import asyncio
from typing import Any

import click
import ray
import torch
from ray import serve

from mana_dist.console import log
from mana_dist.errors import UserError, one_line
from mana_dist.model.inference import Frame, Frames
from mana_dist.model.precision import Precision, PrecisionChoice, WantedPrecision, precision_here
from mana_dist.ray_tasks import precision_on_cluster
from mana_dist.registry import model_folder
from mana_dist.registry.tracking_uri import resolve_tracking_uri
from mana_dist.serve.batches import super_resolve_each
from mana_dist.serve.config import ServeOptions
from mana_dist.serve.front import UPSCALER, Api
from mana_dist.serve.web_page.offered_models import fixed, offered, public_name, wanted_models
from mana_dist.serve.web_page.page_service import PageService, in_threads
from mana_dist.serve.windows import Limits

_SPARE_REQUESTS = 16  # which are being read, or ask for the health, while all others wait for the model


@serve.deployment(name=UPSCALER)
class Upscaler:
    """A copy of the model."""

    def __init__(self, options: ServeOptions, device: str, precision: Precision) -> None:
        """Read the weights, which ``options.model`` names without an alias; ``device`` is ``cpu`` or ``cuda``."""
        self._model, _ = model_folder.load(options.model, options.tracking_uri)
        self._device = device
        self._memory = options.memory * 2**20
        self._precision = precision
        self.batch.set_max_batch_size(options.max_batch)
        self.batch.set_batch_wait_timeout_s(options.batch_wait)

    @serve.batch  # type: ignore[untyped-decorator]  # Ray comes without types
    async def batch(self, windows: list[Frames]) -> list[Frame | Exception]:
        """Upscale the windows that came together; one that fails takes no other with it."""
        # In a thread, so that this process can take in the next batch meanwhile.
        return await asyncio.to_thread(
            super_resolve_each, self._model, windows, self._device, self._precision, self._memory
        )

    async def upscale(self, window: Frames) -> Frame:
        """(T, H, W, 3) uint8 -> the middle frame, (sH, sW, 3) uint8."""
        result: Frame | Exception = await self.batch(window)
        if isinstance(result, Exception):
            raise result
        return result


@serve.deployment(name="Page")
class PageReplica:
    """The page's clips. One replica has them all, so that each request finds its clip."""

    def __init__(self, options: ServeOptions, models: dict[str, str], settings: dict[str, Any]) -> None:
        """Take in clips; see :class:`mana_dist.serve.web_page.page_service.PageService`."""
        self._service = PageService(options, models, settings).start_threads()
        self._call = in_threads(self._service)

    async def call(self, name: str, *arguments: Any) -> Any:
        """Call a method of the service."""
        return await self._call(name, *arguments)

    def __del__(self) -> None:
        self._service.close()  # Serve calls this when the replica ends


class _UsageError(click.ClickException):
    """What ``serve run`` prints as one line, without a traceback."""

    exit_code = 2


def app(options: ServeOptions) -> serve.Application:
    """Build the app; Serve calls it with the arguments of ``serve run`` or of its configuration file.

    Raises:
        click.ClickException: no such model.
    """
    try:
        return build(options)
    except UserError as error:
        raise _UsageError(one_line(error)) from error


def build(options: ServeOptions) -> serve.Application:
    """Build the app.

    Raises:
        UserError: no such model.
    """
    tracking_uri = resolve_tracking_uri(options.tracking_uri)
    model = fixed(options.model, tracking_uri)
    _, config, sha256 = model_folder.load_identified(model, tracking_uri)
    device = _device(options.device)
    precision = _precision(options.precision, device)
    log.info(f"precision: {precision}")
    waiting = 2 * options.max_batch  # one batch is done while the next comes together
    upscaler = Upscaler.options(  # type: ignore[attr-defined]
        num_replicas=options.replicas,
        max_ongoing_requests=waiting,
        max_queued_requests=options.max_queued,
        ray_actor_options={"num_cpus": options.cpus, "num_gpus": int(device == "cuda")},
    ).bind(options.model_copy(update={"model": model, "tracking_uri": tracking_uri}), device, precision.precision)
    limits = Limits(config.model.frames, options.max_request * 2**20, options.max_pixels)
    room = waiting * options.replicas + options.max_queued + _SPARE_REQUESTS
    return Api.options(  # type: ignore[attr-defined]
        max_ongoing_requests=room,
        max_queued_requests=room,  # of a burst, which Serve counts here first: it is the front that should refuse
    ).bind(upscaler, limits, f"{public_name(model)} ({sha256[:12]})", **_page(options, tracking_uri, device, precision))


def _page(options: ServeOptions, tracking_uri: str, device: str, precision: PrecisionChoice) -> dict[str, Any]:
    """Return what the front gets for the page."""
    if not options.page:
        return {}
    models = offered(fixed(name, tracking_uri) for name in wanted_models(options))
    settings = {"device": device, "precision": precision.precision, "threads": options.cpus, "memory": options.memory}
    service = PageReplica.options(  # type: ignore[attr-defined]
        num_replicas=1,
        max_ongoing_requests=256,
        ray_actor_options={"num_cpus": options.cpus, "num_gpus": int(device == "cuda")},
    ).bind(options.model_copy(update={"tracking_uri": tracking_uri}), models, settings)
    return {"service": service, "client_header": options.page_client_header}


def _precision(wanted: WantedPrecision, device: str) -> PrecisionChoice:
    """Return the precision of all replicas; like :func:`_device`, before there is a cluster, that of this machine."""
    return precision_on_cluster(wanted, device) if ray.is_initialized() else precision_here(wanted, device)


def _device(name: str) -> str:
    """Where replicas are to run. ``cuda`` asks no more: they wait for GPUs, which an autoscaler may have to bring."""
    if name != "auto":
        return name
    # `serve run` builds the app before it joins a cluster; by a configuration file it is built on the cluster.
    if not ray.is_initialized():
        return "cuda" if torch.cuda.is_available() else "cpu"
    return "cuda" if ray.cluster_resources().get("GPU", 0) else "cpu"
