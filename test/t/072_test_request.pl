# test_mapping and test_destination: what a session has the delivery worker send, and what comes back.
use strict;
use warnings;

use IPC::Run;
use JSON::PP;
use PostgreSQL::Test::Utils;
use RetlTest;
use Test::More;

my $node = new_node('test_request');
my $receiver = new_receiver();
my $json = JSON::PP->new->allow_nonref;
my $canary = 'hush-hush-hush-7';

$node->safe_psql(
	'postgres', qq{
CREATE TABLE customer (id int PRIMARY KEY, email text);
INSERT INTO customer SELECT n, format('c%s\@example.com', n) FROM generate_series(1, 5) n;
SELECT retl.create_model('customers', 'customer', '{id}');
});
create_webhook($node, 'hook', $receiver);
create_mapping($node, 'contacts', 'customers', 'hook', enabled => 'false');
$node->safe_psql('postgres', "SELECT retl.set_secret('hook', 'bearer_token', '$canary')");

sub test_row
{
	my ($call) = @_;
	return $json->decode($node->safe_psql('postgres', "SELECT row_to_json(t) FROM retl.$call t"));
}

sub state_of_everything
{
	return $node->safe_psql(
		'postgres', q{
SELECT (SELECT count(*) FROM retl.request), (SELECT count(*) FROM retl.run), (SELECT count(*) FROM retl.batch),
       (SELECT count(*) FROM retl.exception), (SELECT count(*) FROM retl.snapshot), (SELECT string_agg(s::text, ',') FROM retl.mapping_state s)});
}
my $before = state_of_everything();

# Without send, nothing is.
my $row = test_row(q{test_mapping('contacts')});
is("$row->{operation} $row->{payload}{data}{key}", 'added 1', 'the first record');
is($row->{http_status}, undef, 'is not sent');
is(scalar $receiver->requests, 0, '... at all');

# With send, one record, as a disabled mapping would send it.
$row = test_row(q{test_mapping('contacts', key => '3', send => true)});
is("$row->{http_status} $row->{answer}", '200 {"ok":true}', 'an answer');
my ($request) = $receiver->requests;
is(json($json->decode($request->{body})), json($row->{request}{body}), 'what was shown was sent');
is((records_of($request))[0]{key}, 3, 'the record of the key');
is(header($request, 'authorization'), "Bearer $canary", 'with the secret');
is($row->{request}{headers}{Authorization}, 'Bearer ***', '... which is not shown');
like(idempotency_key($request), qr/^test-/, 'its key is none of a batch');
is(idempotency_key($request), $row->{request}{headers}{'Idempotency-Key'}, '... and the one shown');

# What does not go well comes back, without the secret.
$receiver->rules({ path => '/hook', status => 422, body => "no, $canary, not this", times => 1 });
$row = test_row(q{test_mapping('contacts', send => true)});
is($row->{http_status}, 422, 'refused');
is($row->{answer}, 'no, ' . '*' x length($canary) . ', not this', 'the answer says why, and not the secret');
$receiver->rules({ path => '/hook', huge => 300000, times => 1 });
$row = test_row(q{test_mapping('contacts', send => true)});
is(length $row->{answer}, 4096, 'a long answer is cut');
$receiver->rules({ path => '/hook', close => 'headers', times => 1 });
$row = test_row(q{test_mapping('contacts', send => true)});
is($row->{http_status}, undef, 'a broken connection is no answer');
isnt($row->{error}, undef, '... but an error') and note $row->{error};
$row = test_row(q{test_mapping('contacts', key => '99', send => true)});
is($row->{error}, 'the model has no row of this key', 'no row');

# A destination is tested without sending anything that counts.
$receiver->clear;
$row = test_row(q{test_destination('hook')});
is($row->{ok}, JSON::PP::true, 'a destination that answers');
is(join(' ', map { $_->{method} } $receiver->requests), 'OPTIONS', 'was only asked for its options');
$receiver->rules({ path => '/hook', status => 401, times => 1 });
is(test_row(q{test_destination('hook')})->{ok}, JSON::PP::false, 'one that does not know the secret');
$node->safe_psql('postgres', q{SELECT retl.create_destination('nobody', 'webhook', '{"url": "http://127.0.0.1:1/"}')});
$row = test_row(q{test_destination('nobody')});
is($row->{ok}, JSON::PP::false, 'one that is not there');
like($row->{error}, qr/connect/i, '... says so');
$node->safe_psql('postgres', q{SELECT retl.create_destination('private', 'webhook', '{"url": "http://10.1.2.3/"}')});
$row = test_row(q{test_destination('private')});
like($row->{error}, qr/private|not allowed|network/i, 'an address that must not be reached');

# In the transaction that creates it, the worker does not see it.
my ($ret, $out, $err) = $node->psql('postgres',
	q{BEGIN; SELECT retl.create_destination('new', 'webhook', '{"url": "https://hook.example"}'); SELECT error FROM retl.test_destination('new'); ROLLBACK});
like($out, qr/was not yet committed/, 'a destination that is not committed');

# No answer in time; and cancel. Neither leaves the worker or a slot blocked.
$receiver->rules({ path => '/hook', hang => JSON::PP::true });
for my $n (1 .. 6)
{
	($ret, $out, $err) = $node->psql('postgres', q{\set VERBOSITY verbose
SELECT * FROM retl.test_mapping('contacts', send => true, timeout => '0.3 s')});
	like($err, qr/57014/, "no answer in time, $n");
}
my $session = IPC::Run::start(
	[ 'psql', '-XAt', '-d', $node->connstr('postgres') . ' application_name=tester', '-c', q{SELECT * FROM retl.test_mapping('contacts', send => true)} ],
	'<', \undef, '>', \$out, '2>', \$err);
$node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM pg_stat_activity WHERE application_name = 'tester' AND wait_event = 'Extension'})
  or die 'the tester does not wait';
$node->safe_psql('postgres', q{SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE application_name = 'tester'});
IPC::Run::finish($session);
like($err, qr/canceling statement due to user request/, 'canceled');
$receiver->rules();
$receiver->release;
$row = test_row(q{test_mapping('contacts', send => true)});
is($row->{http_status}, 200, 'and then it works again');

# More at once than there are slots.
my @sessions;
my @outputs = ('') x 10;
push @sessions,
  IPC::Run::start([ 'psql', '-XAt', '-d', $node->connstr('postgres'), '-c', q{SELECT http_status FROM retl.test_mapping('contacts', send => true)} ],
	'<', \undef, '>', \$outputs[$_])
  for 0 .. 9;
IPC::Run::finish($_) for @sessions;
is(join('', map { s/\s//gr } @outputs), '200' x 10, 'ten at once');

# The worker dies with a request under way, and another one is started.
$receiver->clear;
$receiver->rules({ path => '/hook', hang => JSON::PP::true, times => 1 });
$session = IPC::Run::start(
	[ 'psql', '-XAt', '-d', $node->connstr('postgres'), '-c', q{SELECT error FROM retl.test_mapping('contacts', send => true)} ],
	'<', \undef, '>', \$out, '2>', \$err);
$receiver->wait_for(1);
my $pid = worker_pid($node, 'delivery');
$node->safe_psql('postgres', "SELECT pg_terminate_backend($pid)");
IPC::Run::finish($session);
like($out, qr/the delivery worker ended before there was an answer/, 'a worker that ended');
$row = test_row(q{test_mapping('contacts', send => true)});
is($row->{http_status}, 200, 'another one takes the next');

# A request that is too long for the way.
$node->safe_psql('postgres', q{UPDATE customer SET email = repeat('x', 200000) WHERE id = 5});
($ret, $out, $err) = $node->psql('postgres', q{SELECT * FROM retl.test_mapping('contacts', key => '5', send => true)});
like($err, qr/too long to be tested/, 'a request that is too long');

# A copy of a database sends nothing, tests neither.
$node->safe_psql('postgres', 'UPDATE retl.instance SET system_identifier = 1');
like(test_row(q{test_destination('hook')})->{error}, qr/restored or upgraded copy/, 'a copy does not test');

is(state_of_everything(), $before, 'no state has changed');
unlike(slurp_file($node->logfile), qr/$canary/, 'the log does not have the secret');

$node->stop('fast');
done_testing();
