"""The German interface: each text of the sources with its translation.

{} stands for a value that is filled in; values keep their order.
"""

from . import interface, messages, shots, tooltips

OPERATORS = interface.OPERATORS
TEXTS = interface.TEXTS | tooltips.TEXTS | messages.TEXTS | shots.TEXTS
PHRASES = shots.PHRASES
