"""Running jobs on this machine: a spec in, finished files out."""
