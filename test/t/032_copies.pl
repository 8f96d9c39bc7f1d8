# A dump or a copy of the files does not deliver until it is told to; a restored database goes on where it was, with other keys.
use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RetlTest;
use Test::More;

my $node = new_node('original', conf => "retl.host_identity = 'first'\nwal_level = replica\nmax_wal_senders = 4\n");
my $receiver = new_receiver();
$node->safe_psql('postgres', q{
CREATE TABLE t (id int PRIMARY KEY, v int NOT NULL DEFAULT 1);
INSERT INTO t SELECT i FROM generate_series(1, 50) i;
SELECT retl.create_model('t', 'SELECT id, v FROM public.t', '{id}');
});
create_webhook($node, 'hook', $receiver);
create_mapping($node, 'hook', 't', 'hook', batch_size => 5);
sync_and_wait($node, 'hook');
my $rows = model_rows($node, 'SELECT * FROM t', 'id');
check_oracle('the original', $receiver, $rows);

# A run that is amid its delivery is in the copy, too.
$node->safe_psql('postgres', 'UPDATE t SET v = 2 WHERE id <= 20');
$receiver->rules({ hang => JSON::PP::true });
my $run = sync($node, 'hook');
$receiver->wait_for(11);

# Dump and restore into another database of another cluster.
my $dump = PostgreSQL::Test::Utils::tempdir() . '/dump';
$node->command_ok([ 'pg_dump', '-Fc', '-f', $dump, $node->connstr('postgres') ], 'dump');
# Copy of the files.
$node->backup('copy');
$receiver->rules();
$receiver->release;
is(wait_for_run($node, $run)->{status}, 'succeeded', 'the original goes on');
my $before = scalar $receiver->requests;

sub waits_to_be_armed
{
	my ($other, $database, $name) = @_;
	my $offset = 0;
	$other->wait_for_log(qr/does not deliver/, $offset);
	pass("$name: says that it does not deliver");
	$other->safe_psql($database, 'UPDATE t SET v = v + 1 WHERE id = 50');
	my $run = sync($other, 'hook', $database);
	# The snapshot worker works; nothing is sent.
	$other->poll_query_until($database, "SELECT count(*) > 0 FROM retl.runs WHERE id = $run AND status <> 'snapshotting'") or die;
	is(scalar $receiver->requests, $before, "$name: nothing was sent");
	$other->safe_psql($database, 'SELECT retl.arm()');
	my $row = wait_for_run($other, $run, $database);
	is($row->{status}, 'succeeded', "$name: armed, it delivers") or diag(json($row));
	my %keys = map { idempotency_key($_) => 1 } ($receiver->requests)[ 0 .. $before - 1 ];
	my @later = ($receiver->requests)[ $before .. scalar($receiver->requests) - 1 ];
	is(scalar(grep { $keys{ idempotency_key($_) } } @later), 0, "$name: under keys of its own");
	cmp_ok(scalar @later, '>', 0, "$name: ... which were sent");
	# A row that the copy believed to be under way is sent again: its state is whole.
	my %state;
	for my $record (map { records_of($_) } $receiver->requests) { $state{ $record->{key} } = $record->{row}; }
	is(json(\%state), json(model_rows($other, 'SELECT * FROM t', 'id', $database)), "$name: the receiver has it all");
	$before = scalar $receiver->requests;
	return;
}

my $restored = new_node('restored', extension => 0, conf => "retl.host_identity = 'second'\n");
$restored->safe_psql('postgres', 'CREATE DATABASE back');
$restored->command_ok([ 'pg_restore', '--exit-on-error', '-d', $restored->connstr('back'), $dump ], 'restore');
is($restored->safe_psql('back', 'SELECT count(*) FROM retl.secret'), '0', 'without secrets');
waits_to_be_armed($restored, 'back', 'restored');
$restored->stop('fast');

my $clone = PostgreSQL::Test::Cluster->new('clone');
$clone->init_from_backup($node, 'copy');
$clone->append_conf('postgresql.conf', "retl.host_identity = 'third'\n");
$clone->start;
waits_to_be_armed($clone, 'postgres', 'clone');
$clone->stop('fast');

$node->stop('fast');
done_testing();
