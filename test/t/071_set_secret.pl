# The value of a secret is in the table and nowhere else: whatever goes wrong while it is set.
use strict;
use warnings;

use IPC::Run;
use PostgreSQL::Test::Utils;
use RetlTest;
use Test::More;

my $node = new_node('set_secret', conf => "retl.enabled = off\nlog_statement = none\nlog_min_error_statement = notice\nlog_error_verbosity = verbose\n");
my $canary = 'canary-5f2c9e';

$node->safe_psql(
	'postgres', q{
CREATE ROLE ann; CREATE ROLE bob;
GRANT EXECUTE ON ALL ROUTINES IN SCHEMA retl TO ann, bob;
SET ROLE ann;
SELECT retl.create_destination('hook', 'webhook', '{"url": "https://hook.example"}');
});

my @mistakes = (
	[ 'no such destination', "SET ROLE ann; SELECT retl.set_secret('hok', 'bearer_token', '$canary')" ],
	[ 'no such secret', "SET ROLE ann; SELECT retl.set_secret('hook', 'token', '$canary')" ],
	[ 'no name', "SET ROLE ann; SELECT retl.set_secret('hook', NULL, '$canary')" ],
	[ 'not the owner', "SET ROLE bob; SELECT retl.set_secret('hook', 'bearer_token', '$canary')" ],
	[ 'read only', "SET ROLE ann; BEGIN READ ONLY; SELECT retl.set_secret('hook', 'bearer_token', '$canary')" ],
	[ 'in PL/pgSQL', "SET ROLE ann; DO \$\$BEGIN PERFORM retl.set_secret('hok', 'bearer_token', '$canary'); END\$\$" ],
	[ 'given as a reference', qq{SET ROLE ann; SELECT retl.create_destination('d', 'webhook', '{"url": "https://hook.example"}', '{"bearer_token": "$canary"}')} ],
	[ 'given as a setting', qq{SET ROLE ann; SELECT retl.create_destination('d', 'webhook', '{"url": "https://hook.example", "bearer_token": "$canary"}')} ]);

for my $mistake (@mistakes)
{
	my ($what, $sql) = @$mistake;
	my ($ret, $out, $err) = $node->psql('postgres', $sql);
	isnt($ret, 0, "$what: refused");
	unlike($err =~ s/^(?:LINE \d+|CONTEXT|SQL statement).*$//mgr, qr/$canary/, '... without the value');
}
is($node->safe_psql('postgres', "SET ROLE ann; SELECT retl.set_secret('hook', 'bearer_token', '$canary')"), '', 'set');
unlike(slurp_file($node->logfile), qr/$canary/, 'the log does not have it');
is($node->safe_psql('postgres', 'SELECT value FROM retl.secret'), $canary, 'the table has');

# Settings that log the statement: refused, and the message says that it is too late.
for my $setting (q{log_statement = 'all'}, 'log_min_duration_statement = 0', 'log_min_duration_sample = 0', 'log_transaction_sample_rate = 1', 'debug_print_parse = on')
{
	my ($name) = split / /, $setting;
	my ($ret, $out, $err) = $node->psql('postgres', "SET $setting; SELECT retl.set_secret('hook', 'signing_key', 'other')");
	like($err, qr/a secret cannot be set while $name puts statements into the server's log/, "$name: refused");
}
is($node->safe_psql('postgres', 'SELECT count(*) FROM retl.secret'), '1', 'none was set');

# Nor is it in a dump.
my ($dump, $err) = ('', '');
IPC::Run::run([ 'pg_dump', '-d', $node->connstr('postgres') ], '>', \$dump, '2>', \$err) or die "pg_dump: $err";
unlike($dump, qr/$canary/, 'a dump does not have it');
like($dump, qr/hook\.example/, '... but the destination');

$node->stop('fast');
done_testing();
