# An edit that sends everything again, and is stopped on the way: nothing of it is lost, and nothing is sent twice by the next run.
use strict;
use warnings;

use RetlTest;
use Test::More;

# This test is both workers; a run is planned one chunk ahead of delivery.
my $node = new_node('resend', conf => "retl.enabled = off\nretl.max_planned_bytes = '64kB'\n");

$node->safe_psql(
	'postgres', q{
CREATE TABLE customer (id int PRIMARY KEY, email text);
INSERT INTO customer SELECT n, 'e' || n FROM generate_series(1, 70000) n;
SELECT retl.create_model('customers', 'customer', '{id}');
SELECT retl.create_destination('hook', 'webhook', '{"url": "https://hook.example", "batch_size": 1000}');
SELECT retl.create_mapping('contacts', 'customers', 'hook', 'send', '{"data": {"id": {"@path": "$.id"}, "email": {"@path": "$.email"}}}',
  records => '{added,updated,deleted}', max_change_percent => 100, enabled => true);
CREATE PROCEDURE deliver() LANGUAGE sql AS $$
  UPDATE retl.batch SET status = 'delivered', finished_at = now() WHERE status = 'pending';
  UPDATE retl.run SET open_batches = 0, open_bytes = 0, sent = added + updated + deleted WHERE finished_at IS NULL AND status <> 'held' $$;
});

sub work { $node->safe_psql('postgres', 'CALL retl.work()'); }
sub deliver { $node->safe_psql('postgres', 'CALL deliver()'); }

# Plans and delivers until the newest run has ended, and returns it.
sub finish
{
	for (1 .. 10)
	{
		deliver();
		work();
		last if $node->safe_psql('postgres', 'SELECT count(*) FROM retl.run WHERE finished_at IS NULL') eq '0';
	}
	return $node->safe_psql('postgres', q{SELECT status, added, updated, deleted FROM retl.run ORDER BY id DESC LIMIT 1});
}

sub start
{
	$node->safe_psql('postgres', q{SELECT retl.sync('contacts')});
	work();
}

sub preview
{
	return $node->safe_psql('postgres', q{SELECT added, updated, deleted FROM retl.preview_sync('contacts')});
}

start();
is(finish(), 'succeeded|70000|0|0', 'first sync');

# In chunks, with changes by others in between.
$node->safe_psql('postgres', q{SELECT retl.alter_mapping('contacts', resend => 'all')});
start();
is($node->safe_psql('postgres', q{SELECT planned, updated FROM retl.run ORDER BY id DESC LIMIT 1}), 'f|50000', 'one chunk is planned');
$node->safe_psql('postgres', q{UPDATE customer SET email = 'new' WHERE id IN (1, 69999)});
is(finish(), 'succeeded|0|70000|0', 'everything is sent again');
is(preview(), '0|2|0', 'what changed meanwhile is the next run\'s');
start();
is(finish(), 'succeeded|0|2|0', '... which sends nothing else');

# Stopped when a part of it is planned and none delivered.
$node->safe_psql('postgres', q{SELECT retl.alter_mapping('contacts', resend => 'all')});
start();
$node->safe_psql('postgres', 'SELECT retl.cancel_run(max(id)) FROM retl.run');
work();
$node->safe_psql('postgres', 'UPDATE retl.run SET quiesced = true WHERE finished_at IS NULL');
work();
is($node->safe_psql('postgres', q{SELECT status FROM retl.run ORDER BY id DESC LIMIT 1}), 'canceled', 'canceled');
$node->safe_psql('postgres', q{DELETE FROM customer WHERE id IN (5, 65000); UPDATE customer SET email = 'newer' WHERE id IN (6, 65001); INSERT INTO customer VALUES (70001, 'added')});
is(preview(), '1|69998|2', 'all of it is still to be sent, each record once');
start();
is(finish(), 'succeeded|1|69998|2', '... and is');
is(preview(), '0|0|0', 'then nothing is left');
is($node->safe_psql('postgres', 'SELECT count(*) FROM retl.exception'), '0', 'no exception either');

# The same, of what something else is made of now: some rows, in both chunks.
$node->safe_psql('postgres',
	q{SELECT retl.alter_mapping('contacts', fields => '{"data": {"id": {"@path": "$.id"}, "email": {"@sql": "CASE WHEN id % 1000 = 0 THEN upper(email) ELSE email END"}}}', resend => 'changed')});
is(preview(), '0|69|0', 'rows of which something else is sent');
start();
is(finish(), 'succeeded|0|69|0', '... are sent');

$node->stop('fast');
done_testing();
