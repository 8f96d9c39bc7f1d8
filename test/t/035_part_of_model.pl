# Snapshots that read a part of a model: rows from a watermark on, or those of some keys, where the planner can push that down;
# deletes come with full snapshots, which are due from time to time; what cannot be pushed down is read as a whole.
use strict;
use warnings;

use PostgreSQL::Test::Utils;
use RetlTest;
use Test::More;

my $node = new_node('part');
my $receiver = new_receiver();
create_webhook($node, 'hook', $receiver);
create_webhook($node, 'pairs', $receiver);
$node->safe_psql('postgres', q{
CREATE TABLE t (id int PRIMARY KEY, v text, seen timestamptz);
CREATE INDEX ON t (seen);
INSERT INTO t SELECT i, 'v' || i, now() - interval '30 days' FROM generate_series(1, 5000) i;
ANALYZE t;
CREATE VIEW live AS SELECT * FROM t WHERE v <> 'hidden';
SELECT retl.create_model('t', 'SELECT * FROM live', '{id}', watermark => 'seen', max_skip => '1 hour');
CREATE TABLE pair (a varchar, b int, v int, PRIMARY KEY (a, b));
INSERT INTO pair SELECT 'a' || i % 10, i, 0 FROM generate_series(1, 2000) i;
ANALYZE pair;
SELECT retl.create_model('pair', 'pair', '{a,b}', max_skip => '1 ms');
});
create_mapping($node, 't', 't', 'hook', max_delete_percent => 100, batch_size => 1000);
create_mapping($node, 'pair', 'pair', 'pairs', batch_size => 1000, max_change_percent => 100);

my $rows = sub { model_rows($node, 'SELECT * FROM live', 'id') };
sub read_rows { return $node->safe_psql('postgres', 'SELECT rows FROM retl.snapshot ORDER BY started_at DESC LIMIT 1') }
sub expect
{
	my ($name, $run, $strategy, $counts) = @_;
	is("$run->{status} $run->{strategy} $run->{added} $run->{updated} $run->{deleted}", "succeeded $strategy $counts", $name)
	  or diag(json($run));
	return;
}

expect('first', sync_and_wait($node, 't'), 'full', '5000 0 0');
expect('nothing', sync_and_wait($node, 't'), 'skipped', '0 0 0');
$node->safe_psql('postgres', q{UPDATE t SET v = 'new', seen = now() WHERE id <= 3; INSERT INTO t VALUES (6000, 'x', now()), (6001, 'y', NULL)});
my $run = sync_and_wait($node, 't');
expect('rows from the old watermark on, and those without', $run, 'watermark', '2 3 0');
check_oracle('... state', $receiver, $rows->());
$node->safe_psql('postgres', q{UPDATE t SET v = 'newer', seen = now() WHERE id = 4});
expect('one row', sync_and_wait($node, 't'), 'watermark', '0 1 0');
is(read_rows(), '6', '... of the few that are read');
like($run->{strategy_reason}, qr/"seen" from/, '... and says which');
is($node->safe_psql('postgres', q{SELECT strategy FROM retl.preview_sync('t')}), 'skipped', 'preview: nothing to read');

# A transaction that began before and commits after: within the overlap.
$node->safe_psql('postgres', q{UPDATE t SET v = 'late', seen = now() - interval '50 minutes' WHERE id = 5});
expect('late within the overlap', sync_and_wait($node, 't'), 'watermark', '0 1 0');
# What lies in the future hides nothing.
$node->safe_psql('postgres', q{UPDATE t SET v = 'future', seen = '2099-01-01' WHERE id = 6; UPDATE t SET seen = 'infinity' WHERE id = 7});
expect('a watermark in the future', sync_and_wait($node, 't'), 'watermark', '0 2 0');
$node->safe_psql('postgres', q{UPDATE t SET v = 'present', seen = now() WHERE id = 8});
expect('... hides nothing', sync_and_wait($node, 't'), 'watermark', '0 1 0');
check_oracle('... state', $receiver, $rows->());

# No deletes from a part; stragglers and deletes come with the full one.
$node->safe_psql('postgres', q{DELETE FROM t WHERE id = 9; UPDATE t SET v = 'straggler', seen = now() - interval '2 days' WHERE id = 10});
expect('a delete and a straggler', sync_and_wait($node, 't'), 'watermark', '0 0 0');
$run = wait_for_run($node, $node->safe_psql('postgres', q{SELECT retl.sync('t', full => true)}));
expect('full on demand', $run, 'full', '0 1 1');
check_oracle('... state', $receiver, $rows->());
$node->safe_psql('postgres', q{DELETE FROM t WHERE id = 11});
expect('not due', sync_and_wait($node, 't'), 'watermark', '0 0 0');
$node->safe_psql('postgres', q{UPDATE retl.model_state SET full_at = full_at - interval '1 day'});
$run = sync_and_wait($node, 't');
expect('due although nothing was written since', $run, 'full', '0 0 1');
like($run->{strategy_reason}, qr/full_every/, '... and says so');

# Whatever the model means now is not known of rows that are not read.
$node->safe_psql('postgres', q{CREATE OR REPLACE VIEW live AS SELECT * FROM t WHERE v <> 'hidden' AND id <> 12});
expect('a view that was replaced', sync_and_wait($node, 't'), 'full', '0 0 1');
$node->safe_psql('postgres', q{SELECT retl.alter_model('t', query => 'SELECT * FROM live WHERE id <> 13')});
expect('another query', sync_and_wait($node, 't'), 'full', '0 0 1');
$node->safe_psql('postgres', q{SELECT retl.alter_model('t', query => 'SELECT * FROM live'); ALTER TABLE t ADD extra int});
expect('and back', sync_and_wait($node, 't'), 'full', '1 0 0');
$node->safe_psql('postgres', q{BEGIN; CREATE TABLE t2 AS TABLE t; DELETE FROM t2 WHERE id = 14; CREATE INDEX ON t2 (seen); DROP TABLE t CASCADE;
 ALTER TABLE t2 RENAME TO t; CREATE VIEW live AS SELECT id, v, seen FROM t WHERE v <> 'hidden' AND id <> 12; COMMIT});
expect('a table rebuilt', sync_and_wait($node, 't'), 'full', '0 0 1');
check_oracle('... state', $receiver, $rows->());

# Not to be pushed down.
$node->safe_psql('postgres', q{SELECT retl.alter_model('t', query => 'SELECT * FROM live ORDER BY id LIMIT 1000000')});
sync_and_wait($node, 't');
$node->safe_psql('postgres', q{UPDATE t SET v = 'limit', seen = now() WHERE id = 15; DELETE FROM t WHERE id = 16});
$run = sync_and_wait($node, 't');
expect('behind a LIMIT', $run, 'full', '0 1 1');
like($run->{strategy_reason}, qr/push/, '... and says so');
my ($ret, $out, $err) = $node->psql('postgres', q{SELECT retl.alter_model('t', watermark => 'v')});
like($err, qr/watermark "v" has type text/, 'a watermark has a type');
($ret, $out, $err) = $node->psql('postgres', q{SELECT retl.alter_model('t', watermark => 'w')});
like($err, qr/"w"/, '... and exists');
($ret, $out, $err) = $node->psql('postgres', q{SELECT retl.alter_model('t', max_skip => '-1 s')});
like($err, qr/max_skip cannot be negative/, 'no negative times');

# Keys: read in model and checkpoint alike, deletes included; nothing is concluded of others.
$node->safe_psql('postgres', q{SELECT retl.alter_model('t', query => 'SELECT * FROM live', reset => '{watermark}')});
$node->safe_psql('postgres', 'CREATE UNIQUE INDEX ON t (id); ANALYZE t');
sync_and_wait($node, 't');
$node->safe_psql('postgres', q{UPDATE t SET v = 'k' WHERE id IN (20, 21); DELETE FROM t WHERE id IN (22, 23)});
$run = wait_for_run($node, $node->safe_psql('postgres', q{SELECT retl.resync_keys('t', '[20, 22, 24, 77777]')}));
is("$run->{status} $run->{strategy} $run->{updated} $run->{deleted}", 'succeeded keys 2 1', 'some keys') or diag(json($run));
is(read_rows(), '2', '... of which two are there to be read');
expect('the others are still to come', sync_and_wait($node, 't'), 'full', '0 1 1');
check_oracle('... state', $receiver, $rows->());

sync_and_wait($node, 'pair');
$node->safe_psql('postgres', q{UPDATE pair SET v = 1; DELETE FROM pair WHERE b = 7});
$run = wait_for_run($node, $node->safe_psql('postgres', q{SELECT retl.resync_keys('pair', '[{"a": "a5", "b": 5}, {"a": "a7", "b": 7}]')}));
is("$run->{status} $run->{strategy} $run->{updated} $run->{deleted}", 'succeeded keys 1 1', 'composite keys') or diag(json($run));
# A sync that waits beside it is not served by what was read for the keys.
$node->safe_psql('postgres', q{BEGIN; SELECT retl.resync_keys('pair', '{"a": "a8", "b": 8}'); SELECT retl.sync('pair'); COMMIT});
my $last = $node->safe_psql('postgres', q{SELECT max(id) FROM retl.runs WHERE mapping = 'pair'});
is(wait_for_run($node, $last)->{strategy}, 'full', 'keys and a sync');
$node->safe_psql('postgres', q{SELECT retl.alter_model('pair', query => 'SELECT * FROM pair ORDER BY a, b LIMIT 100000')});
$run = wait_for_run($node, $node->safe_psql('postgres', q{SELECT retl.resync_keys('pair', '{"a": "a8", "b": 8}')}));
is("$run->{strategy}", 'full', 'keys behind a LIMIT');
like($run->{strategy_reason}, qr/push/, '... and says so');

$node->stop('fast');
done_testing();
