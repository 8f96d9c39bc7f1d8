# Waiting for runs: nothing is held meanwhile, it can be interrupted, and it ends as the run ends.
use strict;
use warnings;

use IPC::Run;
use PostgreSQL::Test::Utils;
use RetlTest;
use Test::More;

# Without workers: what becomes of a run is up to this test.
my $node = new_node('waiting', conf => "retl.enabled = off\n");

$node->safe_psql(
	'postgres', q{
CREATE TABLE customer (id int PRIMARY KEY);
SELECT retl.create_model('customers', 'customer', '{id}');
SELECT retl.create_destination('hook', 'webhook', '{"url": "https://hook.example"}');
SELECT retl.create_mapping('contacts', 'customers', 'hook', 'send', '{"data": 1}', enabled => true);
});

# A session that waits: a handle with its output.
sub start_waiting
{
	my ($sql, %options) = @_;
	my %session = (out => '', err => '');
	my $name = $options{name} // 'waiting';
	$session{handle} = IPC::Run::start(
		[
			'psql', '-XAt', '-v', 'VERBOSITY=verbose', '-d',
			$node->connstr('postgres') . " application_name=$name" . ($options{connect} // ''), '-c', $sql
		],
		'<', \undef, '>', \$session{out}, '2>', \$session{err});
	$node->poll_query_until('postgres',
		"SELECT count(*) = 1 FROM pg_stat_activity WHERE application_name = '$name' AND wait_event = 'Extension'")
	  or die "$name does not wait";
	return \%session;
}

sub finish
{
	my ($session) = @_;
	IPC::Run::finish($session->{handle});
	return $session->{err};
}

my $newest = q{SELECT max(id) FROM retl.request};

# What the snapshot worker would do, with less work.
sub serve
{
	my ($status, %columns) = @_;
	my $id = delete $columns{id} // $node->safe_psql('postgres', $newest);
	my $finished = $status eq 'held' || $status eq 'delivering' ? 'NULL' : 'now()';
	my $names = join '', map { ", $_" } sort keys %columns;
	my $values = join '', map { ', ' . literal($columns{$_}) } sort keys %columns;
	$node->safe_psql(
		'postgres', qq{
WITH served AS (DELETE FROM retl.request WHERE id = $id RETURNING *)
INSERT INTO retl.run (id, mapping, mapping_version, status, trigger, requested_at, finished_at$names)
SELECT id, mapping, 1, '$status', trigger, requested_at, $finished$values FROM served;
});
	return $id;
}

# Held meanwhile: nothing.
my $session = start_waiting(q{CALL retl.sync_and_wait('contacts')});
my $pid = $node->safe_psql('postgres', q{SELECT pid FROM pg_stat_activity WHERE application_name = 'waiting'});
my $held = 0;
for (1 .. 200)
{
	# A look at the run is a transaction, too: it may be met at one, but not at each.
	my $now = $node->safe_psql('postgres',
		"SELECT (SELECT count(*) FROM pg_locks WHERE pid = $pid AND locktype <> 'virtualxid')
		 + (SELECT count(*) FROM pg_stat_activity WHERE pid = $pid AND (backend_xmin IS NOT NULL OR backend_xid IS NOT NULL))");
	$held++ if $now > 0;
	last if $_ >= 20 && $held < $_ / 2;
}
cmp_ok($held, '<', 10, 'neither lock nor snapshot is held while waiting');
my $run = $node->safe_psql('postgres', $newest);
is($node->safe_psql('postgres', "SELECT status FROM retl.runs WHERE id = $run"), 'queued', 'the request is committed');
serve('delivering', added => 3);
$node->safe_psql('postgres', "UPDATE retl.run SET status = 'succeeded', sent = 3, finished_at = now() WHERE id = $run");
my $said = finish($session);
like($said, qr/NOTICE:.*run $run of mapping "contacts": queued/, 'says that it waits');
like($said, qr/NOTICE:.*run $run of mapping "contacts" succeeded: 3 added, 0 updated, 0 deleted/, '... and how it ended');
is($session->{handle}->result(0), 0, '... well');

# As the run ends, so ends the call.
my @ends = (
	[ 'partial', { sent => 1, failed => 2 }, 0, qr/WARNING:  01000: run \d+ of mapping "contacts" ended partial: 1 records were sent and 2 failed/ ],
	[ 'failed', { error_code => '42P01', error => 'relation "x" does not exist', hint => 'Create it.' },
		1, qr/ERROR:  42P01: run \d+ of mapping "contacts" failed: relation "x" does not exist\nHINT:  Create it\./ ],
	[ 'failed', { error_code => 'nonsense' }, 1, qr/ERROR:  38000: run \d+ of mapping "contacts" failed: no reason is on record/ ],
	[ 'held', { error => '90 % of the rows would be deleted', hint => 'Release it.' },
		1, qr/ERROR:  55000: run \d+ of mapping "contacts" is held: 90 % of the rows would be deleted\nHINT:  Release it\./ ],
	[ 'canceled', { error => 'disabled' }, 1, qr/ERROR:  57000: run \d+ of mapping "contacts" was canceled: disabled/ ],
	[ 'skipped', {}, 1, qr/ERROR:  57000: run \d+ of mapping "contacts" was skipped/ ]);
for my $end (@ends)
{
	my ($status, $columns, $result, $message) = @$end;
	$session = start_waiting(q{CALL retl.sync_and_wait('contacts')});
	$run = serve($status, %$columns);
	like(finish($session), $message, "$status is told");
	is($session->{handle}->result(0) != 0, $result != 0, '... and succeeds or fails');
	my ($ret, $out, $err) = $node->psql('postgres', "CALL retl.wait_for_run($run)", extra_params => [ '-v', 'VERBOSITY=verbose' ]);
	like($err, $message, '... also afterwards');
}

# Merged into another run: that one decides.
my $first = $node->safe_psql('postgres', q{SELECT retl.sync('contacts')});
$session = start_waiting(q{CALL retl.sync_and_wait('contacts')});
my $second = $node->safe_psql('postgres', $newest);
serve('delivering', id => $first);
serve('delivering', id => $second, served_by => $first);
$node->safe_psql('postgres', "UPDATE retl.run SET status = 'failed', error = 'no luck', finished_at = now() WHERE id = $first");
$said = finish($session);
like($said, qr/run $second of mapping "contacts" is served by run $first/, 'a merged run is followed');
like($said, qr/run $first of mapping "contacts" failed: no luck/, '... to its end');

# Interrupted: by the user, by a time-out of either kind, by the end of the mapping.
$session = start_waiting(q{CALL retl.sync_and_wait('contacts')});
$node->safe_psql('postgres', q{SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE application_name = 'waiting'});
like(finish($session), qr/57014: canceling statement due to user request/, 'a cancel ends the wait');
$run = $node->safe_psql('postgres', $newest);
is($node->safe_psql('postgres', "SELECT status FROM retl.runs WHERE id = $run"), 'queued', '... not the run');
my ($ret, $out, $err) = $node->psql('postgres', "CALL retl.wait_for_run($run, '30 ms')");
like($err, qr/run $run of mapping "contacts" has not ended in time: it is queued/, 'time is up');
($ret, $out, $err) = $node->psql('postgres', "SET statement_timeout = 50; CALL retl.wait_for_run($run)");
like($err, qr/statement timeout/, 'statement_timeout holds');
$session = start_waiting("CALL retl.wait_for_run($run)");
$node->safe_psql('postgres', q{SELECT retl.drop_mapping('contacts')});
like(finish($session), qr/42704: run $run does not exist/, 'the mapping is dropped: the wait ends');

# Where it may be called.
$node->safe_psql('postgres',
	q{SELECT retl.create_mapping('contacts', 'customers', 'hook', 'send', '{"data": 1}', enabled => true)});
$session = start_waiting(q{DO $$BEGIN CALL retl.sync_and_wait('contacts'); END$$});
serve('succeeded');
finish($session);
is($session->{handle}->result(0), 0, 'from a DO block outside of a transaction block');
$session = start_waiting(q{CALL retl.sync_and_wait('contacts')}, connect => q{ options='-c default_transaction_isolation=serializable'});
serve('succeeded');
finish($session);
is($session->{handle}->result(0), 0, 'where transactions are serializable');
for my $sql (
	"BEGIN; CALL retl.wait_for_run($run); COMMIT;",
	"DO \$\$BEGIN CALL retl.wait_for_run($run); EXCEPTION WHEN division_by_zero THEN NULL; END\$\$",
	"CREATE FUNCTION f() RETURNS void LANGUAGE plpgsql AS \$\$BEGIN CALL retl.wait_for_run($run); END\$\$; SELECT f()")
{
	($ret, $out, $err) = $node->psql('postgres', $sql, extra_params => [ '-v', 'VERBOSITY=verbose' ]);
	like($err, qr/2D000: retl.wait_for_run cannot wait inside a transaction block/, 'not in a transaction: ' . substr $sql, 0, 20);
}

# Not in the way of dropping the extension.
$session = start_waiting(q{CALL retl.sync_and_wait('contacts')});
$node->safe_psql('postgres', q{SET lock_timeout = '5s'; DROP EXTENSION retl CASCADE});
isnt(finish($session), '', 'the extension is dropped while a session waits');
isnt($session->{handle}->result(0), 0, '... which ends with an error');

$node->stop('fast');
done_testing();
