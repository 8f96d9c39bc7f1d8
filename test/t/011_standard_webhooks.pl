# Standard Webhooks: identifier, time and signature over the exact bytes, verified here from the specification.
use strict;
use warnings;

use Digest::SHA qw(hmac_sha256 hmac_sha256_base64);
use MIME::Base64;
use PostgreSQL::Test::Utils;
use RetlTest;
use Test::More;

my $node = new_node('signed');
my $receiver = new_receiver();
my $secret_bytes = join '', map { chr } 7 .. 38;
my $secret = 'whsec_' . encode_base64($secret_bytes, '');

$node->safe_psql('postgres', q{
CREATE TABLE t (id int PRIMARY KEY, v int, name text);
INSERT INTO t SELECT i, 1, 'Zoë ' || i FROM generate_series(1, 20) i;
SELECT retl.create_model('t', 't', '{id}');
});
create_webhook($node, 'signed', $receiver);
$node->safe_psql('postgres', 'SELECT retl.set_secret(' . join(', ', map { literal($_) } 'signed', 'signing_key', $secret) . ')');
create_mapping($node, 'signed', 't', 'signed', batch_size => 3);
# Two attempts at one request: same identifier and bytes, a signature each.
$receiver->rules({ status => 500, times => 1, headers => { 'Retry-After' => '1' } });
my $run = sync_and_wait($node, 'signed');
is("$run->{status} $run->{sent}", 'succeeded 20', 'sync') or diag(json($run));

my (%ids, @bad);
my @requests = $receiver->requests;
for my $request (@requests)
{
	my ($id, $time, $signature) = map { header($request, $_) } qw(webhook-id webhook-timestamp webhook-signature);
	if (!defined $id || !defined $time || !defined $signature)
	{
		push @bad, "request $request->{n} lacks a header";
		next;
	}
	# The log holds the body as characters; the signature is over its bytes.
	my $body = $request->{body};
	utf8::encode($body) if utf8::is_utf8($body);
	my $want = 'v1,' . encode_base64(hmac_sha256("$id.$time.$body", $secret_bytes), '');
	push @bad, "request $request->{n}: $signature, should be $want" unless grep { $_ eq $want } split / /, $signature;
	push @bad, "request $request->{n}: time $time" if abs($time - $request->{at}) > 5;
	push @bad, "request $request->{n}: identifier with a dot or too long" if $id =~ /\./ || length $id > 100;
	push @{ $ids{$id} }, $request->{body};
}
is_deeply(\@bad, [], 'every signature verifies');
is(scalar @requests, 8, 'seven requests and one repetition');
is(scalar keys %ids, 7, 'seven identifiers');
is(scalar(grep { @$_ == 2 && $_->[0] eq $_->[1] } values %ids), 1, 'the repetition has the same identifier and bytes');
is(header($requests[0], 'content-type') =~ s/;.*//r, 'application/json', 'content type');
unlike($node->safe_psql('postgres', q{SELECT * FROM retl.destinations}), qr/whsec_/, 'the secret is in no view');

$node->stop('fast');
done_testing();
