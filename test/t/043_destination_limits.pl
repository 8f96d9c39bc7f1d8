# What a destination can take: rates over all its mappings, a daily quota, adaptive concurrency, the circuit breaker; as
# its own log has it.
use strict;
use warnings;

use List::Util qw(max sum0);
use RetlTest;
use Test::More;

my $node = new_node('limits');
my $receiver = new_receiver();
$node->safe_psql('postgres', q{
CREATE TABLE t (id int PRIMARY KEY, v int NOT NULL DEFAULT 1);
INSERT INTO t SELECT i, 1 FROM generate_series(1, 200) i;
SELECT retl.create_model('t', 't', '{id}');
});

sub query { return $node->safe_psql('postgres', $_[0]); }

sub destination
{
	my ($name, %settings) = @_;
	query(sprintf "SELECT retl.create_destination(%s, 'webhook', %s)", literal($name), literal(json({ url => $receiver->url . "/$name", %settings })));
}

sub outcome
{
	my ($run) = @_;
	return "$run->{status} sent $run->{sent} failed $run->{failed}";
}

# The most that came in any window of a second or more, as a part of limit * window + burst.
sub fullest
{
	my ($limit, $burst, @arrivals) = @_;
	my $most = 0;
	for my $from (0 .. $#arrivals)
	{
		my $sum = 0;
		for my $to ($from .. $#arrivals)
		{
			$sum += $arrivals[$to][1];
			my $width = max(1, $arrivals[$to][0] - $arrivals[$from][0]);
			$most = max($most, $sum / ($limit * $width + $burst));
		}
	}
	return $most;
}

# Rates hold over all mappings of a destination, whatever their batches.
destination('shared', requests_per_second => 15, rows_per_second => 100);
create_mapping($node, 'shared large', 't', 'shared', batch_size => 20, max_change_percent => 100);
create_mapping($node, 'shared small', 't', 'shared', batch_size => 4, max_change_percent => 100);
my @runs = map { sync($node, $_) } 'shared large', 'shared small';
is(outcome(wait_for_run($node, $_)), 'succeeded sent 200 failed 0', 'two mappings of a destination with rates') for @runs;
my $first = scalar $receiver->requests(qr{/shared});
is($first, 60, '... of batches as they were asked for');
# after a rest, a second's worth comes at once
query('UPDATE t SET v = 2');
$node->poll_query_until('postgres', q{SELECT bool_and(clock_timestamp() > saved_at + interval '1.5 s') FROM retl.destination_state}) or die;
@runs = map { sync($node, $_) } 'shared large', 'shared small';
is(outcome(wait_for_run($node, $_)), 'succeeded sent 200 failed 0', '... and again') for @runs;
my @requests = $receiver->requests(qr{/shared});
my @arrivals = map { [ $_->{at}, 1 ] } @requests;
my @rows = map { [ $_->{at}, scalar records_of($_) ] } @requests;
cmp_ok(fullest(15, 15, @arrivals), '<=', 1.01, '... no window of a second or more sees more requests than limit * window + burst');
cmp_ok(fullest(100, 100, @rows), '<=', 1.01, '... nor more records');
cmp_ok(fullest(100, 100, @rows), '>', 0.6, '... and what may be sent is');
my @second = @rows[ $first .. $#rows ];
cmp_ok(sum0(map { $_->[1] } grep { $_->[0] < $second[0][0] + 0.5 } @second), '>', 75, '... a burst after the rest among it');

# No batch is larger than what may be sent at once.
destination('narrow', rows_per_second => 100, burst => 0.1);
create_mapping($node, 'narrow', 't', 'narrow', batch_size => 100, max_change_percent => 100);
is(outcome(sync_and_wait($node, 'narrow')), 'succeeded sent 200 failed 0', 'a burst that is less than a batch');
@rows = map { [ $_->{at}, scalar records_of($_) ] } $receiver->requests(qr{/narrow});
is(max(map { $_->[1] } @rows), 10, '... makes batches smaller');
cmp_ok(fullest(100, 10, @rows), '<=', 1.01, '... and holds');

# The quota of a day outlives crashes and restarts.
destination('frugal', requests_per_day => 6, concurrency => 2);
create_mapping($node, 'frugal', 't', 'frugal', batch_size => 10, max_change_percent => 100);
my $killed = worker_pid($node, 'delivery');
arm_fault($node, 'answer_received', 'kill 3');
my $run = sync($node, 'frugal');
wait_gone($killed);
my $health = q{SELECT count(*) FROM retl.health WHERE what = 'daily quota is used up' AND object::text = 'frugal'};
$node->poll_query_until('postgres', "$health", 1) or die 'the quota is not used up';
is(query(q{SELECT requests_today FROM retl.destinations WHERE name::text = 'frugal'}), 6, 'a daily quota is used up, which the view shows');
my $used = scalar $receiver->requests(qr{/frugal});
cmp_ok($used, '<=', 6, '... by no more requests, though the worker was killed');
cmp_ok($used, '>=', 3, '... and by some');
$node->restart;
my $looked = worker_pid($node, 'delivery');
$node->poll_query_until('postgres', "SELECT state = 'idle' FROM pg_stat_activity WHERE pid = $looked") or die;
is(scalar $receiver->requests(qr{/frugal}), $used, '... nothing more after a restart');
$node->stop;
$node->start;
query(q{UPDATE retl.destination_state SET day = day - 1 WHERE destination = (SELECT id FROM retl.destination WHERE name::text = 'frugal')});
$node->restart;
$receiver->wait_for($used + 6, path => '/frugal', done => 1);
$node->poll_query_until('postgres', "$health", 1) or die 'the quota is not used up again';
is(scalar $receiver->requests(qr{/frugal}), $used + 6, '... the next day there is as much again');
query(q{SELECT retl.alter_destination('frugal', reset => '{requests_per_day}')});
is(outcome(wait_for_run($node, $run)), 'succeeded sent 200 failed 0', '... and without a quota the rest goes out');

# Adaptive concurrency: a destination that takes four requests at a time.
destination('busy', concurrency => 32);
create_mapping($node, 'busy', 't', 'busy', batch_size => 1, max_change_percent => 100);
query('INSERT INTO t SELECT i, 1 FROM generate_series(201, 1500) i');
$receiver->rules({ path => '/busy', over => 4, status => 429 }, { path => '/busy', delay => 0.05 });
$run = sync($node, 'busy');
$receiver->wait_for(400, path => '/busy', done => 1);
my $refused = grep { $_->{status} == 429 } $receiver->requests(qr{/busy});
cmp_ok($refused, '>', 0, 'a destination that takes four requests at a time refuses some of 32');
cmp_ok($refused, '<', 160, '... but not many: fewer are sent at a time');
my $concurrency = q{FROM retl.destinations WHERE name::text = 'busy'};
ok($node->poll_query_until('postgres', "SELECT concurrency < 16 $concurrency"), '... which the view shows');
$receiver->rules({ path => '/busy', delay => 0.01 });
is(outcome(wait_for_run($node, $run)), 'succeeded sent 1500 failed 0', '... when it takes as many as there are again');
ok($node->poll_query_until('postgres', "SELECT concurrency > 24 $concurrency"), '... it gets them');

# The circuit breaker.
destination('broken', concurrency => 4);
create_mapping($node, 'broken', 't', 'broken', batch_size => 10, max_change_percent => 100);
$receiver->rules({ path => '/broken', status => 500 });
$run = sync($node, 'broken');
my $breaker = q{FROM retl.health WHERE what = 'circuit breaker is open' AND object::text = 'broken'};
$node->poll_query_until('postgres', "SELECT count(*) = 1 $breaker") or die 'no notice';
my ($since, $detail, $hint) = split /\|/, query("SELECT since, detail, hint $breaker");
ok($since, 'a breaker opens, which the health view says, since when,');
like($detail, qr/requests in a row failed; the next one is sent at .*status 500/, '... why,');
like($hint, qr/closes by itself/, '... and what to do');
like(query(q{SELECT breaker FROM retl.destinations WHERE name::text = 'broken'}), qr/open$/, '... and the view of destinations shows');
$node->restart;
is(query("SELECT since $breaker"), $since, '... after a restart, too');
my $failed = scalar $receiver->requests(qr{/broken});
$receiver->wait_for($failed + 2, path => '/broken', done => 1);
@requests = ($receiver->requests(qr{/broken}))[ $failed, $failed + 1 ];
cmp_ok($requests[1]{at} - $requests[0]{at}, '>', 0.4, '... it is probed by one request after another, with pauses');
$receiver->rules();
is(outcome(wait_for_run($node, $run)), 'succeeded sent 1500 failed 0', '... and closes when one succeeds');
is(query(q{SELECT breaker || coalesce(breaker_since::text, '') FROM retl.destinations WHERE name::text = 'broken'}), 'closed', '... as the view shows');
is(query("SELECT count(*) $breaker"), 0, '... and nothing is wrong any more');

done_testing();
