"""Training of wantoy, the bundled base of Wan's classes, small enough to train and to measure on a laptop's CPU."""
