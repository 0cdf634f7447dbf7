"""Progress of a job and its time left."""
