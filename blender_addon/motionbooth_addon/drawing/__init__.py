"""What is drawn over the 3-D view and the sequencer."""
