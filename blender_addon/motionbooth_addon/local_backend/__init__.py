"""The backend on this machine: its installation and its process."""
