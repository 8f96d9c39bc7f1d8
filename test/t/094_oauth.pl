# Access tokens of OAuth 2: fetched once, used until they are refused, and never stored.
use strict;
use warnings;

use JSON::PP;
use MIME::Base64;
use PostgreSQL::Test::Utils;
use RetlTest;
use Test::More;

my $node = new_node('oauth');
my $receiver = new_receiver();
my $url = $receiver->url;

my $definition = literal(
	json(
		{   name => 'tool', title => 'Tool',
			settings => { url => { type => 'string', format => 'url', required => JSON::PP::true } },
			secrets => { map { $_ => {} } qw(id secret refresh) },
			auth => [ { type => 'oauth2', grant => 'refresh_token', token_url => '{{settings.url}}/token', client_id_secret => 'id', secret => 'secret',
					refresh_secret => 'refresh', credentials => 'basic', scope => 'a b' } ],
			base_url => { '@path' => '$.settings.url' },
			actions => { put => { operations => [ 'added', 'updated' ], fields => { id => { type => 'string' } }, request => { url => '/put' } } },
		}));
$node->safe_psql('postgres', qq{
SELECT retl.create_connector($definition);
CREATE TABLE item (id int PRIMARY KEY, v int);
SELECT retl.create_model('item', 'item', '{id}');
});

my $n = 0;

sub destination
{
	my ($connector, $settings, $secrets) = @_;
	my $name = 'd' . ++$n;
	$node->safe_psql('postgres', sprintf(q{SELECT retl.create_destination(%s, %s, %s)}, map { literal($_) } $name, $connector, json($settings)));
	$node->safe_psql('postgres', sprintf(q{SET log_statement = 'none'; SELECT retl.set_secret(%s, %s, %s)}, map { literal($_) } $name, $_, $secrets->{$_}))
	  for sort keys %$secrets;
	return $name;
}

sub tokens { return grep { $_->{path} =~ /token/ } $receiver->requests; }
sub puts { return grep { $_->{path} !~ /token/ } $receiver->requests; }

# Refresh token, credentials in a header
my $name = destination('tool', { url => $url }, { id => 'i:d', secret => 's&t', refresh => 'r+f' });
create_mapping($node, 'one', 'item', $name, action => 'put', fields => { id => { '@template' => '{{id}}-{{v}}' } }, records => '{added,updated}');
$node->safe_psql('postgres', 'INSERT INTO item SELECT n, 0 FROM generate_series(1, 20) n');
$receiver->rules({ path => '/token', body => '{"access_token": "T0KEN-1", "expires_in": 3600}', delay => 0.3 });
my $run = sync_and_wait($node, 'one');
is("$run->{status} $run->{sent}", 'succeeded 20', 'rows are sent with a token');
is(scalar(tokens()), 1, 'which is asked for once');
my ($asked) = tokens();
is($asked->{body}, 'grant_type=refresh_token&refresh_token=r%2Bf&scope=a%20b', 'the request for it');
is(header($asked, 'authorization'), 'Basic ' . encode_base64('i:d:s&t', ''), 'with the credentials');
is(scalar(grep { header($_, 'authorization') ne 'Bearer T0KEN-1' } puts()), 0, 'and sent with every row');
is(scalar(puts()), 20, 'each once');

# It lasts from run to run; one that is refused is replaced
$receiver->clear;
$node->safe_psql('postgres', 'UPDATE item SET v = 1 WHERE id <= 5');
$run = sync_and_wait($node, 'one');
is(scalar(tokens()), 0, 'the next run has it still');
$receiver->clear;
$receiver->rules({ path => '/token', body => '{"access_token": "T0KEN-2", "expires_in": 3600}' },
	{ path => '/put', match_headers => { authorization => 'T0KEN-1' }, status => 401 });
$node->safe_psql('postgres', 'UPDATE item SET v = 2 WHERE id <= 5');
$run = sync_and_wait($node, 'one');
is("$run->{status} $run->{sent}", 'succeeded 5', 'a token that is refused is replaced, and nobody fails');
is($node->safe_psql('postgres', q{SELECT count(*) FROM retl.batch_body b, retl.attempt a, retl.run r WHERE concat(b, a, r) LIKE '%T0KEN%'}), '0', 'no token is stored');

# A token endpoint that fails for a while, and one that refuses
$name = destination('salesforce', { instance_url => $url }, { client_id => 'c', client_secret => 's' });
create_mapping($node, 'two', 'item', $name, action => 'upsert_record', batch_size => 1, records => '{added}',
	fields => { object => 'X', external_id_field => 'E__c', external_id => { '@path' => '$.id' }, fields => { v => 1 } });
$receiver->clear;
$receiver->rules({ path => '/services/oauth2/token', times => 1, status => 503 }, { path => '/services/oauth2/token', body => '{"access_token": "T0KEN-3"}' },
	{ status => 204 });
$run = sync_and_wait($node, 'two');
is("$run->{status} $run->{sent}", 'succeeded 20', 'a token endpoint that is down is asked again');
($asked) = tokens();
is($asked->{body}, 'grant_type=client_credentials&client_id=c&client_secret=s', 'client credentials');
is(scalar(tokens()), 2, 'not by every request');

$name = destination('tool', { url => $url }, { id => 'i', secret => 's', refresh => 'r' });
create_mapping($node, 'three', 'item', $name, action => 'put', fields => { id => 'x' }, records => '{added}');
$receiver->clear;
$receiver->rules({ path => '/token', status => 400, body => '{"error": "invalid_grant"}' });
$run = sync_and_wait($node, 'three');
is($run->{status}, 'failed', 'credentials that are refused fail the run');
like($run->{error}, qr/No access token was given: the token endpoint answered with status 400/, 'and the error says so');
is(scalar(puts()) . ' ' . scalar(tokens()), '0 1', 'nothing is sent, and they are not tried for each row');

$node->stop('fast');
done_testing();
