# Databases take turns where workers are short, and processes that are not to be had are waited for.
use strict;
use warnings;

use PostgreSQL::Test::Utils;
use RetlTest;
use Test::More;

my $node = new_node('turns', extension => 0,
	conf => "retl.worker_idle_timeout = 1h\nretl.naptime = 3600\nretl.snapshot_workers = 1\n");
my @databases = map { "d$_" } 1 .. 4;

sub all_look
{
	my $good = 1;
	for my $database (@databases)
	{
		$good &&= $node->poll_query_until($database,
			"SELECT found AND NOT announced FROM retl.worker_state() WHERE kind = 'snapshot'");
	}
	return $good;
}

sub wake
{
	$node->safe_psql($_, 'SELECT retl.wake_workers()') for @databases;
	return;
}

for my $database (@databases)
{
	$node->safe_psql('postgres', "CREATE DATABASE $database");
	$node->safe_psql($database, 'CREATE EXTENSION retl');
}
ok(all_look(), 'one worker serves four databases');
wake();
ok(all_look(), '... again');
is($node->safe_psql('postgres', "SELECT count(*) < 2 FROM pg_stat_activity WHERE usename = 'retl_snapshot'"),
	't', '... and it is one at a time');

# Processes are shorter still: PostgreSQL's own launcher, ours, and one more.
$node->append_conf('postgresql.conf', "max_worker_processes = 3\nretl.snapshot_workers = 3\n");
$node->restart;
wake();
ok(all_look(), 'with one process for all workers');
like(slurp_file($node->logfile), qr/WARNING:  out of background worker slots.*\n.*HINT/, 'which the log mentions');

# None at all
$node->append_conf('postgresql.conf', "max_worker_processes = 2\n");
$node->restart;
wake();
ok( $node->poll_query_until('d1', "SELECT obstacle = 'out of background worker slots' FROM retl.worker_state() WHERE kind = 'snapshot'"),
	'without a process for workers the state says so');
my $log = slurp_file($node->logfile);
my $lines = () = $log =~ /out of background worker slots/g;
cmp_ok($lines, '<', 10, 'and the log is not flooded');

$node->append_conf('postgresql.conf', "max_worker_processes = 8\n");
$node->restart;
ok(all_look(), 'with more of them all is well');
$node->stop('fast');
done_testing();
