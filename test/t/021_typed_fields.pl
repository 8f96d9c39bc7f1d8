# Typed fields against test/conformance/validation.json. Where its origin treats a record alone and one in a batch
# differently, retl has one rule for both: that of the record alone.
use strict;
use warnings;

use FindBin;
use JSON::PP;
use PostgreSQL::Test::Utils;
use RetlTest;
use Test::More;

my $decoder = JSON::PP->new->allow_nonref->utf8->canonical;
my $node = new_node('fields');
my @vectors = grep { /^\{/ } split /,?\n/, slurp_file("$FindBin::Bin/../conformance/validation.json");
my $sql = "CREATE FUNCTION pg_temp.coerce(text, text) RETURNS text LANGUAGE c AS 'retl', 'retl_test_fields';\n";

for my $vector (@vectors)
{
	$vector = $decoder->decode($vector);
	$sql .= sprintf "SELECT pg_temp.coerce(%s, %s);\n", map { literal($decoder->encode($_)) } @{$vector}{qw(fields payload)};
}
my @results = split /\n/, $node->safe_psql('postgres', $sql);
is(scalar @results, scalar @vectors, 'every vector was run');

for my $vector (@vectors)
{
	my $expected = $vector->{expected} // $vector->{expected_single};

	# what a validator of JSON schemas says besides
	my @errors = grep { !/must match "then" schema/ } @{ $expected->{errors} // [] };
	my $wanted = $expected->{ok} ? { payload => $expected->{payload} } : { errors => \@errors };
	my $got = $decoder->decode(shift @results);
	is($decoder->encode($got), $decoder->encode($wanted), "$vector->{id} " . $decoder->encode($vector->{payload}));
}

$node->stop('fast');
done_testing();
