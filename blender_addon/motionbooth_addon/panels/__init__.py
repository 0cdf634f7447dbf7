"""The sidebar tab "MotionBooth" of the 3-D view and the sequencer, and the notice in the status bar."""
