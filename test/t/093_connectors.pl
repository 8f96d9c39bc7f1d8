# Batches of the connectors, and the answers that their tools give: who fails, why, and what is sent again.
use strict;
use warnings;

use JSON::PP;
use PostgreSQL::Test::Utils;
use RetlTest;
use Test::More;

my $json = JSON::PP->new->canonical->allow_nonref;
my $node = new_node('connectors');
my $receiver = new_receiver();
my $url = $receiver->url;
my $count = 0;

$node->safe_psql('postgres', q{
CREATE TABLE person (id int PRIMARY KEY, email text, at timestamptz, v int);
INSERT INTO person SELECT n, 'p' || n || '@example.com', '2024-05-06 07:08:09Z', 0 FROM generate_series(1, 3) n;
SELECT retl.create_model('person', 'person', '{id}');
});

sub path { return { '@path' => "\$.$_[0]" }; }

# Syncs three rows through an action whose tool answers as told; the last rule is for all that comes later.
sub try_out
{
	my ($name, $connector, $settings, $secrets, $action, $fields, $rules, %options) = @_;
	my $destination = 'd' . ++$count;
	$node->safe_psql('postgres', sprintf(q{SET log_statement = 'none'; SELECT retl.create_destination(%s, %s, %s)},
		literal($destination), literal($connector), literal(json({ base_url => $url, %$settings }))));
	$node->safe_psql('postgres', sprintf(q{SET log_statement = 'none'; SELECT retl.set_secret(%s, %s, %s)},
		map { literal($_) } $destination, $_, $secrets->{$_})) for keys %$secrets;
	create_mapping($node, "m$count", 'person', $destination, action => $action, fields => $fields, records => '{added}', %options);
	$receiver->clear;
	$receiver->rules(@$rules);
	my $run = sync_and_wait($node, "m$count");
	my @requests = $receiver->requests;
	my $errors = $node->safe_psql('postgres', sprintf(
		q{SELECT coalesce(string_agg(e.key || '=' || e.error, '; ' ORDER BY e.key), '') FROM retl.exception e JOIN retl.mapping m ON m.id = e.mapping WHERE m.name = 'm%d'}, $count));
	return ($run, \@requests, $errors);
}

sub body { return $json->decode($_[0]{body}); }

my ($run, $requests, $errors);

# HubSpot: 207, by the trace id that each input carries
($run, $requests, $errors) = try_out('hubspot', 'hubspot', {}, { access_token => 't' }, 'upsert_contact', { email => path('email'), properties => { v => path('v') } },
	[ { status => 207, body => json({ status => 'COMPLETE', numErrors => 1, results => [ { id => '1' }, { id => '3' } ],
		errors => [ { status => 'error', category => 'VALIDATION_ERROR', message => 'bad phone', context => { objectWriteTraceId => ['2'] } } ] }) } ]);
is($requests->[0]{path}, '/crm/v3/objects/contacts/batch/upsert', 'HubSpot: path');
is_deeply(body($requests->[0])->{inputs}[0], { id => 'p1@example.com', idProperty => 'email', objectWriteTraceId => '1', properties => { email => 'p1@example.com', v => 0 } }, 'HubSpot: an input');
is("$run->{sent} $errors", '2 2=bad phone', 'HubSpot: one of three is refused');
is(scalar(@$requests), 1, 'HubSpot: nobody else is sent again');

# Salesforce: a result for each; a locked row is sent again
($run, $requests, $errors) = try_out('salesforce', 'salesforce', { instance_url => 'https://x.my.salesforce.com' }, { access_token => 't' }, 'upsert_record',
	{ object => 'Contact', external_id_field => 'Ext__c', external_id => path('id'), fields => { Email => path('email') } },
	[ { times => 1, status => 200, headers => { 'Retry-After' => '0' }, body => json([ { success => JSON::PP::true, id => '1' },
		{ success => JSON::PP::false, errors => [ { statusCode => 'REQUIRED_FIELD_MISSING', message => 'LastName' } ] },
		{ success => JSON::PP::false, errors => [ { statusCode => 'UNABLE_TO_LOCK_ROW', message => 'busy' } ] } ]) },
		{ status => 201, body => json([ { success => JSON::PP::true } ]) } ]);
is($requests->[0]{path}, '/services/data/v60.0/composite/sobjects/Contact/Ext__c', 'Salesforce: path');
is_deeply(body($requests->[0])->{records}[1], { attributes => { type => 'Contact' }, Email => 'p2@example.com', Ext__c => '2' }, 'Salesforce: a record has its external id');
is(body($requests->[0])->{allOrNone}, JSON::PP::false, 'Salesforce: each by itself');
is("$run->{sent} $errors", '2 2=REQUIRED_FIELD_MISSING: LastName', 'Salesforce: one is refused, the locked one is not lost');
is_deeply([ map { $_->{Ext__c} } @{ body($requests->[1])->{records} } ], ['3'], 'Salesforce: it alone is sent again');

# Amplitude: all are refused for one's sake; the key is in the body, but not in what is stored
($run, $requests, $errors) = try_out('amplitude', 'amplitude', {}, { api_key => 'k"ey' }, 'log_event',
	{ user_id => { '@template' => 'user-{{id}}' }, event_type => 'E', time => path('at'), min_id_length => 3 },
	[ { times => 1, status => 400, body => json({ code => 400, error => 'x', events_with_invalid_fields => { time => [0] }, events_with_missing_fields => {} }) } ]);
is($requests->[0]{path}, '/batch', 'Amplitude: path');
is(body($requests->[0])->{api_key}, 'k"ey', 'Amplitude: the key is in the body');
is_deeply(body($requests->[0])->{options}, { min_id_length => 3 }, 'Amplitude: options');
is("$run->{sent} $errors", '2 1=time is invalid', 'Amplitude: one is refused');
is_deeply([ map { $_->{user_id} } @{ body($requests->[1])->{events} } ], [ 'user-2', 'user-3' ], 'Amplitude: the others go without it');
is(body($requests->[1])->{api_key}, 'k"ey', 'Amplitude: with the key');
is($node->safe_psql('postgres', q{SELECT count(*) FROM retl.batch_body WHERE body LIKE '%k_ey%' OR request::text LIKE '%k_ey%'}), '0', 'the key is stored nowhere');

# Amplitude's forms, several in one
($run, $requests, $errors) = try_out('amplitude', 'amplitude', {}, { api_key => 'key' }, 'identify_user', { user_id => path('email'), user_properties => { v => path('v') } }, []);
is(header($requests->[0], 'content-type'), 'application/x-www-form-urlencoded;charset=UTF-8', 'Amplitude: a form');
like($requests->[0]{body}, qr/^api_key=key&identification=%5B%7B%22user_id%22%3A%22p1%40example\.com%22.*p3/, 'Amplitude: of several users');

# Mixpanel: those it does not name are in
($run, $requests, $errors) = try_out('mixpanel', 'mixpanel', { project_token => 'tok' }, {}, 'track_event', { event => 'E', distinct_id => path('email'), time => path('at') },
	[ { status => 400, body => json({ code => 400, error => 'some data points', num_records_imported => 2, failed_records => [ { index => 1, field => 'properties.time', message => 'too old' } ] }) } ]);
is("$run->{sent} $errors", '2 2=properties.time: too old', 'Mixpanel: one is refused');
is(scalar(@$requests), 1, 'Mixpanel: the others are in');
is(body($requests->[0])->[0]{properties}{time}, 1714979289000, 'Mixpanel: milliseconds');
cmp_ok(length(body($requests->[0])->[0]{properties}{'$insert_id'}), '<=', 36, 'Mixpanel: an insert_id that it takes');

# Iterable: 200, by address
($run, $requests, $errors) = try_out('iterable', 'iterable', {}, { api_key => 'k' }, 'update_user', { email => path('email'), data_fields => { v => path('v') } },
	[ { status => 200, body => json({ successCount => 2, failCount => 1, invalidEmails => [], invalidUserIds => [], failedUpdates => { invalidDataEmails => ['P3@example.com'], notFoundEmails => [] } }) } ]);
is($requests->[0]{path}, '/users/bulkUpdate', 'Iterable: path');
is("$run->{sent} $errors", '2 3=invalidData email', 'Iterable: one is refused in an answer of 200');

# Customer.io: 207, by number
($run, $requests, $errors) = try_out('customerio', 'customerio', {}, { site_id => 's', api_key => 'k' }, 'create_update_person', { id => path('id'), custom_attributes => { since => path('at') } },
	[ { status => 207, body => json({ errors => [ { batch_index => 0, reason => 'invalid', field => 'id', message => 'too long' } ] }) } ]);
is("$run->{sent} $errors", '2 1=id invalid: too long', 'Customer.io: one is refused');
is(body($requests->[0])->{batch}[1]{attributes}{since}, 1714979289, 'Customer.io: Unix times');

# Klaviyo: a pointer; lists are requests of their own
($run, $requests, $errors) = try_out('klaviyo', 'klaviyo', {}, { api_key => 'k' }, 'upsert_profile', { email => path('email'), list_id => { '@if' => { exists => path('gone'), then => 'A', else => { '@template' => 'L{{v}}' } } } },
	[ { times => 1, status => 400, body => json({ errors => [ { title => 'Invalid', detail => 'phone', source => { pointer => '/data/attributes/profiles/data/2/attributes/phone_number' } } ] }) }, { status => 202 } ]);
is("$run->{sent} $errors", '2 3=Invalid phone', 'Klaviyo: one is refused');
is(scalar(@{ body($requests->[1])->{data}{attributes}{profiles}{data} }), 2, 'Klaviyo: the others go without it');
is_deeply(body($requests->[1])->{data}{relationships}, { lists => { data => [ { type => 'list', id => 'L0' } ] } }, 'Klaviyo: to their list');

# Braze: errors of an answer of 201
($run, $requests, $errors) = try_out('braze', 'braze', { app_id => 'app' }, { api_key => 'k' }, 'track_event', { external_id => path('id'), name => 'E', time => path('at') },
	[ { status => 201, body => json({ message => 'success', events_processed => 2, errors => [ { type => "'name' is not valid", input_array => 'events', index => 2 } ] }) } ]);
is("$run->{sent} $errors", q{2 3='name' is not valid}, 'Braze: one is refused');
is(header($requests->[0], 'x-braze-batch'), 'true', 'Braze: it is told that it is a batch');

# SendGrid: as many lists as contacts
($run, $requests, $errors) = try_out('sendgrid', 'sendgrid', {}, { api_key => 'k' }, 'upsert_contact', { email => path('email'), list_ids => [ 'a', 'b', 'c' ] },
	[ { times => 1, status => 400, body => json({ errors => [ { field => 'contacts[1].email', message => 'invalid' } ] }) }, { status => 202 } ]);
is("$run->{sent} $errors", '2 2=contacts[1].email: invalid', 'SendGrid: one is refused');
is_deeply([ map { [ sort map { $_->{email} } @{ $_->{contacts} } ] } body($requests->[1]) ], [ [ 'p1@example.com', 'p3@example.com' ] ], 'SendGrid: the others go without it');
is_deeply(body($requests->[1])->{list_ids}, [ 'a', 'b', 'c' ], 'SendGrid: to all of their lists');

# Slack: the URL is a secret
$node->safe_psql('postgres', q{SET log_statement = 'none'; SELECT retl.create_destination('slack', 'slack')});
$node->safe_psql('postgres', qq{SET log_statement = 'none'; SELECT retl.set_secret('slack', 'webhook_url', '$url/services/T/B/hush')});
create_mapping($node, 'slack', 'person', 'slack', action => 'post_message', fields => { text => { '@template' => 'New: {{email}}' } }, records => '{added}',
	filter => 'id = 1');
$receiver->clear;
$receiver->rules({ status => 404, body => 'no_service' });
$run = sync_and_wait($node, 'slack');
($requests) = [ $receiver->requests ];
is($requests->[0]{path}, '/services/T/B/hush', 'Slack: goes to the secret URL');
is_deeply(body($requests->[0]), { text => 'New: p1@example.com' }, 'Slack: a message');
is($node->safe_psql('postgres', q{SELECT count(*) FROM retl.batch_body b, retl.attempt a WHERE a.batch = b.batch AND concat(b.request, b.body, a.error, a.answer) LIKE '%hush%'}), '0', 'Slack: which is stored nowhere');

# Intercom: who is there already is updated, by a second request
($run, $requests, $errors) = try_out('intercom', 'intercom', {}, { access_token => 't' }, 'identify_contact', { role => 'user', email => path('email') },
	[ { method => 'POST', match => 'p2', status => 409, body => json({ type => 'error.list', errors => [ { code => 'conflict', message => 'A contact matching those details already exists with id=5ba682d2' } ] }) },
		{ method => 'PUT', status => 200 } ]);
my ($put) = grep { $_->{method} eq 'PUT' } @$requests;
is("$run->{status} $run->{sent}", 'succeeded 3', 'Intercom: all are there');
is($put->{path}, '/contacts/5ba682d2', 'Intercom: the one that was is updated');
is_deeply(body($put), { role => 'user', email => 'p2@example.com' }, 'Intercom: with the same body');
is(scalar(@$requests), 4, 'Intercom: by one request more');
($run, $requests, $errors) = try_out('intercom', 'intercom', {}, { access_token => 't' }, 'identify_contact', { role => 'user', email => path('email') },
	[ { status => 409, body => json({ errors => [ { code => 'conflict', message => 'exists with id=1' } ] }) } ]);
is("$run->{status} " . scalar(@$requests), 'failed 6', 'Intercom: there are two steps, no more');

# HubSpot: what is gone counts as archived
($run, $requests, $errors) = try_out('hubspot', 'hubspot', {}, { access_token => 't' }, 'archive_object', { object_type => 'contacts', id => path('id') }, [ { status => 404, body => '{}' } ]);
is("$run->{status} $requests->[0]{method} $requests->[0]{body}", 'succeeded DELETE ', 'HubSpot: a delete without a body');

$node->stop('fast');
done_testing();
