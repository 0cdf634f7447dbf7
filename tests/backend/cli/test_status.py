from __future__ import annotations

from motionbooth.cli.app import app
from motionbooth_protocol.client import new_job_id
from motionbooth_protocol.errors import Unreachable
from refused import refused_by_command
from running_backend import RunningBackend, small_job
from typer.testing import CliRunner


def run(*words: str) -> str:
    result = CliRunner().invoke(app, list(words), env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    return result.output


def test_status_and_jobs_find_the_backend_by_data_folder_or_connection_file(shared_backend: RunningBackend) -> None:
    job = new_job_id()
    with shared_backend.client() as client:
        client.submit(job, small_job("invalid"))
        while client.get(job).state != "failed":
            pass
    status = run("status", "--home", str(shared_backend.home))
    assert "1 failed" in status
    assert "cpu-1" in status
    jobs = run("jobs", "--connection", str(shared_backend.connection_file), "--all")
    assert job[:8] in jobs
    assert "The prompt lacks the subject" in jobs


def test_without_a_backend_there_is_a_message(tmp_path: str) -> None:
    refused_by_command(["status", "--home", str(tmp_path)], Unreachable, path=...)
