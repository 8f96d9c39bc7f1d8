# Answers that tell records apart: the refused ones fail alone, the others are neither lost nor sent twice.
use strict;
use warnings;

use JSON::PP;
use PostgreSQL::Test::Utils;
use RetlTest;
use Test::More;

my $json = JSON::PP->new->canonical->allow_nonref;
my $node = new_node('response');
my $receiver = new_receiver();
my $url = $receiver->url;

my $definition = literal(
	json(
		{   title => 'Bulk',
			settings => { url => { type => 'string' } },
			base_url => { '@path' => '$.settings.url' },
			idempotency => { header => 'Idempotency-Key' },
			actions => {
				map {
					$_->[0] => {
						operations => [ 'added', 'updated', 'deleted' ],
						fields => { id => { type => 'string', required => JSON::PP::true } },
						request => { url => "/$_->[0]", body => { rows => { '@records' => JSON::PP::true } } },
						batch => { records => 10, max_records => 10 },
						response => $_->[1]
					}
				  } (
					[ 'numbered', { listed => [
						{ at => '$.errors', index => '$.index', reason => '{{$.message}} (token s3cret)' },
						{ at => '$.later', index => '$', outcome => 'retry', reason => 'busy' } ] } ],
					[ 'named', { listed => { at => '$.errors', key => '$.id', record => '$.id', reason => '$.message' } } ],
					[ 'each', { results => { at => '$.results', accepted => { path => '$.ok' }, reason => '$.why' } } ])
			},
		}));
$node->safe_psql('postgres', "INSERT INTO retl.connector (name, definition) VALUES ('bulk', $definition)");
$node->safe_psql('postgres', qq{
CREATE TABLE item (id int PRIMARY KEY, v int);
SELECT retl.create_model('item', 'item', '{id}');
SELECT retl.create_destination('bulk', 'bulk', '{"url": "$url"}');
});
create_mapping($node, $_, 'item', 'bulk', action => $_, fields => { id => { '@template' => '{{id}}-{{v}}' } })
  for qw(numbered named each);

sub ids { my ($request) = @_; return join ' ', map { $_->{id} } @{ $json->decode($request->{body})->{rows} }; }

sub rows
{
	my ($values) = @_;
	$node->safe_psql('postgres', "TRUNCATE item; INSERT INTO item VALUES $values");
	return;
}

sub errors
{
	return $node->safe_psql('postgres',
		"SELECT coalesce(string_agg(key::text || '=' || error, '; ' ORDER BY key::text), '') FROM retl.failed_rows");
}

# An answer of 200 with errors
rows('(1, 0), (2, 0), (3, 0), (4, 0), (5, 0)');
$receiver->rules({ path => '/numbered', times => 1, status => 200,
	body => '{"errors": [{"index": 1, "message": "no"}, {"index": 3, "message": "never"}]}' });
my $run = sync_and_wait($node, 'numbered');
is($run->{status}, 'partial', 'two of five are refused in an answer of 200');
is("$run->{sent} $run->{failed}", '3 2', 'and counted so');
is(scalar($receiver->requests), 1, 'nothing is sent again');
like(errors(), qr/^2=no \(token s3cret\); 4=never/, 'each has its reason');
is($node->safe_psql('postgres', 'SELECT status, failed, http_status FROM retl.batch'), 'partial|2|200', 'the batch says so');

# The next run sends them alone
$receiver->clear;
$receiver->rules();
$run = sync_and_wait($node, 'numbered');
is($run->{status}, 'succeeded', 'then they are taken');
is_deeply([ map { ids($_) } $receiver->requests ], ['2-0 4-0'], 'and only they are sent');
is(errors(), '', 'nothing is left');

# A request refused for one row's sake: the others are sent again at once, with another key
$receiver->clear;
$receiver->rules({ path => '/numbered', times => 1, status => 400, body => '{"errors": [{"index": 0, "message": "no"}]}' });
$node->safe_psql('postgres', 'UPDATE item SET v = 1');
$run = sync_and_wait($node, 'numbered');
is("$run->{status} $run->{sent} $run->{failed}", 'partial 4 1', 'one is at fault');
my @requests = $receiver->requests;
is_deeply([ map { ids($_) } @requests ], [ '1-1 2-1 3-1 4-1 5-1', '2-1 3-1 4-1 5-1' ], 'the others go without it');
isnt(idempotency_key($requests[0]), idempotency_key($requests[1]), 'under a key of their own');

# Some are to be sent later
$receiver->clear;
$receiver->rules({ path => '/numbered', times => 1, status => 200, body => '{"later": [1, 3]}', headers => { 'Retry-After' => '0' } },
	{ path => '/numbered', times => 1, status => 200, body => '{"later": [0], "errors": [{"index": 1, "message": "no"}]}', headers => { 'Retry-After' => '0' } });
$node->safe_psql('postgres', 'UPDATE item SET v = 2 WHERE id > 1; DELETE FROM item WHERE id = 1');
$run = sync_and_wait($node, 'numbered');
is("$run->{status} $run->{failed}", 'partial 1', 'only one is refused');
@requests = $receiver->requests;
is(scalar(grep { ids($_) =~ /-2/ } @requests), 3, 'the rest is tried again until it is taken');
my %seen;
$seen{$_}++ for map { split ' ', ids($_) } @requests;
is(scalar(grep { $_ > 3 } values %seen), 0, 'no record more often than it was refused');

# By a value of the record; two batches, one of them fine
$receiver->clear;
rows('(1, 0), (2, 0), (3, 0), (4, 0), (5, 0), (6, 0), (7, 0), (8, 0), (9, 0), (10, 0), (11, 0), (12, 0)');
$receiver->rules({ path => '/named', match => '"5-0"', times => 1, status => 207, body => '{"errors": [{"id": "5-0", "message": "five"}]}' });
$run = sync_and_wait($node, 'named');
is("$run->{status} $run->{sent} $run->{failed}", 'partial 11 1', 'a 207 that names one');
like(errors(), qr/5=five/, 'with its reason');

# Errors that nobody can be blamed for: halves, until it is clear
$receiver->clear;
$receiver->rules({ path => '/named', match => '"3-1"', status => 207, body => '{"errors": [{"id": "?", "message": "who"}]}' });
$node->safe_psql('postgres', 'UPDATE item SET v = 1 WHERE id <= 4');
$run = sync_and_wait($node, 'named');
is("$run->{status} $run->{failed}", 'partial 1', 'found by halving');
like(errors(), qr/3=who/, 'with the reason');

# A result for each
$receiver->clear;
rows('(1, 0), (2, 0)');
$receiver->rules({ path => '/each', status => 200, times => 1, body => '{"results": [{"ok": false, "why": "x"}, {"ok": true}]}' });
$run = sync_and_wait($node, 'each');
is("$run->{status} $run->{sent} $run->{failed}", 'partial 1 1', 'results in the order of the records');

# A crash before the outcome is on record repeats the request; after it, only what is left
$receiver->clear;
rows('(1, 5), (2, 5), (3, 5)');
$receiver->rules({ path => '/numbered', status => 400, match => '1-5', body => '{"errors": [{"index": 0, "message": "no"}]}' });
arm_fault($node, 'outcomes_before_commit', 'kill');
$run = sync_and_wait($node, 'numbered');
@requests = grep { ids($_) =~ /1-5/ } $receiver->requests;
cmp_ok(scalar(@requests), '>=', 2, 'a request whose outcome was lost is repeated');
is(scalar(keys %{ { map { idempotency_key($_) => 1 } @requests } }), 1, 'with the same key');
like(errors(), qr/1=no/, 'and then recorded');

$node->stop('fast');
done_testing();
