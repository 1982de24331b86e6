"""Traffic between two namespaces, until its standard input ends.

    traffic.py answer      sinks on the far side
    traffic.py ask         connections to them
"""

import socket
import sys
import threading
import time

FAR = ["10.77.0.2", "10.77.0.3", "10.77.0.4"]
FAR6 = "fd77::2"
STREAM, OTHER, SHORT, V6, DATAGRAMS = 8080, 9090, 8000, 8443, 5353
done = threading.Event()


def start(work, *arguments):
    threading.Thread(target=work, args=arguments, daemon=True).start()


def sink(connection):
    """Takes everything, answers every chunk with a few bytes, ends with the other end."""
    with connection:
        while connection.recv(65536):
            connection.sendall(b"a" * 100)


def listen(port):
    listener = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True,
                                    backlog=64)
    while True:
        start(sink, listener.accept()[0])


def echo():
    datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    datagrams.bind(("0.0.0.0", DATAGRAMS))
    while True:
        text, who = datagrams.recvfrom(65536)
        datagrams.sendto(text, who)


def stream(address, port, size, pause):
    """One connection for the whole time."""
    connection = socket.create_connection((address, port), timeout=30)
    while not done.wait(pause):
        connection.sendall(b"s" * size)
        connection.recv(65536)
    connection.close()


def shorts():
    """A connection after the other, closed by this end: it waits in TIME_WAIT."""
    while not done.wait(0.5):
        with socket.create_connection((FAR[2], SHORT), timeout=30) as connection:
            connection.sendall(b"h" * 2000)
            connection.recv(65536)


def datagrams():
    sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sender.settimeout(1)
    while not done.wait(0.2):
        try:
            sender.sendto(b"d" * 300, (FAR[0], DATAGRAMS))
            sender.recv(65536)
        except TimeoutError:
            pass


if sys.argv[1] == "answer":
    for port in [STREAM, OTHER, SHORT, V6]:
        start(listen, port)
    start(echo)
else:
    start(stream, FAR[0], STREAM, 8_000, 0.05)
    start(stream, FAR[1], OTHER, 1_000, 0.1)
    start(stream, FAR6, V6, 2_000, 0.1)
    start(shorts)
    start(datagrams)
print("ready", flush=True)
sys.stdin.read()
done.set()
# Connections are closed in their threads.
time.sleep(1)
