# What destinations do to us: every fault ends in delivery or in a failed row that can be seen and retried.
use strict;
use warnings;

use IO::Socket::INET;
use PostgreSQL::Test::Utils;
use RetlTest;
use Test::More;

my $node = new_node('faults');
my $receiver = new_receiver();

$node->safe_psql('postgres', q{
CREATE TABLE t (id int PRIMARY KEY, v int NOT NULL DEFAULT 1, name text);
INSERT INTO t SELECT i, 1, 'row ' || i FROM generate_series(1, 20) i;
SELECT retl.create_model('t', 't', '{id}');
});
my $rows = model_rows($node, 'SELECT * FROM t', 'id');

# A mapping of its own for each case, over the same model.
my $cases = 0;
sub case_of
{
	my (%options) = @_;
	my $name = 'case' . ++$cases;
	create_webhook($node, $name, $receiver, %{ $options{webhook} // {} });
	create_mapping($node, $name, 't', $name, %{ $options{mapping} // {} });
	return $name;
}

sub finishes
{
	my ($label, $rule, $want, %options) = @_;
	my $name = case_of(%options);
	$receiver->rules($rule ? { path => "/$name\$", %$rule } : ());
	my $run = sync_and_wait($node, $name);
	is("$run->{status} sent $run->{sent} failed $run->{failed}", $want, $label) or diag(json($run));
	return ($name, $run, $receiver->requests(qr{/$name$}));
}

sub repeats
{
	my (@requests) = @_;
	my %bodies;
	# Of a request that was cut off, the receiver has not seen the body.
	push @{ $bodies{ idempotency_key($_) } }, $_->{complete} ? $_->{body} : () for @requests;
	my $same = 1;
	for my $sent (values %bodies) { $same &&= $_ eq $sent->[0] for @$sent; }
	return ($same ? 'same' : 'other') . ' ' . (@requests - keys %bodies);
}

# Answers that pass by themselves.
for my $status (408, 429, 500, 502, 503, 504)
{
	my ($name, $run, @requests) = finishes("$status once", { status => $status, times => 1, headers => { 'Retry-After' => 0 } },
		'succeeded sent 20 failed 0');
	is(repeats(@requests), 'same 1', "... one repetition, same key and bytes");
	is($run->{retried}, 1, '... counted');
	check_oracle("... $status", $receiver, $rows, path => qr{/$name$});
}

# Retry-After is obeyed.
my ($name, $run, @requests) =
  finishes('429 with Retry-After', { status => 429, times => 1, headers => { 'Retry-After' => 2 } }, 'succeeded sent 20 failed 0',
	mapping => { batch_size => 50 });
cmp_ok($requests[1]{at} - $requests[0]{at}, '>=', 1.9, '... waits as long as it was told');
cmp_ok($requests[1]{at} - $requests[0]{at}, '<', 20, '... and not much longer');

# Refusals: the row fails, is shown, and can be retried.
for my $status (400, 404, 409, 410, 422)
{
	next if $status == 409;    # means different things at different tools
	($name, $run, @requests) = finishes("$status for one record", { status => $status, match => '"row 7"' },
		'partial sent 19 failed 1');
	is($node->safe_psql('postgres', "SELECT key || ' ' || http_status FROM retl.failed_rows WHERE mapping::text = '$name'"),
		"7 $status", '... shown as failed');
	$receiver->rules();
	$node->safe_psql('postgres', "SELECT retl.retry_failed('$name')");
	$node->poll_query_until('postgres', "SELECT count(*) = 0 FROM retl.failed_rows WHERE mapping::text = '$name'")
	  or die 'the failed row stays';
	pass('... gone when retried');
	check_oracle("... $status", $receiver, $rows, path => qr{/$name$});
}

# A failed row heals by itself at the next sync when the destination has come to its senses.
($name, $run) = finishes('a refusal before a change', { status => 422, match => '"row 3"' }, 'partial sent 19 failed 1');
$receiver->rules();
$run = sync_and_wait($node, $name);
is("$run->{status} $run->{sent}", 'succeeded 1', '... is made good by the next sync') or diag(json($run));
check_oracle('... then', $receiver, $rows, path => qr{/$name$});

# A batch that is refused for one record: bisected.
($name, $run, @requests) = finishes('one bad record in a batch of 20', { status => 422, match => '"row 7"' }, 'partial sent 19 failed 1',
	mapping => { batch_size => 20 });
cmp_ok(scalar @requests, '<=', 1 + 2 * 5, '... found by halving');
my %keys = map { idempotency_key($_) => 1 } @requests;
is(scalar keys %keys, scalar @requests, '... every part has a key of its own');

# Connections that break: the outcome is unknown, so the same request comes again, and only that.
for my $case (
	[ 'closed after the request', { close => 'read', times => 1 } ],
	[ 'reset after the request', { close => 'read', reset => JSON::PP::true, times => 1 } ],
	[ 'reset after the head', { close => 'headers', reset => JSON::PP::true, times => 1 } ],
	[ 'closed amid the answer', { close => 'answer', times => 1 } ],
	[ 'an answer cut short', { cut => 3, times => 1 } ],
	[ 'garbage', { raw => "GET lost\r\n\r\n", times => 1 } ],
	[ 'HTTP/0.9', { raw => 'fine', times => 1 } ])
{
	($name, $run, @requests) = finishes($case->[0], $case->[1], 'succeeded sent 20 failed 0', mapping => { batch_size => 4 });
	like(repeats(@requests), qr/^same [01]$/, '... repeated once at most, with the same key and bytes');
	check_oracle("... $case->[0]", $receiver, $rows, path => qr{/$name$});
}
# On a connection that was used before, libcurl would send a second POST by itself.
($name, $run, @requests) = finishes('closed on the third use', { close => 'read', skip => 2, times => 1 },
	'succeeded sent 20 failed 0', mapping => { batch_size => 1 });
is(repeats(@requests), 'same 1', '... one repetition');
is($run->{retried}, 1, '... which is ours and counted');

# Answers that are a nuisance.
for my $case (
	[ 'status 204', { status => 204 } ],
	[ 'status 201', { status => 201, body => '' } ],
	[ 'status 202', { status => 202 } ],
	[ 'a chunked answer', { chunked => JSON::PP::true } ],
	[ 'early hints', { informational => [ 102, 103, 103 ] } ],
	[ 'a huge answer', { huge => 20_000_000, times => 1 } ],
	[ 'a bomb', { gzip_bomb => 100_000_000, times => 1 } ],
	[ 'many headers', { headers => { map { ("X-Filler-$_" => 'f' x 100) } 1 .. 50 } } ],
	[ 'connection: close', { close_after => JSON::PP::true } ])
{
	finishes($case->[0], $case->[1], 'succeeded sent 20 failed 0', mapping => { batch_size => 10 });
}

# A redirect is not followed: it could point anywhere.
my $elsewhere = new_receiver();
($name, $run) = finishes('a redirect', { redirect => $elsewhere->url . '/stolen' }, 'failed sent 0 failed 20', mapping => { batch_size => 20 });
is(scalar $elsewhere->requests, 0, '... is not followed');

# Addresses that must not be reached: the list of allowed networks is 127/8, so not ::1.
create_webhook($node, 'inside', $receiver, settings => { url => 'http://[::1]:' . $receiver->port . '/inside' });
create_mapping($node, 'inside', 't', 'inside', batch_size => 20);
$run = sync_and_wait($node, 'inside');
unlike($run->{status}, qr/succeeded/, 'an address that is not allowed is refused');

# Refused connections: not sent, so tried again until there is a listener.
my $socket = IO::Socket::INET->new(Listen => 1, LocalAddr => '127.0.0.1') or die $!;
my $port = $socket->sockport;
close $socket;
create_webhook($node, 'down', $receiver, settings => { url => "http://127.0.0.1:$port/down" });
create_mapping($node, 'down', 't', 'down', batch_size => 20);
my $id = sync($node, 'down');
$node->poll_query_until('postgres', "SELECT count(*) > 0 FROM retl.batches WHERE run = $id AND attempts > 0")
  or die 'nothing was tried';
my $late = new_receiver(port => $port);
$run = wait_for_run($node, $id);
is("$run->{status} sent $run->{sent}", 'succeeded sent 20', 'a destination that comes up later') or diag(json($run));
check_oracle('... then', $late, $rows, minimum => 20);

# No destination slows down because another hangs.
my $hanging = case_of(mapping => { batch_size => 5 });
$receiver->rules({ path => "/$hanging\$", hang => JSON::PP::true });
my $stuck = sync($node, $hanging);
$receiver->wait_for(1, path => "/$hanging\$");
my $other = case_of(mapping => { batch_size => 5 });
$run = sync_and_wait($node, $other);
is("$run->{status} sent $run->{sent}", 'succeeded sent 20', 'another destination goes on while one hangs') or diag(json($run));
$receiver->rules();
$receiver->release;
$run = wait_for_run($node, $stuck);
is("$run->{status} sent $run->{sent}", 'succeeded sent 20', 'the hanging one too, when it answers') or diag(json($run));

# Cancel: no new request, and what was not delivered is sent by the next sync.
my $cancelled = case_of(mapping => { batch_size => 5 });
$receiver->rules({ path => "/$cancelled\$", hang => JSON::PP::true });
$id = sync($node, $cancelled);
$receiver->wait_for(1, path => "/$cancelled\$");
$node->safe_psql('postgres', "SELECT retl.cancel_run($id, 'test')");
$receiver->rules();
$receiver->release;
$run = wait_for_run($node, $id);
is($run->{status}, 'canceled', 'canceled') or diag(json($run));
$run = sync_and_wait($node, $cancelled);
is($run->{status}, 'succeeded', 'the next sync') or diag(json($run));
check_oracle('... makes it whole', $receiver, $rows, path => qr{/$cancelled$});

# A fast shutdown does not wait for a hanging destination.
my $last = case_of(mapping => { batch_size => 5 });
$receiver->rules({ path => "/$last\$", hang => JSON::PP::true });
$id = sync($node, $last);
$receiver->wait_for(1, path => "/$last\$");
my $began = time;
$node->stop('fast');
cmp_ok(time - $began, '<=', 10, 'shutdown while a request is under way');
$receiver->rules();
$receiver->release;
$node->start;
$run = wait_for_run($node, $id);
is($run->{status}, 'succeeded', 'after the restart it is delivered') or diag(json($run));
check_oracle('... whole', $receiver, $rows, path => qr{/$last$});

$node->stop('fast');
done_testing();
