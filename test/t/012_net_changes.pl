# Random changes, random syncs, random refusals: each run of each mapping sends exactly the difference between what its
# destination has acknowledged and what the model says now; and one snapshot serves all mappings that ask together.
use strict;
use warnings;

use List::Util qw(shuffle);
use PostgreSQL::Test::Utils;
use RetlTest;
use Test::More;

my $seed = $ENV{RETL_SEED} // time;
srand($seed);
note "RETL_SEED=$seed";
my $rounds = 30;

my $node = new_node('net');
my $receiver = new_receiver();
$node->safe_psql('postgres', q{
CREATE TABLE t (id int PRIMARY KEY, grp int NOT NULL, v int NOT NULL, name text);
INSERT INTO t SELECT i, i % 3, 1, 'row ' || i FROM generate_series(1, 40) i;
SELECT retl.create_model('t', 'SELECT id, grp, v, name FROM t', '{id}', max_skip => '0');
});

my %mappings = (
	# one record a request, so that single records can be refused
	single => { batch_size => 1 },
	filtered => { batch_size => 5, filter => 'grp = 1' },
	seldom => { batch_size => 50 },
	many => { batch_size => 7 });
my %acked = map { $_ => {} } keys %mappings;
for my $name (sort keys %mappings)
{
	create_webhook($node, $name, $receiver);
	create_mapping($node, $name, 't', $name, %{ $mappings{$name} },
		max_delete_percent => 100, max_change_percent => 100, allow_empty => 'true');
}

sub seen_by
{
	my ($name, $rows) = @_;
	return $name eq 'filtered' ? { map { $_ => $rows->{$_} } grep { $rows->{$_}{grp} == 1 } keys %$rows } : $rows;
}

# operation and row by key: what should be sent
sub difference
{
	my ($from, $to) = @_;
	my %changes;
	for my $id (keys %$to)
	{
		if (!exists $from->{$id}) { $changes{$id} = [ 'new', $to->{$id} ]; }
		elsif (json($from->{$id}) ne json($to->{$id})) { $changes{$id} = [ 'updated', $to->{$id} ]; }
	}
	for my $id (keys %$from) { $changes{$id} = [ 'deleted', $from->{$id} ] unless exists $to->{$id}; }
	return \%changes;
}

my $version = 1;
my @wrong;
my ($records, $refused, $snapshots) = (0, 0, 0);
for my $round (1 .. $rounds)
{
	for (1 .. int rand 8)
	{
		my $id = 1 + int rand 60;
		my $kind = int rand 4;
		$version++;
		$node->safe_psql('postgres',
			  $kind == 0 ? "DELETE FROM t WHERE id = $id"
			: $kind == 1 ? "UPDATE t SET grp = (grp + 1) % 3, v = $version WHERE id = $id"
			: "INSERT INTO t VALUES ($id, $id % 3, $version, 'new') ON CONFLICT (id) DO UPDATE SET v = $version, name = 'changed'");
	}
	# Now and then everything goes, or goes back to an earlier value.
	$node->safe_psql('postgres', 'DELETE FROM t') if rand() < 0.05;
	$node->safe_psql('postgres', "UPDATE t SET v = 1, name = 'row ' || id, grp = id % 3 WHERE id % 7 = " . int rand 7) if rand() < 0.3;

	my @names = grep { rand() < ($_ eq 'seldom' ? 0.2 : 0.6) } sort keys %mappings;
	@names = sort keys %mappings if $round == 1 || $round == $rounds;
	next unless @names;

	my %bad = map { $_ => 1 } (shuffle(1 .. 60))[ 0 .. 4 + int rand 9 ];
	%bad = () if $round == $rounds;
	$receiver->clear;
	$receiver->rules(%bad ? { path => '/single$', match => '"key":(' . join('|', sort keys %bad) . ')[,}]', status => 422 } : ());

	my $before = $node->safe_psql('postgres', 'SELECT coalesce(max(seq), 0) FROM retl.snapshot');
	# One transaction asks for all of them.
	my @runs = split /\n/, $node->safe_psql('postgres',
		'BEGIN; ' . join('', map { "SELECT retl.sync('$_');" } @names) . ' COMMIT;');
	my %run;
	@run{@names} = map { wait_for_run($node, $_) } @runs;
	my $taken = $node->safe_psql('postgres', 'SELECT max(seq) FROM retl.snapshot') - $before;
	$snapshots += $taken;
	push @wrong, "round $round: $taken snapshots for " . scalar(@names) . ' mappings' if $taken != 1;

	my $rows = model_rows($node, 'SELECT id, grp, v, name FROM t', 'id');
	for my $name (@names)
	{
		my $want = difference($acked{$name}, seen_by($name, $rows));
		my %got;
		for my $request ($receiver->requests(qr{/$name$}))
		{
			for my $record (records_of($request))
			{
				my $id = $record->{key};
				push @wrong, "round $round, $name, key $id: sent twice in one run" if exists $got{$id};
				$got{$id} = [ $record->{op}, $record->{row} ];
				$records++;
				if ($request->{status} == 422) { $refused++; next; }
				if ($record->{op} eq 'deleted') { delete $acked{$name}{$id}; }
				else { $acked{$name}{$id} = $record->{row}; }
			}
		}
		for my $id (sort { $a <=> $b } keys %{ { %$want, %got } })
		{
			my ($sent, $should) = map { defined $_ ? json($_) : 'nothing' } $got{$id}, $want->{$id};
			push @wrong, "round $round, $name, key $id: sent $sent, should be $should" if $sent ne $should;
		}
		my $failed = grep { $name eq 'single' && $bad{$_} } keys %$want;
		my $status = $failed == 0 ? 'succeeded' : $failed == keys %$want ? 'failed' : 'partial';
		push @wrong, "round $round, $name: status $run{$name}{status}, should be $status: " . json($run{$name})
		  if $run{$name}{status} ne $status;
	}
	last if @wrong;
}
is(join("\n", @wrong), '', "every run sent the exact difference: $records records, $refused refused, $snapshots snapshots")
  or diag("RETL_SEED=$seed");
cmp_ok($records, '>', 100, 'enough of them');
cmp_ok($refused, '>', 5, '... and of refusals');
is($node->safe_psql('postgres', 'SELECT count(*) FROM retl.failed_rows'), '0', 'no failed row is left');

$node->stop('fast');
done_testing();
