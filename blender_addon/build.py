"""Builds a zip of the extension for each platform: `python blender_addon/build.py [--platform linux-x64] [--out dist]`.

OUT is then an extension repository: on a web server, Blender installs and updates from its index.json. The build needs
pip and the bpy module, which contains Blender's packager. Wheels are downloaded to OUT/wheels once.
"""

from __future__ import annotations

import argparse
import importlib.util
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

SOURCE = Path(__file__).with_name("motionbooth_addon")
ROOT = Path(__file__).parents[1]
CONTRACT = ROOT / "shared" / "motionbooth_protocol"

# Blender 4.2 to 5.0 has Python 3.11, later versions have 3.13. This pyzmq has a wheel for each. Later releases have
# cp311 and abi3 wheels, a mix that Blender refuses.
PYTHONS = ("3.11", "3.13")
REQUIREMENTS = ("pyzmq==26.4.0", "msgspec==0.22.0")
PIP_PLATFORMS = {
    "linux-x64": ("manylinux2014_x86_64", "manylinux_2_28_x86_64"),
    "windows-x64": ("win_amd64",),
    "macos-x64": ("macosx_10_15_x86_64", "macosx_10_15_universal2"),
    "macos-arm64": ("macosx_11_0_arm64", "macosx_10_15_universal2"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Build the MotionBooth extension for Blender.")
    parser.add_argument("--platform", choices=PIP_PLATFORMS, nargs="+", default=list(PIP_PLATFORMS))
    parser.add_argument("--out", type=Path, default=Path("dist"))
    wanted = parser.parse_args()
    for blender_platform in wanted.platform:
        print(build(blender_platform, wanted.out))
    print(list_repository(wanted.out))


def build(blender_platform: str, out: Path) -> Path:
    """Build and validate a platform's zip; returns its path. Raises CalledProcessError if pip or Blender fails."""
    out.mkdir(parents=True, exist_ok=True)
    wheels = fetch_wheels(blender_platform, out / "wheels")
    with tempfile.TemporaryDirectory(prefix="motionbooth_") as scratch:
        staged = stage(Path(scratch) / "motionbooth", blender_platform, wheels)
        manifest = tomllib.loads((staged / "blender_manifest.toml").read_text())
        archive = (out / f"{manifest['id']}-{manifest['version']}-{blender_platform}.zip").resolve()
        packager("build", "--source-dir", str(staged), "--output-filepath", str(archive))
        packager("validate", str(archive))
    return archive


def stage(folder: Path, blender_platform: str, wheels: list[Path]) -> Path:
    """Copy the extension, the contract (Blender's packager drops links) and the wheels to `folder`."""
    ignored = shutil.ignore_patterns("__pycache__", "_protocol")
    shutil.copytree(SOURCE, folder, ignore=ignored)
    shutil.copytree(CONTRACT, folder / "_protocol", ignore=ignored)
    shutil.copy(ROOT / "blender_addon" / "LICENSE", folder)
    shutil.copy(ROOT / "LICENSE", folder / "_protocol")
    (folder / "wheels").mkdir()
    for wheel in wheels:
        shutil.copy(wheel, folder / "wheels")
    manifest = folder / "blender_manifest.toml"
    lines = "".join(f'  "./wheels/{wheel.name}",\n' for wheel in wheels)
    # In TOML, top-level keys must precede the first table.
    head, table, rest = manifest.read_text().partition("[permissions]")
    manifest.write_text(f'{head}platforms = ["{blender_platform}"]\nwheels = [\n{lines}]\n\n{table}{rest}')
    return folder


def list_repository(folder: Path) -> Path:
    """Write the repository's index for Blender and an HTML page; returns the path of the index.

    Zips of other versions are deleted: Blender would pick any of them.
    """
    manifest = tomllib.loads((SOURCE / "blender_manifest.toml").read_text())
    for archive in folder.glob(f"{manifest['id']}-*.zip"):
        if not archive.name.startswith(f"{manifest['id']}-{manifest['version']}-"):
            archive.unlink()
    packager("server-generate", "--repo-dir", str(folder), "--html")
    return folder / "index.json"


def fetch_wheels(blender_platform: str, folder: Path) -> list[Path]:
    """Download the wheels for a platform and both Python versions from PyPI, unless `folder` already has them."""
    folder = folder / blender_platform
    tags = [f"--platform={tag}" for tag in PIP_PLATFORMS[blender_platform]]
    wheels: list[Path] = []
    for requirement in REQUIREMENTS:
        name, version = requirement.split("==")
        for python in PYTHONS:
            pattern = f"{name}-{version}-cp{python.replace('.', '')}-*.whl"
            if not list(folder.glob(pattern)):
                command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
                subprocess.run(
                    [*command, f"--python-version={python}", *tags, f"--dest={folder}", requirement], check=True
                )
            wheels += folder.glob(pattern)
    return wheels


def packager(*arguments: str) -> None:
    """Run Blender's packager, as `blender --command extension ...` does."""
    bpy = importlib.util.find_spec("bpy")
    if bpy is None or bpy.origin is None:
        sys.exit("Building needs Blender's packager, which comes with the bpy module: pip install -e '.[blender]'")
    (tool,) = Path(bpy.origin).parent.glob("*/scripts/addons_core/bl_pkg/cli/blender_ext.py")
    subprocess.run([sys.executable, str(tool), *arguments], check=True)


if __name__ == "__main__":
    main()
