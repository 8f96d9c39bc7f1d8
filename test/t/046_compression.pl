# Bodies that are compressed on the way: as they were planned when unpacked, the same bytes at each attempt, and
# signatures of what was packed.
use strict;
use warnings;

use Digest::SHA qw(hmac_sha1_hex hmac_sha256);
use IO::Uncompress::Gunzip qw(gunzip $GunzipError);
use MIME::Base64;
use PostgreSQL::Test::Utils;
use RetlTest;
use Test::More;

my $node = new_node('compression', conf => "retl.retry_delay = 20ms\nlog_statement = none\n");
my $receiver = new_receiver();
$node->safe_psql('postgres', q{
CREATE TABLE t (id int PRIMARY KEY, v int NOT NULL DEFAULT 1, name text);
INSERT INTO t SELECT i, 1, 'row ' || i FROM generate_series(1, 200) i;
SELECT retl.create_model('t', 't', '{id}');
});
my $signing = 'whsec_' . encode_base64('0123456789abcdef0123456789abcdef', '');

sub unpacked
{
	my ($request) = @_;
	my $packed = decode_base64($request->{body_base64});
	my $body;
	if (header($request, 'content-encoding') eq 'gzip')
	{
		gunzip(\$packed, \$body) or die $GunzipError;
		return $body;
	}
	my $file = $PostgreSQL::Test::Utils::tmp_check . '/body.zst';
	open my $out, '>:raw', $file or die;
	print $out $packed;
	close $out;
	return qx{zstd -q -d -c $file};
}

for my $compression ('gzip', 'zstd')
{
	create_webhook($node, $compression, $receiver, settings => { compression => $compression });
	$node->safe_psql('postgres', "SELECT retl.set_secret('$compression', 'signing_key', '$signing'), retl.set_secret('$compression', 'shared_secret', 'sesame')");
	create_mapping($node, $compression, 't', $compression, batch_size => 100);
	$receiver->rules({ path => "/$compression", status => 503, times => 1 }, { path => "/$compression", close => 'read', times => 1 });
	my $run = sync_and_wait($node, $compression);
	is("$run->{status} sent $run->{sent} retried $run->{retried}", 'succeeded sent 200 retried 2', "$compression: bodies arrive");
	my @requests = $receiver->requests(qr{/$compression});
	my %packed;
	for my $request (@requests)
	{
		is(header($request, 'content-encoding'), $compression, '... encoded');
		$packed{ idempotency_key($request) }{ $request->{body_base64} } = 1;
	}
	is(join(' ', map { scalar keys %$_ } values %packed), '1 1', '... the same bytes at each attempt');
	my %ids = map { $_->{key} => 1 } map { @{ JSON::PP::decode_json(unpacked($_)) } } @requests;
	is(scalar keys %ids, 200, '... each record in them');
	my ($request) = @requests;
	my $body = unpacked($request);
	is($node->safe_psql('postgres', "SELECT count(*) FROM retl.batch_body y JOIN retl.batch b ON b.id = y.batch WHERE b.idempotency_key = "
		  . literal(idempotency_key($request)) . ' AND y.body = ' . literal($body)), 1, '... what is stored is not compressed');
	my $signed = join '.', header($request, 'webhook-id'), header($request, 'webhook-timestamp'), $body;
	is(header($request, 'webhook-signature'), 'v1,' . encode_base64(hmac_sha256($signed, '0123456789abcdef0123456789abcdef'), ''), '... and signed as such');
	is(header($request, 'x-signature'), hmac_sha1_hex($body, 'sesame'), '... by either signature');
	my $length = length decode_base64($request->{body_base64});
	cmp_ok($length, '<', length($body) / 3, '... of which a third is left at most');
	is($node->safe_psql('postgres', "SELECT count(*) FROM retl.attempts a JOIN retl.batches b ON b.id = a.batch WHERE a.bytes = $length AND b.bytes = " . length($body)
		  . ' AND b.idempotency_key = ' . literal(idempotency_key($request))) > 0, 1, '... as the view of attempts says');
}

# Small bodies stay as they are, and so does what has an encoding of its own.
create_webhook($node, 'small', $receiver, settings => { compression => 'gzip' });
create_mapping($node, 'small', 't', 'small', batch_size => 1);
sync_and_wait($node, 'small');
is(scalar(grep { !defined header($_, 'content-encoding') && defined $_->{body} } $receiver->requests(qr{/small})), 200, 'small bodies are not compressed');
create_webhook($node, 'own', $receiver, settings => { compression => 'gzip', headers => { 'content-encoding' => 'identity' } });
create_mapping($node, 'own', 't', 'own', batch_size => 200);
sync_and_wait($node, 'own');
is(scalar(grep { header($_, 'content-encoding') eq 'identity' && defined $_->{body} } $receiver->requests(qr{/own})), 1, '... nor those that say that they are encoded');
like(($node->psql('postgres', q{SELECT retl.alter_destination('own', '{"compression": "brotli"}')}))[2], qr/compression.* must be one of none, gzip or zstd/, '... and no other than what there is');

done_testing();
