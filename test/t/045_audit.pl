# What is on record of requests: every attempt, found by key; and the keys by which a destination recognizes a request.
use strict;
use warnings;

use MIME::Base64;
use RetlTest;
use Test::More;

my $node = new_node('audit', conf => "retl.host_identity = 'here'\nretl.retry_delay = 20ms\nlog_statement = none\n");
my $receiver = new_receiver();
$node->safe_psql('postgres', q{
CREATE TABLE customer (id int PRIMARY KEY, v int NOT NULL DEFAULT 1);
INSERT INTO customer SELECT i, 1 FROM generate_series(1, 100) i;
CREATE TABLE place (region text, id int, v int, PRIMARY KEY (region, id));
INSERT INTO place VALUES ('eu', 7, 1), ('us', 7, 1);
SELECT retl.create_model('customers', 'customer', '{id}');
SELECT retl.create_model('places', 'place', '{region,id}');
});

sub query { return $node->safe_psql('postgres', $_[0]); }

# Attempts, and the way from a key to them.
create_webhook($node, 'crm', $receiver);
create_mapping($node, 'customers to crm', 'customers', 'crm', batch_size => 10, max_change_percent => 100, max_delete_percent => 100);
$receiver->rules(
	{ path => '/crm', match => '"key":42,', status => 503, times => 1, body => 'come back later' },
	{ path => '/crm', match => '"key":42,', close => 'read', times => 1 },
	{ path => '/crm', match => '"key":42,', status => 200, body => '{"id":"c-42"}' });
my $run = sync_and_wait($node, 'customers to crm');
is("$run->{status} sent $run->{sent} retried $run->{retried}", 'succeeded sent 100 retried 2', 'a request that is tried three times');
is(query(q{SELECT attempt, operation, status, http_status, answer, error IS NOT NULL, run = } . $run->{id} . q{
  FROM retl.find_requests('customers to crm', '42')}), qq{1|added|delivered|503|come back later|t|t\n2|added|delivered|||t|t\n3|added|delivered|200|{"id":"c-42"}|f|t},
	'... is found by the key of a record, with each attempt and its answer');
is(query(q{SELECT count(*) FROM retl.find_requests('customers to crm', '1') WHERE answer = '{"ok":true}' AND at > now() - interval '1 hour' AND seconds >= 0}), 1, '... as others are');
is(query(q{SELECT count(*) FROM retl.find_requests('customers to crm', '420')}), 0, '... and those that were never sent are not');
my ($sent) = grep { $_->{body} =~ /"key":42,/ } $receiver->requests(qr{/crm});
is(query(q{SELECT string_agg(DISTINCT bytes::text || ' ' || answer_bytes, ', ') FROM retl.attempts WHERE attempt = 3}), length($sent->{body}) . ' 13', '... and the view says how much was sent, and answered');
query('UPDATE customer SET v = 2 WHERE id = 42; DELETE FROM customer WHERE id = 43');
$receiver->rules();
sync_and_wait($node, 'customers to crm');
is(query(q{SELECT string_agg(k || ' ' || operation, ', ') FROM unnest(ARRAY[42, 43]) k, retl.find_requests('customers to crm', to_json(k)) WHERE run <> } . $run->{id}),
	'42 updated, 43 deleted', '... with what was done with it');
create_webhook($node, 'map', $receiver);
create_mapping($node, 'places', 'places', 'map', batch_size => 10);
sync_and_wait($node, 'places');
is(query(q{SELECT count(*) FROM retl.find_requests('places', '{"id": 7, "region": "eu"}')}), 1, 'a key of several columns');
query(q{CREATE ROLE somebody; CREATE ROLE watcher IN ROLE pg_monitor});
is(query(q{SET ROLE somebody; SELECT count(*) FROM retl.attempts; SELECT count(*) FROM retl.find_requests('customers to crm', '42')}), "0\n0", 'others see no attempts');
is(query(q{SET ROLE watcher; SELECT count(*) > 0, count(answer), count(error) FROM retl.attempts; SELECT count(*) FROM retl.find_requests('customers to crm', '42')}), "t|0|0\n0",
	'... and who watches sees how many there were');

# What an answer repeats of our secrets is not kept, wherever it is cut.
create_webhook($node, 'echo', $receiver);
create_mapping($node, 'echo', 'places', 'echo', batch_size => 10);
$node->safe_psql('postgres', q{SELECT retl.set_secret('echo', 'bearer_token', 'canary-0123456789')});
for my $status (200, 422)
{
	my $kept = $status == 200 ? 1024 : 4096;
	my $answer = ('x' x ($kept - 8)) . 'canary-0123456789 ' . encode_base64('user:canary-0123456789', '') . ' ' . encode_base64('me:canary-0123456789', '');
	$receiver->rules({ path => '/echo', status => $status, body => $answer });
	query('UPDATE place SET v = v + 1');
	sync_and_wait($node, 'echo');
	is(query(qq{SELECT answer = repeat('x', $kept - 8) || '********' FROM retl.attempts WHERE destination = 'echo' AND http_status = $status LIMIT 1}), 't', "an answer of $status that repeats a secret is kept masked and cut");
}
for my $text ('user:canary-0123456789', 'canary-0123456789', 'my:canary-0123456789', 'a:canary-0123456789:b')
{
	$receiver->rules({ path => '/echo', status => 422, body => 'Authorization: Basic ' . encode_base64($text, '') . '!' });
	query('UPDATE place SET v = v + 1');
	my $echo = sync_and_wait($node, 'echo');
	my $kept = query("SELECT answer FROM retl.attempts WHERE run = $echo->{id} LIMIT 1");
	like($kept, qr/^Authorization: Basic .*\*{16}/, '... in base64, too');
	my ($encoded) = $kept =~ /([A-Za-z0-9+\/]*)[=!]*$/;
	unlike(decode_base64($kept =~ s/.*Basic //r), qr/canary|012345/, '... of which nothing is left');
}

# Idempotency keys: what a destination has seen before is not what it sees again.
create_webhook($node, 'keys', $receiver);
create_mapping($node, 'keys', 'customers', 'keys', batch_size => 1000, max_change_percent => 100);
for my $value (7, 8, 7)
{
	query("UPDATE customer SET v = $value");
	sync_and_wait($node, 'keys');
}
my @requests = $receiver->requests(qr{/keys});
is(scalar @requests, 3, 'a value that comes back');
is($requests[0]{body} =~ s/"new"/"updated"/gr, $requests[2]{body}, '... is the same request');
my %keys = map { idempotency_key($_) => 1 } @requests;
is(scalar keys %keys, 3, '... with another key each time');
is(scalar(grep { length > 100 || !/^[\x21-\x7e]+$/ } keys %keys, map { idempotency_key($_) } $receiver->requests), 0, '... and none is longer than a hundred characters');

# A copy that is armed makes keys of its own. Both are at the same state and send the same change.
query('UPDATE customer SET v = 9');
my $original = query('SELECT id FROM retl.instance');
$node->stop;
my $backup = $node->data_dir . '_copy';
system('cp', '-a', $node->data_dir, $backup) == 0 or die 'cp';
$node->start;
sync_and_wait($node, 'keys');
$node->stop;
system('rm', '-rf', $node->data_dir) == 0 && rename($backup, $node->data_dir) or die 'mv';
$node->append_conf('postgresql.conf', "retl.host_identity = 'elsewhere'");
$node->start;
query('SELECT retl.arm()');
isnt(query('SELECT id FROM retl.instance'), $original, 'a copy that is armed is another instance');
my $last = sync_and_wait($node, 'keys');
is($last->{status}, 'succeeded', '... which delivers');
my @last = ($receiver->requests(qr{/keys}))[ -2, -1 ];
is($last[0]{body}, $last[1]{body}, '... the same as the original does');
isnt(idempotency_key($last[0]), idempotency_key($last[1]), '... under another key');

# One bad record of many: found by halving, within twice the logarithm and one.
for my $n (100, 1000)
{
	create_webhook($node, "bisect$n", $receiver);
	query("CREATE TABLE t$n AS SELECT i AS id, 1 AS v FROM generate_series(1, $n) i; SELECT retl.create_model('t$n', 't$n', '{id}')");
	create_mapping($node, "bisect$n", "t$n", "bisect$n", batch_size => $n, max_change_percent => 100);
	for my $bad (1, int($n * 0.63), $n)
	{
		$receiver->rules();
		sync_and_wait($node, "bisect$n");
		query("UPDATE t$n SET v = v + 1");
		$receiver->rules({ path => "/bisect$n", match => qq{"key":$bad,}, status => 400 });
		my $before = scalar $receiver->requests(qr{/bisect$n});
		my $found = sync_and_wait($node, "bisect$n");
		is("$found->{status} sent $found->{sent} failed $found->{failed}", 'partial sent ' . ($n - 1) . ' failed 1', "record $bad of $n is refused");
		cmp_ok(scalar($receiver->requests(qr{/bisect$n})) - $before, '<=', 2 * log($n) / log(2) + 1, '... which takes no more than 2 log n + 1 requests');
		is(query("SELECT key FROM retl.failed_rows WHERE mapping = 'bisect$n'"), $bad, '... and it alone stands as failed');
	}
}

done_testing();
