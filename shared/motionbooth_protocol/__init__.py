"""The contract between the Blender extension and the backend: what crosses the wire, and nothing else.

Needs msgspec and pyzmq, never bpy or torch, and uses relative imports only: the extension carries a
copy of this folder.
"""
