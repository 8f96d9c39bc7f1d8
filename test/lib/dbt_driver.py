"""Runs dbt in one process: each line on standard input is a JSON array of arguments, each line out what came of it.

{"success", "results": {unique_id: status}, "messages": {unique_id: text}, "error", "stdout", "invocation"}
"""
import json
import os
import sys
import tempfile


def main():
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    from dbt.cli.main import dbtRunner

    print(json.dumps({"ready": True}), file=out, flush=True)
    for line in sys.stdin:
        with tempfile.TemporaryFile("w+") as said:
            sys.stdout.flush()
            os.dup2(said.fileno(), 1)
            done = dbtRunner().invoke(json.loads(line))
            sys.stdout.flush()
            os.dup2(2, 1)
            said.seek(0)
            text = said.read()
        nodes = getattr(done.result, "results", None) or []
        print(json.dumps({
            "success": done.success,
            "error": str(done.exception) if done.exception else None,
            "results": {r.node.unique_id: str(r.status) for r in nodes if getattr(r, "node", None)},
            "messages": {r.node.unique_id: r.message for r in nodes if getattr(r, "node", None)},
            "stdout": text,
        }), file=out, flush=True)


# dbt starts processes that import this file again.
if __name__ == "__main__":
    main()
