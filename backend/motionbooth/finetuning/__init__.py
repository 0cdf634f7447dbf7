"""Learning a subject from a few pictures (paper, section 3.2)."""
