# How much is sent, to whom, and by whom: rates, hopeless destinations, certificates, secrets, copies of a database,
# orderly ends, and locks that others hold.
use strict;
use warnings;

use List::Util qw(max);
use PostgreSQL::Test::Utils;
use RetlTest;
use Test::More;

my $certificate = $PostgreSQL::Test::Utils::tmp_check . '/certificate.pem';
my $key = $PostgreSQL::Test::Utils::tmp_check . '/key.pem';
system_or_bail('openssl', 'req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2',
	'-subj', '/CN=receiver', '-addext', 'subjectAltName=IP:127.0.0.1', '-keyout', $key, '-out', $certificate);
$ENV{SSL_CERT_FILE} = $certificate;

my $node = new_node('limits', conf => "retl.host_identity = 'here'\nlog_statement = none\n");
my $receiver = new_receiver();
$node->safe_psql('postgres', q{
CREATE TABLE t (id int PRIMARY KEY, v int NOT NULL DEFAULT 1);
INSERT INTO t SELECT i, 1 FROM generate_series(1, 500) i;
SELECT retl.create_model('t', 't', '{id}');
INSERT INTO retl.connector SELECT 'limited', (definition::jsonb ||
  '{"rate": {"requests": 40, "seconds": 1}, "retry": {"also": [404], "never": [503]}}')::json, false FROM retl.connector WHERE name = 'webhook';
});

sub query { return $node->safe_psql('postgres', $_[0]); }

sub destination
{
	my ($name, %settings) = @_;
	my $connector = delete $settings{connector} // 'webhook';
	my $mapping = delete $settings{mapping} // {};
	query(sprintf "SELECT retl.create_destination(%s, %s, %s)", literal($name), literal($connector),
		literal(json({ url => $receiver->url . "/$name", %settings })));
	create_mapping($node, $name, 't', $name, %$mapping);
	return $name;
}

sub outcome
{
	my ($run) = @_;
	return "$run->{status} sent $run->{sent} failed $run->{failed}";
}

# Rate
destination('rated', connector => 'limited', batch_size => 5);
$receiver->rules({ path => '/rated', status => 404, times => 1 }, { path => '/rated', status => 503, times => 1, skip => 1 });
my $run = sync_and_wait($node, 'rated');
is(outcome($run), 'partial sent 495 failed 5', 'a connector says which statuses are tried again');
my @times = map { $_->{at} } $receiver->requests(qr{/rated});
is(scalar @times, 101, '... 404 is, 503 is not');
my $most = max map { my $from = $_; scalar grep { $_ >= $from && $_ < $from + 1 } @times } @times;
cmp_ok($most, '<=', 44, "the rate of a connector is kept: $most in a second, 40 asked for");
cmp_ok($times[-1] - $times[0], '<', 20, '... and used');

# Wrong credentials
destination('closed');
$receiver->rules({ path => '/closed', status => 401 });
$run = sync_and_wait($node, 'closed');
is($run->{status}, 'failed', 'a destination that lets nobody in fails the run');
like($run->{error}, qr/refused 100 requests in a row/, '... and the run says so');
cmp_ok(scalar $receiver->requests(qr{/closed}), '<=', 120, '... before it has got every request');
is(query("SELECT count(*) FROM retl.failed_rows WHERE mapping::text = 'closed'"), 500, '... every record stands as failed');
$receiver->rules();
is(outcome(sync_and_wait($node, 'closed')), 'succeeded sent 500 failed 0', '... and goes out when it lets us in');

# Everything refused
destination('picky', batch_size => 500);
$receiver->rules({ path => '/picky', status => 422 });
$run = sync_and_wait($node, 'picky');
is(outcome($run), 'failed sent 0 failed 500', 'a batch all of whose records are refused');
cmp_ok(scalar $receiver->requests(qr{/picky}), '<', 700, '... is not halved down to the last of them');

# Certificates
my $secure = new_receiver(cert => $certificate, key => $key);
destination('secure', url => $secure->url . '/secure', batch_size => 100);
is(outcome(sync_and_wait($node, 'secure')), 'succeeded sent 500 failed 0', 'TLS, by an authority of the server\'s environment');
destination('wrong', url => 'https://localhost:' . $secure->port . '/wrong', batch_size => 500);
my $wrong = sync($node, 'wrong');
$node->poll_query_until('postgres', "SELECT count(*) > 1 FROM retl.attempt a JOIN retl.batch b ON b.id = a.batch WHERE b.run = $wrong")
  or die 'no attempts';
like(query("SELECT error FROM retl.batch WHERE run = $wrong"), qr/localhost/, 'a certificate of another name is refused');
is(scalar $secure->requests(qr{/wrong}), 0, '... before anything is sent');
query("SELECT retl.cancel_run($wrong, 'enough')");
wait_for_run($node, $wrong);

# Secrets
my $file = $PostgreSQL::Test::Utils::tmp_check . '/token';
append_to_file($file, "canary-1234567890\n");
destination('secretive', batch_size => 500);
query(q{INSERT INTO retl.secret (destination, name, reference) SELECT id, 'bearer_token', } . literal(json({ file => $file }))
	  . q{ FROM retl.destination WHERE name = 'secretive'});
$receiver->rules({ path => '/secretive', status => 403, body => 'do not come with canary-1234567890 again' });
is(outcome(sync_and_wait($node, 'secretive')), 'failed sent 0 failed 500', 'a destination that repeats our secret');
is(header(($receiver->requests(qr{/secretive}))[0], 'authorization'), 'Bearer canary-1234567890', '... which came from a file');
is(query(q{SELECT count(*) FROM (SELECT a::text FROM retl.attempt a UNION ALL SELECT b::text FROM retl.batch b
  UNION ALL SELECT e::text FROM retl.exception e UNION ALL SELECT r::text FROM retl.run r) x (x) WHERE x LIKE '%canary%'}),
	0, '... which is stored nowhere');
unlike(slurp_file($node->logfile), qr/canary/, '... nor logged');
unlink $file;
$receiver->clear;
is(outcome(sync_and_wait($node, 'secretive')), 'failed sent 0 failed 500', 'a secret whose file is gone');
is(scalar $receiver->requests(qr{/secretive}), 0, '... sends nothing');
like(query("SELECT error FROM retl.failed_rows WHERE mapping::text = 'secretive' LIMIT 1"), qr/its file does not exist/, '... and says why');

# An orderly end of the worker
destination('patient', concurrency => 4, mapping => { batch_size => 10 });
$receiver->rules({ path => '/patient', delay => 0.2 });
my $patient = sync($node, 'patient');
$receiver->wait_for(8, path => '/patient');
kill 'TERM', worker_pid($node, 'delivery');
is(outcome(wait_for_run($node, $patient)), 'succeeded sent 500 failed 0', 'after SIGTERM another worker goes on');
is(scalar $receiver->requests(qr{/patient}), 50, '... and no request that was answered is repeated');
query("SELECT retl.alter_mapping('patient', resend => 'all', max_change_percent => 100)");
arm_fault($node, 'outcomes_before_commit', 'term 3');
is(outcome(sync_and_wait($node, 'patient')), 'succeeded sent 500 failed 0', '... nor is it when the order comes while outcomes are recorded');
ok(!fault_armed($node, 'outcomes_before_commit'), '... which it did');
is(scalar $receiver->requests(qr{/patient}), 100, '... which are on record all the same');

# Locks of others
$receiver->rules({ path => '/locked', delay => 0.2 });
destination('locked', mapping => { batch_size => 10 });
destination('free', mapping => { batch_size => 10 });
my $locked = sync($node, 'locked');
$receiver->wait_for(1, path => '/locked');
my $holder = $node->background_psql('postgres');
$holder->query_safe("BEGIN; SELECT FROM retl.run WHERE id = $locked FOR UPDATE");
is(outcome(sync_and_wait($node, 'free')), 'succeeded sent 500 failed 0', 'a lock on one run holds up no other');
$holder->query_safe('COMMIT');
$holder->quit;
is(outcome(wait_for_run($node, $locked)), 'succeeded sent 500 failed 0', '... nor that run, once it is gone');
is(scalar $receiver->requests(qr{/locked}), 50, '... and nothing is repeated');

# A copy
$receiver->clear;
query('UPDATE t SET v = 2 WHERE id <= 10');
$node->append_conf('postgresql.conf', "retl.host_identity = 'elsewhere'");
$node->restart;
my $copy = sync($node, 'free');
$node->wait_for_log(qr/retl does not deliver from database/);
is(query("SELECT count(*) FROM retl.batch WHERE run = $copy AND attempts > 0"), 0, 'a copy on another host sends nothing');
is(scalar $receiver->requests(qr{/free}), 0, '... really nothing');
query('SELECT retl.arm()');
like(outcome(wait_for_run($node, $copy)), qr/^(succeeded|partial|failed|canceled) /, '... until it is armed');

done_testing();
