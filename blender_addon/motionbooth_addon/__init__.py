"""MotionBooth for Blender: boxes and a camera path from a scene become a clip of a character on the timeline.

Importing this package needs no bpy; registering it does.
"""


def register() -> None:
    from . import registration

    registration.register()


def unregister() -> None:
    from . import registration

    registration.unregister()
