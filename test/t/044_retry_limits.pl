# How often and how long a request is tried, and what becomes of its records.
use strict;
use warnings;

use IO::Socket::INET;
use POSIX qw(strftime);
use RetlTest;
use Test::More;

my $node = new_node('retries', conf => "retl.retry_delay = 20ms\nretl.max_retry_delay = 100ms\n");
my $receiver = new_receiver();
$node->safe_psql('postgres', q{
CREATE TABLE t (id int PRIMARY KEY, v int NOT NULL DEFAULT 1);
INSERT INTO t SELECT i, 1 FROM generate_series(1, 20) i;
SELECT retl.create_model('t', 't', '{id}');
});

sub query { return $node->safe_psql('postgres', $_[0]); }

sub outcome
{
	my ($run) = @_;
	return "$run->{status} sent $run->{sent} failed $run->{failed}";
}

sub case_of
{
	my ($name, %options) = @_;
	create_webhook($node, $name, $receiver, settings => $options{settings} // {});
	create_mapping($node, $name, 't', $name, batch_size => 20, max_change_percent => 100, %{ $options{mapping} // {} });
	return $name;
}

sub failed
{
	my ($name) = @_;
	return query("SELECT count(*) || ' ' || string_agg(DISTINCT reason || ' ' || maybe, ', ') FROM retl.failed_rows WHERE mapping::text = '$name'");
}

# Answers that say "later".
case_of('later', mapping => { max_attempts => 3 });
$receiver->rules({ path => '/later', status => 429 });
is(outcome(sync_and_wait($node, 'later')), 'failed sent 0 failed 20', 'a request that is tried three times');
my @requests = $receiver->requests(qr{/later});
is(scalar @requests, 3, '... and no more');
is(failed('later'), '20 gave_up false', '... its records stand as failed');
query('UPDATE t SET v = 2');
$receiver->rules();
$receiver->clear;
is(outcome(sync_and_wait($node, 'later')), 'succeeded sent 20 failed 0', '... the next run tries them again');
check_oracle('... as they are by then', $receiver, model_rows($node, 'SELECT * FROM t', 'id'), path => qr{/later});
is(failed('later'), '', '... and nothing stands any more');

# No answer: the destination may have got it.
case_of('silent', mapping => { max_attempts => 2 });
$receiver->rules({ path => '/silent', close => 'read' });
is(outcome(sync_and_wait($node, 'silent')), 'failed sent 0 failed 20', 'a request that is tried twice, and never answered');
is(scalar $receiver->requests(qr{/silent}), 2, '... no more');
is(failed('silent'), '20 gave_up true', '... its records may be there');
$receiver->rules();
query('DELETE FROM t WHERE id = 20');
is(outcome(sync_and_wait($node, 'silent')), 'succeeded sent 20 failed 0', '... one that is gone since is deleted');
is(query(q{SELECT deleted FROM retl.runs WHERE mapping::text = 'silent' ORDER BY id DESC LIMIT 1}), 1, '... for that reason');

# Age: of a request that is tried, and of a destination that is not there.
case_of('old', mapping => { max_age => '1 s' });
$receiver->rules({ path => '/old', status => 408 });
is(sync_and_wait($node, 'old')->{status}, 'failed', 'requests are tried for a second');
is(query(q{SELECT count(*) FROM retl.failed_rows WHERE mapping::text = 'old'}), 19, '... and stand as failed');
@requests = $receiver->requests(qr{/old});
cmp_ok(scalar @requests, '>=', 3, '... more than once');
cmp_ok($requests[-1]{at} - $requests[0]{at}, '>=', 0.5, '... while there is time') if @requests > 4;
cmp_ok($requests[-1]{at} - $requests[0]{at}, '<', 5, '... and no longer');
my $socket = IO::Socket::INET->new(Listen => 1, LocalAddr => '127.0.0.1') or die;
my $port = $socket->sockport;
close $socket;
case_of('gone', settings => { url => "http://127.0.0.1:$port/gone", concurrency => 1 }, mapping => { max_age => '2 s', batch_size => 1 });
my $run = sync_and_wait($node, 'gone');
is($run->{status}, 'failed', 'a destination that is not there for longer than that');
like($run->{error}, qr/accepted nothing for as long as max_age says: .*connect/i, '... fails the run, and it says why');
cmp_ok(query(q{SELECT count(*) FROM retl.batches WHERE mapping::text = 'gone' AND attempts = 0}), '>', 0, '... though not every request was tried');
is(query(q{SELECT count(*) FROM retl.failed_rows WHERE mapping::text = 'gone'}), 19, '... and nothing is lost');
query(sprintf q{SELECT retl.alter_destination('gone', %s)}, literal(json({ url => $receiver->url . '/gone' })));
is(outcome(sync_and_wait($node, 'gone')), 'succeeded sent 19 failed 0', '... it is sent when it is there');

# Retry-After as a date.
case_of('dated');
$receiver->rules({ path => '/dated', status => 503, times => 1, headers => { 'Retry-After' => strftime('%a, %d %b %Y %H:%M:%S GMT', gmtime(time + 3)) } });
is(outcome(sync_and_wait($node, 'dated')), 'succeeded sent 19 failed 0', 'a destination that says when to come back');
@requests = $receiver->requests(qr{/dated});
cmp_ok($requests[1]{at} - $requests[0]{at}, '>', 1, '... is obeyed');

# The clock of a request starts when it is sent, not when it is planned.
case_of('queued', settings => { timeout => 1, concurrency => 1 }, mapping => { batch_size => 1 });
$receiver->rules({ path => '/queued', delay => 0.2 });
$run = sync_and_wait($node, 'queued');
is(outcome($run) . " retried $run->{retried}", 'succeeded sent 19 failed 0 retried 0', 'requests wait for longer than one may take');

# An edit.
like(query(q{SELECT retl.alter_mapping('later', reset => '{max_attempts}', max_age => '1 hour'); SELECT max_attempts IS NULL, max_age, version FROM retl.mappings WHERE name::text = 'later'}),
	qr/t\|01:00:00\|2/, 'limits can be altered and reset');
my ($code, $out, $error) = $node->psql('postgres', q{SELECT retl.alter_mapping('later', max_attempts => 0)});
like($error, qr/max_attempts must be 1 or more/, '... to what makes sense');
($code, $out, $error) = $node->psql('postgres', q{SELECT retl.alter_mapping('later', max_age => '-1 day')});
like($error, qr/max_age must be longer than nothing/, '... both of them');

done_testing();
