"""toybox: the bundled base model, a stand-in small enough to train and to measure on a laptop's CPU."""
