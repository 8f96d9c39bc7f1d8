# Snapshots of random models against an oracle in SQL (test/lib/exact.py). What differs is printed with its seed and case;
# EXACT_SEED=n EXACT_SECONDS=m make check TESTS=t/034_exactness runs from that seed.
use strict;
use warnings;

use RetlTest;
use Test::More;

my $node = new_node('exact', conf => "retl.enabled = off\nfsync = off\nlog_statement = none\n");
$node->safe_psql('postgres', 'CREATE EXTENSION IF NOT EXISTS retl');
my @command = (
	'/usr/bin/python3', '-B', "$ENV{RETL_TREE}/test/lib/exact.py", '--socket', $node->host, '--port', $node->port,
	'--seconds', $ENV{EXACT_SECONDS} // 20, '--seed', $ENV{EXACT_SEED} // int(rand(1 << 30)));
open my $oracle, '-|', @command or die "exact: $!";
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
