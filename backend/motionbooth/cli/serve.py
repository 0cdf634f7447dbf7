"""`motionbooth serve`: run a backend."""

import os
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Literal

import typer

from motionbooth.cli.computing import AttentionOption, CompileOption, DeviceOption, MemoryOption, PrecisionOption
from motionbooth.cli.config import config_text
from motionbooth.cli.home import DEFAULT_HOME, Home
from motionbooth.models.memory.options import Computing


def serve(
    ctx: typer.Context,
    home: Home = DEFAULT_HOME,
    address: Annotated[str, typer.Option(help="Address to listen on. tcp://127.0.0.1:* picks a free port.")] = (
        "tcp://127.0.0.1:5599"
    ),
    keep_days: Annotated[
        float, typer.Option(min=0, help="Delete jobs this many days after they ended. 0 keeps them.")
    ] = 0,
    workers: Annotated[int | None, typer.Option(min=1, help="Number of workers (default: one per GPU).")] = None,
    executor: Annotated[
        Literal["local", "ray"], typer.Option(help="Where jobs run: on this machine or on a Ray cluster.")
    ] = "local",
    ray_address: Annotated[str, typer.Option(help="Address of the Ray cluster, as for `ray.init`.")] = "auto",
    gpus_each: Annotated[float | None, typer.Option(min=0, help="GPUs per worker on the Ray cluster.")] = None,
    log_format: Annotated[Literal["text", "json"], typer.Option(help="Log file format.")] = "text",
    metrics_port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Serve Prometheus metrics on this loopback port.")
    ] = None,
    web_port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="Serve a status page on this loopback port. 0 picks a free port."),
    ] = None,
    job_hours: Annotated[
        float, typer.Option(min=0, help="End a user's job that runs longer. 0 means no limit. Admins have none.")
    ] = 24,
    sandbox: Annotated[
        bool | None,
        typer.Option(
            help="Run workers in a sandbox without network (Linux, with bubblewrap).", show_default="where it works"
        ),
    ] = None,
    quota_gb: Annotated[float, typer.Option(min=0, max=1e6, help="Disk quota per key. 0 means no limit.")] = 0,
    device: DeviceOption = "auto",
    memory: MemoryOption = "auto",
    precision: PrecisionOption = "auto",
    attention: AttentionOption = "auto",
    compile: CompileOption = False,
    config: Annotated[
        Path | None,
        typer.Option(
            dir_okay=False,
            help="TOML file with these options. The command line takes precedence.",
            show_default="motionbooth.toml in --home, if there is one",
        ),
    ] = None,
    print_config: Annotated[
        bool, typer.Option("--print-config", help="Print these options as a TOML file, with their values, and exit.")
    ] = False,
) -> None:
    """Run the backend, which trains subjects and generates clips for Blender. Press Ctrl+C to stop it."""
    if print_config:
        typer.echo(config_text(ctx))
        return

    from motionbooth.server.supervisor import supervised

    supervisor = supervised()

    from motionbooth_protocol.errors import InvalidInput
    from msgspec.structs import replace

    from motionbooth.models.sources import caches, model_folders, model_version, models_folder, usable_models
    from motionbooth.server.local_executor import on_this_machine
    from motionbooth.server.model_version import with_program
    from motionbooth.server.ray_executor import on_cluster
    from motionbooth.server.serve import serve as run_server
    from motionbooth.server.settings import DEFAULT_LIMITS, MonitoringSettings, ServerSettings, time_limits

    computing = Computing(device, memory, precision, attention, compile)
    computing.check()
    os.environ.update(computing.environment)  # the workers inherit it; those of a Ray cluster have their machine's own
    is_local = executor == "local"
    if sandbox and not is_local:
        raise InvalidInput(
            "--sandbox insists on a sandbox, which is checked on this machine only. Omit it for a Ray cluster: "
            "each of its machines uses one where it works."
        )
    with suppress(OSError):  # for the sandbox, which shows what is there at the start
        models_folder().mkdir(parents=True, exist_ok=True)
    run_server(
        ServerSettings(
            home=home.absolute(),
            address=address,
            models=usable_models(),
            find_models=usable_models,
            model_version=with_program(model_version),
            limits=replace(DEFAULT_LIMITS, quota_bytes=int(quota_gb * 1e9)),
            keep_days=keep_days,
            make_executor=(
                on_this_machine(workers)
                if is_local
                else on_cluster(ray_address, workers, gpus_each, sandbox=sandbox is None)
            ),
            monitoring=MonitoringSettings(log_format, metrics_port, web_port),
            supervisor=supervisor,
            sandbox=sandbox if is_local else False,
            readable=model_folders(),
            writable=caches(),
            time_limits=time_limits(job_hours),
        )
    )
