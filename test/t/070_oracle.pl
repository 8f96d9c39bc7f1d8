# The state of mappings against an oracle: random histories, and all short ones (test/lib/oracle.py). What fails is
# printed in its shortest form with its seed: ORACLE_SEED=n runs from that seed again.
use strict;
use warnings;

use RetlTest;
use Test::More;

my $histories = $ENV{ORACLE_HISTORIES} // 2000;
my $seed = $ENV{ORACLE_SEED} // int(rand(1 << 30));

my $node = new_node('oracle', conf => "retl.enabled = off\nfsync = off\nlog_statement = none\n");
my @command = (
	'/usr/bin/python3', '-B', "$ENV{RETL_TREE}/test/lib/oracle.py",
	'--socket', $node->host, '--port', $node->port, '--data', $node->data_dir,
	'--seed', $seed, '--histories', $histories, '--seconds', 360, '--short');
open my $oracle, '-|', @command or die "oracle: $!";
my ($plan, $wrong) = (0, 0);
while (my $line = readline $oracle)
{
	if ($line =~ /^(not )?ok \d+ - (.*)/)
	{
		ok(!$1, $2);
		$wrong = defined $1;
	}
	elsif ($line =~ /^1\.\.\d+/) { $plan = 1; }
	elsif ($wrong) { diag($line =~ s/^# //r); }
	else { note($line =~ s/^# //r); }
}
close $oracle;
ok($plan, 'the oracle ran to its end');
done_testing();
