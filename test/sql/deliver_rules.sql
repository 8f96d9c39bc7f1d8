-- Rules of delivery: which addresses may be reached, what answers mean, when
-- to try again, and how a batch is halved.
CREATE FUNCTION address(text, allowed text DEFAULT '') RETURNS text AS '$libdir/retl', 'retl_test_address' LANGUAGE c STRICT;
CREATE FUNCTION retry_after(text, timestamptz) RETURNS bigint AS '$libdir/retl', 'retl_test_retry_after' LANGUAGE c STRICT;
CREATE FUNCTION outcome(status int, class int DEFAULT 0, attempt int DEFAULT 1, retry_after text DEFAULT NULL) RETURNS text
  AS '$libdir/retl', 'retl_test_outcome' LANGUAGE c;
CREATE FUNCTION bisect(body text, records int, keys json, operations text) RETURNS text[]
  AS '$libdir/retl', 'retl_test_bisect' LANGUAGE c STRICT;

-- What only this server can reach is refused, in every wrapping.
SELECT a AS address, address(a) AS refused
  FROM unnest(ARRAY['0.0.0.0', '0.1.2.3', '10.0.0.1', '10.255.255.255', '100.64.0.1', '100.127.255.255', '127.0.0.1', '127.255.0.1',
    '169.254.169.254', '172.16.0.1', '172.31.255.255', '192.0.0.8', '192.0.2.1', '192.88.99.1', '192.168.1.1', '198.18.0.1',
    '198.19.255.255', '198.51.100.7', '203.0.113.9', '224.0.0.1', '239.1.1.1', '240.0.0.1', '255.255.255.255',
    '::', '::1', '::7f00:1', '::ffff:127.0.0.1', '::ffff:10.0.0.1', '::ffff:169.254.169.254', '::ffff:0:127.0.0.1',
    '64:ff9b::7f00:1', '64:ff9b::808:808', '64:ff9b:1::1', '100::1', '2001::1', '2001:0:4136:e378:8000:63bf:3fff:fdd2',
    '2001:10::1', '2001:db8::1', '2002:7f00:1::', '3fff::1', '5f00::1', 'fc00::1', 'fd00:ec2::254', 'fe80::1', 'fe80::1%lo', 'fec0::1',
    'ff02::1', 'x', '', '127.1', '1.2.3.4.5']) AS a;
-- What everybody can reach is not.
SELECT a AS address, address(a) AS refused
  FROM unnest(ARRAY['1.1.1.1', '9.255.255.255', '11.0.0.0', '100.63.255.255', '100.128.0.0', '128.0.0.1', '169.253.1.1', '172.15.255.255',
    '172.32.0.1', '192.0.1.1', '192.167.255.255', '192.169.0.1', '198.17.255.255', '198.20.0.0', '223.255.255.255', '::ffff:8.8.8.8',
    '2001:200::1', '2606:4700::1111', '2a00:1450::1']) AS a;
-- The setting allows networks, and nothing beside them.
SELECT address('127.0.0.1', '127.0.0.0/8') AS inside, address('10.0.0.1', '127.0.0.0/8') AS outside,
  address('::ffff:127.0.0.1', '127.0.0.0/8') AS mapped, address('10.1.2.3', ' 10.1.2.3 ,::1') AS single,
  address('::1', '10.1.2.3, ::1/128') AS second, address('10.1.2.4', '10.1.2.3') AS neighbour,
  address('10.1.255.1', '10.1.128.0/17') AS bits, address('10.1.127.1', '10.1.128.0/17') AS other_bits,
  address('10.0.0.1', 'nonsense') AS nonsense, address('192.168.0.1', '0.0.0.0/0') AS everything, address('fc00::1', '0.0.0.0/0') AS but_one_family;
-- An address in a URL, however it is written; where a proxy connects, this is all that we see.
CREATE FUNCTION url_address(text, allowed text DEFAULT '') RETURNS text AS '$libdir/retl', 'retl_test_url_address' LANGUAGE c STRICT;
SELECT u AS url, url_address(u) AS refused
  FROM unnest(ARRAY['http://127.0.0.1/', 'http://127.0.0.1:80/x', 'http://127.1', 'http://2130706433/', 'http://0x7f000001/', 'http://0x7f.1', 'http://017700000001/',
    'http://0177.0.0.01/', 'http://127.0.0.1./', 'http://127.0.0.1../', 'http://0/', 'http://0.0.0.0', 'http://a@127.0.0.1/', 'http://a:b@c@127.0.0.1:1/', 'http://8.8.8.8@127.0.0.1',
    'http://127.0.0.1#@8.8.8.8/', 'http://127.0.0.1?@8.8.8.8/', 'http://127.0.0.1\@8.8.8.8/', 'http://%31%32%37.0.0.1/', 'http://127.0.0.%31/', 'http://[::1]/', 'http://[::1]:80', 'http://[::]/',
    'http://[::ffff:127.0.0.1]/', 'http://[::ffff:7f00:1]/', 'http://[0:0:0:0:0:ffff:127.0.0.1]/', 'http://[fe80::1%25eth0]/', 'http://[fe80::1%eth0]', 'http://[64:ff9b::7f00:1]',
    'http://[2002:7f00:1::]', 'http://[nonsense]/', 'http://169.254.169.254/latest', 'http://[fd00:ec2::254]/', 'https://10.0.0.1', 'http://[::1', 'http://100.64.0.1:']) AS u;
SELECT u AS url, url_address(u) AS refused
  FROM unnest(ARRAY['http://8.8.8.8/', 'http://134744072/', 'http://[2606:4700::1111]/', 'https://example.com/', 'http://127.0.0.1.example.com/', 'http://x/127.0.0.1', 'nonsense', 'http://',
    'http://8.8.8.8/@127.0.0.1']) AS u;
SELECT url_address('http://0x7f.1/', '127.0.0.0/8') AS allowed, url_address('http://0x7f.1/', '10.0.0.0/8') AS not_allowed;

-- Answers.
SELECT status, outcome(status) FROM unnest(ARRAY[200, 201, 202, 204, 207, 299, 300, 301, 302, 307, 400, 401, 403, 404, 405, 408, 409, 410, 413,
  415, 422, 423, 425, 429, 451, 500, 501, 502, 503, 504, 505, 507, 520, 599, 600, 999]) AS status;
-- No answer: not sent, unknown, refused by us.
SELECT class, outcome(0, class), outcome(0, class, 1000), outcome(200, class) FROM unnest(ARRAY[1, 2, 3]) AS class;
-- A destination that says "later" for ever is given up.
SELECT attempt, outcome(503, 0, attempt) FROM unnest(ARRAY[1, 5, 14, 15, 16]) AS attempt;
SELECT outcome(429, 0, 1, '7'), outcome(503, 0, 1, '86400'), outcome(500, 0, 1, '3'), outcome(429, 0, 1, 'soon'), outcome(200, 0, 1, '7');

-- Retry-After in its forms, and what is none.
SET timezone = 'UTC';
SELECT value, retry_after(value, '1994-11-06 08:49:30+00') FROM unnest(ARRAY['0', '120', '3600', '3601', '99999999999999999999', '007',
  'Sun, 06 Nov 1994 08:49:37 GMT', 'Sun Nov  6 08:49:37 1994', 'Sun, 06 Nov 1994 08:49:00 GMT', 'Mon, 07 Nov 1994 08:49:37 GMT',
  '', '-5', '1.5', '12s', 'abc', 'Sun, 06 Nov 1994 08:49:37', 'Sun, 06 Xyz 1994 08:49:37 GMT', 'Sun, 6 Nov 1994 08:49:37 GMT',
  'Sun, 06 Nov 1994 25:49:37 GMT', 'Sun', 'Sun,', 'Sun, 06 Nov 1994 08:49:37 GMT+1']) AS value;
SELECT retry_after('Friday, 06-Nov-26 08:49:37 GMT', '2026-11-06 08:49:30+00');

-- Halves.
SELECT bisect('[{"a":1},{"a":2},{"a":3}]', 3, '[1, 2, "x"]', 'aud');
SELECT bisect('{"inputs": [1, [2,3]], "n": 5}', 2, '[{"k": 1}, {"k": 2}]', 'uu');
SELECT bisect(E'{"a":1}\n{"a":2}\n{"a":3}\n', 3, '[1,2,3]', 'aaa');
SELECT bisect('{"a": [1,2], "b": [3,4]}', 2, '[1,2]', 'aa') AS ambiguous;
SELECT bisect('[1,2,3]', 2, '[1,2]', 'aa') AS other_number;
SELECT bisect('a=1&b=2', 2, '[1,2]', 'aa') AS no_json;
