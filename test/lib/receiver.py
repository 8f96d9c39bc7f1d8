"""An HTTP/1.1 destination for tests: logs what reaches it, misbehaves as told.

    receiver.py --log FILE [--fsync] [--host ADDRESS] [--port N] [--cert FILE --key FILE]

Listens on 127.0.0.1, or ADDRESS, and prints its port. Each request is one JSON line in FILE,
written before the answer starts, so that what the sender can know is never
ahead of the log:

    {"event": "request", "n": 1, "at": seconds, "connection": 1, "method", "path", "headers": [[name, value], ..],
     "body" or (not UTF-8) "body_base64", "complete": bool, "status": code or null, "fault": null or what was done}

and one line {"event": "done", "n": 1, "at", "answered": bool} when its answer was handed over or given up.

POST /_control {"rules": [rule, ..], "add": bool, "clear_log": bool}
    sets (or adds to) the rules. The first rule that matches a request and is
    not used up decides. A rule:
      when: path, method, match (of the body) (regular expressions, searched), match_headers {name: expression},
            over n (while more than n are under way, this one included),
            skip n (let the first n that match pass), times n (then it is used up; default: for ever)
      what: status, headers {name: value}, body, reason
            delay seconds                before the answer
            hang true                    no answer until POST /_release or the peer goes
            close "early"|"headers"|"read"|"answer"   close before reading, after the head, after the whole
                                         request, after the head of the answer
            reset true                   close by RST instead of FIN
            cut n                        send n bytes of the body, then close, under the full Content-Length
            unframed true                no Content-Length: the body ends with the connection (cut applies)
            slow seconds                 between single bytes of the answer
            huge n                       a body of n bytes; endless true: a chunked body without end
            gzip_bomb n                  a body that unpacks to n bytes
            redirect url                 302
            informational [codes]        1xx answers first
            raw text                     these bytes instead of an answer (garbage, HTTP/0.9), then close
            chunked true                 the body in chunks
            close_after true             "Connection: close" and close
GET  /_wait?requests=N[&done=1][&path=REGEX][&timeout=S]   answers when N requests have arrived (with done=1: are over),
                                          or 504 after S (60) seconds
GET  /_requests    what the log holds, as a list
GET  /_state       {"requests", "open", "connections"}
POST /_release     lets hanging requests be answered
"""
import argparse
import asyncio
import base64
import gzip
import json
import os
import re
import signal
import socket
import ssl
import struct
import sys
import time
import urllib.parse

REASONS = {200: "OK", 201: "Created", 202: "Accepted", 204: "No Content", 302: "Found", 400: "Bad Request",
           401: "Unauthorized", 403: "Forbidden", 404: "Not Found", 408: "Request Timeout", 409: "Conflict",
           413: "Content Too Large", 422: "Unprocessable Content", 429: "Too Many Requests",
           500: "Internal Server Error", 502: "Bad Gateway", 503: "Service Unavailable", 504: "Gateway Timeout"}
DEFAULT = {"status": 200, "body": '{"ok":true}'}


class Request:
    def __init__(self, method, path, headers):
        self.method = method
        self.path = path
        self.headers = headers
        self.body = b""
        self.complete = False

    def header(self, name):
        for key, value in self.headers:
            if key.lower() == name:
                return value
        return None


class Rule:
    KNOWN = {"path", "method", "match", "match_headers", "over", "skip", "times", "status", "headers", "body", "reason",
             "delay", "hang", "close", "reset", "cut", "unframed", "slow", "huge", "endless", "gzip_bomb", "redirect",
             "informational", "raw", "chunked", "close_after"}

    def __init__(self, what):
        unknown = set(what) - self.KNOWN
        if unknown:
            raise ValueError(f"unknown members of a rule: {sorted(unknown)}")
        self.what = what
        self.seen = 0
        self.used = 0

    def needs_body(self):
        return "match" in self.what

    def matches(self, request, open_requests):
        what = self.what
        if open_requests + 1 <= what.get("over", 0):
            return False
        if "path" in what and not re.search(what["path"], request.path):
            return False
        if "method" in what and not re.search(what["method"], request.method):
            return False
        if "match" in what and not re.search(what["match"], request.body.decode("utf-8", "replace"), re.S):
            return False
        for name, pattern in what.get("match_headers", {}).items():
            if not re.search(pattern, request.header(name.lower()) or ""):
                return False
        return True

    def take(self, request, open_requests=0):
        """Whether it applies now; counts."""
        if self.used >= self.what.get("times", float("inf")) or not self.matches(request, open_requests):
            return False
        self.seen += 1
        if self.seen <= self.what.get("skip", 0):
            return False
        self.used += 1
        return True


class Receiver:
    def __init__(self, options):
        self.options = options
        self.log = open(options.log, "a")
        self.rules = []
        self.kept = []
        self.done = set()
        self.connections = 0
        self.open_connections = 0
        self.open_requests = 0
        self.changed = asyncio.Condition()
        self.release = asyncio.Event()

    async def note(self, line):
        self.log.write(json.dumps(line) + "\n")
        self.log.flush()
        if self.options.fsync:
            os.fsync(self.log.fileno())
        if line["event"] == "done":
            self.done.add(line["n"])
        else:
            self.kept.append(line)
        async with self.changed:
            self.changed.notify_all()

    async def head(self, reader):
        line = await reader.readline()
        while line in (b"\r\n", b"\n"):
            line = await reader.readline()
        if not line.strip():
            return None
        method, path, _ = line.decode("latin-1").split(None, 2)
        headers = []
        while True:
            line = await reader.readline()
            if line in (b"\r\n", b"\n", b""):
                break
            name, _, value = line.decode("utf-8", "replace").partition(":")
            headers.append([name.strip(), value.strip()])
        return Request(method, path, headers)

    async def body(self, request, reader, writer):
        if (request.header("expect") or "").lower() == "100-continue":
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            await writer.drain()
        if "chunked" in (request.header("transfer-encoding") or "").lower():
            parts = []
            while True:
                size = int((await reader.readline()).split(b";")[0], 16)
                parts.append(await reader.readexactly(size))
                await reader.readline()
                if size == 0:
                    break
            request.body = b"".join(parts)
        else:
            length = int(request.header("content-length") or 0)
            while len(request.body) < length:
                part = await reader.read(min(1 << 20, length - len(request.body)))
                if not part:
                    raise ConnectionError
                request.body += part
        request.complete = True

    def decide(self, request, early):
        """The rule for a request; early ones are taken before its body is read."""
        for rule in self.rules:
            if rule.what.get("close") in ("early", "headers") and not rule.needs_body():
                if early and rule.take(request, self.open_requests):
                    return rule.what
            elif not early and rule.take(request, self.open_requests):
                return rule.what
        return None if early else {}

    async def arrived(self, request, connection, what, fault, status):
        number = len(self.kept) + 1
        line = {"event": "request", "n": number, "at": time.time(), "connection": connection,
                "method": request.method, "path": request.path, "headers": request.headers}
        try:
            line["body"] = request.body.decode("utf-8")
        except UnicodeDecodeError:
            line["body_base64"] = base64.b64encode(request.body).decode()
        line.update(complete=request.complete, status=status, fault=fault)
        await self.note(line)
        return number

    @staticmethod
    def reset(writer):
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()

    async def end(self, writer, what):
        if what.get("reset"):
            self.reset(writer)
        else:
            writer.close()

    async def put(self, writer, data, slow):
        if not slow:
            writer.write(data)
            await writer.drain()
            return
        for byte in data:
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(slow)

    async def answer(self, writer, what, number):
        """Returns whether the connection can be used again."""
        slow = what.get("slow")
        if "raw" in what:
            await self.put(writer, what["raw"].encode("latin-1"), slow)
            return False
        for code in what.get("informational", []):
            writer.write(f"HTTP/1.1 {code} Informational\r\n\r\n".encode())
        status = what.get("status", 302 if "redirect" in what else DEFAULT["status"])
        body = what.get("body", DEFAULT["body"] if 200 <= status < 300 else '{"error":"as told"}')
        body = (body if isinstance(body, str) else json.dumps(body)).encode()
        headers = {"Content-Type": "application/json", "Date": time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime())}
        if "redirect" in what:
            headers["Location"] = what["redirect"]
        if "huge" in what:
            body = b"x" * what["huge"]
        if "gzip_bomb" in what:
            body = gzip.compress(bytes(what["gzip_bomb"]), 9)
            headers["Content-Encoding"] = "gzip"
        if status == 204:
            body = b""
        elif what.get("chunked") or what.get("endless"):
            headers["Transfer-Encoding"] = "chunked"
        elif not what.get("unframed"):
            headers["Content-Length"] = str(len(body))
        if what.get("close_after"):
            headers["Connection"] = "close"
        headers.update(what.get("headers", {}))
        reason = what.get("reason", REASONS.get(status, "Status"))
        head = f"HTTP/1.1 {status} {reason}\r\n" + "".join(
            f"{name}: {item}\r\n" for name, value in headers.items()
            for item in (value if isinstance(value, list) else [value])) + "\r\n"
        await self.put(writer, head.encode("utf-8"), slow)
        if what.get("close") == "answer":
            return False
        if what.get("endless"):
            while True:
                await self.put(writer, b"400\r\n" + b"y" * 1024 + b"\r\n", slow)
        if what.get("chunked"):
            body = b"".join(b"%x\r\n%s\r\n" % (len(part), part)
                            for part in (body[i:i + 1000] for i in range(0, len(body), 1000))) + b"0\r\n\r\n"
        if "cut" in what:
            await self.put(writer, body[:what["cut"]], slow)
            return False
        await self.put(writer, body, slow)
        return not (what.get("unframed") or what.get("close_after"))

    async def control(self, request, writer):
        url = urllib.parse.urlsplit(request.path)
        query = dict(urllib.parse.parse_qsl(url.query))
        status, result = 200, {}
        try:
            if url.path == "/_control":
                told = json.loads(request.body or b"{}")
                rules = [Rule(rule) for rule in told.get("rules", [])]
                self.rules = self.rules + rules if told.get("add") else rules
                if told.get("clear_log"):
                    self.kept.clear()
                    self.done.clear()
                    self.log.truncate(0)
            elif url.path == "/_wait":
                pattern = re.compile(query.get("path", ""))

                def enough():
                    return sum(bool(pattern.search(line["path"])) and ("done" not in query or line["n"] in self.done)
                               for line in self.kept) >= int(query["requests"])
                try:
                    async with self.changed:
                        await asyncio.wait_for(self.changed.wait_for(enough), float(query.get("timeout", 60)))
                except asyncio.TimeoutError:
                    status = 504
                result = {"requests": len(self.kept)}
            elif url.path == "/_requests":
                result = self.kept
            elif url.path == "/_state":
                result = {"requests": len(self.kept), "open": self.open_requests,
                          "connections": self.open_connections}
            elif url.path == "/_release":
                self.release.set()
                self.release = asyncio.Event()
            else:
                status = 404
        except (ValueError, KeyError, re.error) as error:
            status, result = 400, {"error": f"{type(error).__name__}: {error}"}
        body = json.dumps(result).encode()
        writer.write(f"HTTP/1.1 {status} Control\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        await writer.drain()

    async def handle(self, request, connection, reader, writer):
        """One request; returns whether the connection can be used again."""
        if request.path.startswith("/_"):
            await self.body(request, reader, writer)
            await self.control(request, writer)
            return True
        what = self.decide(request, early=True)
        if what is None:
            try:
                await self.body(request, reader, writer)
            except (ConnectionError, asyncio.IncompleteReadError):
                await self.arrived(request, connection, {}, "sender went away", None)
                raise
            what = self.decide(request, early=False)
        silent = what.get("close") in ("early", "headers", "read")
        fault = ", ".join(sorted(set(what) & {"close", "hang", "reset", "cut", "raw", "huge", "endless", "gzip_bomb",
                                              "slow", "unframed"})) or None
        status = None if silent or "raw" in what else what.get("status", 302 if "redirect" in what else 200)
        number = await self.arrived(request, connection, what, fault, status)
        answered = again = False
        self.open_requests += 1
        try:
            if what.get("hang"):
                # Until released, or until the sender gives up.
                release = asyncio.ensure_future(self.release.wait())
                gone = asyncio.ensure_future(reader.read(1))
                await asyncio.wait({release, gone}, return_when=asyncio.FIRST_COMPLETED)
                left = gone.done()
                gone.cancel()
                await asyncio.wait({gone})
                if left or not release.done():
                    release.cancel()
                    return False
            if "delay" in what:
                await asyncio.sleep(what["delay"])
            if not silent:
                again = await self.answer(writer, what, number)
                answered = True
        finally:
            self.open_requests -= 1
            if not again:
                await self.end(writer, what)
            await self.note({"event": "done", "n": number, "at": time.time(), "answered": answered})
        return again

    async def serve(self, reader, writer):
        self.connections += 1
        self.open_connections += 1
        connection = self.connections
        try:
            writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            early = next((rule for rule in self.rules if rule.what.get("close") == "early" and "path" not in rule.what
                          and "method" not in rule.what and not rule.needs_body()
                          and "match_headers" not in rule.what), None)
            if early is not None and early.take(Request("", "", [])):
                await self.end(writer, early.what)
                return
            while True:
                request = await self.head(reader)
                if request is None or not await self.handle(request, connection, reader, writer):
                    break
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError):
            pass
        finally:
            self.open_connections -= 1
            writer.close()


async def run(options):
    receiver = Receiver(options)
    tls = None
    if options.cert:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(options.cert, options.key)
    server = await asyncio.start_server(receiver.serve, options.host, options.port, ssl=tls, limit=1 << 24, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await stop.wait()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--log", required=True)
    parser.add_argument("--fsync", action="store_true")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--cert")
    parser.add_argument("--key")
    options = parser.parse_args()
    sys.tracebacklimit = 0
    asyncio.run(run(options))


if __name__ == "__main__":
    main()
