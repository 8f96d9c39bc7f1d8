# Workers do not start as a role that somebody else could be, or that could be somebody else.
use strict;
use warnings;

use PostgreSQL::Test::Utils;
use RetlTest;
use Test::More;

my $node = new_node('roles', conf => "retl.worker_idle_timeout = 1h\nretl.naptime = 1\n");
my $offset = 0;

$node->safe_psql('postgres', 'CREATE ROLE creator LOGIN CREATEROLE; CREATE ROLE helper');
worker_pid($node, 'snapshot');

for my $case (
	[ 'creator', 'GRANT retl_delivery TO creator', 'REVOKE retl_delivery FROM creator', qr/role "retl_delivery" has a member/ ],
	[ 'postgres', 'GRANT helper TO retl_snapshot', 'REVOKE helper FROM retl_snapshot', qr/role "retl_snapshot" is a member of another role/ ],
	[ 'postgres', 'ALTER ROLE retl_snapshot SUPERUSER', 'ALTER ROLE retl_snapshot NOSUPERUSER', qr/role "retl_snapshot" has attribute SUPERUSER/ ],
	[ 'postgres', 'ALTER ROLE retl_delivery BYPASSRLS', 'ALTER ROLE retl_delivery NOBYPASSRLS', qr/role "retl_delivery" has attribute BYPASSRLS/ ],
	[ 'postgres', 'ALTER ROLE retl_delivery NOLOGIN', 'ALTER ROLE retl_delivery LOGIN', qr/role "retl_delivery" has attribute NOLOGIN/ ])
{
	my ($user, $grant, $revoke, $message) = @$case;
	$offset = -s $node->logfile;
	my ($status, $out, $error) = $node->psql('postgres', $grant, extra_params => [ '-U', $user ]);
	if ($status != 0)
	{
		# From 16 on CREATEROLE does not reach so far.
		like($error, qr/permission denied/, "refused by PostgreSQL: $grant");
		next;
	}
	$node->safe_psql('postgres', 'SELECT retl.wake_workers()');
	$node->wait_for_log($message, $offset);
	ok( $node->poll_query_until('postgres', "SELECT count(*) = 0 FROM pg_stat_activity WHERE usename ~ '^retl'"),
		"no workers after $grant");
	like($node->safe_psql('postgres', "SELECT obstacle FROM retl.worker_state() WHERE kind = 'snapshot'"),
		qr/roles have attributes or members/, '... which is said');
	$node->safe_psql('postgres', $revoke);
	$node->safe_psql('postgres', 'SELECT retl.wake_workers()');
	worker_pid($node, 'snapshot');
	pass("workers again after $revoke");
	my $log = substr slurp_file($node->logfile), $offset;
	is(scalar(() = $log =~ /retl starts no workers/g), 1, '... and one line in the log');
}

# A role in the way when the extension is created
$node->safe_psql('postgres', 'CREATE DATABASE late; GRANT retl_snapshot TO helper');
my ($status, $out, $error) = $node->psql('late', 'CREATE EXTENSION retl');
like($error, qr/role "retl_snapshot" exists and has attributes or memberships/, 'CREATE EXTENSION refuses too');

$node->stop('fast');
done_testing();
