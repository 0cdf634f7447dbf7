"""Test rig: a real server whose worker runs small jobs, and a proxy that breaks the network."""
