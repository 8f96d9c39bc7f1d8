"""A session with a PostgreSQL server over its socket: the simple query protocol, pipelined, no other module needed."""
import socket
import struct


class SqlError(Exception):
    def __init__(self, fields):
        super().__init__(fields.get("M"))
        self.code = fields.get("C")
        self.hint = fields.get("H")


class Session:
    """Trust authentication on a Unix socket only."""

    def __init__(self, directory, port, database="postgres", user="postgres", settings=""):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(300)
        self.socket.connect(f"{directory}/.s.PGSQL.{port}")
        self.buffer = b""
        self.warnings = []
        words = ["user", user, "database", database, "client_encoding", "UTF8", "options", settings]
        body = struct.pack("!i", 196608) + b"".join(word.encode() + b"\0" for word in words) + b"\0"
        self.socket.sendall(struct.pack("!i", len(body) + 4) + body)
        while True:
            kind, body = self.message()
            if kind == b"E":
                raise SqlError(self.fields(body))
            if kind == b"R" and struct.unpack("!i", body[:4])[0] != 0:
                raise SqlError({"M": "the server asks for a password"})
            if kind == b"Z":
                return

    def message(self):
        while len(self.buffer) < 5:
            self.more()
        length = struct.unpack("!i", self.buffer[1:5])[0] + 1
        while len(self.buffer) < length:
            self.more()
        kind, body = self.buffer[:1], self.buffer[5:length]
        self.buffer = self.buffer[length:]
        return kind, body

    def more(self):
        data = self.socket.recv(1 << 20)
        if not data:
            raise ConnectionError("the server closed the connection")
        self.buffer += data

    @staticmethod
    def fields(body):
        return {part[:1].decode(): part[1:].decode() for part in body.split(b"\0") if part}

    @staticmethod
    def values(body):
        values, at = [], 2
        for _ in range(struct.unpack("!h", body[:2])[0]):
            length = struct.unpack("!i", body[at:at + 4])[0]
            at += 4
            if length < 0:
                values.append(None)
            else:
                values.append(body[at:at + length].decode())
                at += length
        return values

    def many(self, statements):
        """Sends all statements at once, each a transaction of its own; a list of rows or an SqlError for each."""
        results = []
        for first in range(0, len(statements), 100):
            some = statements[first:first + 100]
            self.socket.sendall(b"".join(b"Q" + struct.pack("!i", len(sql) + 5) + sql + b"\0"
                                         for sql in (statement.encode() for statement in some)))
            for _ in some:
                results.append(self.result())
        return results

    def result(self):
        rows, error = [], None
        while True:
            kind, body = self.message()
            if kind == b"D":
                rows.append(self.values(body))
            elif kind == b"E":
                error = SqlError(self.fields(body))
            elif kind == b"N":
                fields = self.fields(body)
                if fields.get("S") == "WARNING":
                    self.warnings.append(fields.get("M"))
            elif kind == b"Z":
                return error if error is not None else rows

    def query(self, statement):
        result = self.many([statement])[0]
        if isinstance(result, SqlError):
            raise result
        return result

    def close(self):
        self.socket.close()
