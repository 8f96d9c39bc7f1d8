# The connector segment: what arrives at a source, within its limits, and what Segment would take and drop.
use strict;
use warnings;

use JSON::PP;
use List::Util qw(max sum0);
use MIME::Base64;
use PostgreSQL::Test::Utils;
use RetlTest;
use Test::More;

my $json = JSON::PP->new->canonical->allow_nonref;
my $node = new_node('segment');
my $receiver = new_receiver();
my $url = $receiver->url;

$node->safe_psql(
	'postgres', qq{
CREATE TABLE person (id int PRIMARY KEY, email text, plan text, mrr numeric, at timestamptz, note text, uid text);
INSERT INTO person SELECT n, 'p' || n || '\@example.com', 'pro', n + 0.5, '2024-05-06 07:08:09.5+02', NULL, 'u' || n FROM generate_series(1, 6000) n;
SELECT retl.create_model('person', 'person', '{id}');
SELECT retl.create_destination('crm', 'segment', '{"base_url": "$url/v1"}');
SET log_statement = 'none';
SELECT retl.set_secret('crm', 'write_key', 'WK');
});

sub mapping
{
	my ($name, $action, $fields, %options) = @_;
	create_mapping($node, $name, 'person', 'crm', action => $action, fields => $fields,
		records => '{added,updated}', %options);
}

sub path { return { '@path' => "\$.$_[0]" }; }

sub events
{
	return map { @{ $json->decode($_->{body})->{batch} } } $receiver->requests;
}

# Batches
mapping('people', 'identify',
	{ user_id => path('uid'), traits => { email => path('email'), mrr => path('mrr') }, timestamp => path('at') });
my $run = sync_and_wait($node, 'people');
is($run->{status}, 'succeeded', 'everybody is identified');
my @requests = $receiver->requests;
my @sizes = map { scalar @{ $json->decode($_->{body})->{batch} } } @requests;
cmp_ok(max(@sizes), '<=', 2500, 'no more than 2,500 events a request');
cmp_ok(max(map { length $_->{body} } @requests), '<=', 500_000, 'no more than 500 KB a request');
is(sum0(@sizes), 6000, 'every row is in one of them');
is($requests[0]{path}, '/v1/batch', 'path');
is($requests[0]{method}, 'POST', 'method');
is(header($requests[0], 'authorization'), 'Basic ' . encode_base64('WK:', ''), 'the write key is the user, without a password');
is(header($requests[0], 'content-type'), 'application/json', 'content type');
my ($first) = grep { $_->{userId} eq 'u1' } events();
my $message_id = delete $first->{messageId};
like($message_id, qr/^retl[0-9a-f]{32}$/, 'message ids are short enough for everybody');
is_deeply(
	$first,
	{ type => 'identify', userId => 'u1', timestamp => $first->{timestamp}, context => { consent => {} },
		traits => { email => 'p1@example.com', mrr => 1.5 } },
	'an event');
like($first->{timestamp}, qr/^2024-05-06T\d\d:08:09\.5(00)?(Z|[-+]\d\d:\d\d)$/, 'time in ISO 8601');
is(scalar(keys %{ { map { $_->{messageId} => 1 } events() } }), 6000, 'message ids are not shared');

# What Segment would answer 200 to and drop
$node->safe_psql(
	'postgres', q{
CREATE TABLE odd (id int PRIMARY KEY, uid text, anon text, event text, at text, note text);
INSERT INTO odd VALUES (1, 'u1', NULL, 'Opened', '2024-01-01', NULL), (2, NULL, 'a2', 'Opened', NULL, NULL), (3, NULL, NULL, 'Opened', NULL, NULL),
  (4, 'u4', NULL, NULL, NULL, NULL), (5, 'u5', NULL, 'Opened', 'yesterday', NULL), (6, 'u6', NULL, 'Opened', NULL, repeat('x', 33000)),
  (7, '', NULL, 'Opened', NULL, NULL), (8, 'u8', NULL, '', NULL, NULL), (9, 'u9', NULL, 'Opened', '1714975689', repeat('x', 32000));
SELECT retl.create_model('odd', 'odd', '{id}');
});
create_mapping($node, 'odd', 'odd', 'crm', action => 'track', records => '{added,updated}',
	fields => { user_id => path('uid'), anonymous_id => path('anon'), event_name => path('properties.event'), timestamp => path('at'),
		properties => { note => path('note') } });
$receiver->clear;
$run = sync_and_wait($node, 'odd');
is($run->{status}, 'partial', 'some rows are refused');
is($run->{sent}, 3, 'the others are sent');
is_deeply([ map { $_->{userId} // $_->{anonymousId} } events() ], [ 'u1', 'a2', 'u9' ], 'and nothing else');
is_deeply([ map { $_->{timestamp} } events() ], [ '2024-01-01T00:00:00.000Z', undef, '2024-05-06T06:08:09.000Z' ], 'times');
my %errors = map { split /\|/, $_, 2 }
  split /\n/, $node->safe_psql('postgres', 'SELECT key, error FROM retl.exception WHERE error IS NOT NULL');
is_deeply(
	\%errors,
	{   3 => 'One of the fields user_id, anonymous_id is required.',
		4 => "The root value is missing the required field 'event_name'.",
		5 => 'timestamp must be a date, a date and time, or a Unix time but it was not.',
		6 => $errors{6},
		7 => 'One of the fields user_id, anonymous_id is required.',
		8 => "The root value is missing the required field 'event_name'.",
	},
	'each with its reason');
like($errors{6}, qr/^The record has 33\d\d\d bytes, and the destination takes 32767 at most\.$/, 'the large one too');

# Placement
$receiver->clear;
$node->safe_psql('postgres', 'DELETE FROM person WHERE id > 1');
mapping('t_' . $_->[0], $_->[1], $_->[2])
  for (
	[ 1, 'track', { user_id => 'u', event_name => 'E', properties => { a => 1 }, traits => { t => 1 }, group_id => 'g', ip_address => '1.2.3.4' } ],
	[ 2, 'group', { user_id => 'u', group_id => 'g', traits => { name => 'n' }, timezone => 'Europe/Paris' } ],
	[ 3, 'page', { anonymous_id => 'a', page_name => 'Home', page => { url => 'https://x/', title => 'T' }, properties => { title => 'Mine' } } ],
	[ 4, 'screen', { user_id => 'u', screen_name => 'S', operating_system => { name => 'iOS' } } ],
	[ 5, 'alias', { user_id => 'u', previous_id => 'p' } ],
	[ 6, 'identify', { user_id => 'u', traits => { a => 1 }, address => { city => 'C' }, consent => { categoryPreferences => { ads => JSON::PP::false } } } ]);
my @got;
for my $n (1 .. 6)
{
	sync_and_wait($node, "t_$n");
	push @got, (events())[-1];
	delete $got[-1]{messageId};
}
my $consent = { consent => {} };
is_deeply($got[0], { type => 'track', userId => 'u', event => 'E', properties => { a => 1 },
	context => { %$consent, traits => { t => 1 }, groupId => 'g', ip => '1.2.3.4' } }, 'track');
is_deeply($got[1], { type => 'group', userId => 'u', groupId => 'g', traits => { name => 'n' },
	context => { %$consent, timezone => 'Europe/Paris' } }, 'group');
is_deeply($got[2], { type => 'page', anonymousId => 'a', name => 'Home', properties => { name => 'Home', url => 'https://x/', title => 'Mine' },
	context => { %$consent, page => { url => 'https://x/', title => 'T' } } }, 'page');
is_deeply($got[3], { type => 'screen', userId => 'u', name => 'S', properties => { name => 'S' },
	context => { %$consent, os => { name => 'iOS' } } }, 'screen');
is_deeply($got[4], { type => 'alias', userId => 'u', previousId => 'p' }, 'alias');
is_deeply($got[5], { type => 'identify', userId => 'u', traits => { a => 1, address => { city => 'C' } },
	context => { consent => { categoryPreferences => { ads => JSON::PP::false } } } }, 'identify');

# Without the key nothing is sent; the error names it
$node->safe_psql('postgres', qq{SELECT retl.create_destination('keyless', 'segment', '{"base_url": "$url/v1"}')});
create_mapping($node, 'keyless', 'person', 'keyless', action => 'identify', fields => { user_id => 'u' }, records => '{added}');
$receiver->clear;
$run = sync_and_wait($node, 'keyless');
is($run->{status}, 'failed', 'without a write key');
is(scalar($receiver->requests), 0, 'nothing is sent');
like($run->{error}, qr/Secret "write_key" of the destination is not set/, 'the error names the secret');

# What a mapping cannot do without
my ($code, $out, $err) = $node->psql('postgres',
	q{SELECT retl.create_mapping('none', 'person', 'crm', 'identify', '{"traits": {"a": 1}}')});
like($err, qr/one of the fields user_id, anonymous_id is required/, 'a mapping without an id is refused');

$node->stop('fast');
done_testing();
