# A big model is read by parallel workers, in the restricted context too.
use strict;
use warnings;

use PostgreSQL::Test::Utils;
use RetlTest;
use Test::More;

my $node = new_node('parallel', conf => q{
shared_preload_libraries = 'retl, auto_explain'
auto_explain.log_min_duration = 0
auto_explain.log_analyze = on
auto_explain.log_timing = off
auto_explain.log_nested_statements = on
max_parallel_workers_per_gather = 2
max_parallel_workers = 4
min_parallel_table_scan_size = 0
parallel_setup_cost = 0
parallel_tuple_cost = 0
});
my $receiver = new_receiver();

$node->safe_psql('postgres', q{
CREATE ROLE owner LOGIN;
CREATE TABLE big (id bigint PRIMARY KEY, v int, name text, amount numeric);
INSERT INTO big SELECT i, 1, 'row ' || i, i / 7.0 FROM generate_series(1, 30000) i;
GRANT SELECT ON big TO owner;
GRANT EXECUTE ON ALL ROUTINES IN SCHEMA retl TO owner;
ANALYZE big;
});
$node->safe_psql('postgres', q{SELECT retl.create_model('big', 'SELECT id, v, name, round(amount, 3) AS amount FROM big WHERE v > 0', '{id}')},
	extra_params => [ '-U', 'owner' ]);
create_webhook($node, 'big', $receiver);
create_mapping($node, 'big', 'big', 'big', batch_size => 500, max_change_percent => 100);

my $run = sync_and_wait($node, 'big');
is("$run->{status} $run->{added} $run->{sent}", 'succeeded 30000 30000', 'first sync') or diag(json($run));
my @plans = grep { /Query Text/ && /on big\b/ } split /^\d{4}-\d\d-\d\d /m, slurp_file($node->logfile);
ok((grep { /Gather/ && /Workers Launched: [12]/ } @plans), 'the first snapshot was read in parallel')
  or diag(join "\n", @plans);

my $offset = -s $node->logfile;
$node->safe_psql('postgres', 'UPDATE big SET v = v + 1 WHERE id % 100 = 0');
$run = sync_and_wait($node, 'big');
is("$run->{status} $run->{updated} $run->{sent}", 'succeeded 300 300', 'second sync') or diag(json($run));
@plans = grep { /Query Text/ && /on big\b/ } split /^\d{4}-\d\d-\d\d /m, slurp_file($node->logfile, $offset);
ok((grep { /Gather/ && /Workers Launched: [12]/ } @plans), 'the second one too') or diag(join "\n", @plans);
ok((grep { /Gather.*Parallel Hash Full Join.*Filter: retl\.snapshot_filter/s } @plans), '... with the join in its workers')
  if $node->pg_version >= 16;

# Keys that come twice are noticed, whichever process sees which of their rows.
$node->safe_psql('postgres', q{
ALTER TABLE big DROP CONSTRAINT big_pkey;
INSERT INTO big SELECT i, CASE WHEN i % 2 = 0 THEN 100 ELSE 1 END, 'row ' || i, i / 7.0 FROM generate_series(1, 3000) i, generate_series(1, 2);
UPDATE big SET v = v + 1 WHERE id > 29990;
});
$run = sync_and_wait($node, 'big');
is("$run->{status} $run->{updated} $run->{deleted} $run->{set_aside}", 'succeeded 10 0 9000', 'rows that come three times') or diag(json($run));
is($node->safe_psql('postgres', 'SELECT rows FROM retl.snapshot ORDER BY seq DESC LIMIT 1'), '36000', '... are counted');
$node->safe_psql('postgres', 'DELETE FROM big WHERE id <= 3000; INSERT INTO big SELECT i, 9, \'row \' || i, i / 7.0 FROM generate_series(1, 3000) i');
$run = sync_and_wait($node, 'big');
is("$run->{status} $run->{deleted} $run->{set_aside}", 'succeeded 0 0', 'once more once') or diag(json($run));

# The whole state arrived, each record once.
check_oracle('big', $receiver,
	model_rows($node, 'SELECT id, v, name, round(amount, 3) AS amount FROM big WHERE v > 0', 'id'), minimum => 30300);

$node->stop('fast');
done_testing();
