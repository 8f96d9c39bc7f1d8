# What sessions leave uncommitted holds up nobody else; who comes between two steps of a worker finds one state or the
# other; what a dead worker may have sent is in doubt; a restored copy is silent until it is told.
use strict;
use warnings;

use IPC::Run;
use PostgreSQL::Test::Utils;
use RetlTest;
use Test::More;

my $node = new_node('waits', conf => "log_statement = none\nlog_min_error_statement = panic\nmax_connections = 40\n");
my $receiver = new_receiver();
create_webhook($node, 'hook', $receiver);
create_webhook($node, 'other', $receiver);
for my $name (qw(one two))
{
	$node->safe_psql('postgres', "CREATE TABLE $name AS SELECT i AS id, 1 AS v FROM generate_series(1, 20) i;"
		  . " SELECT retl.create_model('$name', '$name', '{id}')");
}
create_mapping($node, 'one', 'one', 'hook', brake_min_rows => 5);
create_mapping($node, 'beside', 'one', 'other', max_delete_percent => 100);
create_mapping($node, 'two', 'two', 'hook');
is(sync_and_wait($node, $_)->{status}, 'succeeded', $_) for qw(one beside two);

sub change { $node->safe_psql('postgres', "UPDATE $_[0] SET v = v + 1 WHERE id <= 3"); return; }
sub status { return $node->safe_psql('postgres', "SELECT status FROM retl.runs WHERE id = $_[0]"); }
sub session
{
	my $session = $node->background_psql('postgres', on_error_stop => 0);
	$session->query($_) for @_;
	return $session;
}

# ---- a session that has disabled a mapping whose run is under way, and does not commit ----
$receiver->rules({ path => '/hook', hang => JSON::PP::true });
change('one');
my $run = sync($node, 'one');
$receiver->wait_for(3, path => 'hook');
my $session = session('BEGIN', q{SELECT retl.disable_mapping('one')});
change('one');
change('two');
is(sync_and_wait($node, 'beside')->{status}, 'succeeded', 'another mapping of its model is synced');
# the destination hangs, but the plan of the other model's mapping is made
my $two = sync($node, 'two');
$node->poll_query_until('postgres', "SELECT status = 'delivering' FROM retl.runs WHERE id = $two") or die 'no plan';
pass('another model is read and planned');
# dropping it in the same transaction neither waits nor is a deadlock
$session->query(q{SELECT retl.drop_mapping('one')});
$session->query('COMMIT');
$session->quit;
is($node->safe_psql('postgres', q{SELECT count(*) FROM retl.mappings WHERE name = 'one'}), '0', 'disabled and dropped in one transaction');
$receiver->rules();
$receiver->release;
is(wait_for_run($node, $two)->{status}, 'succeeded', 'then the other is delivered');

# ---- a queued run canceled while its model is read for others ----
create_mapping($node, 'one', 'one', 'hook', brake_min_rows => 5);
sync_and_wait($node, 'one');
$node->append_conf('postgresql.conf', 'retl.enabled = off');
$node->reload;
$node->poll_query_until('postgres', "SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type LIKE 'retl % worker%'") or die 'workers stay';
change('one');
my ($canceled, $kept) = map { sync($node, $_) } qw(one beside);
$session = session('BEGIN', "SELECT retl.cancel_run($canceled)");
$node->append_conf('postgresql.conf', 'retl.enabled = on');
$node->reload;
is(wait_for_run($node, $kept)->{status}, 'succeeded', 'another request of the model is served');
$session->query('COMMIT');
$session->quit;
is(status($canceled), 'canceled', 'the other is canceled');
# and one that is not canceled after all
$node->append_conf('postgresql.conf', 'retl.enabled = off');
$node->reload;
$node->poll_query_until('postgres', "SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type LIKE 'retl % worker%'") or die 'workers stay';
($canceled, $kept) = map { sync($node, $_) } qw(one beside);
$session = session('BEGIN', "SELECT retl.cancel_run($canceled)");
$node->append_conf('postgresql.conf', 'retl.enabled = on');
$node->reload;
wait_for_run($node, $kept);
$session->query('ROLLBACK');
$session->quit;
is(wait_for_run($node, $canceled)->{status}, 'succeeded', 'a rollback is noticed, and the run made');

# ---- a held run released while the next sync replaces it ----
for my $end ('COMMIT', 'ROLLBACK')
{
	$node->safe_psql('postgres', "DELETE FROM one; INSERT INTO one SELECT i, 1 FROM generate_series(1, 10) i");
	sync_and_wait($node, 'beside');
	my $first = sync($node, 'one');
	$node->poll_query_until('postgres', "SELECT status IN ('held', 'succeeded') FROM retl.runs WHERE id = $first") or die status($first);
	$node->safe_psql('postgres', 'DELETE FROM one WHERE id > 1');
	my $held = sync($node, 'one');
	$node->poll_query_until('postgres', "SELECT status = 'held' FROM retl.runs WHERE id = $held") or die status($held);
	$session = session('BEGIN', "SELECT retl.release_run($held)");
	my $snapshots = $node->safe_psql('postgres', q{SELECT snapshots FROM retl.models WHERE name = 'one'});
	my $next = sync($node, 'one');
	# it is tried, and the request left
	$node->poll_query_until('postgres', "SELECT snapshots > $snapshots FROM retl.models WHERE name = 'one'") or die 'no snapshot';
	is(status($next), 'queued', 'the next run waits for whoever releases the last');
	$session->query($end);
	$session->quit;
	if ($end eq 'COMMIT')
	{
		is(wait_for_run($node, $held)->{status}, 'succeeded', 'released, the held run is delivered');
		is(wait_for_run($node, $next)->{status}, 'succeeded', '... and then the next');
	}
	else
	{
		$node->poll_query_until('postgres', "SELECT status = 'held' FROM retl.runs WHERE id = $next") or die status($next);
		is(status($held), 'replaced', 'not released, it is replaced');
		$node->safe_psql('postgres', "SELECT retl.cancel_run($next)");
		my ($status, $out, $err) = $node->psql('postgres', "SELECT retl.release_run($next)");
		like($err, qr/is canceled, not held/, 'a canceled run is not released');
		$node->safe_psql('postgres', q{SELECT retl.reset_mapping('one', baseline => true)});
	}
	$node->poll_query_until('postgres', 'SELECT count(*) = 0 FROM retl.mapping_state WHERE active_run IS NOT NULL') or die 'active';
}

# ---- a worker dies with requests under way, and their run is canceled before it is back ----
$node->safe_psql('postgres', 'CREATE TABLE doubt AS SELECT i AS id, 1 AS v FROM generate_series(1, 20) i;'
	  . q{ SELECT retl.create_model('doubt', 'doubt', '{id}')});
create_webhook($node, 'doubt', $receiver);
create_mapping($node, 'doubt', 'doubt', 'doubt', batch_size => 1, max_delete_percent => 100, allow_empty => 'true');
$receiver->rules({ path => '/doubt', hang => JSON::PP::true });
$run = sync($node, 'doubt');
$receiver->wait_for(8, path => 'doubt');
my $pid = worker_pid($node, 'delivery');
my @asked = map { my $r = $_; map { $_->{key} } records_of($r) } $receiver->requests(qr/doubt/);
# kill -9 of a backend restarts the server; the run must be canceled before a worker is back
$node->append_conf('postgresql.conf', 'retl.enabled = off');
$node->reload;
kill 'KILL', $pid;
$node->wait_for_log(qr/all server processes terminated; reinitializing/);
$node->poll_query_until('postgres', 'SELECT true') or die 'no server';
$node->safe_psql('postgres', "SELECT retl.cancel_run($run)");
$receiver->rules();
$receiver->release;
$node->append_conf('postgresql.conf', 'retl.enabled = on');
$node->reload;
is(wait_for_run($node, $run)->{status}, 'canceled', 'canceled');
is($node->safe_psql('postgres', 'SELECT count(*) FROM retl.failed_rows WHERE mapping::text = \'doubt\' AND maybe AND key::text::int = ANY (\'{' . join(',', @asked) . '}\')'),
	scalar @asked, scalar(@asked) . ' records that a dead worker sent are in doubt');
$node->safe_psql('postgres', 'DELETE FROM doubt');
$run = sync_and_wait($node, 'doubt');
is($run->{status}, 'succeeded', 'their rows are deleted') or diag(json($run));
my %deleted = map { $_->{key} => 1 } grep { $_->{op} eq 'deleted' } map { records_of($_) } $receiver->requests(qr/doubt/);
is(scalar(grep { !$deleted{$_} } @asked), 0, '... at the destination, too');

# ---- a dump, restored ----
$node->safe_psql('postgres', 'INSERT INTO doubt SELECT i, 2 FROM generate_series(1, 20) i');
is(sync_and_wait($node, 'doubt')->{status}, 'succeeded', 'before the dump');
$receiver->clear;
$receiver->rules({ path => '/doubt', hang => JSON::PP::true });
$node->safe_psql('postgres', 'UPDATE doubt SET v = 3');
$run = sync($node, 'doubt');
$node->poll_query_until('postgres', "SELECT status = 'delivering' AND open_batches = 20 FROM retl.run WHERE id = $run") or die status($run);
$receiver->wait_for(8, path => 'doubt');
my $file = $PostgreSQL::Test::Utils::tmp_check . '/dump';
$node->command_ok([ 'pg_dump', '-Fc', '-f', $file, $node->connstr('postgres') ], 'dumped with a run under way');
$node->safe_psql('postgres', 'CREATE DATABASE copy TEMPLATE template0');
$node->command_ok([ 'pg_restore', '--exit-on-error', '-d', $node->connstr('copy'), $file ], 'restored');
$receiver->rules();
$receiver->release;
is(wait_for_run($node, $run)->{status}, 'succeeded', 'the original goes on');
$receiver->clear;
$node->safe_psql('copy', 'UPDATE doubt SET v = 4 WHERE id = 1; DELETE FROM doubt WHERE id = 2; UPDATE two SET v = v + 1 WHERE id = 5');
$node->safe_psql('copy', q{SELECT retl.sync('two')});
$node->poll_query_until('copy', "SELECT count(*) > 0 FROM retl.run r WHERE trigger = 'manual' AND status = 'delivering'") or die 'the copy does not plan';
is(scalar $receiver->requests, 0, 'a copy that is not armed sends nothing');
$node->safe_psql('copy', 'SELECT retl.arm()');
is(wait_for_run($node, $run, 'copy')->{status}, 'canceled', 'what was planned before is canceled');
is($node->safe_psql('copy', q{SELECT count(*) FROM retl.failed_rows WHERE mapping::text = 'doubt' AND maybe}), '20',
	'what the original may have sent is in doubt');
my $next = sync_and_wait($node, 'doubt', 'copy');
is("$next->{status} $next->{updated} $next->{deleted} $next->{added}", 'succeeded 19 1 0', 'armed, it brings everything up to date') or diag(json($next));
cmp_ok($next->{id}, '>', $run, 'numbers go on');
is($node->safe_psql('copy', q{SELECT count(DISTINCT i) FROM (SELECT id FROM retl.instance) x (i)}), '1', 'one identity');
is($node->safe_psql('copy', q{SELECT pg_get_userbyid(relowner) FROM pg_class WHERE relname LIKE 'checkpoint%' LIMIT 1}), 'retl_snapshot',
	'checkpoints are still the worker\'s');

my $log = slurp_file($node->logfile);
unlike($log, qr/deadlock detected/, 'no deadlock');
my @exits = grep { /retl (?:snapshot|delivery) worker.*exited with exit code 1/ } split /\n/, $log;
is(scalar @exits, 0, 'no worker ended by an error') or diag(@exits);
$node->stop('fast');
done_testing();
