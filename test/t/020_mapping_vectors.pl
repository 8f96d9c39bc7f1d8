# The mapping language against test/conformance/mapping.json: what its origin makes of the same mappings and events.
use strict;
use warnings;

use B;
use Encode;
use FindBin;
use JSON::PP;
use PostgreSQL::Test::Utils;
use RetlTest;
use Scalar::Util qw(looks_like_number);
use Test::More;

# Some vectors hold text that a decoder refuses (lone surrogates): mapping and event go to the server as they are
# written in the file.
my $value = qr/
  (?(DEFINE)
    (?<string> "(?:[^"\\]|\\.)*+" )
    (?<value> \{ (?: [^{}\[\]"]++ | (?&string) | (?&value) )*+ \}
            | \[ (?: [^{}\[\]"]++ | (?&string) | (?&value) )*+ \]
            | (?&string) | [^,{}\[\]"\s]++ ) )/x;
my $decoder = JSON::PP->new->allow_nonref->utf8;

sub is_number
{
	my ($scalar) = @_;
	my $flags = B::svref_2object(\$scalar)->FLAGS;
	return $flags & (B::SVf_IOK | B::SVf_NOK) && !($flags & B::SVf_POK);
}

# An integer with more digits than Perl has comes as a string.
sub same
{
	my ($a, $b) = @_;
	return !defined $a && !defined $b unless defined $a && defined $b;
	return 0 if ref $a ne ref $b;
	if (ref $a eq 'HASH')
	{
		return keys %$a == keys %$b && !grep { !exists $b->{$_} || !same($a->{$_}, $b->{$_}) } keys %$a;
	}
	if (ref $a eq 'ARRAY')
	{
		return @$a == @$b && !grep { !same($a->[$_], $b->[$_]) } 0 .. $#$a;
	}
	return $a == $b if is_number($a) && is_number($b);
	return 0 if is_number($a) != is_number($b) && !(length($a) > 15 && length($b) > 15);
	return $a eq $b || (length($a) > 15 && looks_like_number($a) && looks_like_number($b) && $a == $b);
}

my $node = new_node('vectors');
my @vectors;
my $sql = q{
CREATE FUNCTION pg_temp.run(mapping json, event json) RETURNS json LANGUAGE plpgsql AS $$
BEGIN
  RETURN json_build_object('result', retl.transform(mapping, event)::text);
EXCEPTION WHEN OTHERS THEN
  RETURN json_build_object('error', SQLERRM, 'code', SQLSTATE);
END $$;
};

open my $file, '<', "$FindBin::Bin/../conformance/mapping.json" or die "mapping.json: $!";
while (my $line = <$file>)
{
	next unless $line =~ /"id":"(?<id>[^"]+)","directive":"(?<directive>[^"]+)"/;
	my %vector = %+;
	$line =~ /"mapping":(?<mapping>(?&value)),"event":(?<event>(?&value))(?<rest>.*)$value/
	  or die "vector $vector{id} cannot be read";
	my ($mapping, $event, $rest) = @+{qw(mapping event rest)};
	$vector{expected} = $+{expected} if $rest =~ /"expected":(?<expected>(?&value))$value/;
	$vector{error} = $+{expected} if $rest =~ /"expected_error":(?<expected>(?&value))$value/;
	$sql .= sprintf "SELECT pg_temp.run(%s, %s);\n", literal($mapping), literal($event);
	push @vectors, \%vector;
}
close $file;

my @results = split /\n/, $node->safe_psql('postgres', $sql);
is(scalar @results, scalar @vectors, 'every vector was run');

for my $vector (@vectors)
{
	my $name = "$vector->{id} $vector->{directive}";
	my $result = $decoder->decode(shift @results);

  SKIP:
	{
		skip "$name: not supported", 1 if ($result->{code} // '') eq '0A000';
		if (defined $vector->{error})
		{
			is($result->{error}, $decoder->decode($vector->{error}), $name);
		}
		else
		{
			my $got = defined $result->{result} ? $decoder->decode(Encode::encode_utf8($result->{result})) : undef;
			my $wanted = defined $vector->{expected} ? $decoder->decode($vector->{expected}) : undef;

			ok(!defined $result->{error} && same($got, $wanted), $name)
			  or diag('wanted ' . ($vector->{expected} // 'nothing') . ', got ' . ($result->{error} // $result->{result} // 'nothing'));
		}
	}
}

$node->stop('fast');
done_testing();
