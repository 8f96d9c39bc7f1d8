# The library loads, the extension can be created and dropped, the receiver receives.
use strict;
use warnings;

use PostgreSQL::Test::Utils;
use RetlTest;
use Test::More;

my $node = new_node('start');
is($node->safe_psql('postgres', "SELECT extversion FROM pg_extension WHERE extname = 'retl'"), '1.0', 'created');
$node->safe_psql('postgres', 'DROP EXTENSION retl CASCADE; CREATE EXTENSION retl');
is($node->safe_psql('postgres', 'SELECT count(*) FROM retl.model'), '0', 'created again');

my $receiver = new_receiver();
$receiver->rules({ path => '/busy', status => 503, headers => { 'Retry-After' => '7' }, times => 1 });
my $http = HTTP::Tiny->new;
my $answer = $http->request('POST', $receiver->url . '/busy', { content => '{"key":1}', headers => { 'Idempotency-Key' => 'a' } });
is("$answer->{status} $answer->{headers}{'retry-after'}", '503 7', 'the receiver does as told');
$answer = $http->request('POST', $receiver->url . '/busy', { content => '{"key":1}', headers => { 'Idempotency-Key' => 'a' } });
is($answer->{status}, 200, '... once');
$receiver->wait_for(2, done => 1);
my @requests = $receiver->requests;
is(scalar @requests, 2, 'two requests in the log');
is(idempotency_key($requests[1]), 'a', 'with their headers');

$node->stop('fast');
done_testing();
