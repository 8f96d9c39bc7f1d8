# A snapshot that takes long: it has a time-out, can be cancelled, and keeps what it reads locked only while it reads.
use strict;
use warnings;

use PostgreSQL::Test::Utils;
use RetlTest;
use Test::More;

my $node = new_node('long');
my $receiver = new_receiver();
create_webhook($node, 'hook', $receiver);
$node->safe_psql('postgres', q{
CREATE TABLE t (id int PRIMARY KEY, seconds int);
INSERT INTO t VALUES (1, 3600);
SELECT retl.create_model('t', 'SELECT id, pg_sleep(seconds)::text AS s FROM t', '{id}', timeout => '100 ms');
});
create_mapping($node, 't', 't', 'hook');
my $run = sync_and_wait($node, 't');
is("$run->{status} $run->{error_code}", 'failed 57014', 'a snapshot that takes too long fails') or diag(json($run));
like($run->{error}, qr/statement timeout/, '... and says why');
is($node->safe_psql('postgres', q{SELECT timeout FROM retl.models}), '00:00:00.1', 'the time-out is shown');

$node->safe_psql('postgres', q{SELECT retl.alter_model('t', reset => '{timeout}')});
$run = sync($node, 't');
ok($node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM retl.scan_progress()}), 'without one it goes on');
ok($node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM pg_stat_activity
 WHERE usename = 'retl_snapshot' AND state = 'active' AND query = 'retl: snapshot of model "t"'}), 'pg_stat_activity says what goes on');
$node->safe_psql('postgres', q{SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE usename = 'retl_snapshot'});
$run = wait_for_run($node, $run);
is("$run->{status} $run->{error_code}", 'failed 57014', 'until it is cancelled') or diag(json($run));

# The next ones are as if nothing had happened.
$node->safe_psql('postgres', 'UPDATE t SET seconds = 0');
$run = sync_and_wait($node, 't');
is("$run->{status} $run->{added}", 'succeeded 1', 'then it can be read') or diag(json($run));

# What was read is unlocked before it is written.
$node->safe_psql('postgres', q{
CREATE TABLE plain (id int PRIMARY KEY);
INSERT INTO plain VALUES (1);
SELECT retl.create_model('plain', 'plain', '{id}')});
create_mapping($node, 'plain', 'plain', 'hook');
sync_and_wait($node, 'plain');
$node->safe_psql('postgres', 'INSERT INTO plain VALUES (2)');
my $blocker = $node->background_psql('postgres');
$blocker->query_safe('BEGIN');
$blocker->query_safe('LOCK TABLE retl.snapshot IN SHARE MODE');
$run = sync($node, 'plain');
ok($node->poll_query_until('postgres', q{SELECT count(*) > 0 FROM pg_locks l JOIN pg_stat_activity a USING (pid)
 WHERE a.usename = 'retl_snapshot' AND l.relation = 'retl.snapshot'::regclass AND NOT l.granted
  AND NOT EXISTS (SELECT FROM pg_locks o WHERE o.pid = l.pid AND o.relation = 'plain'::regclass)}),
	'a snapshot that waits to be written has no lock on what it read');
$blocker->query_safe('COMMIT');
is(wait_for_run($node, $run)->{status}, 'succeeded', '... and then is');
$blocker->quit;

$node->stop('fast');
done_testing();
