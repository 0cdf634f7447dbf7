"""Clips on the timeline: takes, strips and files."""
