"""make demo: a first sync and a second one, on a private server, to a receiver on this machine.

Leaves nothing running and nothing behind.
"""
import json
import os
import sys
import textwrap
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "lib"))
import harness  # noqa: E402

DEMO = os.path.dirname(os.path.abspath(__file__))
SECRET = "whsec_cmV0bC1kZW1vLXNlY3JldC1vZi0yNC1ieXRlcw=="
SHOWN_HEADERS = ("content-type", "idempotency-key", "webhook-id", "webhook-timestamp", "webhook-signature")

MODEL = """
SELECT retl.create_model('customers', $$
  SELECT c.id, c.email, c.name, c.country,
         count(o.id) AS orders, coalesce(sum(o.amount), 0) AS revenue, max(o.ordered_at) AS last_order
    FROM shop.customers c
    LEFT JOIN shop.orders o ON o.customer_id = c.id AND o.status = 'paid'
   GROUP BY c.id
$$, key => '{id}');
"""

DESTINATION = """
SELECT retl.create_destination('crm', 'webhook', settings => '{"url": "%s/customers"}');
SELECT retl.set_secret('crm', 'signing_key', '%s');
"""

MAPPING = """
SELECT retl.create_mapping('customers to crm', model => 'customers', destination => 'crm', action => 'send',
  fields => $${
    "data": {
      "customer": {"@path": "$.id"},
      "change":   {"@path": "$.event"},
      "email":    {"@path": "$.email"},
      "name":     {"@path": "$.name"},
      "orders":   {"@path": "$.orders"},
      "revenue":  {"@path": "$.revenue"},
      "segment":  {"@sql": "CASE WHEN revenue >= 100 THEN 'vip' ELSE 'regular' END"}
    }
  }$$,
  records => '{added,updated,deleted}', batch_size => 3, max_delete_percent => 50, enabled => true);
"""

CHANGES = """
INSERT INTO shop.orders VALUES (107, 2, 250.00, 'paid', '2024-04-01 09:00+00');
INSERT INTO shop.customers VALUES (7, 'tim@example.com', 'Tim Berners-Lee', 'GB', '2024-04-02 10:00+00');
DELETE FROM shop.customers WHERE id = 6;
"""

RUNS = """
SELECT id, status, added, updated, deleted, unchanged, sent, failed,
       round(snapshot_seconds::numeric, 3) AS snapshot_s, round(plan_seconds::numeric, 3) AS plan_s,
       round(delivery_seconds::numeric, 3) AS delivery_s
  FROM retl.runs ORDER BY id;
"""


def title(text):
    print(f"\n--- {text}", flush=True)


def show(server, sql):
    print(textwrap.indent(sql.strip("\n"), "    "))
    output = server.psql(sql)
    if output.strip():
        print(output, flush=True)


def account(requests):
    for request in requests:
        print(f"\n  {request['method']} {request['path']}")
        headers = {name.lower(): value for name, value in request["headers"]}
        for name in SHOWN_HEADERS:
            if name in headers:
                print(f"  {name}: {headers[name]}")
        body = json.loads(request["body"])
        records = body if isinstance(body, list) else [body]
        lines = [json.dumps(record, ensure_ascii=False) for record in records]
        if isinstance(body, list):
            print("  [" + ",\n   ".join(lines) + "]")
        else:
            print("  " + lines[0])
        print(f"  -> {request['status']}", flush=True)


def sync(server, receiver):
    before = len(receiver.requests())
    show(server, "CALL retl.sync_and_wait('customers to crm');")
    sent = receiver.requests()[before:]
    print(f"\n  the receiver got {len(sent)} request{'s' if len(sent) != 1 else ''}:")
    account(sent)
    return sent


def program():
    began = time.monotonic()
    with harness.Workplace("demo") as place:
        title(f"building for {place.pg.version_text}")
        place.build("demo")
        receiver = harness.Receiver(place)
        server = harness.Server(place, "data", ["retl.allowed_private_networks = '127.0.0.0/8'"]).start()
        print(f"a private server is up, and a receiver at {receiver.url}, which plays the CRM")

        title("a shop in the database")
        with open(os.path.join(DEMO, "shop.sql")) as file:
            server.psql(file.read())
        show(server, "SELECT count(*) AS customers, (SELECT count(*) FROM shop.orders) AS orders FROM shop.customers;")
        server.psql("SET client_min_messages = warning; CREATE EXTENSION retl;")

        title("a model: one row a customer, with what the orders add up to")
        show(server, MODEL)
        title("a destination: a signed webhook")
        show(server, DESTINATION % (receiver.url, SECRET))
        title("a mapping: which rows become what there")
        show(server, MAPPING)

        title("the first sync sends every row")
        first = sync(server, receiver)

        title("a few changes: an order, a new customer, and one who leaves")
        show(server, CHANGES)
        title("the second sync sends what changed, and the deleted row as it was")
        second = sync(server, receiver)

        title("what retl says about it")
        show(server, RUNS)
        server.stop()

        records = [record for request in first + second for record in json.loads(request["body"])]
        kinds = sorted(record["change"] for record in records[len(records) - 3:])
        if len(records) != 9 or kinds != ["deleted", "new", "updated"]:
            raise harness.Failure(f"expected six records and then three changes, got {json.dumps(records)}")
    print(f"\nDone in {time.monotonic() - began:.0f} s; the server and the receiver are gone. README.md says how to go on.")
    return 0


if __name__ == "__main__":
    harness.main(program)
