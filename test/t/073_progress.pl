# progress while a snapshot goes on, and health of workers that cannot run.
use strict;
use warnings;

use PostgreSQL::Test::Utils;
use RetlTest;
use Test::More;

my $node = new_node('progress');
my $receiver = new_receiver();

# A model that takes a while: it sleeps as long as there is a row in a table.
$node->safe_psql(
	'postgres', q{
CREATE TABLE pace (seconds float8);
INSERT INTO pace VALUES (0.1);
CREATE FUNCTION pause(n int) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
  IF n % 1000 = 0 THEN PERFORM pg_sleep(seconds) FROM public.pace; END IF;
  RETURN 'x';
END $$;
SELECT retl.create_model('slow', 'SELECT n AS id, pause(n) AS x FROM generate_series(1, 100000) n', '{id}');
});
create_webhook($node, 'hook', $receiver, settings => { batch_size => 10000 });
create_mapping($node, 'slow', 'slow', 'hook');
is($node->safe_psql('postgres', 'SELECT count(*) FROM retl.progress'), '0', 'nothing goes on');

my $run = sync($node, 'slow');
ok($node->poll_query_until('postgres', q{SELECT status = 'snapshotting' AND phase = 'reading the model' AND rows_read > 0 FROM retl.progress}),
	'rows that are being read are counted');
my $first = $node->safe_psql('postgres', 'SELECT rows_read FROM retl.progress');
ok($node->poll_query_until('postgres', "SELECT rows_read > $first FROM retl.progress"), '... and grow');
is($node->safe_psql('postgres', 'SELECT rows_expected > 0 AND percent_read BETWEEN 0 AND 100 FROM retl.progress'), 't', 'with an estimate');
is($node->safe_psql('postgres', "SELECT run = $run AND mapping = 'slow' AND destination = 'hook' FROM retl.progress"), 't', 'of this run');
is(wait_for_run($node, $run)->{status}, 'succeeded', 'it ends');
is($node->safe_psql('postgres', 'SELECT count(*) FROM retl.scan_progress()'), '0', 'and so does its progress');
is($node->safe_psql('postgres', 'SELECT count(*) FROM retl.progress'), '0', '... all of it');

# What is expected is what there was; a snapshot that is given up leaves nothing behind.
$run = sync($node, 'slow');
ok($node->poll_query_until('postgres', q{SELECT rows_read > 0 AND rows_expected = 100000 FROM retl.progress}), 'as many as last time');
my $pid = worker_pid($node, 'snapshot');
kill 'KILL', $pid;
wait_gone($pid);
$node->poll_query_until('postgres', 'SELECT true') or die 'the server does not come back';
$node->safe_psql('postgres', 'DELETE FROM pace');
is(wait_for_run($node, $run)->{status}, 'succeeded', 'the next one ends');
is($node->safe_psql('postgres', 'SELECT count(*) FROM retl.scan_progress()'), '0', 'nothing is left of the other');
is($node->safe_psql('postgres', 'SELECT count(*) FROM retl.health'), '0', 'all is well');

# What keeps workers from running.
$node->append_conf('postgresql.conf', "retl.enabled = off\n");
$node->reload;
ok($node->poll_query_until('postgres', q{SELECT count(*) = 2 FROM retl.health WHERE what = 'worker does not run' AND detail = 'retl.enabled is off'}),
	'workers that are off');
$node->append_conf('postgresql.conf', "retl.enabled = on\nshared_preload_libraries = ''\n");
$node->restart;
is($node->safe_psql('postgres', q{SELECT count(*) FROM retl.health WHERE detail LIKE '%shared_preload_libraries%'}), '2', 'not preloaded');
is($node->safe_psql('postgres', 'SELECT count(*) FROM retl.progress'), '0', 'progress works all the same');
my ($ret, $out, $err) = $node->psql('postgres', q{SELECT * FROM retl.test_destination('hook')});
like($err, qr/not loaded at server start/, 'a test says so');
is($node->safe_psql('postgres', q{SELECT updated FROM retl.preview_sync('slow')}), '0', 'what needs no worker works');

$node->stop('fast');
done_testing();
