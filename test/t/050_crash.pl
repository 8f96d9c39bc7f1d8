# kill -9 of a worker and of the postmaster at named points of a sync: nothing is lost, repetitions keep key and bytes,
# versions of a key arrive in order. The receiver's own log is the judge.
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

# point => passage at which it fires; those of delivery after some requests have gone out.
my @points = (
	[ 'model_locked', 1 ],
	[ 'scan_planned', 1 ],
	[ 'scan_done', 1 ],
	[ 'log_written', 1 ],
	[ 'checkpoint_written', 1 ],
	[ 'snapshot_before_commit', 1 ],
	[ 'plan_phase_done', 1 ],
	[ 'plan_before_commit', 1 ],
	[ 'batch_loaded', 1 ],
	[ 'request_before_send', 5 ],
	[ 'request_sent', 5 ],
	[ 'answer_received', 5 ],
	[ 'outcomes_before_commit', 1 ],
	[ 'outcomes_after_commit', 1 ]);

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
	check_oracle($what, $receiver, model_rows($node, 'SELECT * FROM t', 'id'));
	return;
}

# The first sync is where there is most to lose.
arm_fault($node, 'request_sent', 'kill 20');
my $first = sync($node, 'hook');
ok(fired('request_sent'), 'kill amid the first sync: the point was passed');
$node->poll_query_until('postgres', 'SELECT true') or die 'no restart';
cmp_ok(scalar $receiver->requests, '>=', 10, '... after a good part of it');
run_through('kill amid the first sync', $first);

for my $case (@points)
{
	my ($point, $passage) = @$case;
	change();
	arm_fault($node, $point, "kill $passage");
	my $run = sync($node, 'hook');
	if (!ok(fired($point), "kill at $point: the point was passed"))
	{
		unlink $node->data_dir . "/retl_fault/$point";
	}
	# The server ends all sessions and starts anew.
	$node->poll_query_until('postgres', 'SELECT true') or die 'no restart';
	run_through("kill at $point", $run);
}

for my $case (@points)
{
	my ($point, $passage) = @$case;
	change();
	my $pid = postmaster_pid();
	arm_fault($node, $point, "kill_postmaster $passage");
	my $run = sync($node, 'hook');
	if (ok(fired($point), "kill of the postmaster at $point: the point was passed"))
	{
		start_after_kill($node, $pid);
	}
	else
	{
		unlink $node->data_dir . "/retl_fault/$point";
	}
	run_through("kill of the postmaster at $point", $run);
}

# Errors and terminations at the same points, which leave the server up.
for my $action ('error', 'term')
{
	for my $case (@points)
	{
		my ($point, $passage) = @$case;
		change();
		# Workers that fail again and again are started more and more slowly; this is not about that.
		$node->restart;
		arm_fault($node, $point, "$action $passage");
		my $run = sync($node, 'hook');
		unlink $node->data_dir . "/retl_fault/$point" unless ok(fired($point), "$action at $point: the point was passed");
		$run = wait_for_run($node, $run);
		# An error may fail its run; the next sync makes it good.
		sync_and_wait($node, 'hook') unless $run->{status} eq 'succeeded';
		check_oracle("$action at $point", $receiver, model_rows($node, 'SELECT * FROM t', 'id'));
	}
}

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

check_oracle('all in all', $receiver, model_rows($node, 'SELECT * FROM t', 'id'), minimum => 1500);
is($node->safe_psql('postgres', 'SELECT count(*) FROM retl.failed_rows'), '0', 'no failed rows');
is($node->safe_psql('postgres', q{SELECT count(*) FROM retl.batches WHERE status = 'pending'}), '0', 'nothing pending');

$node->stop('fast');
done_testing();
