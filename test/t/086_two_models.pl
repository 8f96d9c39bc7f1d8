# A model that takes long does not hold up another, nor another database.
use strict;
use warnings;

use IPC::Run;
use PostgreSQL::Test::Utils;
use RetlTest;
use Test::More;

my $node = new_node('two_models', conf => "retl.naptime = 3600\n");

# Each model's query waits as long as this session holds its lock.
my ($in, $out, $err) = ('', '', '');
my $psql = IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr('postgres') ], '<', \$in, '>', \$out, '2>', \$err);

sub locks
{
	my ($sql) = @_;
	$in .= "$sql;\nSELECT 'done';\n";
	$out = '';
	$psql->pump until $out =~ /done/;
	return;
}

my $receiver = new_receiver();

sub prepare_model
{
	my ($database, $name, $lock) = @_;
	$node->safe_psql($database,
		"SELECT retl.create_model('$name', 'SELECT 1 AS id, pg_advisory_xact_lock_shared($lock)::text AS waited', '{id}')");
	create_webhook($node, $name, $receiver, database => $database);
	create_mapping($node, $name, $name, $name, database => $database);
	return;
}

# No request waits, no run is under way.
sub done
{
	my ($database) = @_;
	return $node->poll_query_until($database,
		'SELECT NOT EXISTS (SELECT FROM retl.request) AND NOT EXISTS (SELECT FROM retl.run WHERE finished_at IS NULL)');
}

sub snapshots
{
	my ($count) = @_;
	return $node->poll_query_until('postgres', qq{
SELECT count(*) = $count FROM pg_stat_activity
 WHERE usename = 'retl_snapshot' AND wait_event_type = 'Lock' AND wait_event = 'advisory'});
}

prepare_model('postgres', $_, $_ eq 'one' ? 1 : 2) for qw(one two);
locks('SELECT pg_advisory_lock(1), pg_advisory_lock(2)');
sync($node, 'one');
ok(snapshots(1), 'a model is read');
sync($node, 'two');
ok(snapshots(2), 'so is another one meanwhile');
locks('SELECT pg_advisory_unlock(1), pg_advisory_unlock(2)');
ok(done('postgres'), 'both are done');

# With a second database one worker is left for it.
$node->safe_psql('postgres', 'CREATE DATABASE other');
$node->safe_psql('other', 'CREATE EXTENSION retl');
$node->poll_query_until('other', 'SELECT bool_and(found) FROM retl.worker_state()') or die;
$node->poll_query_until('postgres', 'SELECT NOT bool_or(announced) FROM retl.worker_state()') or die;
$node->append_conf('postgresql.conf', 'retl.enabled = off');
$node->reload;
$node->poll_query_until('postgres', "SELECT count(*) = 0 FROM pg_stat_activity WHERE usename ~ '^retl'") or die;
prepare_model('other', 'three', 3);
locks('SELECT pg_advisory_lock(1), pg_advisory_lock(2)');
sync($node, 'one');
sync($node, 'two');
$node->append_conf('postgresql.conf', 'retl.enabled = on');
$node->reload;
ok(snapshots(1), 'one model of the first database is read');
sync($node, 'three', 'other');
ok(done('other'), 'and the other database is served meanwhile');
locks('SELECT pg_advisory_unlock(1), pg_advisory_unlock(2)');
ok(done('postgres'), 'then the rest');

$in .= "\\q\n";
$psql->finish;
$node->stop('fast');
done_testing();
