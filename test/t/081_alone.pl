# Statements that need a database or the extension to themselves are not in the way of workers, nor they of them.
use strict;
use warnings;

use PostgreSQL::Test::Utils;
use RetlTest;
use Test::More;

my $node = new_node('alone', extension => 0, conf => "retl.worker_idle_timeout = 1h\nretl.snapshot_workers = 8\n");

sub worker
{
	my ($database) = @_;
	my $query = "SELECT pid FROM pg_stat_activity WHERE datname = '$database' AND usename = 'retl_snapshot'";
	$node->poll_query_until('postgres', "SELECT count(*) = 1 FROM ($query) q") or die "no worker in $database";
	return $node->safe_psql('postgres', $query);
}

for my $database (qw(one two three four))
{
	$node->safe_psql('postgres', "CREATE DATABASE $database");
	$node->safe_psql($database, 'CREATE EXTENSION retl');
	worker($database);
}

$node->safe_psql('postgres', 'DROP DATABASE one');
pass('DROP DATABASE with a worker connected');
$node->safe_psql('postgres', 'DROP DATABASE two WITH (FORCE)');
pass('the same with FORCE');
$node->safe_psql('postgres', 'ALTER DATABASE three RENAME TO five');
pass('RENAME with a worker connected');
worker('five');
$node->safe_psql('postgres', 'CREATE DATABASE six TEMPLATE five');
pass('use as a template with a worker connected');
worker('five');
mkdir $node->basedir . '/space' or die;
$node->safe_psql('postgres', "CREATE TABLESPACE space LOCATION '" . $node->basedir . "/space'");
$node->safe_psql('postgres', 'ALTER DATABASE five SET TABLESPACE space');
pass('SET TABLESPACE with a worker connected');
worker('five');

# A statement that fails lets the worker come back.
my $before = worker('five');
my ($status, $out, $error) = $node->psql('postgres', 'ALTER DATABASE five RENAME TO four');
like($error, qr/already exists/, 'a statement that fails');
isnt(worker('five'), $before, 'stopped the worker, which comes back');

# Who may not do it cannot stop workers either.
$node->safe_psql('postgres', 'CREATE ROLE stranger LOGIN CREATEDB');
$before = worker('five');
for my $statement ('DROP DATABASE five', 'ALTER DATABASE five RENAME TO x', 'CREATE DATABASE x TEMPLATE five',
	'ALTER DATABASE five SET TABLESPACE pg_default')
{
	($status, $out, $error) =
	  $node->psql('postgres', $statement, extra_params => [ '-U', 'stranger' ]);
	isnt($status, 0, "a stranger may not: $statement");
}
($status, $out, $error) = $node->psql('five', 'DROP EXTENSION retl', extra_params => [ '-U', 'stranger' ]);
isnt($status, 0, 'a stranger may not: DROP EXTENSION retl');
is(worker('five'), $before, 'and the worker is still the same');

# DROP EXTENSION, rolled back and committed.
$node->safe_psql('five', 'BEGIN; DROP EXTENSION retl CASCADE; ROLLBACK');
isnt(worker('five'), $before, 'DROP EXTENSION that is rolled back: the worker comes back');
$node->safe_psql('five', 'DROP EXTENSION retl CASCADE');
ok( $node->poll_query_until('postgres', "SELECT count(*) = 0 FROM pg_stat_activity WHERE datname = 'five' AND usename ~ '^retl'"),
	'committed: it does not');
$node->safe_psql('five', 'CREATE EXTENSION retl');
worker('five');
pass('created again: it does');

# Dropped behind a worker's back.
$node->safe_psql('five', q{DO $$ BEGIN EXECUTE 'DROP EXTENSION retl CASCADE'; EXECUTE 'CREATE EXTENSION retl'; END $$});
ok( $node->poll_query_until('five', 'SELECT bool_and(found) FROM retl.worker_state()'), 'dropped and created in one transaction');

# A schema of the same name, without the extension.
$node->safe_psql('postgres', 'CREATE DATABASE other');
$node->safe_psql('other', 'CREATE SCHEMA retl; CREATE TABLE retl.request (id int)');
$node->restart;
ok( $node->poll_query_until('four', 'SELECT bool_and(found) FROM retl.worker_state()'), 'a foreign schema called retl is no harm');

unlike(slurp_file($node->logfile), qr/\] (retl|postmaster).*(WARNING|ERROR|FATAL|PANIC):/, 'nothing to complain about');
$node->stop('fast');
done_testing();
