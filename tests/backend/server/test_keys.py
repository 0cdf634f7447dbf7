from __future__ import annotations

import os
import resource
import stat
import sys
from pathlib import Path

import pytest
import zmq
from motionbooth.cli.app import app
from motionbooth.server.keys import AuthorizedKeys, KeyPair, is_key, issue_key, revoke
from motionbooth_protocol.client import Client
from motionbooth_protocol.connection import Connection
from motionbooth_protocol.errors import Conflict, InvalidInput, NotAuthorized, NotFound
from refused import refused, refused_by_command
from running_backend import RunningBackend
from typer.testing import CliRunner


def test_a_key_pair_is_created_once_and_readable_by_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "server.secret"
    first = KeyPair.kept_in(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert KeyPair.kept_in(path) == first
    assert zmq.curve_public(first.secret.encode()).decode() == first.public


@pytest.mark.parametrize("text", ["", "x" * 39, "~" * 40, "#" * 40, "x" * 4000])
def test_a_corrupt_key_file_is_reported_and_not_replaced(tmp_path: Path, text: str) -> None:
    path = tmp_path / "server.secret"
    path.write_text(text)
    assert not is_key(text)
    with refused(InvalidInput, path=str(path)):
        KeyPair.kept_in(path)
    assert path.read_text() == text


def test_only_well_formed_keys_are_authorized(tmp_path: Path) -> None:
    public = zmq.curve_keypair()[0].decode()
    (tmp_path / "ann.pub").write_text(f"{public} ann's laptop\n")
    (tmp_path / "spoilt.pub").write_text("no key\n")
    (tmp_path / "empty.pub").write_text("")
    (tmp_path / "other.txt").write_text(zmq.curve_keypair()[0].decode())
    keys = AuthorizedKeys(tmp_path)
    assert [(key.public, key.name, key.role) for key in keys.all()] == [(public, "ann", "user")]
    assert keys.callback("motionbooth", public.encode())
    assert not keys.callback("motionbooth", zmq.curve_keypair()[0])


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such file names")
def test_the_name_of_a_key_is_text_whatever_its_file_is_called(tmp_path: Path) -> None:
    public = zmq.curve_keypair()[0].decode()
    (tmp_path / os.fsdecode(b"j\xfcrgen.pub")).write_text(public)
    found = AuthorizedKeys(tmp_path).find(public)
    assert found is not None
    assert found.name == "j\ufffdrgen"


def test_deleting_a_key_revokes_access_within_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = AuthorizedKeys(tmp_path)
    public = zmq.curve_keypair()[0].decode()
    keys.add("ann", public)
    assert keys.find(public)
    (tmp_path / "ann.pub").unlink()
    assert not keys.callback("motionbooth", public.encode())
    assert keys.find(public) is None


def test_running_out_of_open_files_revokes_no_access(tmp_path: Path) -> None:
    keys = AuthorizedKeys(tmp_path)
    keys.add("ann", "a" * 40)
    assert keys.find("a" * 40)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    next_free = os.open(os.devnull, os.O_RDONLY)
    os.close(next_free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (next_free, before[1]))
    try:
        assert keys.callback("", b"a" * 40)
        assert not keys.callback("", b"b" * 40)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    (tmp_path / "ann.pub").unlink()
    assert not keys.callback("", b"a" * 40)


def test_a_client_that_only_listens_loses_access_too(shared_backend: RunningBackend) -> None:
    home = shared_backend.home
    connection = issue_key(home, "eve", shared_backend.connection.address)
    with Client(connection, name="eve") as client:
        client.listen(0.2)
        revoke(home, "eve")
        with pytest.raises(NotAuthorized):
            client.listen(3.0)  # less than it takes until the client asks for anything of its own accord


def test_a_key_is_authorized_and_revoked_while_the_server_runs(shared_backend: RunningBackend, tmp_path: Path) -> None:
    home, out = str(shared_backend.home), tmp_path / "bob.json"
    address = shared_backend.connection.address
    add = ["keys", "add", "bob", "--address", address, "--out", str(out), "--home", home]
    assert CliRunner().invoke(app, add).exit_code == 0
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    with shared_backend.client(connection=Connection.read(out)) as bob:
        bob.ping()
    refused_by_command(add, Conflict, name="bob")
    assert CliRunner().invoke(app, ["keys", "revoke", "bob", "--home", home]).exit_code == 0
    with pytest.raises(NotAuthorized):
        shared_backend.client(connection=Connection.read(out)).__enter__()
    refused_by_command(["keys", "revoke", "bob", "--home", home], NotFound, name="bob", known="local")


@pytest.mark.parametrize("name", ["../evil", "", "a/b", "-x" * 50])
def test_a_name_reaches_no_other_folder(tmp_path: Path, name: str) -> None:
    result = CliRunner().invoke(
        app,
        ["keys", "add", "--address", "tcp://h:1", "--out", str(tmp_path / "o"), "--home", str(tmp_path), "--", name],
    )
    assert result.exit_code == 2
    assert not list(tmp_path.rglob("*.pub"))


def test_a_key_made_on_the_clients_machine_works_once_its_public_half_is_authorized(
    shared_backend: RunningBackend, tmp_path: Path
) -> None:
    home, out = str(shared_backend.home), tmp_path / "carol" / "connection.json"
    listed = CliRunner().invoke(app, ["keys", "list", "--home", home]).output
    server = shared_backend.connection.server_public
    assert server in listed
    new = ["keys", "new", "carol", "--address", shared_backend.connection.address, "--server", server]
    assert CliRunner().invoke(app, [*new, "--out", str(out)]).exit_code == 0
    connection = Connection.read(out)
    with pytest.raises(NotAuthorized):
        shared_backend.client(connection=connection).__enter__()
    public_file = out.with_name("carol.pub")
    assert connection.client_secret not in public_file.read_text()
    authorize = ["keys", "authorize", str(public_file), "--role", "admin", "--home", home]
    assert CliRunner().invoke(app, authorize).exit_code == 0
    with shared_backend.client(connection=connection) as carol:
        assert (carol.connect().name, carol.connect().role) == ("carol", "admin")
    listed = CliRunner().invoke(app, ["keys", "list", "--home", home]).output
    assert "carol" in listed
    assert connection.client_public in listed
    refused_by_command([*authorize, "--name", "other"], Conflict, name="carol")


def test_a_name_that_differs_only_in_case_is_taken(tmp_path: Path) -> None:
    """Its file would replace the other one on Windows and macOS, which revokes that key."""
    issue_key(tmp_path, "Ann", "tcp://127.0.0.1:5599")
    with refused(Conflict, name="Ann"):
        issue_key(tmp_path, "ann", "tcp://127.0.0.1:5599")


def test_a_malformed_public_key_or_role_is_refused_with_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "eve.pub").write_text("nothing of the kind")
    good = tmp_path / "good.pub"
    good.write_bytes(zmq.curve_keypair()[0])
    for arguments in ([str(tmp_path / "eve.pub")], [str(tmp_path / "none.pub")], [str(good), "--role", "king"]):
        result = CliRunner().invoke(app, ["keys", "authorize", *arguments, "--home", str(tmp_path / "home")])
        assert result.exit_code == 2, result.output
        assert "Traceback" not in result.output


def test_a_home_that_is_created_for_its_keys_is_private(tmp_path: Path) -> None:
    AuthorizedKeys(tmp_path / "home" / "authorized")
    assert stat.S_IMODE((tmp_path / "home").stat().st_mode) == 0o700
