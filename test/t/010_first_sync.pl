# The way through: model, destination, mapping, preview, first sync, then changes of every kind.
use strict;
use warnings;

use PostgreSQL::Test::Utils;
use RetlTest;
use Test::More;

my $node = new_node('first');
my $receiver = new_receiver();

# Every kind of value that a model may hold; v grows with every change of a row.
$node->safe_psql('postgres', q{
CREATE TYPE mood AS ENUM ('calm', 'gr''ump"y');
CREATE DOMAIN cents AS int CHECK (VALUE >= 0);
CREATE TYPE place AS (street text, zip int);
CREATE TABLE customer (
  id bigint PRIMARY KEY, v int NOT NULL DEFAULT 1, name text, plan text, score numeric, seen timestamptz, day date,
  doc jsonb, raw json, tags text[], grid int[], active boolean, ratio float8, mood mood, price cents, home place,
  span int4range, spans int4multirange, code uuid, bin bytea, wait interval, addr inet);
INSERT INTO customer VALUES
  (1, 1, 'Zoë Ångström 東京 🎉', 'pro', 12.50, '2024-02-29 23:59:59.123456+02', '2024-02-29', '{"a": [1, {"b": null}]}',
   '{"z":1, "a" : 2}', '{a,"b c",NULL,"q\"uote"}', '{{1,2},{3,4}}', true, 0.1, 'calm', 5, ROW('Main "St"', 12), '[1,5)',
   '{[1,3),[5,8)}', '6f0c5f5e-8b0c-4a51-9d3e-0a1b2c3d4e5f', '\x00ff', '1 day 02:00', '10.0.0.1'),
  (2, 1, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
  (3, 1, '', E'tab\tnewline\nquote"back\\slash\u0001', 0, '1999-12-31 00:00:00+00', '1999-12-31', '[]', '[]', '{}', '{}',
   false, 1e300, 'gr''ump"y', 0, ROW(NULL, NULL), 'empty', '{}', NULL, '', '0', '::1'),
  (9007199254740993, 1, 'beyond a double', 'free', 123456789012345678901234567890.123456789, 'infinity', '-infinity', '1.10',
   '1.10', NULL, NULL, NULL, 'NaN', NULL, NULL, NULL, '(,)', NULL, NULL, NULL, NULL, NULL);
});

$node->safe_psql('postgres', q{
SELECT retl.create_model('customers', 'SELECT * FROM customer', '{id}');
});
is( $node->safe_psql('postgres', q{SELECT count(*), count(*) FILTER (WHERE p->>'name' = 'beyond a double') FROM retl.preview_model('customers') p}),
	'4|1', 'preview of the model');
is($node->safe_psql('postgres', q{SELECT count(*) FROM retl.preview_query('SELECT * FROM customer', 2)}), '2', 'preview of a query');

create_webhook($node, 'hook', $receiver);
create_mapping($node, 'customers to hook', 'customers', 'hook');

my $preview = $node->safe_psql('postgres', q{SELECT string_agg(p::text, ' ') FROM retl.preview_mapping('customers to hook') p});
like($preview, qr/beyond a double/, 'preview of the mapping');
is(scalar $receiver->requests, 0, 'previews send nothing');

my $run = sync_and_wait($node, 'customers to hook');
is("$run->{status} $run->{added} $run->{updated} $run->{deleted} $run->{sent} $run->{failed}",
	'succeeded 4 0 0 4 0', 'first sync')
  or diag(json($run));
my @requests = $receiver->requests;
my %sent = map { $_->{row}{id} => $_ } map { records_of($_) } @requests;
is(join(' ', map { $sent{$_}{op} } sort keys %sent), 'new new new new', 'four new records');

# What arrives is what PostgreSQL's own JSON has, value by value.
my $rows = model_rows($node, 'SELECT * FROM customer', 'id');
for my $id (sort keys %$rows)
{
	for my $column (sort keys %{ $rows->{$id} })
	{
		my ($got, $want) = (json($sent{$id}{row}{$column}), json($rows->{$id}{$column}));
		next if $got eq $want;
		is($got, $want, "row $id, column $column");
	}
}
# JSON::PP would hide a loss of digits: look at the bytes.
my ($big) = grep { /beyond a double/ } map { $_->{body} } @requests;
like($big, qr/\b9007199254740993\b/, 'bigint keeps its digits');
like($big, qr/\b123456789012345678901234567890\.123456789\b/, 'numeric keeps its digits');
check_oracle('first sync', $receiver, $rows, minimum => 4);

# Nothing changed: nothing is sent.
$receiver->clear;
$run = sync_and_wait($node, 'customers to hook');
is("$run->{status} $run->{sent}", 'succeeded 0', 'nothing changed, nothing sent') or diag(json($run));
is(scalar $receiver->requests, 0, '... indeed');

# A touch without a change is none either.
$node->safe_psql('postgres', 'UPDATE customer SET v = v');
sync_and_wait($node, 'customers to hook');
is(scalar $receiver->requests, 0, 'an update to the same values sends nothing');

# All three operations.
$node->safe_psql('postgres', q{
UPDATE customer SET v = v + 1, plan = 'team' WHERE id = 1;
DELETE FROM customer WHERE id = 3;
INSERT INTO customer (id, name) VALUES (4, 'new');
});
$run = sync_and_wait($node, 'customers to hook');
is("$run->{status} $run->{added} $run->{updated} $run->{deleted} $run->{sent}", 'succeeded 1 1 1 3', 'a change of each kind')
  or diag(json($run));
my %changed = map { $_->{row}{id} => $_ } map { records_of($_) } $receiver->requests;
is($changed{1}{op}, 'updated', 'updated');
is($changed{1}{row}{plan}, 'team', '... with its new row');
is($changed{4}{op}, 'new', 'added');
is($changed{3}{op}, 'deleted', 'deleted');
is(json($changed{3}{row}), json($rows->{3}), '... with the last-known row');

# The net change counts: added and deleted again, deleted and added with other values.
$receiver->clear;
$node->safe_psql('postgres', q{
INSERT INTO customer (id, name) VALUES (5, 'short-lived');
DELETE FROM customer WHERE id = 5;
DELETE FROM customer WHERE id = 4;
INSERT INTO customer (id, v, name) VALUES (4, 2, 'again');
});
$run = sync_and_wait($node, 'customers to hook');
is("$run->{added} $run->{updated} $run->{deleted}", '0 1 0', 'net change') or diag(json($run));

# A composite key and requests of several records, keys in any order.
$node->safe_psql('postgres', q{
CREATE TABLE stock (region text, item int, v int NOT NULL DEFAULT 1, amount int, PRIMARY KEY (region, item));
INSERT INTO stock SELECT r, i, 1, i * 10 FROM unnest('{eu,us,"a\"b"}'::text[]) r, generate_series(1, 35) i;
SELECT retl.create_model('stock', 'stock', '{region,item}');
});
create_webhook($node, 'stockhook', $receiver);
create_mapping($node, 'stock', 'stock', 'stockhook', batch_size => 10, max_delete_percent => 100, max_change_percent => 100);
$run = sync_and_wait($node, 'stock');
is("$run->{status} $run->{added} $run->{sent}", 'succeeded 105 105', 'composite key') or diag(json($run));
@requests = $receiver->requests(qr/stockhook/);
is(scalar @requests, 11, 'eleven requests of up to ten records');
is((sort { $b <=> $a } map { scalar(my @r = records_of($_)) } @requests)[0], 10, '... ten at most');

$node->safe_psql('postgres', q{
UPDATE stock SET v = v + 1, amount = 0 WHERE item = 7;
DELETE FROM stock WHERE region = 'us' AND item > 30;
INSERT INTO stock VALUES ('asia', 1, 1, 1);
});
$run = sync_and_wait($node, 'stock');
is("$run->{status} $run->{added} $run->{updated} $run->{deleted}", 'succeeded 1 3 5', 'composite key, changes') or diag(json($run));
my %stock;
for my $line (split /\n/, $node->safe_psql('postgres', 'SELECT json_build_object(\'region\', region, \'item\', item), row_to_json(s) FROM stock s'))
{
	my ($key, $row) = split /\|/, $line, 2;
	$stock{ json(JSON::PP->new->decode($key)) } = JSON::PP->new->decode($row);
}
check_oracle('composite key', $receiver, \%stock, path => qr/stockhook/, minimum => 114);

# A mapping gets the records that it asked for.
for my $case ([ 'added', '{added}' ], [ 'gone', '{deleted}' ], [ 'kept', '{added,updated}' ])
{
	create_webhook($node, $case->[0], $receiver);
	create_mapping($node, $case->[0], 'stock', $case->[0], records => $case->[1], batch_size => 50);
	sync_and_wait($node, $case->[0]);
}
$node->safe_psql('postgres', q{
UPDATE stock SET v = v + 1, amount = 1 WHERE region = 'eu' AND item = 8;
DELETE FROM stock WHERE region = 'eu' AND item = 9;
INSERT INTO stock VALUES ('asia', 2, 1, 1);
});
sync_and_wait($node, $_) for qw(added gone kept);
my %operations;
for my $path (qw(added gone kept))
{
	my %count;
	$count{ $_->{op} }++ for map { records_of($_) } $receiver->requests(qr{/$path$});
	$operations{$path} = json(\%count);
}
is($operations{added}, '{"new":102}', 'only what was added');
is($operations{gone}, '{"deleted":1}', 'only what was deleted');
is($operations{kept}, '{"new":102,"updated":1}', 'all but what was deleted');

# The views know all that.
is($node->safe_psql('postgres', q{SELECT count(*) FROM retl.models}), '2', 'models');
is($node->safe_psql('postgres', q{SELECT count(*) FROM retl.mappings}), '5', 'mappings');
is($node->safe_psql('postgres', q{SELECT count(*) FROM retl.failed_rows}), '0', 'no failed rows');

$node->stop('fast');
done_testing();
