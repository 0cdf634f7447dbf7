"""A TCP proxy that simulates network faults."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress

from motionbooth_protocol.connection import host_and_port


class Proxy:
    """A TCP proxy in front of a server.

    `is_open` False: refuses new connections. `is_paused` True: holds all data while connections stay open (half-open).
    `flip_next`: flips a bit in the next data sent to the server. `bytes_per_second`: throttles each direction of each
    connection; 0 disables it.
    """

    def __init__(self, address: str) -> None:
        host, port = host_and_port(address)
        self._target = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"tcp://127.0.0.1:{self._listener.getsockname()[1]}"
        self.is_open = True
        self.is_paused = False
        self.flip_next = False
        self.bytes_per_second = 0
        self.bytes_up = 0  # sent by clients
        self.connections = 0
        self._is_closed = False
        self._sockets: set[socket.socket] = set()  # of open connections
        self._threads = {threading.Thread(target=self._accept)}
        for thread in self._threads:
            thread.start()

    def cut(self) -> None:
        """Close all open connections."""
        for end in list(self._sockets):
            _hang_up(end)

    def close(self) -> None:
        self._is_closed, self.is_open = True, False
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        for thread in list(self._threads):
            thread.join()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._connect, args=(client,))
            self._threads.add(thread)
            thread.start()

    def _connect(self, client: socket.socket) -> None:
        """Forward data in both directions until one side closes the connection."""
        self._sockets.add(client)
        with client, suppress(OSError):
            if not self.is_open:
                raise ConnectionRefusedError
            with socket.create_connection(self._target) as server:
                self._sockets.add(server)
                self.connections += 1
                down = threading.Thread(target=self._pump, args=(server, client, False))
                down.start()
                self._pump(client, server, True)
                down.join()
                self._sockets.remove(server)
        self._sockets.remove(client)
        self._threads.remove(threading.current_thread())

    def _pump(self, source: socket.socket, target: socket.socket, up: bool) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                while self.is_paused and not self._is_closed:
                    time.sleep(0.01)
                if up:
                    self.bytes_up += len(data)
                    if self.flip_next:
                        self.flip_next = False
                        data = data[:-1] + bytes([data[-1] ^ 1])
                target.sendall(data)
                if self.bytes_per_second:
                    time.sleep(len(data) / self.bytes_per_second)
        for end in (source, target):
            _hang_up(end)


def _hang_up(end: socket.socket) -> None:
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
