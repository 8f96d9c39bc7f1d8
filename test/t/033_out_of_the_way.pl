# While a destination hangs, retl holds no transaction, no snapshot and no lock: what models read can be dropped, renamed,
# altered and vacuumed; databases and the extension can be dropped.
use strict;
use warnings;

use PostgreSQL::Test::Utils;
use RetlTest;
use Test::More;

my $node = new_node('quiet');
my $receiver = new_receiver();
$node->safe_psql('postgres', q{
CREATE TABLE t (id int PRIMARY KEY, v int NOT NULL DEFAULT 1);
INSERT INTO t SELECT i FROM generate_series(1, 50) i;
SELECT retl.create_model('t', 'SELECT * FROM public.t', '{id}');
});
create_webhook($node, 'hook', $receiver);
create_mapping($node, 'hook', 't', 'hook', batch_size => 5);
$receiver->rules({ hang => JSON::PP::true });
my $run = sync($node, 'hook');
$receiver->wait_for(1);
$node->poll_query_until('postgres', "SELECT status = 'delivering' FROM retl.runs WHERE id = $run") or die;

ok($node->poll_query_until('postgres', q{
SELECT count(*) >= 2 AND bool_and(backend_xmin IS NULL AND backend_xid IS NULL AND xact_start IS NULL)
  FROM pg_stat_activity WHERE usename IN ('retl_snapshot', 'retl_delivery')}), 'no transaction and no snapshot');
is($node->safe_psql('postgres', q{
SELECT string_agg(DISTINCT l.relation::regclass::text, ' ')
  FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE a.usename IN ('retl_snapshot', 'retl_delivery') AND l.relation IS NOT NULL}),
	'', 'no lock on any table');

# Each would wait for ever behind a lock.
$node->safe_psql('postgres', q{
SET lock_timeout = '10s';
ALTER TABLE t ADD COLUMN more int;
ALTER TABLE t RENAME TO t_old;
CREATE TABLE t AS SELECT id, v FROM t_old;
DROP TABLE t_old;
VACUUM FULL retl.run;
VACUUM (FREEZE) t;
});
pass('the table was altered, swapped, dropped and vacuumed');
$receiver->rules();
$receiver->release;
$run = wait_for_run($node, $run);
is("$run->{status} $run->{sent}", 'succeeded 50', 'the run goes on with what was planned') or diag(json($run));

# A model that is gone, or has lost its key, fails its run and deletes nothing.
$node->safe_psql('postgres', 'ALTER TABLE t RENAME TO elsewhere');
$run = sync_and_wait($node, 'hook');
is("$run->{status} $run->{error_code} $run->{deleted}", 'failed 42P01 0', 'a model whose table is gone') or diag(json($run));
$node->safe_psql('postgres', 'CREATE TABLE t (key int, v int)');
$run = sync_and_wait($node, 'hook');
is("$run->{status} $run->{deleted}", 'failed 0', 'a model without its key column') or diag(json($run));
like($run->{error} // '', qr/id/, '... which is named');
$node->safe_psql('postgres', 'DROP TABLE t; ALTER TABLE elsewhere RENAME TO t');
$run = sync_and_wait($node, 'hook');
is("$run->{status} $run->{sent}", 'succeeded 0', 'back again, nothing has changed') or diag(json($run));

# A column that is added, dropped or moved and that no mapping uses sends nothing.
$receiver->clear;
$node->safe_psql('postgres', q{SELECT retl.create_model('some', 'SELECT * FROM public.t', '{id}')});
create_webhook($node, 'some', $receiver);
create_mapping($node, 'some', 'some', 'some', batch_size => 50,
	fields => { data => { key => { '@path' => '$.id' }, op => { '@path' => '$.event' }, v => { '@path' => '$.v' } } });
sync_and_wait($node, 'some');
$node->safe_psql('postgres', q{ALTER TABLE t ADD COLUMN extra text DEFAULT 'x'; ALTER TABLE t ADD COLUMN other int});
$run = sync_and_wait($node, 'some');
is("$run->{status} $run->{sent}", 'succeeded 0', 'columns are added') or diag(json($run));
$node->safe_psql('postgres', q{ALTER TABLE t DROP COLUMN extra; ALTER TABLE t ALTER COLUMN v TYPE bigint});
$run = sync_and_wait($node, 'some');
is("$run->{status} $run->{sent}", 'succeeded 0', 'a column is dropped, one has another type and the same values') or diag(json($run));
# One that is used and gone fails this mapping, with its name.
$node->safe_psql('postgres', 'ALTER TABLE t RENAME COLUMN v TO w');
$run = sync_and_wait($node, 'some');
is($run->{status}, 'failed', 'a column that the mapping needs is gone') or diag(json($run));
like($run->{error} // '', qr/"v"/, '... and is named');

# When it is back, what changed meanwhile is sent.
$node->safe_psql('postgres', 'ALTER TABLE t RENAME COLUMN w TO v; UPDATE t SET v = v + 1 WHERE id <= 10');
$run = sync_and_wait($node, 'some');
is("$run->{status} $run->{updated}", 'succeeded 10', 'what changed while the column was away');

# Dropping what is in use.
$receiver->rules({ hang => JSON::PP::true });
$node->safe_psql('postgres', 'UPDATE t SET v = v + 1 WHERE id > 40');
my $before = $receiver->state->{requests};
$run = sync($node, 'some');
$node->poll_query_until('postgres', "SELECT status = 'delivering' FROM retl.runs WHERE id = $run") or die json(run_row($node, $run));
$receiver->wait_for($before + 1);
$node->safe_psql('postgres', q{SET statement_timeout = '30s'; DROP EXTENSION retl CASCADE});
pass('the extension was dropped amid a delivery');
$node->safe_psql('postgres', 'CREATE EXTENSION retl');

$node->safe_psql('postgres', 'CREATE DATABASE other');
$node->safe_psql('other', q{
CREATE EXTENSION retl;
CREATE TABLE t (id int PRIMARY KEY);
INSERT INTO t VALUES (1);
SELECT retl.create_model('t', 'SELECT * FROM public.t', '{id}');
});
create_webhook($node, 'hook', $receiver, database => 'other');
create_mapping($node, 'hook', 't', 'hook', database => 'other');
$before = $receiver->state->{requests};
sync($node, 'hook', 'other');
$receiver->wait_for($before + 1);
$node->safe_psql('postgres', q{SET statement_timeout = '30s'; CREATE DATABASE template_copy TEMPLATE other});
pass('a database in use was copied amid a delivery');
$node->safe_psql('postgres', q{SET statement_timeout = '30s'; DROP DATABASE other});
pass('... and dropped');

$node->stop('fast');
done_testing();
