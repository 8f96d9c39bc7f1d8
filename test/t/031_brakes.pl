# Never a surprise flood: brakes hold a run before anything is sent; release lets it through once; a held run is replaced by
# the next; what comes back in time was never sent.
use strict;
use warnings;

use PostgreSQL::Test::Utils;
use RetlTest;
use Test::More;

my $node = new_node('brakes');
my $receiver = new_receiver();
$node->safe_psql('postgres', q{
CREATE TABLE t (id int PRIMARY KEY, v int NOT NULL DEFAULT 1);
INSERT INTO t SELECT i FROM generate_series(1, 200) i;
SELECT retl.create_model('t', 't', '{id}');
});
create_webhook($node, 'hook', $receiver);
# Fewer than ten rows never trip a share.
create_mapping($node, 'hook', 't', 'hook', batch_size => 20, brake_min_rows => 10);

sub held
{
	my ($run, $name, $why) = @_;
	$node->poll_query_until('postgres', "SELECT status NOT IN ('queued', 'snapshotting', 'planning') FROM retl.runs WHERE id = $run") or die;
	$run = run_row($node, $run);
	is($run->{status}, 'held', $name) or diag(json($run));
	like($run->{error} // '', $why, '... and says why');
	ok(defined $run->{hint}, '... and what to do');
	is(scalar $receiver->requests, 0, '... nothing was sent');
	return;
}

sub state_is_model
{
	my ($name) = @_;
	return check_oracle($name, $receiver, model_rows($node, 'SELECT * FROM t', 'id'));
}

# The first sync is all additions and is not braked.
my $run = sync_and_wait($node, 'hook');
is("$run->{status} $run->{added}", 'succeeded 200', 'a first sync is no flood') or diag(json($run));
state_is_model('first');

# Deletes: 10 % is the limit.
$node->safe_psql('postgres', 'BEGIN; CREATE TABLE saved AS SELECT * FROM t; DELETE FROM t WHERE id <= 20; COMMIT');
$run = sync_and_wait($node, 'hook');
is("$run->{status} $run->{deleted}", 'succeeded 20', 'a tenth may go') or diag(json($run));
state_is_model('a tenth');
$receiver->clear;
$node->safe_psql('postgres', 'DELETE FROM t WHERE id <= 39');
my $first = sync($node, 'hook');
held($first, 'more than a tenth is held', qr/delet/i);

# The next sync plans anew and replaces it.
$node->safe_psql('postgres', 'DELETE FROM t WHERE id = 40');
my $second = sync($node, 'hook');
held($second, 'the next is held, too', qr/delet/i);
$node->poll_query_until('postgres', "SELECT status = 'replaced' AND served_by = $second FROM retl.runs WHERE id = $first")
  or die 'not replaced';
pass('... and replaces the first');
my ($status, $out, $err) = $node->psql('postgres', "SELECT retl.release_run($first)");
like($err, qr/$second/, 'a replaced run cannot be released; the error names the new one');

# What comes back in time is not sent at all.
$node->safe_psql('postgres', 'INSERT INTO t SELECT id, 1 FROM generate_series(21, 38) id');
$run = sync_and_wait($node, 'hook');
is("$run->{status} $run->{deleted} $run->{added}", 'succeeded 2 0', 'back in time: only what is really gone') or diag(json($run));

# Release: once, and only up to what the run has seen.
$node->safe_psql('postgres', 'DELETE FROM t WHERE id BETWEEN 41 AND 100');
$receiver->clear;
my $third = sync($node, 'hook');
held($third, 'a third of them', qr/delet/i);
$node->safe_psql('postgres', "SELECT retl.release_run($third)");
$run = wait_for_run($node, $third);
is("$run->{status} $run->{deleted} $run->{sent}", 'succeeded 60 60', 'released') or diag(json($run));
($status) = $node->psql('postgres', "SELECT retl.release_run($third)");
isnt($status, 0, 'not twice');

# Changes: 50 % is the limit.
$receiver->clear;
$node->safe_psql('postgres', 'UPDATE t SET v = v + 1');
my $changed = sync($node, 'hook');
held($changed, 'everything changed', qr/chang|updat/i);
$node->safe_psql('postgres', "SELECT retl.cancel_run($changed, 'not wanted')");
$run = wait_for_run($node, $changed);
is($run->{status}, 'canceled', 'a held run can be canceled') or diag(json($run));
$node->safe_psql('postgres', 'UPDATE t SET v = v - 1');
my $back = sync($node, 'hook');
$node->poll_query_until('postgres', "SELECT status = 'held' OR finished_at IS NOT NULL FROM retl.runs WHERE id = $back") or die;
is(run_row($node, $back)->{status}, 'succeeded', 'changed back: no flood');
$run = wait_for_run($node, $back);
is("$run->{status} $run->{updated} $run->{sent}", 'succeeded 0 0', 'changed back: nothing to send') or diag(json($run));

# An empty model, which a share of a few rows would not catch.
$node->safe_psql('postgres', q{
CREATE TABLE few (id int PRIMARY KEY, v int NOT NULL DEFAULT 1);
INSERT INTO few VALUES (1), (2), (3);
SELECT retl.create_model('few', 'few', '{id}');
});
create_webhook($node, 'few', $receiver);
create_mapping($node, 'few', 'few', 'few');
sync_and_wait($node, 'few');
$receiver->clear;
$node->safe_psql('postgres', 'TRUNCATE few');
my $empty = sync($node, 'few');
held($empty, 'a model that became empty', qr/no rows|empty/i);
$node->safe_psql('postgres', 'INSERT INTO few VALUES (1), (2)');
$run = sync_and_wait($node, 'few');
is("$run->{status} $run->{deleted}", 'succeeded 1', 'filled again: only what is gone') or diag(json($run));

# Other mappings of the model are not held up by one that is.
$node->safe_psql('postgres', 'DELETE FROM t WHERE id > 150');
create_webhook($node, 'bold', $receiver);
create_mapping($node, 'bold', 't', 'bold', max_delete_percent => 100);
my ($held, $goes) = split /\n/, $node->safe_psql('postgres', q{BEGIN; SELECT retl.sync('hook'); SELECT retl.sync('bold'); COMMIT});
$run = wait_for_run($node, $goes);
is($run->{status}, 'succeeded', 'another mapping goes on') or diag(json($run));
is(run_row($node, $held)->{status}, 'held', '... while this one is held');

# What a filter lets through is what the share is of: all of its rows go, though they are few in the model.
$node->safe_psql('postgres', q{
CREATE TABLE wide (id int PRIMARY KEY, chosen boolean NOT NULL, v int NOT NULL DEFAULT 1);
INSERT INTO wide SELECT i, i <= 30 FROM generate_series(1, 1000) i;
SELECT retl.create_model('wide', 'wide', '{id}');
});
create_webhook($node, 'wide', $receiver);
create_mapping($node, 'wide', 'wide', 'wide', brake_min_rows => 10, filter => 'chosen', batch_size => 50);
sync_and_wait($node, 'wide');
$node->safe_psql('postgres', 'UPDATE wide SET chosen = false');
$receiver->clear;
my $filtered = sync($node, 'wide');
$node->poll_query_until('postgres', "SELECT status = 'held' OR finished_at IS NOT NULL FROM retl.runs WHERE id = $filtered") or die;
is(run_row($node, $filtered)->{status}, 'held', 'all rows of a filtered mapping go');

# New mappings start disabled, and a disabled one cannot be synced.
$node->safe_psql('postgres', q{SELECT retl.create_mapping(name => 'new', model => 't', destination => 'bold', action => 'send', fields => '{}')});
($status, $out, $err) = $node->psql('postgres', q{SELECT retl.sync('new')}, extra_params => [ '-v', 'VERBOSITY=sqlstate' ]);
like($err, qr/55000/, 'a new mapping is disabled; its sync is an error');

$node->stop('fast');
done_testing();
