"""Training of toybox, the bundled base model, which is small enough to train and to measure on a laptop's CPU."""
