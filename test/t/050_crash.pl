# Crashes amid a first sync, amid a stream of answers, while failed rows are noted, and at whatever moment: nothing is lost, repetitions
# keep key and bytes and are few, versions of a key arrive in order. The receiver's own log is the judge. Every fault point: 051 to 055.
use strict;
use warnings;

use PostgreSQL::Test::Utils;
use RetlTest;
use Test::More;

my $node = new_node('crash', conf => "retl.naptime = 1s\n");
my $receiver = new_receiver(fsync => 1);

$node->safe_psql('postgres', q{
CREATE TABLE t (id int PRIMARY KEY, v int NOT NULL DEFAULT 1, name text);
INSERT INTO t SELECT i, 1, 'row ' || i FROM generate_series(1, 300) i;
CREATE SEQUENCE next_id START 1000;
SELECT retl.create_model('t', 'SELECT id, v, name FROM t', '{id}');
});
create_webhook($node, 'hook', $receiver);
create_mapping($node, 'hook', 't', 'hook', batch_size => 4, max_change_percent => 100, max_delete_percent => 100);

sub change
{
	$node->safe_psql('postgres', q{
UPDATE t SET v = v + 1 WHERE id % 5 = (SELECT last_value % 5 FROM next_id);
DELETE FROM t WHERE id IN (SELECT id FROM t ORDER BY hashint4(id + (SELECT last_value FROM next_id)::int) LIMIT 4);
INSERT INTO t SELECT nextval('next_id'), 1, 'new' FROM generate_series(1, 6);
});
	return;
}

sub postmaster_pid
{
	my ($pid) = split /\n/, slurp_file($node->data_dir . '/postmaster.pid');
	return $pid;
}

sub fired
{
	my ($point) = @_;
	for (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default)
	{
		return 1 unless fault_armed($node, $point);
		select undef, undef, undef, 0.1;
	}
	return 0;
}

sub run_through
{
	my ($what, $run) = @_;
	$run = wait_for_run($node, $run);
	is($run->{status}, 'succeeded', "$what: the run ends well") or diag(json($run));
	check_oracle($what, $receiver, model_rows($node, 'SELECT * FROM t', 'id'), path => qr{/hook$});
	return;
}

# The first sync is where there is most to lose.
arm_fault($node, 'request_sent', 'kill 20');
my $first = sync($node, 'hook');
ok(fired('request_sent'), 'kill amid the first sync: the point was passed');
$node->poll_query_until('postgres', 'SELECT true') or die 'no restart';
cmp_ok(scalar $receiver->requests, '>=', 10, '... after a good part of it');
run_through('kill amid the first sync', $first);

# How much is repeated: what was under way, and what was answered within the last group of outcomes (50 ms). The destination takes
# 20 ms, with four requests at a time: 200 requests a second.
create_webhook($node, 'slow', $receiver, settings => { concurrency => 4 });
create_mapping($node, 'slow', 't', 'slow', batch_size => 1, max_change_percent => 100);
for my $case ([ 'kill', 4 + 10 ], [ 'kill_postmaster', 4 + 10 ], [ 'immediate', 4 + 10 ], [ 'error', 4 + 10 ], [ 'term', 0 ])
{
	my ($action, $bound) = @$case;
	my $pid = postmaster_pid();
	my $before = $receiver->requests(qr{/slow$});
	$receiver->rules({ path => '/slow', delay => 0.02 });
	arm_fault($node, 'answer_received', "$action 150");
	my $run = $node->safe_psql('postgres', q{SELECT retl.reset_mapping('slow')});
	ok(fired('answer_received'), "$action amid a stream of answers: the point was passed");
	start_after_kill($node, $pid) if $action eq 'kill_postmaster' || $action eq 'immediate';
	$node->poll_query_until('postgres', 'SELECT true') or die 'no restart';
	is(wait_for_run($node, $run)->{status}, 'succeeded', '... and all is delivered');
	my @requests = $receiver->requests(qr{/slow$});
	splice @requests, 0, $before;
	my %keys = map { idempotency_key($_) => 1 } @requests;
	my $repeated = @requests - keys %keys;
	# as much again for a machine that is busy
	cmp_ok($repeated, '<=', 2 * $bound, "... with $repeated of " . keys(%keys) . ' requests repeated');
}
$receiver->rules();

# While the rows are noted that a destination refused.
$receiver->rules({ match => '"id":1,', status => 422 });
$node->safe_psql('postgres', q{INSERT INTO t VALUES (1, 1000, 'refused') ON CONFLICT (id) DO UPDATE SET v = 1000, name = 'refused'});
for my $action ('kill', 'kill_postmaster', 'error')
{
	change();
	$node->safe_psql('postgres', q{UPDATE t SET v = v + 1 WHERE id = 1});
	my $pid = postmaster_pid();
	arm_fault($node, 'run_resolved', $action);
	my $run = sync($node, 'hook');
	ok(fired('run_resolved'), "$action at run_resolved: the point was passed");
	start_after_kill($node, $pid) if $action eq 'kill_postmaster';
	$node->poll_query_until('postgres', 'SELECT true') or die 'no restart';
	$run = wait_for_run($node, $run);
	is("$run->{status} $run->{failed}", 'partial 1', '... one record failed') or diag(json($run));
	is($node->safe_psql('postgres', 'SELECT key FROM retl.failed_rows'), '1', '... and is known');
}
$receiver->rules();
run_through('after that', sync($node, 'hook'));

# Immediate shutdowns at whatever moment.
for my $round (1 .. 5)
{
	change();
	my $before = $receiver->state->{requests};
	my $run = sync($node, 'hook');
	$receiver->wait_for($before + 3 * $round);
	$node->stop('immediate');
	$node->start;
	run_through("immediate shutdown $round", $run);
}

check_oracle('all in all', $receiver, model_rows($node, 'SELECT * FROM t', 'id'), minimum => 800, path => qr{/hook$});
is($node->safe_psql('postgres', 'SELECT count(*) FROM retl.failed_rows'), '0', 'no failed rows');
is($node->safe_psql('postgres', q{SELECT count(*) FROM retl.batches WHERE status = 'pending'}), '0', 'nothing pending');

$node->stop('fast');
done_testing();
