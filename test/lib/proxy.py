"""An HTTP proxy for tests: opens tunnels (CONNECT) to one address, whatever name it is asked for.

    proxy.py --log FILE --host ADDRESS --to ADDRESS

Prints its port. Each request is a line in FILE: its first line.
"""
import argparse
import asyncio
import contextlib


async def relay(reader, writer):
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


async def serve(reader, writer, options, log):
    line = (await reader.readline()).decode("latin-1").strip()
    log.write(line + "\n")
    log.flush()
    while (await reader.readline()).strip():
        pass
    method, target, _ = line.split()
    if method != "CONNECT":
        writer.write(b"HTTP/1.1 405 Method Not Allowed\r\nContent-Length: 0\r\n\r\n")
        writer.close()
        return
    to_reader, to_writer = await asyncio.open_connection(options.to, int(target.rpartition(":")[2]))
    writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
    await asyncio.gather(relay(reader, to_writer), relay(to_reader, writer))


async def run(options):
    log = open(options.log, "a")
    server = await asyncio.start_server(lambda reader, writer: serve(reader, writer, options, log), options.host, 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--log", required=True)
    parser.add_argument("--host", required=True)
    parser.add_argument("--to", required=True)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
