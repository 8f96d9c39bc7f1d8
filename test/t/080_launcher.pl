# Databases with retl are found without being listed anywhere; work is announced by commits and by nothing else.
use strict;
use warnings;

use PostgreSQL::Test::Utils;
use RetlTest;
use Test::More;

my $node = new_node('launcher', extension => 0, conf => "retl.naptime = 3600\nretl.snapshot_workers = 8\nmax_prepared_transactions = 2\n");

sub has_worker
{
	my ($database) = @_;
	return $node->poll_query_until('postgres',
		"SELECT count(*) > 0 FROM pg_stat_activity WHERE datname = '$database' AND usename = 'retl_snapshot'");
}

sub is_found
{
	my ($database) = @_;
	return $node->poll_query_until($database, 'SELECT bool_and(found) FROM retl.worker_state()');
}

sub announced
{
	my ($database) = @_;
	return $node->safe_psql($database, "SELECT announced FROM retl.worker_state() WHERE kind = 'snapshot'");
}

$node->safe_psql('postgres', "CREATE DATABASE $_") for qw(one two without);
$node->safe_psql($_, 'CREATE EXTENSION retl') for qw(one two);
ok(has_worker($_), "a worker comes to $_ once the extension is there") for qw(one two);
is($node->safe_psql('postgres', "SELECT count(*) FROM pg_stat_activity WHERE datname IN ('postgres', 'without') AND usename ~ '^retl'"),
	'0', 'and to no other database');
is( $node->safe_psql('postgres',
		"SELECT string_agg(DISTINCT application_name, ',') FROM pg_stat_activity WHERE usename = 'retl_snapshot'"),
	'retl snapshot worker', 'workers say who they are');

$node->restart;
ok(is_found($_), "$_ is found again after a restart") for qw(one two);

# What a copy of a database contains is found as well.
$node->safe_psql('postgres', 'CREATE DATABASE three TEMPLATE one');
ok(is_found('three'), 'so is a copy');

# Settings of the database do not reach the worker.
$node->safe_psql('postgres', q{
ALTER DATABASE one SET default_transaction_isolation = 'serializable';
ALTER DATABASE one SET default_transaction_read_only = on;
ALTER DATABASE one SET search_path = 'public';
ALTER DATABASE one SET role = 'pg_monitor'});
$node->restart;
ok(is_found('one'), 'nor is it confused by settings of its database');

# Announcements stand until a worker looks: without workers they can be seen.
$node->append_conf('postgresql.conf', 'retl.enabled = off');
$node->reload;
ok( $node->poll_query_until('postgres', "SELECT count(*) = 0 FROM pg_stat_activity WHERE usename ~ '^retl'"),
	'workers leave when they are disabled');
is( $node->safe_psql('two', "SELECT DISTINCT obstacle FROM retl.worker_state()"),
	'retl.enabled is off', 'which is said');

$node->safe_psql('two', 'BEGIN; SELECT retl.wake_workers(); ROLLBACK');
is(announced('two'), 'f', 'a transaction that is rolled back announces nothing');
$node->safe_psql('two', 'BEGIN; SAVEPOINT s; SELECT retl.wake_workers(); ROLLBACK TO s; COMMIT');
is(announced('two'), 'f', 'nor does a savepoint that is rolled back');
$node->safe_psql('two',
	'BEGIN; SAVEPOINT s; SAVEPOINT t; SELECT retl.wake_workers(); RELEASE t; ROLLBACK TO s; COMMIT');
is(announced('two'), 'f', 'with what was released into it');
$node->safe_psql('two', q{BEGIN; SELECT retl.wake_workers(); PREPARE TRANSACTION 'p'});
is(announced('two'), 'f', 'a prepared transaction does not, yet');
$node->safe_psql('two', q{COMMIT PREPARED 'p'});
is(announced('two'), 't', '... but when it is committed');
$node->safe_psql('three', 'BEGIN; SAVEPOINT s; SELECT retl.wake_workers(); RELEASE s; SAVEPOINT t; ROLLBACK TO t; COMMIT');
is(announced('three'), 't', 'as does what a savepoint keeps');

$node->append_conf('postgresql.conf', 'retl.enabled = on');
$node->reload;
ok($node->poll_query_until($_, "SELECT NOT bool_or(announced) FROM retl.worker_state()"), "workers of $_ look again")
  for qw(two three);

# An idle worker leaves.
$node->append_conf('postgresql.conf', 'retl.worker_idle_timeout = 0');
$node->reload;
ok( $node->poll_query_until('postgres', "SELECT count(*) = 0 FROM pg_stat_activity WHERE usename ~ '^retl'"),
	'idle workers leave');

# What PostgreSQL says of the setting above.
my $log = slurp_file($node->logfile);
$log =~ s/WARNING:  permission denied to set role//g;
unlike($log, qr/\] (retl|postmaster).*(WARNING|ERROR|FATAL|PANIC):/, 'nothing to complain about');
$node->stop('fast');
done_testing();
