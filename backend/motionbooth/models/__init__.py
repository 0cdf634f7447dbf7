"""Base models: what they are, where their parts lie, how they like to be run."""
