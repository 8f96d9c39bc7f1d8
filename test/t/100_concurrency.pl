# Fifty sessions that do to models, destinations and mappings whatever can be done, eight builds as dbt makes them, and a
# destination that fails at times. RETL_STORM_SECONDS and RETL_STORM_SEED choose length and seed.
use strict;
use warnings;

use IPC::Run;
use PostgreSQL::Test::Utils;
use RetlTest;
use Test::More;

my $seconds = $ENV{RETL_STORM_SECONDS} // 25;
my $seed = $ENV{RETL_STORM_SEED} // int rand 1_000_000;
diag("seed $seed, $seconds s: repeat with RETL_STORM_SEED=$seed");

my $node = new_node('storm',
	conf => "log_statement = none\nlog_min_error_statement = panic\nmax_connections = 90\nlog_lock_waits = off\nretl.worker_idle_timeout = 5s\n");
my $receiver = new_receiver();
$receiver->rules(
	{ match => '"key": ?1[,}]', skip => 3, times => 40, status => 503, headers => { 'Retry-After' => '0' } },
	{ match => '"key": ?2[,}]', times => 20, status => 422 },
	{ path => '/d3', skip => 10, times => 30, close => 'read' },
	{ path => '/d1', times => 50, delay => 0.05 });

my ($out, $err) = ('', '');
IPC::Run::run(
	[
		'/usr/bin/python3', '-B', "$ENV{RETL_TREE}/test/lib/storm.py", '--host', $node->host, '--port', $node->port,
		'--url', $receiver->url, '--seconds', $seconds, '--seed', $seed
	],
	'>', \$out, '2>', \$err) or die "storm.py: $err";
my $storm = JSON::PP->new->decode($out);
note("$storm->{counts}{statements} statements, $storm->{counts}{built} builds; slowest $storm->{slowest} s; errors: "
	  . join(', ', map { "$_ $storm->{counts}{$_}" } grep { /^[0-9A-Z]{5}$/ } sort keys %{ $storm->{counts} }));
cmp_ok($storm->{counts}{statements}, '>', 20 * $seconds, 'sessions got on');
cmp_ok($storm->{counts}{built}, '>', $seconds / 5, 'and so did builds');

# Nobody waited for a lock too long (55P03, of those who enqueue), none was chosen by the deadlock detector (40P01), and
# nothing failed in a way that says nothing to a user (XX000).
is(scalar @{ $storm->{unexpected} }, 0, 'no error but those that say what is not there, or not possible')
  or diag(join "\n", @{ $storm->{unexpected} });
for my $statement ('DROP DATABASE', 'DROP EXTENSION')
{
	like($storm->{took}{$statement}, qr/^[\d.]+$/, "$statement in the midst works");
	# sixty sessions are at work beside it, and PostgreSQL itself may wait 5 s
	cmp_ok($storm->{took}{$statement}, '<', 15, '... within seconds');
}

# Quiescence: everything is enabled, and synced until nothing is left to do.
$receiver->rules();
$node->safe_psql('postgres', "SELECT retl.enable_$_->[0](name) FROM retl.$_->[1]")
  for [ 'model', 'models' ], [ 'destination', 'destinations' ], [ 'mapping', 'mappings' ];
ok($node->poll_query_until('postgres', "SELECT count(*) = 0 FROM retl.runs WHERE finished_at IS NULL AND status <> 'held'"),
	'every run ends')
  or diag($node->safe_psql('postgres', 'SELECT row_to_json(r) FROM retl.run r WHERE finished_at IS NULL'),
	$node->safe_psql('postgres', 'SELECT row_to_json(s) FROM retl.mapping_state s'),
	$node->safe_psql('postgres', 'SELECT row_to_json(q) FROM retl.request q'));
for my $round (1 .. 3)
{
	$node->safe_psql('postgres', 'SELECT retl.sync(name) FROM retl.mappings');
	$node->poll_query_until('postgres', "SELECT count(*) = 0 FROM retl.runs WHERE finished_at IS NULL AND status <> 'held'")
	  or die 'the last syncs do not end';
}

# Each run that a committed transaction was told of has ended, unless its mapping was dropped. Numbers of dropped
# mappings' runs are gone with them, so what is left must be all that the views know.
is($node->safe_psql('postgres', "SELECT count(*) FROM retl.runs WHERE status IN ('queued', 'snapshotting', 'planning', 'delivering')"),
	'0', 'no run is left under way');
is($node->safe_psql('postgres', 'SELECT count(*) FROM retl.request'), '0', 'no request is left');
is($node->safe_psql('postgres', 'SELECT count(*) FROM retl.mapping_state WHERE active_run IS NOT NULL'), '0', 'no mapping is taken');
my $known = join ',', @{ $storm->{runs} };
my $first = $node->safe_psql('postgres', 'SELECT min(created_at) FROM retl.mapping');
note(scalar @{ $storm->{runs} } . ' runs asked for, '
	  . $node->safe_psql('postgres', "SELECT count(*) FROM retl.run WHERE id = ANY ('{$known}')") . ' of mappings that are left');
is($node->safe_psql('postgres',
		"SELECT string_agg(DISTINCT status, ', ') FROM retl.runs WHERE status NOT IN"
		  . " ('succeeded', 'partial', 'failed', 'canceled', 'skipped', 'replaced', 'held')"),
	'', 'every run has an end that is known');

# Two active runs of one mapping would have sent versions out of order, or a change twice under two numbers.
is($node->safe_psql('postgres',
		'SELECT count(*) FROM retl.run a JOIN retl.run b ON b.mapping = a.mapping AND b.id > a.id'
		  . ' WHERE a.planned AND b.planned AND a.served_by IS NULL AND b.served_by IS NULL'
		  # A run's snapshot may begin while the one before is still sent; its batches may not.
		  . ' AND a.started_at < b.started_at AND a.stop_reason IS NULL'
		  . ' AND EXISTS (SELECT FROM retl.batch t WHERE t.run = b.id AND t.created_at < a.finished_at)'),
	'0', 'no mapping had two runs at once');

# What the receiver was told of each mapping that is left, since it was created, is its model.
my %mappings = map { my ($name, $model) = split /\|/; ($name => $model) }
  split /\n/, $node->safe_psql('postgres', 'SELECT name, model FROM retl.mappings ORDER BY 1');
cmp_ok(scalar keys %mappings, '>', 3, 'mappings are left');
my %state;
my @problems;
for my $request ($receiver->requests)
{
	next unless $request->{complete} && ($request->{status} // 200) == 200;
	for my $record (records_of($request))
	{
		next unless ref $record eq 'HASH' && defined $record->{mapping};
		if ($record->{op} eq 'deleted') { delete $state{ $record->{mapping} }{ $record->{key} }; }
		else { $state{ $record->{mapping} }{ $record->{key} } = json($record->{row}); }
	}
}
for my $mapping (sort keys %mappings)
{
	my $last = $node->safe_psql('postgres', "SELECT status || coalesce(': ' || error, '') FROM retl.runs WHERE mapping = '$mapping' ORDER BY id DESC LIMIT 1");
	my $rows = model_rows($node, 'SELECT * FROM ' . $node->safe_psql('postgres', "SELECT '(' || query || ') q' FROM retl.models WHERE name = '$mappings{$mapping}'"), 'id');
	push @problems, "$mapping: last run $last" unless $last =~ /^succeeded/;
	for my $key (sort keys %$rows)
	{
		my $held = $state{$mapping}{$key} // 'nothing';
		my $should = json($rows->{$key});
		push @problems, "$mapping, key $key: holds $held, should be $should" if $held ne $should;
	}
}
ok(!@problems, 'receivers hold what models say');
diag(join "\n", @problems > 20 ? (@problems[ 0 .. 19 ], scalar @problems) : @problems) if @problems;

$node->stop('fast');
my $log = slurp_file($node->logfile);
$log =~ s/received fast shutdown request.*//s;
my @grave = grep { /deadlock detected|PANIC|terminated by signal|TRAP:/ } split /\n/, $log;
is(scalar @grave, 0, 'no deadlock, no crash') or diag(join "\n", @grave);
my @exits = grep { /retl (?:snapshot|delivery) worker.*exited with exit code 1/ } split /\n/, $log;
is(scalar @exits, 0, 'no worker ended by an error') or diag(@exits);
my @errors = grep { /\] retl .*(ERROR|FATAL|WARNING):/ && !/terminating background worker|is disabled|does not exist|no longer|is not a column/ } split /\n/, $log;
is(scalar @errors, 0, 'nor had any') or diag(join "\n", @errors[ 0 .. ($#errors > 15 ? 15 : $#errors) ]);
done_testing();
