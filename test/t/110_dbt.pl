# With dbt itself: its hooks, its renames and drops, its manifest, its results; a project of every materialization, 8 threads.
# check-all: one version
# needs: dbt
use strict;
use warnings;

use IPC::Open2;
use JSON::PP;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RetlTest;
use Test::More;

plan skip_all => $ENV{RETL_NO_DBT} if $ENV{RETL_NO_DBT};

my $node = new_node('dbt', conf => "log_lock_waits = on\ndeadlock_timeout = 50ms\n");
my $receiver = new_receiver();
$node->safe_psql('postgres', q{
CREATE SCHEMA app;
CREATE TABLE app.customers (id int PRIMARY KEY, email text, plan text, v int NOT NULL DEFAULT 1);
INSERT INTO app.customers SELECT i, 'c' || i || '@example.com', CASE WHEN i % 2 = 0 THEN 'free' ELSE 'pro' END FROM generate_series(1, 20) i;
CREATE TABLE app.orders (id int PRIMARY KEY, customer int, amount numeric, v int NOT NULL DEFAULT 1);
INSERT INTO app.orders SELECT i, i, i * 1.5 FROM generate_series(1, 20) i;
CREATE TABLE app.parts (part int, id int, v int NOT NULL DEFAULT 1);
INSERT INTO app.parts SELECT p, i FROM generate_series(1, 10) p, generate_series(1, 5) i;
});
create_webhook($node, 'crm', $receiver, settings => { batch_size => 100 });

# ---- dbt ----

my $project = PostgreSQL::Test::Utils::tempdir() . '/shop';
system('cp', '-r', "$ENV{RETL_TREE}/test/dbt", $project) == 0 or die 'copy of the project';
my %environment = (
	PGHOST => $node->host,
	PGPORT => $node->port,
	RETL_PACKAGE => "$ENV{RETL_TREE}/sql/dbt",
	DBT_PROJECT_DIR => $project,
	DBT_PROFILES_DIR => $project,
	DBT_SEND_ANONYMOUS_USAGE_STATS => 'false',
	DBT_VERSION_CHECK => 'false',
	DBT_USE_COLORS => 'false',
	DBT_LOG_LEVEL_FILE => 'none',
	HOME => PostgreSQL::Test::Utils::tempdir());
my $driver;
{
	local @ENV{ keys %environment } = values %environment;
	$driver = open2(my $out, my $in, $ENV{RETL_DBT}, '-B', "$ENV{RETL_TREE}/test/lib/dbt_driver.py");
	$driver = { pid => $driver, out => $out, in => $in };
}
$driver->{in}->autoflush(1);
like(readline $driver->{out}, qr/ready/, 'dbt is there') or BAIL_OUT('no dbt');

sub begin_dbt
{
	my (@args) = @_;
	print { $driver->{in} } json([ '--quiet', @args ]) . "\n";
	return;
}

sub end_dbt
{
	my $line = readline $driver->{out};
	die 'dbt has died' unless defined $line;
	return JSON::PP->new->utf8->decode($line);
}

sub dbt { begin_dbt(@_); return end_dbt(); }

sub dbt_ok
{
	my ($name, @args) = @_;
	my $done = dbt(@args);
	ok($done->{success}, "dbt $name") or diag(json($done));
	return $done;
}

# ---- retl ----

my $seen = 0;

# Waits until there is nothing to do; what ran since the last call, by mapping.
sub runs
{
	$node->poll_query_until('postgres', 'SELECT count(*) = 0 FROM retl.runs WHERE finished_at IS NULL')
	  or die 'runs do not end: ' . $node->safe_psql('postgres', 'SELECT r FROM retl.runs r WHERE finished_at IS NULL');
	my %runs;
	for my $line (split /\n/, $node->safe_psql('postgres', "SELECT row_to_json(r) FROM retl.runs r WHERE id > $seen ORDER BY id"))
	{
		my $run = JSON::PP->new->decode($line);
		$run->{mapping} =~ s/ to crm$//;
		push @{ $runs{ $run->{mapping} } }, $run;
		$seen = $run->{id};
	}
	return \%runs;
}

# "added/updated/deleted status" of each.
sub summary
{
	my ($runs) = @_;
	return { map { my $name = $_; $name => join ', ', map { "$_->{added}/$_->{updated}/$_->{deleted} $_->{status}" } @{ $runs->{$name} } }
		  grep { !/^part_/ } keys %$runs };
}

sub value { return $node->safe_psql('postgres', $_[0]); }

sub query_artifact
{
	my ($artifact, $query, %options) = @_;
	return $node->safe_psql($options{database} // 'postgres', "\\set artifact `cat $project/target/$artifact`\n$query");
}

# ---- registering ----

dbt_ok('deps', 'deps');
dbt_ok('build, without hooks', 'build', '--vars', '{retl_enabled: false}');
is(value('SELECT count(*) FROM retl.models'), '0', 'a build makes no model');
is(query_artifact('manifest.json', q{SELECT string_agg(DISTINCT action, ',') FROM retl.import_dbt(:'artifact', dry_run => true)}),
	'added', 'import, as a plan');
is(value('SELECT count(*) FROM retl.models'), '0', 'a plan makes no model');
is(query_artifact('manifest.json', q{SELECT object, action, count(*) FROM retl.import_dbt(:'artifact') GROUP BY 1, 2 ORDER BY 1}),
	"mapping|added|15\nmodel|added|15", 'imported');
is(value(q{SELECT count(*) FROM retl.models WHERE name IN ('unasked')}), '0', 'not what did not ask');
is(query_artifact('manifest.json', q{SELECT object, action, count(*) FROM retl.import_dbt(:'artifact', prune => true) GROUP BY 1, 2 ORDER BY 1}),
	"mapping|unchanged|15\nmodel|unchanged|15", 'and again: nothing to do');
is(value(q{SELECT key, relation, description, managed_by ->> 'node' FROM retl.models WHERE name = 'customers'}),
	'{id}|shop.customers|Everybody who has an account|model.shop.customers', 'a model is as its node says');
is(value(q{SELECT key FROM retl.models WHERE name = 'orders'}), '{id}', 'a key from unique_key');
is_deeply(runs(), {}, 'importing syncs nothing');

# ---- hooks, on every materialization ----

dbt_ok('build', 'build');
my $runs = runs();
is_deeply(
	summary($runs),
	{
		customers => '20/0/0 succeeded', recent => '15/0/0 succeeded', orders => '20/0/0 succeeded',
		customers_history => '20/0/0 succeeded', regions => '2/0/0 succeeded'
	},
	'every hook has synced what it should, once');
is(scalar(grep { @{ $runs->{"part_$_"} // [] } == 1 } 1 .. 10), 10, 'of 10 models in 8 threads each, too');

value(q{
UPDATE app.customers SET v = 2, email = 'new' || id WHERE id IN (4, 8, 16);
DELETE FROM app.customers WHERE id = 20;
INSERT INTO app.customers VALUES (21, 'c21@example.com', 'free');
UPDATE app.orders SET v = 2, amount = 0 WHERE id = 7;
INSERT INTO app.orders VALUES (22, 1, 1, 2)});
dbt_ok('build, after changes', 'build');
is_deeply(
	summary(runs()),
	{
		customers => '1/3/1 succeeded', recent => '1/2/1 succeeded', orders => '1/1/0 succeeded',
		# three old versions are closed, three new ones and one new customer come
		customers_history => '4/3/0 succeeded', regions => '0/0/0 succeeded'
	},
	'net changes, through renamed, replaced and incremental relations');

dbt_ok('build --full-refresh', 'build', '--full-refresh');
is_deeply(
	summary(runs()),
	{
		customers => '0/0/0 succeeded', recent => '0/0/0 succeeded', orders => '0/0/0 succeeded',
		customers_history => '0/0/0 succeeded', regions => '0/0/0 succeeded'
	},
	'a full refresh changes nothing, so nothing is sent');

# ---- the relation goes, and comes back ----

value('DROP SCHEMA shop CASCADE');
my $failed = sync_and_wait($node, 'customers to crm');
is("$failed->{status} $failed->{error_code}", 'failed 42P01', 'a model whose relation is gone fails, and deletes nothing');
runs();
dbt_ok('build, after drop ... cascade', 'build', '--exclude', 'customers_history');
is_deeply(
	summary(runs()),
	{ customers => '0/0/0 succeeded', recent => '0/0/0 succeeded', orders => '0/0/0 succeeded', regions => '0/0/0 succeeded' },
	'the checkpoint is as it was');

# ---- commit and rollback ----

value(q{UPDATE app.customers SET v = 3 WHERE id = 1});
my $done = dbt('run', '-s', 'customers', '--vars', '{at: customers, then: "select 1/0"}');
ok(!$done->{success}, 'a hook behind it fails') or diag(json($done));
is_deeply(runs(), {}, 'dbt rolled back, and so was the request');
is(value('SELECT max(v) FROM shop.customers'), '2', '... with the table');
dbt_ok('run', 'run', '-s', 'customers');
is_deeply(summary(runs()), { customers => '0/1/0 succeeded' }, 'the next one syncs it');

# Ten models, eight threads; one does not commit while the others are at work.
value('UPDATE app.parts SET v = 2');
my $holder = $node->background_psql('postgres');
$holder->query_safe('SELECT pg_advisory_lock(4711)');
begin_dbt('run', '-s', 'part_1', 'part_2', 'part_3', 'part_4', 'part_5', 'part_6', 'part_7', 'part_8', 'part_9', 'part_10',
	'--vars', '{at: part_1, then: "select pg_advisory_lock_shared(4711)"}');
$node->poll_query_until('postgres', q{
SELECT count(*) = 9 FROM retl.runs WHERE mapping ~ '^part_' AND status = 'succeeded' AND id > } . $seen)
  or die 'the others do not get through';
pass('nine models commit, and are synced, while the hook of the tenth is open');
is(value(q{SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype <> 'advisory'}), '0', 'nobody waits for it');
is(value("SELECT count(*) FROM retl.runs WHERE mapping = 'part_1 to crm' AND id > $seen"), '0', 'it is not synced before it commits');
is(value("SELECT count(*) FROM retl.run WHERE mapping = (SELECT id FROM retl.mapping WHERE name = 'part_1 to crm') AND id > $seen"), '0',
	'... nor a run prepared');
$holder->query_safe('SELECT pg_advisory_unlock(4711)');
$holder->quit;
ok(end_dbt()->{success}, 'dbt run, to its end');
$runs = runs();
is(join(' ', map { scalar @{ $runs->{"part_$_"} // [] } . ':' . ($runs->{"part_$_"}[0]{updated} // '') } 1 .. 10),
	join(' ', ('1:5') x 10), 'each of the ten once');

# ---- one run for an invocation ----

dbt_ok('run, with a hook that asks twice',
	'run', '-s', 'customers', '--vars', '{at: customers, then: "select retl.sync_model(\'customers\', invocation => (select invocation from retl.request where invocation is not null order by id desc limit 1))"}');
is(scalar @{ runs()->{customers} }, 1, 'two requests of one invocation are one run');

# ---- other targets ----

dbt_ok('run, every statement a transaction', 'run', '-s', 'customers', '--target', 'autocommit');
is_deeply(summary(runs()), { customers => '0/0/0 succeeded' }, 'a target without transactions is synced, too');
dbt_ok('build for another target', 'build', '--target', 'ci');
is_deeply(runs(), {}, 'a target that is not named syncs nothing');

# ---- tests first ----

value(q{UPDATE app.customers SET plan = 'gold', v = 4 WHERE id = 1; INSERT INTO app.orders VALUES (23, 1, 1, 3)});
$done = dbt('build', '--vars', '{gate: true}', '--exclude', 'customers_history');
ok(!$done->{success}, 'a test fails');
$runs = runs();
is_deeply(
	summary($runs),
	{ customers => '0/0/0 skipped', recent => '0/0/0 skipped', orders => '1/0/0 succeeded', regions => '0/0/0 succeeded' },
	'what its tests do not pass is held, what depends on it, too, and the rest is synced');
like($runs->{customers}[0]{error}, qr/tests did not pass: test\.shop\.accepted_values_customers_plan.* \(fail\)/, 'the reason is on record');
like($runs->{recent}[0]{error}, qr/model\.shop\.recent was not built: dbt says skipped/, '... for the other as well');
value(q{UPDATE app.customers SET plan = 'pro' WHERE id = 1});
dbt_ok('build, put right', 'build', '--vars', '{gate: true}', '--exclude', 'customers_history');
is_deeply(
	summary(runs()),
	{ customers => '0/1/0 succeeded', recent => '0/0/0 succeeded', orders => '0/0/0 succeeded', regions => '0/0/0 succeeded' },
	'and synced then');
# The same from the artifacts, as a scheduler would.
is(query_artifact('run_results.json', "\\set manifest `cat $project/target/manifest.json`\n"
		  . q{SELECT node, action, count(run) FROM retl.dbt_results(:'artifact', 'by hand', :'manifest') WHERE node ~ 'customers|orders' GROUP BY 1, 2 ORDER BY 1}),
	"model.shop.customers|synced|1\nmodel.shop.orders|synced|1", 'results from the files');
runs();

# ---- what the package says ----

$done = dbt_ok('run-operation import', 'run-operation', 'retl.import', '--args', '{dry_run: true}');
is(scalar(() = $done->{stdout} =~ /\tunchanged\b/g), 30, 'a macro sends what the manifest does') or diag($done->{stdout});
$done = dbt_ok('run-operation check', 'run-operation', 'retl.check');
like($done->{stdout}, qr/key_untested\tpart_1 to crm/, 'a check from dbt');

# ---- exposures ----

$done = dbt_ok('run-operation exposures', 'run-operation', 'retl.exposures');
my $file = "$project/models/retl_exposures.yml";
append_to_file($file, $done->{stdout});
dbt_ok('parse, with the exposures', 'parse');
is(query_artifact('manifest.json', q{
SELECT count(*), bool_and(x.value ->> 'type' = 'application') FROM jsonb_each(:'artifact'::jsonb -> 'exposures') x}), '15|t', 'dbt reads the exposures');
is(query_artifact('manifest.json', q{
SELECT x.value #>> '{depends_on,nodes,0}', x.value #>> '{config,meta,retl,destination}' FROM jsonb_each(:'artifact'::jsonb -> 'exposures') x
 WHERE x.value ->> 'label' = 'customers to crm'}), 'model.shop.customers|crm', '... with what they depend on');
unlink $file;

# ---- CI: a change, judged without the database that it is for ----

my $state = PostgreSQL::Test::Utils::tempdir() . '/state.json';
append_to_file($state, value('SELECT retl.export_config()'));
value('CREATE DATABASE ci');
$node->safe_psql('ci', 'CREATE EXTENSION retl');

# Exit status of psql, and what it says.
sub check
{
	my ($raise) = @_;
	my $script = "\\set manifest `cat $project/target/manifest.json`\n\\set catalog `cat $project/target/catalog.json`\n\\set state `cat $state`\n"
	  . "SELECT severity, code, mapping, node FROM retl.check_dbt(:'manifest', :'catalog', :'state'"
	  . ($raise ? ', raise => true' : '') . ") WHERE code <> 'key_untested'";
	my ($out, $err);
	IPC::Run::run([ 'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('ci') ], '<', \$script, '>', \$out, '2>', \$err);
	return ($? >> 8, $out, $err);
}

# The catalog of what CI built in a schema of its own, the manifest of the target to come.
sub propose
{
	my ($name) = @_;
	dbt_ok("build of a proposal: $name", 'build', '--target', 'ci', '--full-refresh');
	dbt_ok('docs generate', 'docs', 'generate', '--target', 'ci');
	dbt_ok('parse', 'parse', '--target', 'dev', '--no-partial-parse');
	return;
}
propose('no change');
is_deeply([ check(1) ], [ 0, '', '' ], 'no change breaks nothing');
my $model = "$project/models/customers.sql";
my $text = slurp_file($model);
(my $changed = $text) =~ s/email/email as mail/;
unlink $model;
append_to_file($model, $changed);
# What reads it must still build.
my $recent = "$project/models/recent.sql";
(my $mail = slurp_file($recent)) =~ s/email/mail as email/;
unlink $recent;
append_to_file($recent, $mail);
propose('a column renamed');
my ($status, $out, $err) = check(0);
is($status, 0, 'without raise: no error');
is($out, "warning|column_renamed|customers to crm|model.shop.customers\n", 'a renamed column is found, of a row that is sent as a whole') or diag($err);
# A mapping that names the column: that breaks.
value(q{SELECT retl.create_mapping('by name', 'customers', 'crm', 'send', '{"data": {"mail": {"@path": "$.email"}}}')});
unlink $state;
append_to_file($state, value('SELECT retl.export_config()'));
($status, $out, $err) = check(1);
is($status, 3, 'with raise: psql fails');
like($err, qr/ERROR:  the change breaks mappings: 1 error.*mapping "by name", model\.shop\.customers: column "email" is gone; perhaps it is "mail" now/s, '... and says why');

# ---- the project asks for less ----

unlink "$project/seeds/schema.yml";
dbt_ok('parse', 'parse', '--no-partial-parse');
is(query_artifact('manifest.json', q{SELECT object, name, action FROM retl.import_dbt(:'artifact') WHERE action <> 'unchanged' ORDER BY 1}),
	"mapping|regions to crm|left\nmodel|regions|left", 'what is not asked for any more is left');
is(query_artifact('manifest.json', q{SELECT object, name, action FROM retl.import_dbt(:'artifact', prune => true) WHERE action <> 'unchanged' ORDER BY 1}),
	"mapping|regions to crm|pruned\nmodel|regions|pruned", '... or pruned');
is(value(q{SELECT count(*) FROM retl.mappings WHERE name = 'by name'}), '1', 'what it never asked for stays');

# ---- nobody waited ----

unlike(slurp_file($node->logfile), qr/still waiting for[^\n]*\n(?:[^\n]*(?:DETAIL|CONTEXT):[^\n]*\n)*[^\n]*STATEMENT:[^\n]*retl\.sync_model/,
	'in all of this no hook has waited for a lock');
unlike(slurp_file($node->logfile), qr/deadlock detected/, 'no deadlock');

close $driver->{in};
waitpid $driver->{pid}, 0;
$node->stop('fast');
done_testing();
