"""A proxy before a real server, on a unix socket, that can be broken: cut off, gone deaf, or always refusing."""

import contextlib
import re
import select
import socket
import threading

_WAIT_S = 0.05
_BYTES = 2**16
_HEAD = re.compile(rb"\*(\d+)\r\n")
_SIZE = re.compile(rb"\$(\d+)\r\n")


class Requests:
    """Counts whole commands in a stream of bytes."""

    def __init__(self):
        self._data = b""

    def feed(self, data):
        """How many commands ended with these bytes."""
        self._data += data
        found = 0
        while (end := self._command_end()) is not None:
            self._data = self._data[end:]
            found += 1
        return found

    def _command_end(self):
        head = _HEAD.match(self._data)
        if head is None:
            return None
        at = head.end()
        for _ in range(int(head.group(1))):
            size = _SIZE.match(self._data, at)
            if size is None:
                return None
            at = size.end() + int(size.group(1)) + 2
        return at if at <= len(self._data) else None


class Proxy:
    """Carries bytes between clients and the server behind it; each connection has a thread.

    `cut`: every connection is closed, and nobody listens. `hole`: connections stay open, and no byte passes; those
    that were open then stay dead for ever, also after `mend`. `refuse`: every command gets one error.
    """

    def __init__(self, path, server_path):
        self.path = path
        self.url = f"unix://{path}"
        self._server_path = server_path
        self._lock = threading.Lock()
        self._pairs = {}  # client socket -> whether it is dead
        self._deaf = False
        self._error = b""
        self._listener = None
        self.mend()

    def cut(self):
        """Close everything; the address is gone."""
        listener, self._listener = self._listener, None
        self.path.unlink(missing_ok=True)
        if listener is not None:
            listener.close()
        with self._lock:
            for client in self._pairs:
                with contextlib.suppress(OSError):
                    client.shutdown(socket.SHUT_RDWR)

    def hole(self):
        """Swallow everything, and say nothing."""
        with self._lock:
            self._deaf = True
            self._pairs = dict.fromkeys(self._pairs, True)

    def refuse(self, error):
        """Answer each command with `error`, such as ``LOADING ...``."""
        self._error = b"-" + error.encode() + b"\r\n"

    def mend(self):
        """Carry everything again; what is dead stays dead."""
        self._error = b""
        with self._lock:
            self._deaf = False
        if self._listener is None:
            self.path.unlink(missing_ok=True)
            self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self._listener.bind(str(self.path))
            self._listener.listen(128)
            threading.Thread(target=self._accept_loop, args=(self._listener,), daemon=True).start()

    def close(self):
        """End it; its threads end with their connections."""
        self.cut()

    def _accept_loop(self, listener):
        while self._listener is listener:
            try:
                if not select.select([listener], [], [], _WAIT_S)[0]:
                    continue
                client, _ = listener.accept()
            except (OSError, ValueError):
                return
            with self._lock:
                self._pairs[client] = self._deaf
            threading.Thread(target=self._carry, args=(client,), daemon=True).start()

    def _carry(self, client):
        server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            server.connect(str(self._server_path))
            self._pump(client, server)
        except OSError:
            pass
        finally:
            with self._lock:
                self._pairs.pop(client, None)
            for each in (client, server):
                each.close()

    def _pump(self, client, server):
        requests = Requests()
        while True:
            ready, _, _ = select.select([client, server], [], [], _WAIT_S)
            for source in ready:
                data = source.recv(_BYTES)
                if not data:
                    return
                if self._pairs.get(client):
                    continue
                if source is client:
                    whole = requests.feed(data)
                    if self._error:
                        client.sendall(self._error * whole)
                    else:
                        server.sendall(data)
                else:
                    client.sendall(data)
