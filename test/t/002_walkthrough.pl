# The user guide, step by step: a source, a model, a destination, a mapping with a test record, the initial sync, an
# edit, an end. README.md tells the same story; keep the two together.
use strict;
use warnings;

use PostgreSQL::Test::Utils;
use RetlTest;
use Test::More;

my $node = new_node('walk');
my $receiver = new_receiver();
my $url = $receiver->url . '/customers';

sub sql { return $node->safe_psql('postgres', $_[0]); }

sub arrived
{
	my @records = map { records_of($_) } $receiver->requests;
	return map { "$_->{id}:$_->{change}:$_->{revenue}" } sort { $a->{id} <=> $b->{id} } @records;
}

# The database is the source: there is nothing to connect, and nothing to hand out.
is(sql('SELECT name FROM retl.sources'), 'local', 'step 1: the source is this database');

sql(q{
CREATE SCHEMA shop;
CREATE TABLE shop.customers (id int PRIMARY KEY, email text, name text);
CREATE TABLE shop.orders (id int PRIMARY KEY, customer_id int REFERENCES shop.customers, amount numeric(10, 2));
INSERT INTO shop.customers VALUES (1, 'ada@example.com', 'Ada'), (2, 'grace@example.com', 'Grace'), (3, 'zoe@example.com', 'Zoë');
INSERT INTO shop.orders VALUES (10, 1, 120), (11, 1, 30.50), (12, 2, 80);
});

# A model is tried out before it is kept.
my $query = 'SELECT c.id, c.email, c.name, coalesce(sum(o.amount), 0) AS revenue'
  . ' FROM shop.customers c LEFT JOIN shop.orders o ON o.customer_id = c.id GROUP BY c.id';
is(sql("SELECT string_agg(p->>'revenue', ' ' ORDER BY p->>'id') FROM retl.preview_query('$query') p"),
	'150.50 80.00 0', 'step 2: the query, previewed');
sql("SELECT retl.create_model('customers', '$query', key => '{id}', description => 'customers with revenue')");
is(sql("SELECT count(*) FROM retl.preview_model('customers')"), '3', 'step 2: the model, previewed');

sql("SELECT retl.create_destination('crm', 'webhook', settings => '{\"url\": \"$url\"}')");
sql("SELECT retl.set_secret('crm', 'bearer_token', 'a token')");
is(sql("SELECT ok FROM retl.test_destination('crm')"), 't', 'step 3: the destination answers');
my $before = scalar $receiver->requests;

# A mapping says which rows become what; it starts disabled, and can be tried on one record.
sql(q{SELECT retl.create_mapping('customers to crm', model => 'customers', destination => 'crm', action => 'send',
  fields => '{"data": {"id": {"@path": "$.id"}, "change": {"@path": "$.event"}, "revenue": {"@path": "$.revenue"}}}',
  records => '{added,updated,deleted}', batch_size => 100, max_delete_percent => 50)});
is(sql(q{SELECT payload->'data'->>'revenue' FROM retl.preview_mapping('customers to crm') WHERE key::text = '2'}),
	'80.00', 'step 4: what would be sent');
is(sql(q{SELECT http_status IS NULL, payload->'data'->>'id' FROM retl.test_mapping('customers to crm', key => '3')}),
	't|3', 'step 4: a test record, not sent');
is(scalar $receiver->requests, $before, 'step 4: nothing was');
is(sql(q{SELECT http_status FROM retl.test_mapping('customers to crm', key => '3', send => true)}), '200', 'step 4: a test record, sent');
my ($request) = reverse $receiver->requests;
is(header($request, 'authorization'), 'Bearer a token', 'step 4: with the secret');
is($node->psql('postgres', q{SELECT retl.sync('customers to crm')}), 3, 'step 4: a disabled mapping cannot be synced');
sql(q{SELECT retl.enable_mapping('customers to crm')});
is(sql(q{SELECT added, updated, deleted, brakes IS NULL FROM retl.preview_sync('customers to crm')}), '3|0|0|t',
	'step 5: what a sync would do');

$receiver->clear;
$node->safe_psql('postgres', q{CALL retl.sync_and_wait('customers to crm')});
is(join(' ', arrived()), '1:new:150.5 2:new:80 3:new:0', 'step 5: the initial sync sends every row')
  or diag(sql('SELECT * FROM retl.failed_rows'));

$receiver->clear;
sql(q{INSERT INTO shop.orders VALUES (13, 3, 9.99); UPDATE shop.customers SET name = 'Grace H.' WHERE id = 2;
DELETE FROM shop.orders WHERE customer_id = 1; DELETE FROM shop.customers WHERE id = 1});
$node->safe_psql('postgres', q{CALL retl.sync_and_wait('customers to crm')});
is(join(' ', arrived()), '1:deleted:150.5 3:updated:9.99', 'step 6: then what changed; a name that is not mapped is no change');
is(sql('SELECT status, added, updated, deleted, sent FROM retl.runs ORDER BY id DESC LIMIT 1'), 'succeeded|0|1|1|2', 'step 6: and the run says so');

# An edit makes a new version; resend says whether rows are sent again for it.
$receiver->clear;
sql(q{SELECT retl.alter_mapping('customers to crm', resend => 'changed',
  fields => '{"data": {"id": {"@path": "$.id"}, "change": {"@path": "$.event"}, "revenue": {"@path": "$.revenue"}, "name": {"@path": "$.name"}}}')});
$node->safe_psql('postgres', q{CALL retl.sync_and_wait('customers to crm')});
is(join(' ', arrived()), '2:updated:80 3:updated:9.99', 'step 7: an edit, and what it changes');

sql(q{SELECT retl.disable_mapping('customers to crm')});
my ($code, undef, $error) = $node->psql('postgres', q{SELECT retl.drop_model('customers')});
like($error, qr/customers to crm/, 'step 8: a model in use is not dropped by mistake');
$receiver->clear;
sql(q{SELECT retl.drop_mapping('customers to crm'), retl.drop_destination('crm'), retl.drop_model('customers')});
is(sql(q{SELECT (SELECT count(*) FROM retl.models), (SELECT count(*) FROM retl.destinations), (SELECT count(*) FROM retl.mappings),
  (SELECT count(*) FROM pg_class WHERE relnamespace = 'retl_data'::regnamespace)}), '0|0|0|0', 'step 8: all is gone');
is(scalar $receiver->requests, 0, 'step 8: and nothing was deleted at the destination');

done_testing();
