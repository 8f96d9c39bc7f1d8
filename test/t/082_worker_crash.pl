# Launcher and workers that die, fail or are terminated come back.
use strict;
use warnings;

use PostgreSQL::Test::Utils;
use RetlTest;
use Test::More;

my $node = new_node('crash', conf => "retl.worker_idle_timeout = 1h\n");

sub launcher
{
	my $query = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'retl launcher'";
	$node->poll_query_until('postgres', "SELECT count(*) = 1 FROM ($query) q") or die 'no launcher';
	return $node->safe_psql('postgres', $query);
}

sub wake
{
	$node->safe_psql('postgres', 'SELECT retl.wake_workers()');
	return;
}

sub looks
{
	return $node->poll_query_until('postgres',
		"SELECT found AND NOT announced AND failures = 0 FROM retl.worker_state() WHERE kind = 'snapshot'");
}

ok(looks(), 'a worker looks for work');

# Terminated
my $before = worker_pid($node, 'snapshot');
$node->safe_psql('postgres', "SELECT pg_terminate_backend($before)");
wait_gone($before);
isnt(worker_pid($node, 'snapshot'), $before, 'a terminated worker is followed by another');
$before = worker_pid($node, 'snapshot');
$node->safe_psql('postgres', "SELECT pg_cancel_backend($before)");
wake();
ok(looks(), 'a canceled worker goes on');
is(worker_pid($node, 'snapshot'), $before, '... as the same process');

my $launcher = launcher();
$node->safe_psql('postgres', "SELECT pg_terminate_backend($launcher)");
wait_gone($launcher);
isnt(launcher(), $launcher, 'so is a terminated launcher');
is(worker_pid($node, 'snapshot'), $before, 'whose workers outlive it');
$node->safe_psql('postgres', "SELECT pg_terminate_backend($before)");
wait_gone($before);
isnt(worker_pid($node, 'snapshot'), $before, 'and are followed by others of the new one');

# Errors
for my $point (qw(worker_attached worker_started snapshot_worker_loop))
{
	$before = worker_pid($node, 'snapshot');
	arm_fault($node, $point, 'error');
	$node->safe_psql('postgres', "SELECT pg_terminate_backend($before)");
	ok($node->poll_query_until('postgres', "SELECT failures > 0 FROM retl.worker_state() WHERE kind = 'snapshot'"),
		"a failure is counted: $point");
	isnt(worker_pid($node, 'snapshot'), $before, '... and the next worker works');
	ok(!fault_armed($node, $point), '... after an error');
}
arm_fault($node, 'launcher_loop', 'error');
$node->reload;
$node->wait_for_log(qr/ERROR:  fault point "launcher_loop"/);
$launcher = launcher();
$before = worker_pid($node, 'snapshot');
$node->safe_psql('postgres', "SELECT pg_terminate_backend($before)");
wait_gone($before);
isnt(worker_pid($node, 'snapshot'), $before, 'the launcher survives an error');
is(launcher(), $launcher, '... as the same process');

# kill -9: the server restarts itself
for my $point (qw(launcher_loop worker_attached worker_started snapshot_worker_loop worker_leaving))
{
	worker_pid($node, 'snapshot');
	my $crashed = launcher();
	if ($point eq 'worker_leaving')
	{
		$node->append_conf('postgresql.conf', 'retl.worker_idle_timeout = 0');
		$node->reload;
	}
	arm_fault($node, $point, 'kill');
	if ($point eq 'launcher_loop') { $node->reload; }
	elsif ($point eq 'snapshot_worker_loop' || $point eq 'worker_leaving') { $node->psql('postgres', 'SELECT retl.wake_workers()'); }
	else { $node->psql('postgres', 'SELECT pg_terminate_backend(' . worker_pid($node, 'snapshot') . ')'); }
	wait_gone($crashed);
	if ($point eq 'worker_leaving')
	{
		$node->append_conf('postgresql.conf', 'retl.worker_idle_timeout = 1h');
	}
	ok(looks(), "work is looked for after kill -9: $point");
	$node->reload if $point eq 'worker_leaving';
	wake();
}

# Shutdown
worker_pid($node, 'snapshot');
my $offset = -s $node->logfile;
$node->stop('fast');
my $log = substr slurp_file($node->logfile), $offset;
like($log, qr/shut down/, 'fast shutdown');
unlike($log, qr/(WARNING|ERROR|FATAL|PANIC):/, '... in silence');
sub seconds
{
	my ($line) = @_;
	$log =~ /(\d+):(\d+):(\d+\.\d+) \S+ \[\d+\].*$line/ or die "no line: $line";
	return $1 * 3600 + $2 * 60 + $3;
}
my $seconds = seconds('LOG:  shutting down') - seconds('LOG:  received fast shutdown request');
$seconds += 24 * 3600 if $seconds < 0;
cmp_ok($seconds, '<', 2, 'workers are gone within 2 s');

$node->start;
ok(looks(), 'started again');
$node->stop('smart');
pass('smart shutdown does not wait for workers');

# kill -9 of the postmaster: nobody survives it
$node->start;
wake();
my @pids = split /\n/, $node->safe_psql('postgres', "SELECT pid FROM pg_stat_activity WHERE backend_type ~ '^retl'");
my $postmaster = (split /\n/, slurp_file($node->data_dir . '/postmaster.pid'))[0];
kill 'KILL', $postmaster;
wait_gone($_) for $postmaster, @pids;
pass('launcher and workers end with the postmaster');
start_after_kill($node, $postmaster);
ok(looks(), 'and are there again after a start');
$node->stop('fast');
done_testing();
