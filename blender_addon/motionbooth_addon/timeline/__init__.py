"""Puts clips on the timeline: takes, strips and their files."""
