"""The German interface: each text of the sources with its translation.

{name} stands for a value that is filled in, in whatever order German has it.
"""

from . import backend, connection, interface, messages, shots, tooltips

OPERATORS = interface.OPERATORS
TEXTS = interface.TEXTS | tooltips.TEXTS | messages.TEXTS | shots.TEXTS | connection.TEXTS | backend.TEXTS
