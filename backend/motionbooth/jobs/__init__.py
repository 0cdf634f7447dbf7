"""Jobs on this machine: one spec in, finished files out."""
