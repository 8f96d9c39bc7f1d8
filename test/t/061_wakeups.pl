# A request that is announced while a worker is busy with something else is not slept over: a latch that was set meanwhile may
# have been reset by whatever the worker waited for.
use strict;
use warnings;

use IPC::Run;
use PostgreSQL::Test::Utils;
use RetlTest;
use Test::More;
use Time::HiRes qw(time);

my $node = new_node('wakeups');
my $receiver = new_receiver();
$node->safe_psql('postgres', q{
CREATE TABLE t (id int PRIMARY KEY, v int);
INSERT INTO t VALUES (1, 1);
SELECT retl.create_model('t', 't', '{id}');
});
create_webhook($node, 'hook', $receiver);
create_mapping($node, 'hook', 't', 'hook');
sync_and_wait($node, 'hook');

# A table that the worker reads after it has looked for requests.
my ($in, $out) = ("BEGIN; LOCK TABLE retl.model_state IN ACCESS EXCLUSIVE MODE;\n\\echo locked\n", '');
my $locker = IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr('postgres') ], '<', \$in, '>', \$out,
	IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));
$locker->pump until $out =~ /locked/;
$node->safe_psql('postgres', 'SELECT retl.wake_workers()');
$node->poll_query_until('postgres',
	q{SELECT count(*) > 0 FROM pg_stat_activity WHERE usename = 'retl_snapshot' AND wait_event_type = 'Lock'})
  or die 'the snapshot worker does not wait';
$node->safe_psql('postgres', 'UPDATE t SET v = 2');
my $run = sync($node, 'hook');
$in .= "COMMIT;\n\\q\n";
$locker->finish;
my $began = time;
$run = wait_for_run($node, $run);
is($run->{status}, 'succeeded', 'a request made while the worker waited for a lock');
cmp_ok(time - $began, '<', 20, '... is served at once');

$node->stop('fast');
done_testing();
