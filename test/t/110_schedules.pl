# Schedules: what they mean, against a second telling of it; ticks that meet, that wait for nobody, and that find a run under way;
# a dump keeps when who is due.
use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RetlTest;
use Test::More;

my $node = new_node('schedules');
my $receiver = new_receiver();

# ---- many schedules in many zones, where clocks change ----
my $seed = $ENV{RETL_SCHEDULE_SEED} // 1 + int rand 1_000_000;
my $cases = $ENV{RETL_SCHEDULE_CASES} // 400;
my $file = PostgreSQL::Test::Utils::tempdir() . '/cases';
is(system("/usr/bin/python3 -B $ENV{RETL_TREE}/test/lib/schedule_oracle.py $seed $cases > $file"), 0, "cases of seed $seed");
$node->safe_psql('postgres', 'CREATE TABLE cases (schedule text, after timestamptz, until timestamptz, expected timestamptz[])');
$node->safe_psql('postgres', "\\copy cases FROM '$file'");
is($node->safe_psql('postgres', 'SELECT count(*) FROM cases'), $cases, 'all are there');
cmp_ok($node->safe_psql('postgres', 'SELECT sum(cardinality(expected)) FROM cases'), '>', 2 * $cases, 'most have times');
is( $node->safe_psql('postgres', q{
SELECT schedule, after, expected, got FROM (
  SELECT *, ARRAY(SELECT t FROM retl.next_ticks(schedule, 12, after) t WHERE t <= until) AS got FROM cases) c
 WHERE got IS DISTINCT FROM expected LIMIT 5}),
	'', "all are as the oracle says (RETL_SCHEDULE_SEED=$seed)");

# ---- mappings ----
$node->safe_psql('postgres', q{
CREATE TABLE t (id int PRIMARY KEY, v int NOT NULL DEFAULT 1);
INSERT INTO t SELECT i FROM generate_series(1, 5) i;
SELECT retl.create_model('t', 't', '{id}');
});
create_webhook($node, 'hook', $receiver);
create_mapping($node, $_, 't', 'hook', schedule => '15 minutes', max_change_percent => 100) for qw(one two);

my $minutes = 0;
sub tick
{
	my ($later) = @_;
	$minutes += $later;
	return $node->safe_psql('postgres', "SELECT retl.tick(now() + interval '$minutes minutes 1 s')");
}
sub ended { return $node->poll_query_until('postgres', 'SELECT count(*) = 0 FROM retl.progress') || die 'runs do not end'; }
sub scheduled
{
	return $node->safe_psql('postgres',
		q{SELECT string_agg(mapping || ' ' || status, ', ' ORDER BY id) FROM retl.runs WHERE trigger = 'schedule'});
}

is(tick(0), 2, 'they are synced at once');
ended();
is(scheduled(), 'one succeeded, two succeeded', '... by their schedules');
is(tick(1), 0, 'once');
is(scalar $receiver->requests, 10, '... everything is sent');

# ---- two ticks at one moment ----
$minutes += 15;
my $first = $node->background_psql('postgres');
$first->query_safe('BEGIN');
is($first->query_safe("SELECT retl.tick(now() + interval '$minutes minutes 1 s')"), 2, 'a tick');
is($node->safe_psql('postgres', "SET statement_timeout = '20 s'; SELECT retl.tick(now() + interval '$minutes minutes 1 s')"),
	0, 'another one beside it neither waits nor asks again');
$node->safe_psql('postgres',
	q{SET statement_timeout = '20 s'; SELECT retl.sync('one'); SELECT retl.disable_mapping('two'); SELECT retl.enable_mapping('two')});
pass('sessions that sync, disable and enable do not wait for it');
$first->query_safe('COMMIT');
$first->quit;
ended();
is($node->safe_psql('postgres', q{SELECT count(*) FROM retl.runs WHERE trigger = 'schedule'}), 4, 'each was asked for once');

# ---- a tick waits for nobody ----
$minutes += 15;
my $holder = $node->background_psql('postgres');
$holder->query_safe(q{BEGIN; SELECT FROM retl.mapping WHERE name = 'one' FOR UPDATE});
is($node->safe_psql('postgres', "SET statement_timeout = '20 s'; SELECT retl.tick(now() + interval '$minutes minutes 1 s')"),
	1, 'who is being dropped is passed over');
$holder->query_safe('ROLLBACK');
$holder->quit;
ended();
is(tick(0), 1, '... and has its turn with the next tick');
ended();

# ---- ticks from many sessions: each turn is taken once ----
my $before = $node->safe_psql('postgres', q{SELECT count(*) FROM retl.runs WHERE trigger = 'schedule'});
for my $round (1 .. 5)
{
	$minutes += 15;
	my $script = PostgreSQL::Test::Utils::tempdir() . "/tick$round.sql";
	append_to_file($script, "SELECT retl.tick(now() + interval '$minutes minutes 1 s');\n");
	$node->command_ok([ 'pgbench', '-n', '-c', 8, '-t', 5, '-f', $script, $node->connstr('postgres') ], "ticks from eight sessions, $round");
	ended();
}
is($node->safe_psql('postgres', q{SELECT count(*) FROM retl.runs WHERE trigger = 'schedule' AND status <> 'skipped'}), $before + 10,
	'each of ten turns is taken once');

# ---- the run before is still going ----
$node->safe_psql('postgres', q{SELECT retl.disable_mapping('two'); UPDATE t SET v = 2});
$receiver->clear;
$receiver->rules({ hang => JSON::PP::true });
is(tick(15), 1, 'a run begins');
$receiver->wait_for(5);
is(tick(1), 0, 'nothing is due');
is($node->safe_psql('postgres', q{SELECT count(*) FROM retl.runs WHERE status = 'skipped'}), 0, '... and nothing is skipped');
is(tick(15), 0, 'it has not ended when the next is due');
my $active = $node->safe_psql('postgres', q{SELECT active_run FROM retl.mappings WHERE name = 'one'});
is($node->safe_psql('postgres', q{SELECT mapping, trigger, error FROM retl.runs WHERE status = 'skipped'}),
	"one|schedule|run $active had not ended", '... which is on record');
is($node->safe_psql('postgres', q{SELECT count(*) FROM retl.health WHERE what LIKE 'run%' OR what = 'destination fails'}), 0, '... and nothing is wrong');
$receiver->rules();
$receiver->release;
is(wait_for_run($node, $active)->{status}, 'succeeded', 'the run goes on');
is(tick(15), 1, 'the turn after that is taken');
ended();

# ---- a held run is no run under way: the next turn plans anew ----
$node->safe_psql('postgres', q{DELETE FROM t});
is(tick(15), 1, 'a run that is held');
$node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM retl.runs WHERE status = 'held'}) or die 'not held';
is(tick(15), 1, '... is replaced');
$node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM retl.runs WHERE status = 'replaced'}) or die 'not replaced';
pass('... by the next');

# ---- a dump keeps when who is due ----
my $due = $node->safe_psql('postgres', 'SELECT name, schedule, next_due_at FROM retl.mappings ORDER BY 1');
like($due, qr/one\|15 minutes\|\d/, 'one is due some time');
my $dump = PostgreSQL::Test::Utils::tempdir() . '/dump';
$node->command_ok([ 'pg_dump', '-Fc', '-f', $dump, $node->connstr('postgres') ], 'dump');
$node->safe_psql('postgres', 'CREATE DATABASE copy');
$node->command_ok([ 'pg_restore', '-d', $node->connstr('copy'), $dump ], 'restore');
is($node->safe_psql('copy', 'SELECT name, schedule, next_due_at FROM retl.mappings ORDER BY 1'), $due, 'it is in the copy');
is($node->safe_psql('copy', 'SELECT at IS NULL FROM retl.clock'), 't', '... which has not ticked itself');

done_testing();
