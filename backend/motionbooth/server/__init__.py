"""The backend as a server; only its worker process ever imports torch."""
