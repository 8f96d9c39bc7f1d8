# pg_cron itself calls retl.tick(): in its own database, and in another one of the cluster by what the hint says. This is the
# one test that waits for a real minute.
use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RetlTest;
use Test::More;

chomp(my $share = `"$ENV{PG_CONFIG}" --sharedir`);
plan skip_all => 'pg_cron is not installed for this server' unless -e "$share/extension/pg_cron.control";

my $node = new_node('cron', conf => q{
shared_preload_libraries = 'retl,pg_cron'
cron.database_name = 'postgres'
cron.use_background_workers = on
});
my $receiver = new_receiver();
$node->safe_psql('postgres', 'CREATE DATABASE sales; CREATE ROLE ann LOGIN; GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA retl TO ann');
$node->safe_psql('sales', 'CREATE EXTENSION retl');

# What a call that fails says; with it the SQL that its hint has.
sub refused
{
	my ($database, $call, %options) = @_;
	my ($stdout, $stderr);
	$node->psql($database, "\\set VERBOSITY verbose\n$call",
		stdout => \$stdout, stderr => \$stderr, extra_params => [ '-U', $options{user} // 'postgres' ]);
	my ($home, $sql) = $stderr =~ /in database "(\w+)": (.*)/;
	return ($stderr, $home, $sql);
}

# ---- before pg_cron is there ----
my ($error, $home, $sql) = refused('postgres', 'SELECT retl.install_tick()');
like($error, qr/55000: cannot make the job.*extension pg_cron was not created/, 'the extension is missing');
is($home, 'postgres', '... and is to be made here');
$node->safe_psql($home, $sql);
is($node->safe_psql('postgres', 'SELECT jobname, schedule, command, database, active FROM cron.job'),
	'retl tick of postgres|* * * * *|SELECT retl.tick()|postgres|t', '... by what the hint says');

# ---- one job ----
my $job = $node->safe_psql('postgres', 'SELECT retl.install_tick()');
is($node->safe_psql('postgres', 'SELECT retl.install_tick()'), $job, 'it is made once');
is($node->safe_psql('postgres', 'SELECT count(*) FROM cron.job'), 1, '... and is the one that the hint makes');
is($node->safe_psql('postgres', 'SELECT retl.uninstall_tick()'), 't', 'it is removed');
is($node->safe_psql('postgres', 'SELECT retl.uninstall_tick()'), 'f', '... once');
is($node->safe_psql('postgres', 'SELECT count(*) FROM cron.job'), 0, '... and gone');
is($node->safe_psql('postgres', 'SELECT retl.install_tick() > 0'), 't', 'it is made again');

# ---- without rights ----
$node->safe_psql('postgres', 'REVOKE ALL ON SCHEMA cron FROM PUBLIC');
($error, $home, $sql) = refused('postgres', 'SELECT retl.install_tick()', user => 'ann');
like($error, qr/42501: cannot make the job.*the caller may not use schema cron/, 'a user without rights is told');
like($sql, qr/schedule_in_database/, '... what to ask for');
$node->safe_psql('postgres', 'GRANT USAGE ON SCHEMA cron TO ann');
is($node->safe_psql('postgres', 'SELECT retl.install_tick() > 0', extra_params => [ '-U', 'ann' ]), 't', 'with USAGE the job is the caller\'s');
is($node->safe_psql('postgres', 'SELECT username FROM cron.job ORDER BY 1'), "ann\npostgres", '... beside that of another');
is($node->safe_psql('postgres', 'SELECT retl.uninstall_tick()', extra_params => [ '-U', 'ann' ]), 't', '... and is removed');
is($node->safe_psql('postgres', 'SELECT username FROM cron.job'), 'postgres', '... alone');

# ---- another database of the cluster ----
($error, $home, $sql) = refused('sales', 'SELECT retl.install_tick()');
like($error, qr/55000: cannot make the job.*pg_cron is in database "postgres"/, 'pg_cron is elsewhere');
is($home, 'postgres', '... where the hint says');
$node->safe_psql($home, $sql);
is($node->safe_psql('postgres', 'SELECT jobname, database FROM cron.job ORDER BY jobid DESC LIMIT 1'), 'retl tick of sales|sales', '... and how');

# ---- a real minute ----
for my $database (qw(postgres sales))
{
	$node->safe_psql($database, q{
CREATE TABLE t (id int PRIMARY KEY);
INSERT INTO t SELECT i FROM generate_series(1, 3) i;
SELECT retl.create_model('t', 't', '{id}');
});
	create_webhook($node, 'hook', $receiver, database => $database, path => "/$database");
	create_mapping($node, 'm', 't', 'hook', database => $database, schedule => '1 hour');
}
for my $database (qw(postgres sales))
{
	$node->poll_query_until($database, q{SELECT count(*) = 1 FROM retl.runs WHERE status = 'succeeded' AND trigger = 'schedule'})
	  or die "no run in $database: " . $node->safe_psql('postgres', 'SELECT * FROM cron.job_run_details');
	is(scalar $receiver->requests(qr{/$database}), 3, "$database is synced by its schedule");
	is($node->safe_psql($database, q{SELECT at > now() - interval '3 minutes' FROM retl.clock WHERE name = 'tick'}), 't', '... and its tick is on record');
	is($node->safe_psql($database, q{SELECT count(*) FROM retl.health WHERE what IN ('no tick comes', 'schedule is overdue')}), '0', '... so that nothing is wrong');
}

# ---- and gone ----
($error, $home, $sql) = refused('sales', 'SELECT retl.uninstall_tick()');
$node->safe_psql($home, $sql);
is($node->safe_psql('postgres', 'SELECT retl.uninstall_tick()'), 't', 'removed here');
is($node->safe_psql('postgres', 'SELECT count(*) FROM cron.job'), 0, '... and there by what the hint says');
$node->safe_psql('postgres', q{UPDATE retl.clock SET at = at - interval '1 hour'; UPDATE retl.mapping SET scheduled_since = now() - interval '1 hour'});
like($node->safe_psql('postgres', q{SELECT hint FROM retl.health WHERE what = 'no tick comes'}), qr/retl\.install_tick\(\)/, 'health says what is missing');

done_testing();
