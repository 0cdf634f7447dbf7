"""What the user can do, a file for each part of the work. `execute` is for scripts and for the window alike."""
