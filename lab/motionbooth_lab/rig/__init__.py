"""A whole backend to try things on: a real server with small work for its worker, and a network that can be broken."""
