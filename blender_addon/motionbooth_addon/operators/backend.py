"""Operators that install, start, stop and connect to a local or remote backend."""

# mypy: disable-error-code="valid-type"

import getpass
import tomllib
from pathlib import Path

import bpy
from bpy.props import StringProperty
from bpy_extras.io_utils import ExportHelper, ImportHelper

from .._protocol.connection import Connection, host_and_port
from .._protocol.errors import InvalidInput, MotionBoothError, NotFound
from ..files import own_keys
from ..i18n.translation import translate
from ..jobs.controller import job_controller, start
from ..local_backend.install import Plan, installed_command, plan, size
from ..local_backend.process import MANUAL_INSTALLATION, find_command
from ..preferences import preferences
from ..user_data import environment_folder
from .base import ReportsErrors, refuse

KEY_CHARACTERS = 40  # of 32 bytes in Z85


class MOTIONBOOTH_OT_start_local_backend(ReportsErrors, bpy.types.Operator):
    """Start a backend on this machine. It keeps running when Blender is closed, until it is stopped"""

    bl_idname = "motionbooth.start_local_backend"
    bl_label = "Start Local Backend"

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        if job_controller().backend.local.active:
            return refuse(cls, "The local backend is already running.")
        return True

    def invoke(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        """If no backend is installed, ask whether to install it."""
        try:
            backend_command()
        except NotFound:
            if not preferences().backend_command and bpy.app.online_access:
                return bpy.ops.motionbooth.install_backend("INVOKE_DEFAULT")
        return self.execute(context)

    def act(self, context: bpy.types.Context) -> None:
        job_controller().backend.local.start(backend_command())
        use_connection_file("")


def backend_command() -> list[str]:
    """The command that runs the backend's command line on this machine. Raises NotFound."""
    return find_command(bpy.path.abspath(preferences().backend_command), installed_command(environment_folder()))


class MOTIONBOOTH_OT_install_backend(ReportsErrors, bpy.types.Operator):
    """Install the backend on this machine in a separate Python environment, after a confirmation"""

    bl_idname = "motionbooth.install_backend"
    bl_label = "Install Backend"

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        if job_controller().backend.installation is not None:
            return refuse(cls, "The backend is already being installed.")
        if not bpy.app.online_access:
            return refuse(cls, MANUAL_INSTALLATION)
        if job_controller().backend.local.active:
            return refuse(cls, "Stop the local backend first.")
        return True

    def invoke(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        try:
            self._plan = self._make_plan()
        except MotionBoothError as error:
            return self.fail(error)
        return context.window_manager.invoke_props_dialog(
            self, width=520, title=translate("Install the backend?"), confirm_text=translate("Install")
        )

    def draw(self, context: bpy.types.Context) -> None:
        made = self._plan
        assert made is not None
        download, installed, free = map(size, (made.download, made.installed, made.free))
        column = self.layout.column()
        for line in (
            translate("From {source}", source=made.source),
            translate("Into {folder}", folder=made.folder),
            translate("With {python}", python=made.python),
            translate(
                "About {download} are downloaded, {installed} stay on the disk; {free} are free.",
                download=download,
                installed=installed,
                free=free,
            ),
        ):
            column.label(text=line, translate=False)
        column.label(text="You can continue to work meanwhile. To cancel, use the Backend panel.")

    def act(self, context: bpy.types.Context) -> None:
        if not bpy.app.online_access:
            raise InvalidInput(MANUAL_INSTALLATION)
        made = self._plan if self._plan is not None else self._make_plan()
        job_controller().backend.install(made, extension_version())
        start()

    _plan = None  # type: Plan | None

    def _make_plan(self) -> Plan:
        wheel = bpy.path.abspath(preferences().backend_wheel)
        return plan(wheel, extension_version(), environment_folder(), [Path.home() / "Downloads"])


def extension_version() -> str:
    """The backend's, too: they are made together."""
    manifest = Path(__file__).parents[1] / "blender_manifest.toml"
    return tomllib.loads(manifest.read_text(encoding="utf-8"))["version"]


class MOTIONBOOTH_OT_cancel_installation(ReportsErrors, bpy.types.Operator):
    """Cancel the installation of the backend. Downloaded files are kept for the next attempt"""

    bl_idname = "motionbooth.cancel_installation"
    bl_label = "Cancel Installation"

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return job_controller().backend.installation is not None or refuse(cls, "Nothing is being installed.")

    def act(self, context: bpy.types.Context) -> None:
        if (installation := job_controller().backend.installation) is not None:
            installation.cancel()


class MOTIONBOOTH_OT_stop_local_backend(ReportsErrors, bpy.types.Operator):
    """Stop the backend on this machine. Its jobs resume when it is started again"""

    bl_idname = "motionbooth.stop_local_backend"
    bl_label = "Stop Local Backend"

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return job_controller().backend.local.active or refuse(cls, "The local backend isn't running.")

    def invoke(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        return context.window_manager.invoke_confirm(
            self,
            event,
            title=translate("Stop the local backend?"),
            message=translate("Its jobs are kept and resume when it is started again."),
            confirm_text=translate("Stop"),
        )

    def act(self, context: bpy.types.Context) -> None:
        job_controller().backend.local.stop()


class MOTIONBOOTH_OT_export_public_key(ReportsErrors, ExportHelper, bpy.types.Operator):
    """Save your public key to a file for the owner of a remote backend, who grants you access with it"""

    bl_idname = "motionbooth.export_public_key"
    bl_label = "Export Public Key"

    filename_ext = ".pub"
    filter_glob: StringProperty(default="*.pub", options={"HIDDEN"})

    def invoke(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        self.filepath = f"{getpass.getuser()}.pub"
        return ExportHelper.invoke(self, context, event)

    def act(self, context: bpy.types.Context) -> None:
        public, _ = own_keys(job_controller().folder)
        Path(self.filepath).write_text(f"{public}\n", encoding="ascii")
        self.inform("Saved {path}. Send it to the owner of the backend.", path=self.filepath)


class MOTIONBOOTH_OT_connect_by_file(ReportsErrors, ImportHelper, bpy.types.Operator):
    """Connect to a backend on another machine with the connection file from its owner"""

    bl_idname = "motionbooth.connect_by_file"
    bl_label = "Connect to Remote Backend"

    filter_glob: StringProperty(default="*.json", options={"HIDDEN"})
    address: StringProperty(
        name="Address",
        description="Address tcp://HOST:PORT of the backend as seen from this machine. If empty, the file's is used",
    )

    def act(self, context: bpy.types.Context) -> None:
        connection = read_invitation(Path(self.filepath), self.address.strip(), job_controller().folder)
        use_connection(connection, Path(self.filepath).name)


class MOTIONBOOTH_OT_connect_by_address(ReportsErrors, bpy.types.Operator):
    """Connect to a backend on another machine by its address and public key, once its owner has added your key"""

    bl_idname = "motionbooth.connect_by_address"
    bl_label = "Connect by Address"

    address: StringProperty(name="Address", default="tcp://render-box:5599", description="tcp://HOST:PORT")
    server_public: StringProperty(name="Server Public Key", description="40 characters, from `motionbooth keys list`")

    def invoke(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        return context.window_manager.invoke_props_dialog(self, width=480)

    def act(self, context: bpy.types.Context) -> None:
        key = self.server_public.strip()
        if len(key) != KEY_CHARACTERS:
            raise InvalidInput(
                "A public key has {expected} characters; this one has {found}. Copy it again.",
                expected=KEY_CHARACTERS,
                found=len(key),
            )
        address = self.address.strip()
        host_and_port(address)
        connection = Connection(address, key, *own_keys(job_controller().folder))
        name = bpy.path.clean_name(connection.address.removeprefix("tcp://"))
        use_connection(connection, f"{name}.json")


def use_connection(connection: Connection, name: str) -> None:
    """Save the connection among the user's files, and connect."""
    kept = job_controller().folder / "connections" / name
    connection.write(kept)
    use_connection_file(str(kept))


def use_connection_file(path: str) -> None:
    """Connect to the backend of this file from now on, also after a restart; "" for the local backend."""
    preferences().connection_file = path
    bpy.context.preferences.is_dirty = True
    job_controller().backend.watch()
    start()


class Invitation(Connection, frozen=True):
    """A connection file, or one without a client key pair, for a client whose own public key was added."""

    client_public: str = ""
    client_secret: str = ""


def read_invitation(path: Path, address: str, folder: Path) -> Connection:
    """The connection of a file, with the user's own key pair if the file has none. Raises NotFound or InvalidInput."""
    invitation = Invitation.read(path)
    address = address or invitation.address
    host_and_port(address)
    keys = (invitation.client_public, invitation.client_secret) if invitation.client_secret else own_keys(folder)
    return Connection(address, invitation.server_public, *keys)


class MOTIONBOOTH_OT_use_local_backend(ReportsErrors, bpy.types.Operator):
    """Switch back to the backend on this machine. The connection file of the remote backend is kept"""

    bl_idname = "motionbooth.use_local_backend"
    bl_label = "Use Local Backend"

    def act(self, context: bpy.types.Context) -> None:
        use_connection_file("")


CLASSES = (
    MOTIONBOOTH_OT_start_local_backend,
    MOTIONBOOTH_OT_install_backend,
    MOTIONBOOTH_OT_cancel_installation,
    MOTIONBOOTH_OT_stop_local_backend,
    MOTIONBOOTH_OT_export_public_key,
    MOTIONBOOTH_OT_connect_by_file,
    MOTIONBOOTH_OT_connect_by_address,
    MOTIONBOOTH_OT_use_local_backend,
)
