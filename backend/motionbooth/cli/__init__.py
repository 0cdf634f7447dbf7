"""The commands of `motionbooth`, a file for each kind of user. What is heavy to import is imported inside them."""
