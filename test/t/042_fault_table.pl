# What destinations and networks can do to a request, as a table: each row is a destination of its own that misbehaves in one
# way, and says how the run ends, how many requests the receiver sees, and under how many keys. All rows run at once. After
# that the destinations come to their senses, and what was not delivered is: nothing is lost, and no record that a destination
# may have taken comes under a second key.
use strict;
use warnings;

use IO::Socket::INET;
use IPC::Run;
use JSON::PP;
use PostgreSQL::Test::Utils;
use RetlTest;
use Test::More;

my $true = JSON::PP::true;
my $dir = $PostgreSQL::Test::Utils::tmp_check;

# Certificates: an authority of ours, which the server trusts; one that is over, one for another name, one of nobody's.
sub openssl
{
	my $said = '';
	IPC::Run::run([ 'openssl', @_ ], '<', \undef, '>&', \$said) or die "openssl @_: $said";
	return;
}

sub certificate
{
	my ($name, $subject, $from, $to) = @_;
	openssl('req', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-subj', '/CN=receiver',
		'-addext', "subjectAltName=$subject", '-keyout', "$dir/$name.key", '-out', "$dir/$name.csr");
	openssl('ca', '-batch', '-config', "$dir/ca.conf", '-startdate', $from, '-enddate', $to, '-in', "$dir/$name.csr", '-out', "$dir/$name.pem");
	return (cert => "$dir/$name.pem", key => "$dir/$name.key");
}

append_to_file("$dir/ca.conf", qq{[ca]
default_ca = ours
[ours]
database = $dir/ca.index
new_certs_dir = $dir
rand_serial = yes
certificate = $dir/ca.pem
private_key = $dir/ca.key
default_md = sha256
policy = any
copy_extensions = copy
unique_subject = no
[any]
commonName = supplied
});
append_to_file("$dir/ca.index", '');
for my $name ('ca', 'nobody')
{
	openssl('req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '3650',
		'-subj', "/CN=$name", '-addext', 'subjectAltName=IP:127.0.0.1', '-keyout', "$dir/$name.key", '-out', "$dir/$name.pem");
}
my ($past, $future) = ('20200101000000Z', '20490101000000Z');
my $trusted = new_receiver(certificate('good', 'IP:127.0.0.1', $past, $future));
my $expired = new_receiver(certificate('expired', 'IP:127.0.0.1', $past, '20210101000000Z'));
my $other_name = new_receiver(certificate('other', 'DNS:example.com', $past, $future));
my $unknown = new_receiver(cert => "$dir/nobody.pem", key => "$dir/nobody.key");
$ENV{SSL_CERT_FILE} = "$dir/ca.pem";

my $node = new_node('table');
my $receiver = new_receiver();
my $elsewhere = new_receiver();

# Takes connections, and then nothing: what comes stays in the kernel.
my $silent = IO::Socket::INET->new(Listen => 64, LocalAddr => '127.0.0.1') or die $!;
my $silent_port = $silent->sockport;
# Nobody listens there.
my $closed = IO::Socket::INET->new(Listen => 1, LocalAddr => '127.0.0.1') or die $!;
my $closed_port = $closed->sockport;
close $closed;

my $rows = 16;
$node->safe_psql('postgres', qq{
CREATE TABLE t (id int PRIMARY KEY, v int NOT NULL DEFAULT 1, name text);
INSERT INTO t SELECT i, 1, 'row ' || i || '.' FROM generate_series(1, $rows) i;
SELECT retl.create_model('t', 't', '{id}');
INSERT INTO retl.connector SELECT 'answering', jsonb_set(definition::jsonb, '{actions,send,response}',
  '{"results": {"at": "\$.results", "accepted": {"path": "\$.ok"}, "reason": "\$.why"}}')::json, false FROM retl.connector WHERE name = 'webhook';
INSERT INTO retl.connector SELECT 'listing', jsonb_set(definition::jsonb, '{actions,send,response}',
  '{"listed": {"at": "\$.errors", "key": "\$.id", "record": "\$.row.id", "reason": "\$.why"}}')::json, false FROM retl.connector WHERE name = 'webhook';
});

my $soon = { 'Retry-After' => 0 };
my @all_ok = map { { ok => $true } } 1 .. $rows;
sub results { my (@bad) = @_; my @r = @all_ok; $r[ $_ - 1 ] = { ok => JSON::PP::false, why => 'no' } for @bad; return json({ results => \@r }); }

# What became of it: "status sent failed"; requests, keys: numbers, or "least-most". Of runs that do not end as long as the
# destination is as it is: "waits", and requests are those seen until two attempts are on record.
my ($good, $bad, $waits) = ("succeeded $rows 0", "failed 0 $rows", 'waits');
my @table;
sub row { my ($name, $rule, $want, $requests, $keys, %more) = @_; push @table, { name => $name, rule => $rule, want => $want, requests => $requests, keys => $keys, %more }; return; }

# Success
row("status $_", { status => $_ }, $good, 1, 1) for 200, 201, 202, 203, 204, 206, 226;
row('nothing in the answer', { body => '' }, $good, 1, 1);
row('junk in the answer', { body => "\x{1}{{{" }, $good, 1, 1);
row('an answer in chunks', { chunked => $true }, $good, 1, 1);
row('an answer that ends with the connection', { unframed => $true }, $good, 1, 1);
row('50 MB of answer', { huge => 50_000_000 }, $good, 1, 1);
row('an answer without end', { endless => $true }, $good, 1, 1);
row('a gzip bomb', { gzip_bomb => 100_000_000 }, $good, 1, 1);
row('an encoding that it has not', { headers => { 'Content-Encoding' => 'br' } }, $good, 1, 1);
row('1xx answers first', { informational => [ 100, 102, 103, 103 ] }, $good, 1, 1);
row('headers twice', { headers => { 'Set-Cookie' => [ 'a=1', 'a=2' ], 'Content-Type' => [ 'text/html', 'a/b' ] } }, $good, 1, 1);
row('a control byte in a header', { headers => { 'X-Odd' => "a\x{1}b" } }, $good, 1, 1);
row('more than it announced', { raw => "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n" }, $good, 1, 1);

# Tried again
row("status $_ once", { status => $_, times => 1, headers => $soon }, $good, 2, 1) for 408, 421, 423, 425, 429, 500, 502, 503, 504, 507, 599;
row('Retry-After as a date that is over', { status => 503, times => 1, headers => { 'Retry-After' => 'Sun, 06 Nov 1994 08:49:37 GMT' } }, $good, 2, 1);
row('Retry-After twice', { status => 503, times => 1, headers => { 'Retry-After' => [ 0, 0 ] } }, $good, 2, 1);
row("Retry-After of $_", { status => 429, times => 1, headers => { 'Retry-After' => $_ } }, $good, 2, 1) for 'soon', '-5', '1.5';
row("Retry-After of $_", { status => 429, headers => { 'Retry-After' => $_ } }, $waits, 1, 1, attempts => 1, due_within => 3602)
  for '99999999999999999999', 'Fri, 01 Jan 2100 00:00:00 GMT';

# No outcome: the same request again
row('hangs', { hang => $true, times => 1 }, $good, 2, 1, settings => { timeout => 1 });
row('hangs amid the answer', { slow => 600, times => 1 }, $good, 2, 1, settings => { timeout => 1 });
row('a byte now and then', { slow => 0.1, times => 1 }, $good, 2, 1, settings => { timeout => 1 });
row('closed after the head', { close => 'headers', times => 1 }, $good, 2, 1);
row('reset after the head', { close => 'headers', reset => $true, times => 1 }, $good, 2, 1);
row('closed after the request', { close => 'read', times => 1 }, $good, 2, 1);
row('reset after the request', { close => 'read', reset => $true, times => 1 }, $good, 2, 1);
row('closed amid the answer', { close => 'answer', times => 1 }, $good, 2, 1);
row('reset amid the answer', { close => 'answer', reset => $true, times => 1 }, $good, 2, 1);
row('an answer cut short', { cut => 3, times => 1 }, $good, 2, 1);
row('an answer cut short, in chunks', { raw => "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{\"o", times => 1 }, $good, 2, 1);
row('closed on the third use of a connection', { close => 'read', skip => 2, times => 1 }, $good, $rows + 1, $rows,
	settings => { concurrency => 1 }, batch => 1);
row('garbage', { raw => "GET lost\r\n\r\n", times => 1 }, $good, 2, 1);
row('HTTP/0.9', { raw => 'fine', times => 1 }, $good, 2, 1);
row('a version that there is not', { raw => "HTTP/7.3 200 OK\r\n\r\n{}", times => 1 }, $good, 2, 1);
row('a status that is none', { raw => "HTTP/1.1 OK\r\n\r\n", times => 1 }, $good, 2, 1);
row('zero bytes in headers', { raw => "HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 0\r\n\r\n", times => 1 }, $good, '1-2', 1);
row('two lengths that differ', { raw => "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 99\r\n\r\n12345", times => 1 }, $good, '1-2', 1);
row('a flood of 1xx', { informational => [ (100) x 300 ], times => 1 }, $good, 2, 1);
row('a flood of headers', { headers => { map { ("X-$_" => 'x') } 1 .. 200 }, times => 1 }, $good, 2, 1);
row('a header without end', { headers => { 'X-Long' => 'x' x 2_000_000 }, times => 1 }, $good, 2, 1);
row('another protocol', { raw => "HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\n\r\n", times => 1 }, $good, 2, 1);

# Refused
row("status $_", { status => $_ }, $bad, 1, 1) for 300, 301, 302, 303, 304, 307, 308, 401, 402, 403, 404, 405, 406, 407, 409, 410, 411, 415, 451, 501, 505, 600, 999;
row('a redirect', { redirect => $elsewhere->url . '/stolen' }, $bad, 1, 1);
row('a redirect, kept as it is', { redirect => $elsewhere->url . '/stolen', status => 308 }, $bad, 1, 1);
row('a redirect to the inside', { redirect => 'http://169.254.169.254/latest/meta-data' }, $bad, 1, 1);
row('a redirect to a file', { redirect => 'file:///etc/passwd' }, $bad, 1, 1);
for my $status (400, 413, 422)
{
	row("$status for one record of $rows", { status => $status, match => 'row 7\.' }, 'partial ' . ($rows - 1) . ' 1', '5-9', '5-9', failed => '7');
	row("$status for two", { status => $status, match => 'row (3|12)\.' }, 'partial ' . ($rows - 2) . ' 2', '7-17', '7-17', failed => '12,3');
}
row('422 for all', { status => 422 }, $bad, 2 * $rows - 1, 2 * $rows - 1);

# Outcomes by record
my %answering = (connector => 'answering');
row('all are told to be well', { body => results() }, $good, 1, 1, %answering);
row('one is refused in a 200', { body => results(5), match => '"id":5,' }, 'partial 15 1', 1, 1, %answering, failed => '5');
row('all are refused in a 207', { status => 207, body => results(1 .. $rows) }, $bad, 1, 1, %answering);
row('results cut short', { body => results(), cut => 40, unframed => $true, times => 1 }, "succeeded $rows 0", 2, 1, %answering);
row('results that are not JSON', { body => '<html>fine</html>', times => 1 }, "succeeded $rows 0", 2, 1, %answering);
row('results without end', { endless => $true, times => 1 }, "succeeded $rows 0", 2, 1, %answering);
my %listing = (connector => 'listing');
row('no error is listed', { body => '{"errors": []}' }, $good, 1, 1, %listing);
row('one error is listed', { status => 207, body => '{"errors": [{"id": 9, "why": "no"}]}', match => '"id":9,' }, 'partial 15 1', 1, 1, %listing, failed => '9');
row('a list cut short', { body => '{"errors": [{"id": 9, "why": "no"}]}', cut => 20, unframed => $true, times => 1 }, $good, 2, 1, %listing);

# Never sent
row('nobody listens', undef, $waits, 0, 0, url => "http://127.0.0.1:$closed_port/");
row('TLS spoken to a plain port', undef, $waits, 0, 0, url => 'https://127.0.0.1:' . $receiver->port . '/tls');
row('a TLS handshake without an answer', undef, $waits, 0, 0, url => "https://127.0.0.1:$silent_port/", settings => { timeout => 1 });
row('plain HTTP to a TLS port', undef, $waits, 0, 0, url => 'http://127.0.0.1:' . $trusted->port . '/plain');
row('a connection that nobody takes', undef, $waits, 0, 0, url => "http://127.0.0.1:$silent_port/", settings => { timeout => 1 });
row('an expired certificate', undef, $waits, 0, 0, url => $expired->url . '/x', on => $expired, says => qr/expired/i);
row('a certificate of another name', undef, $waits, 0, 0, url => $other_name->url . '/x', on => $other_name, says => qr/127\.0\.0\.1/);
row('a certificate by nobody we know', undef, $waits, 0, 0, url => $unknown->url . '/x', on => $unknown, says => qr/certificate/i);
row('a name that there is not', undef, $waits, 0, 0, url => 'http://retl-test.invalid/', says => qr/resolve/i);
row('a good certificate', undef, $good, 1, 1, url => $trusted->url . '/x', on => $trusted);

# Addresses that may not be reached, in whatever notation. Allowed is 127.0.0.0/8 alone.
for my $host ('169.254.169.254', '10.0.0.1', '0x0a000001', '167772161', '012.0.0.1', '192.168.1', '[::1]', '[::ffff:10.0.0.1]',
	'[fd00::1]', '[fe80::1]', '0.0.0.0')
{
	row("address $host", undef, $bad, 0, 0, url => "http://$host:$closed_port/", says => qr/not allowed/);
}

# A long answer to a body that is larger than what a socket takes, and that is not read.
row('closed before the body is read', { close => 'headers', reset => $true, times => 1 }, $good, '2-3', 1, big => 1);

my $number = 0;
# By a name of its own, so that no row shares connections with another; it has an address besides, which is not allowed.
sub at { my ($id) = @_; return "http://$id.localhost:" . $receiver->port . "/$id"; }
for my $row (@table)
{
	my $id = $row->{id} = sprintf 'r%03d', ++$number;
	$row->{on} //= $receiver;
	my %settings = (batch_size => $row->{batch} // $rows, %{ $row->{settings} // {} }, url => $row->{url} // at($id));
	my %fields = $row->{big} ? (fields => { data => { %{ whole_row()->{data} }, filler => 'f' x 20_000 } }) : ();
	$row->{create} = sprintf 'SELECT retl.create_destination(%s, %s, %s); SELECT retl.create_mapping(%s, %s, %s, %s, fields => %s, records => %s, enabled => true);',
	  map { literal($_) } $id, $row->{connector} // 'webhook', json(\%settings), $id, 't', $id, 'send', json($fields{fields} // whole_row()), '{added,updated,deleted}';
}
$node->safe_psql('postgres', join "\n", map { $_->{create} } @table);
my @cured = map { ({ path => "/$_->{id}\$", match => '"id":4,', body => results() }, { path => "/$_->{id}\$", body => '{"results": [{"ok": true}]}' }) }
  grep { ($_->{connector} // '') eq 'answering' } @table;
$receiver->rules((map { my $row = $_; $row->{rule} ? { path => "/$row->{id}\$", %{ $row->{rule} } } : () } @table), @cured);
my %run;
for (split /\n/, $node->safe_psql('postgres', join "\n", map { "SELECT '$_->{id} ' || retl.sync('$_->{id}');" } @table))
{
	/^(\S+) (\d+)$/ and $run{$1} = $2;
}

sub between
{
	my ($value, $range) = @_;
	my ($least, $most) = "$range" =~ /^(\d+)-(\d+)$/ ? ($1, $2) : ($range, $range);
	return $value >= $least && $value <= $most;
}

for my $row (@table)
{
	my $label = $row->{name};
	my $run = $run{ $row->{id} };
	my $seen = '';
	if ($row->{want} eq $waits)
	{
		my $attempts = $row->{attempts} // 2;
		$node->poll_query_until('postgres', "SELECT coalesce(max(attempts), 0) >= $attempts FROM retl.batches WHERE run = $run")
		  or diag("$label: no $attempts attempts");
		$run = run_row($node, $run);
		$seen = defined $run->{finished_at} ? "$run->{status} $run->{sent} $run->{failed}" : $waits;
		cmp_ok($node->safe_psql('postgres', "SELECT extract(epoch FROM max(next_attempt_at) - now()) FROM retl.batch WHERE run = $run->{id}"),
			'<=', $row->{due_within}, "$label: not held back for ever") if $row->{due_within};
	}
	else
	{
		$run = wait_for_run($node, $run);
		$seen = "$run->{status} $run->{sent} $run->{failed}";
	}
	my $path = $row->{url} ? undef : qr{/$row->{id}$};
	my @requests = defined $path ? $row->{on}->requests($path) : $row->{on} != $receiver ? $row->{on}->requests : ();
	my %keys = map { idempotency_key($_) => 1 } @requests;
	ok($seen eq $row->{want} && between(scalar @requests, $row->{requests}) && between(scalar keys %keys, $row->{keys}), "$label: $row->{want}")
	  or diag("$seen, " . @requests . ' requests under ' . keys(%keys) . ' keys; should be '
		  . "$row->{want}, $row->{requests} under $row->{keys}\n" . json($run));
	if ($row->{says})
	{
		my $error = $node->safe_psql('postgres', "SELECT coalesce(max(error), '') FROM retl.batch WHERE run = $run->{id}");
		like($error, $row->{says}, '... and says why');
	}
	is($node->safe_psql('postgres', "SELECT string_agg(key::text, ',' ORDER BY key::text) FROM retl.failed_rows WHERE mapping::text = '$row->{id}'"),
		$row->{failed}, '... which ones') if $row->{failed};

	# What the destination may have taken comes under one key.
	my %taken;
	for my $request (@requests)
	{
		next unless $request->{complete} && (!defined $request->{status} || $request->{status} =~ /^2/);
		$taken{ json($_->{key}) }{ idempotency_key($request) } = 1 for records_of($request);
	}
	my @twice = grep { keys %{ $taken{$_} } > 1 } keys %taken;
	is("@twice", '', '... and no record under two keys') if %taken;
}
is(scalar $elsewhere->requests, 0, 'no redirect was followed');

# They come to their senses. A request keeps its URL: where that was wrong, the run is canceled.
$receiver->rules(@cured);
for my $row (grep { $_->{due_within} || ($_->{url} && ($_->{on} == $receiver || $_->{want} eq $waits)) } @table)
{
	$node->safe_psql('postgres', sprintf 'SELECT retl.alter_destination(%s, settings => %s)', literal($row->{id}), literal(json({ url => at($row->{id}) })));
	$node->safe_psql('postgres', "SELECT retl.cancel_run($run{ $row->{id} }, 'cured')") if $row->{want} eq $waits && $row->{url};
}
# Those who were told to wait for an hour need not: a destination that is altered is asked at once, and another worker looks at the table.
$node->safe_psql('postgres', q{UPDATE retl.batch SET next_attempt_at = now() WHERE status = 'pending'});
$node->safe_psql('postgres', q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'retl_delivery'});
my @again;
for my $row (@table)
{
	my $run = wait_for_run($node, $run{ $row->{id} });
	is("$run->{status} $run->{sent}", "succeeded $rows", "$row->{name}: goes out when it can") or diag(json($run)) if $row->{want} eq $waits && !$row->{url};
	push @again, $row unless $run->{status} eq 'succeeded';
}
my $said = $node->safe_psql('postgres', join "\n", map { "SELECT '$_->{id} ' || retl.sync('$_->{id}');" } @again);
my %second = map { /^(\S+) (\d+)$/ ? ($1 => $2) : () } split /\n/, $said;
for my $row (@again)
{
	my $run = wait_for_run($node, $second{ $row->{id} });
	is($run->{status}, 'succeeded', "$row->{name}: made good by the next sync") or diag(json($run));
}
my $model = model_rows($node, 'SELECT * FROM t', 'id');
for my $row (@table)
{
	my $on = $row->{want} eq $waits || !defined $row->{url} ? $receiver : $row->{on};
	check_oracle("$row->{name}: nothing lost", $on, $model, minimum => $rows,
		$on == $receiver ? (path => qr{/$row->{id}$}) : ());
}
is($node->safe_psql('postgres', 'SELECT count(*) FROM retl.failed_rows'), 0, 'no failed rows are left');

# While a request is under way, nothing is held that others wait for or that keeps vacuum off.
create_webhook($node, 'held', $receiver, settings => { batch_size => $rows });
create_mapping($node, 'held', 't', 'held');
$receiver->rules({ path => '/held', hang => $true });
my $held = sync($node, 'held');
$receiver->wait_for(1, path => '/held');
ok($node->poll_query_until('postgres', q{SELECT bool_and(backend_xmin IS NULL AND xact_start IS NULL) FROM pg_stat_activity WHERE usename ~ '^retl_'}),
	'no transaction and no snapshot is held while a request is under way');
is($node->safe_psql('postgres', "SELECT status FROM retl.runs WHERE id = $held"), 'delivering', '... which it is');
$receiver->rules();
$receiver->release;
is(wait_for_run($node, $held)->{status}, 'succeeded', '... and ends');

# A mapping that is edited, and a secret that is replaced, while a request waits to be sent again.
create_webhook($node, 'edited', $receiver, settings => { batch_size => $rows });
$node->safe_psql('postgres', q{SET log_statement = 'none'; SELECT retl.set_secret('edited', 'bearer_token', 'first')});
create_mapping($node, 'edited', 't', 'edited');
$receiver->rules({ path => '/edited', status => 503, times => 1, headers => { 'Retry-After' => 2 } });
my $id = sync($node, 'edited');
$receiver->wait_for(1, path => '/edited');
$node->safe_psql('postgres', q{SELECT retl.alter_mapping('edited', fields => '{"data": {"key": {"@path": "$.id"}}}')});
$node->safe_psql('postgres', q{SET log_statement = 'none'; SELECT retl.set_secret('edited', 'bearer_token', 'second')});
is(wait_for_run($node, $id)->{status}, 'succeeded', 'a mapping edited and a secret replaced during a run');
my @edited = $receiver->requests(qr{/edited});
is(scalar @edited, 2, '... two requests');
is($edited[1]{body}, $edited[0]{body}, '... with the same bytes');
is(idempotency_key($edited[1]), idempotency_key($edited[0]), '... and key');
is(header($edited[1], 'authorization'), 'Bearer second', '... and the new secret');

# An answer of 500 for ever: given up at last, as a failed row.
create_webhook($node, 'forever', $receiver, settings => { batch_size => $rows });
create_mapping($node, 'forever', 't', 'forever');
$receiver->rules({ path => '/forever', status => 500, headers => { 'Retry-After' => 600 } });
$id = sync($node, 'forever');
$node->poll_query_until('postgres', "SELECT count(*) = 1 FROM retl.batches WHERE run = $id AND attempts = 1") or die 'no attempt';
$node->safe_psql('postgres', "UPDATE retl.batch SET attempts = 14, next_attempt_at = now() WHERE run = $id");
$node->safe_psql('postgres', q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'retl_delivery'});
my $forever = wait_for_run($node, $id);
is("$forever->{status} $forever->{failed}", "failed $rows", 'a stored 500 is not repeated for ever');
my %forever = map { idempotency_key($_) => 1 } $receiver->requests(qr{/forever});
is(scalar keys %forever, 1, '... nor under another key');

$node->stop('fast');
done_testing();
