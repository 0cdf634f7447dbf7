"""For whoever runs a backend: `motionbooth serve`."""

from enum import StrEnum
from typing import Annotated

import typer

from motionbooth.cli.home import DEFAULT_HOME, Home


class Where(StrEnum):
    """Of --executor."""

    local = "local"
    ray = "ray"


class LogFormat(StrEnum):
    """Of --log-format."""

    text = "text"
    json = "json"


def serve(
    home: Home = DEFAULT_HOME,
    address: Annotated[str, typer.Option(help="Where to listen; tcp://127.0.0.1:* takes any free port.")] = (
        "tcp://127.0.0.1:5599"
    ),
    keep_days: Annotated[float, typer.Option(min=0, help="Remove jobs so long after their end; 0 keeps them.")] = 0,
    workers: Annotated[int | None, typer.Option(min=1, help="Jobs at a time; else one for each GPU.")] = None,
    executor: Annotated[Where, typer.Option(help="Where jobs run: here, or on a cluster.")] = Where.local,
    ray_address: Annotated[str, typer.Option(help="Of the cluster, as for `ray.init`.")] = "auto",
    gpus_each: Annotated[float | None, typer.Option(min=0, help="GPUs of the cluster for each worker.")] = None,
    log_format: Annotated[LogFormat, typer.Option(help="Of the files in logs/.")] = LogFormat.text,
    metrics_port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Prometheus metrics on this machine's loopback.")
    ] = None,
    web_port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="A page to watch it, on loopback; 0: any free port.")
    ] = None,
    quota_gb: Annotated[
        float, typer.Option(min=0, max=1e6, help="Space for each key's files; 0 is without bound.")
    ] = 0,
) -> None:
    """Run the backend: takes jobs from Blender, trains subjects, films shots. Stop it with Ctrl+C."""
    from msgspec.structs import replace

    from motionbooth.models.sources import sources, stamp
    from motionbooth.server.executors import here, on_ray
    from motionbooth.server.handlers import DEFAULT_LIMITS
    from motionbooth.server.serve import serve as run_server
    from motionbooth.server.watch import Watching

    limits = replace(DEFAULT_LIMITS, quota_bytes=int(quota_gb * 1e9))
    models = [source.info for source in sources().values()]
    make = here(workers) if executor is Where.local else on_ray(ray_address, workers, gpus_each)
    watching = Watching(log_format.value, metrics_port, web_port)
    run_server(
        home.absolute(), address, models, limits=limits, keep_days=keep_days, stamp=stamp, make_executor=make,
        watching=watching,
    )  # fmt: skip
