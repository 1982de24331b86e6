#!/usr/bin/env python3
"""ClickHouse's engine behind as much of ClickHouse's HTTP interface as weir's tests need.

The engine is the real one (the Python package chdb); this file stands in for the server around it:
statements in the URL or the body, parameters as form fields, settings as URL parameters, LZ4 block
frames in and LZ4 frames out, users with passwords, and exceptions with the server's HTTP codes.
What it does not prove: streaming answers, roles, quotas, asynchronous inserts, replication, TLS.

Listens on loopback only. `GET /engine` answers with what the engine and this server have cost.
"""

import argparse
import base64
import hmac
import json
import os
import queue
import re
import resource
import shutil
import signal
import struct
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, urlsplit

import lz4.block
import lz4.frame
from chdb.state.sqlitelike import connect

# Largest request body.
BODY_LIMIT = 1 << 30
METHOD_LZ4 = 0x82
METHOD_NONE = 0x02
BLOCK_HEADER = struct.Struct("<16sBII")

# URL parameters that the server itself understands; every other one is a setting.
OWN_PARAMETERS = {
    "add_http_cors_header", "buffer_size", "client_protocol_version", "compress", "database",
    "decompress", "default_format", "password", "query", "query_id", "quota_key", "role",
    "session_check", "session_id", "session_timeout", "stacktrace", "user", "wait_end_of_query",
}

# How the server maps its exceptions; any other code is a 500.
HTTP_STATUS = {
    194: 401, 192: 403, 193: 403, 512: 403, 516: 403,
    159: 408, 381: 411, 229: 413, 48: 501, 76: 503, 209: 503,
}
HTTP_STATUS.update(dict.fromkeys(
    (6, 25, 26, 27, 31, 33, 36, 38, 41, 43, 44, 50, 53, 62, 63, 69, 70, 72, 130, 131, 386, 427, 457),
    400))
HTTP_STATUS.update(dict.fromkeys((46, 47, 56, 60, 61, 81, 115), 404))

CODE = re.compile(r"Code: (\d+)\. ")
INSERT_WITH_FORMAT = re.compile(r"(\s*insert\b.*?)\bformat\s+(\w+)\s*;?\s*\Z", re.I | re.S)
SETTINGS_AT_END = re.compile(r"\bsettings\s+\w+\s*=[^()]*\Z", re.I)
INSERT = re.compile(r"\s*insert\b", re.I)
FORMAT_AT_END = re.compile(r"\bformat\s+(\w+)\s*;?\s*\Z", re.I)
SETTING_NAME = re.compile(r"[A-Za-z_]\w*\Z")


class Refused(Exception):
    """What the server would answer with: a code of ClickHouse's and a text."""

    def __init__(self, code, text):
        super().__init__(f"Code: {code}. DB::Exception: {text}")


class User:
    """One who may ask: a name, a password, and the value of the setting `readonly`."""

    def __init__(self, spelled):
        name, _, rest = spelled.partition(":")
        password, _, read_only = rest.partition(":")
        self.name, self.password, self.read_only = name, password, int(read_only or 0)


class Session:
    """A session of the engine: settings, a database of its own."""

    def __init__(self, path, read_only):
        self.connection = connect(path)
        self.rows = path + "-rows"
        self.database = "default"
        if read_only:
            self.connection.query(f"SET readonly = {read_only}", "TSV")

    def run(self, request):
        """Runs a statement with its settings, which last no longer than it does."""
        if request.database != self.database:
            self.connection.query("USE " + quoted(request.database, "`"), "TSV")
            self.database = request.database
        for name, _ in request.settings:
            if not SETTING_NAME.match(name):
                raise Refused(115, f"Unknown setting '{name}'. (UNKNOWN_SETTING)")
        if not request.settings:
            return self.statement(request)
        settings = ", ".join(f"{name} = {quoted(value)}" for name, value in request.settings)
        defaults = ", ".join(f"{name} = DEFAULT" for name, _ in request.settings)
        self.connection.query("SET " + settings, "TSV")
        try:
            return self.statement(request)
        finally:
            self.connection.query("SET " + defaults, "TSV")

    def statement(self, request):
        insert = INSERT_WITH_FORMAT.match(request.query)
        if insert is None or request.data is None:
            query = request.query
            if request.data:
                query += "\n" + request.data.decode()
            result = self.connection.query(query, request.format, params=request.parameters)
            return result.bytes(), result.rows_read(), result.bytes_read(), 0, 0
        # The engine reads rows from a file. Its own way to take them piece by piece keeps the errors
        # of views to itself.
        text = insert.group(1)
        settings = SETTINGS_AT_END.search(text)
        head = text[:settings.start()] if settings else text
        rest = text[settings.start():] if settings else ""
        with tempfile.NamedTemporaryFile(dir=self.rows, suffix=".rows") as file:
            file.write(request.data)
            file.flush()
            query = f"{head} FROM INFILE {quoted(file.name)} {rest} FORMAT {insert.group(2)}"
            result = self.connection.query(query, "TSV")
        # What went into the views counts, too, as the server has it.
        return b"", 0, 0, result.rows_written(), result.bytes_written()


class Engine:
    """The engine with its sessions, and what it has cost."""

    def __init__(self, path, sessions):
        self.path = path
        self.first = Session(path, 0)
        self.version = self.first.connection.query("SELECT version()", "TSV").bytes().decode().strip()
        # By the value of `readonly`, which a session cannot lower again.
        self.free = {0: queue.SimpleQueue(), 1: queue.SimpleQueue(), 2: queue.SimpleQueue()}
        self.room = {0: sessions - 1, 1: 2, 2: 2}
        self.free[0].put(self.first)
        self.all = [self.first]
        self.lock = threading.Lock()
        self.cost = {"requests": 0, "refused": 0, "bytes_in": 0, "bytes_out": 0, "server_cpu_seconds": 0.0}
        self.running = 0
        self.last = time.monotonic()

    def session(self, read_only):
        """A session nobody uses; waits where all are in use."""
        free = self.free[read_only]
        with self.lock:
            if free.empty() and self.room[read_only] > 0:
                self.room[read_only] -= 1
                made = Session(self.path, read_only)
                self.all.append(made)
                return made
        return free.get()

    def run(self, request, user):
        session = self.session(user.read_only)
        try:
            return session.run(request)
        finally:
            self.free[user.read_only].put(session)

    def close(self):
        # Left open, the engine may crash at the end of the process.
        for session in self.all:
            session.connection.close()


class Request:
    """A statement as it came over HTTP."""

    def __init__(self):
        self.query = ""
        self.data = None
        self.database = "default"
        self.format = "TabSeparated"
        self.settings = []
        self.parameters = {}


def quoted(text, quote="'"):
    return quote + text.replace("\\", "\\\\").replace(quote, "\\" + quote) + quote


def unpacked(body):
    """Undoes the frames of `decompress=1`."""
    parts, at = [], 0
    while at < len(body):
        if len(body) - at < BLOCK_HEADER.size:
            raise Refused(33, "Cannot read all data: a compressed block is cut off. (CANNOT_READ_ALL_DATA)")
        _checksum, method, packed, raw = BLOCK_HEADER.unpack_from(body, at)
        end = at + 16 + packed
        if packed < 9 or end > len(body) or raw > BODY_LIMIT:
            raise Refused(271, "Cannot decompress: a block's sizes make no sense. (CANNOT_DECOMPRESS)")
        block = body[at + BLOCK_HEADER.size:end]
        if method == METHOD_LZ4:
            try:
                block = lz4.block.decompress(block, uncompressed_size=raw)
            except lz4.block.LZ4BlockError as error:
                raise Refused(271, f"Cannot decompress: {error}. (CANNOT_DECOMPRESS)") from None
        elif method != METHOD_NONE:
            raise Refused(89, f"Unknown codec family code: {method}. (UNKNOWN_COMPRESSION_METHOD)")
        parts.append(block)
        at = end
    return b"".join(parts)


def form_fields(content_type, body):
    """The fields of multipart/form-data, byte for byte."""
    match = re.search(r'boundary="?([^";]+)', content_type)
    if not match:
        raise Refused(36, "multipart/form-data without a boundary. (BAD_ARGUMENTS)")
    boundary = b"--" + match.group(1).encode()
    fields = {}
    body = b"\r\n" + body
    for part in body.split(b"\r\n" + boundary)[1:]:
        if part.startswith(b"--"):
            break
        head, _, value = part.partition(b"\r\n\r\n")
        name = re.search(rb'name="([^"]*)"', head)
        if name:
            fields[name.group(1).decode()] = value.decode()
    return fields


class Aborted(Exception):
    """The asker went away before the request was whole."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    engine = None
    users = {}

    def log_message(self, *_):
        pass

    def do_GET(self):
        path = urlsplit(self.path).path
        if path == "/ping":
            self.answer(200, b"Ok.\n", {})
        elif path == "/engine":
            self.answer(200, json.dumps(self.figures()).encode() + b"\n", {"Content-Type": "application/json"})
        else:
            self.statement()

    def do_POST(self):
        self.statement()

    def figures(self):
        usage = resource.getrusage(resource.RUSAGE_SELF)
        cpu = usage.ru_utime + usage.ru_stime
        with self.engine.lock:
            cost = dict(self.engine.cost)
        return {
            "pid": os.getpid(), "version": self.engine.version, "cpu_seconds": cpu,
            "engine_cpu_seconds": cpu - cost["server_cpu_seconds"], **cost,
        }

    def statement(self):
        engine = self.engine
        started = time.thread_time()
        with engine.lock:
            engine.running += 1
            engine.last = time.monotonic()
        engine_seconds = 0.0
        status, body, headers = 500, b"", {}
        received = 0
        try:
            raw = self.body()
            received = len(raw)
            user = self.user()
            request = self.request_of(raw)
            before, began = time.thread_time(), time.monotonic()
            try:
                body, *counts = engine.run(request, user)
            finally:
                # What the engine does in this very thread is the engine's.
                engine_seconds = time.thread_time() - before
            headers = self.headers_of(request, counts, time.monotonic() - began)
            status = 200
        except Aborted:
            self.close_connection = True
            return
        except Exception as error:
            status, body, headers = self.exception(error)
        finally:
            with engine.lock:
                engine.running -= 1
                engine.last = time.monotonic()
        if status == 200 and "lz4" in self.headers.get("Accept-Encoding", ""):
            body = lz4.frame.compress(body)
            headers["Content-Encoding"] = "lz4"
        self.answer(status, body, headers)
        with engine.lock:
            cost = engine.cost
            cost["requests"] += 1
            cost["refused"] += status != 200
            cost["bytes_in"] += received
            cost["bytes_out"] += len(body)
            cost["server_cpu_seconds"] += time.thread_time() - started - engine_seconds

    def answer(self, status, body, headers):
        try:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            self.wfile.flush()
        except OSError:
            self.close_connection = True

    def exception(self, error):
        text = str(error)
        match = CODE.search(text)
        if match:
            text = text[match.start():]
        else:
            text = f"Code: 1002. DB::Exception: {text}. (UNKNOWN_EXCEPTION)"
        code = int(CODE.search(text).group(1))
        text = re.sub(r" \(version [\d.]+\)\s*\Z", "", text)
        text += f" (version {self.engine.version} (a test engine))\n"
        headers = {"X-ClickHouse-Exception-Code": str(code), "Content-Type": "text/plain; charset=UTF-8"}
        return HTTP_STATUS.get(code, 500), text.encode(), headers

    def headers_of(self, request, counts, seconds):
        read_rows, read_bytes, written_rows, written_bytes = counts
        match = FORMAT_AT_END.search(request.query)
        summary = {
            "read_rows": read_rows, "read_bytes": read_bytes, "written_rows": written_rows,
            "written_bytes": written_bytes, "elapsed_ns": int(seconds * 1e9),
        }
        return {
            "X-ClickHouse-Format": match.group(1) if match else request.format,
            "X-ClickHouse-Summary": json.dumps({key: str(value) for key, value in summary.items()}),
            "X-ClickHouse-Timezone": "UTC",
        }

    def body(self):
        """The whole body. Nothing is done before it is there, so what breaks off leaves no trace."""
        if "chunked" in self.headers.get("Transfer-Encoding", "").lower():
            chunks, total = [], 0
            while True:
                line = self.rfile.readline(1 << 10)
                if not line.endswith(b"\n"):
                    raise Aborted
                size = int(line.split(b";")[0], 16)
                total += size
                if total > BODY_LIMIT:
                    raise Aborted
                chunk = self.rfile.read(size)
                if len(chunk) < size or self.rfile.readline(3) != b"\r\n":
                    raise Aborted
                if size == 0:
                    return b"".join(chunks)
                chunks.append(chunk)
        length = int(self.headers.get("Content-Length", 0))
        if length > BODY_LIMIT:
            raise Aborted
        body = self.rfile.read(length)
        if len(body) < length:
            raise Aborted
        return body

    def user(self):
        url = dict(parse_qsl(urlsplit(self.path).query, keep_blank_values=True))
        name = self.headers.get("X-ClickHouse-User", url.get("user"))
        password = self.headers.get("X-ClickHouse-Key", url.get("password", ""))
        basic = self.headers.get("Authorization", "")
        if basic.startswith("Basic "):
            name, _, password = base64.b64decode(basic[6:]).decode().partition(":")
        name = name or "default"
        user = self.users.get(name)
        if user is None or not hmac.compare_digest(user.password.encode(), password.encode()):
            raise Refused(516, f"{name}: Authentication failed: password is incorrect, or there is no user with such name. (AUTHENTICATION_FAILED)")
        return user

    def request_of(self, body):
        request = Request()
        url = parse_qsl(urlsplit(self.path).query, keep_blank_values=True)
        known = dict(url)
        request.database = self.headers.get("X-ClickHouse-Database", known.get("database", "default"))
        request.format = self.headers.get("X-ClickHouse-Format", known.get("default_format", "TabSeparated"))
        content_type = self.headers.get("Content-Type", "")
        if content_type.startswith("multipart/form-data"):
            fields = form_fields(content_type, body)
            body = b""
        else:
            fields = {}
        for name, value in [*url, *fields.items()]:
            if name.startswith("param_"):
                request.parameters[name[6:]] = value
            elif name not in OWN_PARAMETERS:
                request.settings.append((name, value))
        if known.get("decompress") == "1" and body:
            body = unpacked(body)
        query = known.get("query", "") + fields.get("query", "")
        if INSERT.match(query):
            request.query, request.data = query, body
        elif query:
            request.query = query + ("\n" + body.decode() if body else "")
        else:
            self.split(request, body)
        if not request.query.strip():
            raise Refused(62, "Syntax error: Empty query. (SYNTAX_ERROR)")
        return request

    @staticmethod
    def split(request, body):
        """Statement and rows in one body: the rows begin after the line of the format."""
        head = re.match(rb"\s*insert\b[^\n]*?\bformat\s+\w+[ \t]*(\r?\n|\Z)", body, re.I)
        if head and len(body) > head.end():
            request.query, request.data = head.group(0).decode(), body[head.end():]
        else:
            request.query = body.decode()


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256


def watch(engine, idle, stdin, stop):
    """Ends the server when nobody asked for long enough, or when its starter is gone."""
    if stdin:
        def wait():
            sys.stdin.buffer.read()
            stop()
        threading.Thread(target=wait, daemon=True).start()
    if idle:
        def look():
            while True:
                time.sleep(min(idle / 4, 5))
                with engine.lock:
                    quiet = engine.running == 0 and time.monotonic() - engine.last > idle
                if quiet:
                    stop()
                    return
        threading.Thread(target=look, daemon=True).start()


def main():
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    arguments.add_argument("--data", required=True, help="the engine's directory")
    arguments.add_argument("--remove", action="store_true", help="remove the directory at the end")
    arguments.add_argument("--port", type=int, default=0, help="0: any that is free")
    arguments.add_argument("--ready", help="a file that gets the port and the process id as JSON")
    arguments.add_argument("--user", action="append", default=[], metavar="NAME:PASSWORD[:READONLY]",
                           help="who may ask; without one, `default` with no password")
    arguments.add_argument("--sessions", type=int, default=8, help="statements at the same time")
    arguments.add_argument("--idle", type=float, default=0, help="end after so many idle seconds")
    arguments.add_argument("--until-stdin-closes", action="store_true", help="end with the starter")
    given = arguments.parse_args()

    users = [User(spelled) for spelled in given.user] or [User("default:")]
    os.makedirs(given.data, exist_ok=True)
    os.makedirs(given.data + "-rows", exist_ok=True)
    engine = Engine(given.data, given.sessions)
    handler = type("Bound", (Handler,), {"engine": engine, "users": {user.name: user for user in users}})
    server = Server(("127.0.0.1", given.port), handler)

    def stop(*_):
        threading.Thread(target=server.shutdown, daemon=True).start()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    ready = {"port": server.server_address[1], "pid": os.getpid(), "version": engine.version}
    if given.ready:
        with open(given.ready + ".new", "w", encoding="utf-8") as file:
            json.dump(ready, file)
        os.replace(given.ready + ".new", given.ready)
    print(json.dumps(ready), flush=True)
    watch(engine, given.idle, given.until_stdin_closes, stop)
    server.serve_forever(poll_interval=0.2)

    if given.ready and os.path.exists(given.ready):
        os.unlink(given.ready)
    server.server_close()
    engine.close()
    if given.remove:
        shutil.rmtree(given.data, ignore_errors=True)
        shutil.rmtree(given.data + "-rows", ignore_errors=True)


if __name__ == "__main__":
    main()
