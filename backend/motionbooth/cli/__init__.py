"""The commands of `motionbooth`. Heavy modules are imported inside the functions, so that --help stays fast."""
