"""`python -m motionbooth_lab.ship_clips MODEL`: put the clips that every training of a bundled model needs into it.

They are of the network in the bundle: run it again after that was trained.
"""

import sys

from motionbooth.finetuning.prior_preservation import ship_clips
from motionbooth.models.registry import load_base
from motionbooth.models.sources import source_named
from rich.progress import Progress

if __name__ == "__main__":
    for name in sys.argv[1:]:
        base = load_base(source_named(name))
        settings = getattr(base.settings, base.settings.method)
        with Progress() as progress:
            bar = progress.add_task(name)

            def show(done: int, of: int) -> None:
                progress.update(bar, completed=done, total=of)  # noqa: B023 (called within this turn of the loop)

            ship_clips(base, settings, show)
