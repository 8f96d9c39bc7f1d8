-- :rows rows of 12 columns, about 380 bytes each.
CREATE TABLE bench (
  id bigint NOT NULL, email text, name text, balance numeric(12, 2), created_at timestamptz, updated_at timestamptz,
  attributes jsonb, tags text[], active boolean, score int, segment text, note text);
INSERT INTO bench
SELECT i, 'user' || i || '@example.com', 'Name ' || md5(i::text), (i % 1000000) / 7.0,
       '2020-01-01 00:00+00'::timestamptz + i * interval '17 seconds', '2024-01-01 00:00+00'::timestamptz + i * interval '1 second',
       jsonb_build_object('plan', (ARRAY['free', 'pro', 'team'])[1 + i % 3], 'seats', i % 50, 'city', 'City ' || i % 1000),
       ARRAY['t' || i % 7, 't' || i % 11], i % 3 = 0, i % 1000, 'segment ' || i % 20, repeat(md5((i + 1)::text), 3)
  FROM generate_series(1, :rows) i;
ALTER TABLE bench ADD PRIMARY KEY (id);
VACUUM (ANALYZE, FREEZE) bench;
