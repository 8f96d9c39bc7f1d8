-- What is shown before anything is sent: the mapped rows of a model as they
-- are now. Nothing of it is stored.
SET client_min_messages = warning;
CREATE ROLE regress_preview_ann;
CREATE ROLE regress_preview_bob;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA retl TO regress_preview_ann, regress_preview_bob;
CREATE SCHEMA regress_preview AUTHORIZATION regress_preview_ann;
SET ROLE regress_preview_ann;
SET search_path = regress_preview;
CREATE TABLE customer (region text, id int, email text, spent numeric, PRIMARY KEY (region, id));
INSERT INTO customer VALUES ('eu', 1, 'ann@example.com', 12.50), ('eu', 2, NULL, 0), ('us', 1, 'bob@example.com', 1e30);
SELECT retl.create_model('customers', 'SELECT * FROM customer ORDER BY region, id; -- in order', '{region,id}') > 0 AS created;
SELECT retl.create_model('emails', 'SELECT email, id FROM customer ORDER BY id, region', '{email}') > 0 AS created;
SELECT retl.create_destination('hook', 'webhook', '{"url": "https://hook.example/in", "batch_size": 10, "headers": {"X-App": "retl"}}') > 0 AS created;
SELECT retl.create_mapping('contacts', 'customers', 'hook', 'send',
  '{"data": {"email": {"@path": "$.email"}, "share": {"@sql": "100 / (2 - id)"}, "event": {"@path": "$.event"}}}') > 0 AS created;
SELECT retl.create_mapping('rich', 'customers', 'hook', 'send', '{"data": {"@path": "$.properties"}}',
  filter => 'spent > 10', records => '{updated,deleted}') > 0 AS created;
SELECT retl.create_mapping('by email', 'emails', 'hook', 'send', '{"data": {"id": {"@path": "$.id"}}}') > 0 AS created;

-- a row that cannot be mapped is shown with its error
SELECT key, operation, payload, request IS NOT NULL AS request, error FROM retl.preview_mapping('contacts');
SELECT request->>'method' AS method, request->>'url' AS url, request->'body' AS body, h.*
  FROM retl.preview_mapping('contacts', 1), json_each_text(request->'headers') h ORDER BY h.key COLLATE "C";

-- secrets are never shown, and what is made of them is not either
SELECT retl.set_secret('hook', 'bearer_token', 'hush-hush');
SELECT retl.set_secret('hook', 'signing_key', 'whsec_aHVzaA==');
SELECT h.key, CASE h.key WHEN 'webhook-timestamp' THEN 'a time' ELSE h.value END AS value
  FROM retl.preview_mapping('contacts', 1), json_each_text(request->'headers') h ORDER BY h.key COLLATE "C";

-- the filter is part of what a mapping sees, and its first operation is shown
SELECT key, operation, payload, error FROM retl.preview_mapping('rich');
SELECT key, operation, payload, error FROM retl.preview_mapping('by email');

-- live, in this transaction, and as long as asked for
BEGIN;
UPDATE customer SET spent = 11 WHERE id = 2;
SELECT key FROM retl.preview_mapping('rich', 2);
ROLLBACK;
SELECT count(*) FROM retl.preview_mapping('contacts', 0);
SELECT * FROM retl.preview_mapping('contacts', -1);
SELECT p::text LIKE '%ann@example.com%' AS whole_row FROM retl.preview_mapping('contacts', 1) p;

-- whoever may not use the mapping may not look through it
SET ROLE regress_preview_bob;
SELECT * FROM retl.preview_mapping('contacts');
SET ROLE regress_preview_ann;
SELECT * FROM retl.preview_mapping('contact');
ALTER TABLE customer RENAME COLUMN email TO mail;
SELECT key, payload FROM retl.preview_mapping('contacts', 1);
SELECT key, payload FROM retl.preview_mapping('by email', 1);
RESET ROLE;
SELECT (SELECT count(*) FROM retl.request) AS requests, (SELECT count(*) FROM retl.run) AS runs, (SELECT count(*) FROM retl.batch) AS batches,
       (SELECT count(*) FROM pg_class WHERE relnamespace = 'retl_data'::regnamespace) AS tables;

RESET search_path;
DROP OWNED BY regress_preview_ann, regress_preview_bob CASCADE;
DROP ROLE regress_preview_ann, regress_preview_bob;
