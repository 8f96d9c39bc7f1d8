# Connectors against test/conformance/requests.json: the requests that another product sends for the same mappings and
# rows. Where ours does the same thing it must look the same on the wire; where it does it otherwise the reason stands
# here.
use strict;
use warnings;

use Encode;
use FindBin;
use JSON::PP;
use MIME::Base64;
use PostgreSQL::Test::Utils;
use RetlTest;
use Test::More;

my $decoder = JSON::PP->new->allow_nonref->utf8;
my $json = JSON::PP->new->canonical->allow_nonref;
my $value = qr/
  (?(DEFINE)
    (?<string> "(?:[^"\\]|\\.)*+" )
    (?<value> \{ (?: [^{}\[\]"]++ | (?&string) | (?&value) )*+ \}
            | \[ (?: [^{}\[\]"]++ | (?&string) | (?&value) )*+ \]
            | (?&string) | [^,{}\[\]"\s]++ ) )/x;

my %path = map { $_ => { '@path' => "\$.properties.$_" } } qw(email first_name last_name plan mrr id company signed_up);
my $oauth = { access_token => 'oauth-access-1' };

# Of each destination: our connector, its settings and secrets.
my %destinations = (
	'webhook' => [ 'webhook', sub { { url => 'https://hooks.example.com/in' } },
		sub { $_[0]{sharedSecret} ? { shared_secret => $_[0]{sharedSecret} } : {} } ],
	'segment' => [ 'segment', sub { {} }, sub { { write_key => 'wk' } } ],
	'segment-profiles' => [ 'segment_profiles', sub { {} }, sub { { write_key => 'wk' } } ],
	'slack' => [ 'slack', sub { {} }, sub { {} } ],
	'braze' => [ 'braze', sub { { endpoint => $_[0]{endpoint}, app_id => $_[0]{app_id} } }, sub { { api_key => $_[0]{api_key} } } ],
	'hubspot' => [ 'hubspot', sub { {} }, sub { $oauth } ],
	'salesforce' => [ 'salesforce', sub { { instance_url => $_[0]{instanceUrl}, api_version => '53.0' } }, sub { $oauth } ],
	'klaviyo' => [ 'klaviyo', sub { {} }, sub { { api_key => $_[0]{api_key} } } ],
	'customerio' => [ 'customerio', sub { { region => lc substr $_[0]{accountRegion}, 0, 2 } },
		sub { { site_id => $_[0]{siteId}, api_key => $_[0]{apiKey} } } ],
	'iterable' => [ 'iterable', sub { { region => $_[0]{dataCenterLocation} eq 'europe' ? 'eu' : 'us' } }, sub { { api_key => $_[0]{apiKey} } } ],
	'mixpanel' => [ 'mixpanel', sub { { project_token => $_[0]{projectToken}, region => lc substr($_[0]{apiRegion}, 0, 2), source_name => 'segment' } },
		sub { { api_secret => $_[0]{apiSecret} } } ],
	'amplitude' => [ 'amplitude', sub { { endpoint => $_[0]{endpoint}, library => 'segment' } }, sub { { api_key => $_[0]{apiKey} } } ],
	'intercom' => [ 'intercom', sub { {} }, sub { $oauth } ],
	'google-analytics-4' => [ 'google_analytics_4', sub { { measurement_id => $_[0]{measurementId} } }, sub { { api_secret => $_[0]{apiSecret} } } ],
	'sendgrid' => [ 'sendgrid', sub { {} }, sub { { api_key => $_[0]{sendGridApiKey} } } ],
	'attio' => [ 'attio', sub { {} }, sub { $oauth } ],
);

# Fields of theirs that have no place in a mapping of ours: settings here, or what ours does anyway.
my %dropped = (
	customerio => ['convert_timestamp'],
	'segment-profiles' => ['engage_space'],
	'google-analytics-4' => ['data_stream_type'],
);

# The same thing under another name: action, fields (in place of theirs), or more of them.
my %ours = (
	'req-008' => { more => { message_id => undef } },
	'req-010' => { more => { message_id => undef } },
	'req-012' => { more => { message_id => undef } },
	'req-014' => { more => { message_id => undef } },
	'req-020' => { more => { _update_existing_only => JSON::PP::true } },
	'req-024' => { fields => { external_id => 'e1', time => $path{signed_up}, product_id => 'sku', price => $path{mrr}, quantity => 2, properties => { a => 1 } } },
	'req-029' => { action => 'update_object', fields => { object_type => 'contacts', id => $path{email}, id_property => 'email',
			properties => { email => $path{email}, firstname => $path{first_name}, lastname => $path{last_name}, plan => $path{plan} } } },
	'req-037' => { action => 'create_object', fields => { object_type => 'p1_car', properties => { vin => $path{id}, owner => $path{email} } } },
	'req-041' => { action => 'create_record', fields => { object => 'Contact', fields => { LastName => $path{last_name}, FirstName => $path{first_name}, Email => $path{email}, Plan__c => $path{plan} } } },
	'req-051' => { action => 'create_record', fields => { object => 'Lead', fields => { LastName => $path{last_name}, Company => $path{company}, Email => $path{email} } } },
	'req-053' => { action => 'create_record', fields => { object => 'Opportunity', fields => { Name => 'Deal', CloseDate => '2024-06-01', StageName => 'Open', Amount => '10' } } },
	'req-055' => { action => 'create_record', fields => { object => 'Case', fields => { Description => $path{plan} } } },
	'req-076' => { fields => { email => $path{email} } },
	'req-078' => { fields => { cio_id => 'abc', device_id => 'd1', platform => 'ios', last_used => $path{signed_up} } },
	'req-084' => { more => { id => undef } },
);

# What ours does otherwise, and why.
my %otherwise = (
	'req-031' => 'a lifecycle stage is not set back behind the user\'s back: HubSpot refuses it, and the row says so',
	'req-033' => 'one batch/upsert in place of batch/read and batch/create, and a 207 is read row by row',
	'req-035' => 'one batch/upsert, without reading the property definitions before each batch',
	'req-043' => 'an upsert is one PATCH by external id, not a query and then a PATCH',
	'req-045' => 'no query, so no two matches',
	'req-047' => 'collections of 200 records whose results are in the answer, not a bulk job whose results nobody reads',
	'req-049' => 'collections of 200 records whose results are in the answer, not a bulk job whose results nobody reads',
	'req-062' => 'profile-import creates or updates; POST /profiles/ refuses a profile that is there',
	'req-094' => 'no "options=undefined" where there are no options',
	'req-097' => 'no search before each row: a contact is created, or else updated by the id that the refusal names',
	'req-127' => 'two mappings with assert_record, one for people and one for users: each request has its own outcome',
	'req-131' => 'field definitions are not read before each batch: custom fields are given by their ids',
);

sub same
{
	my ($a, $b) = @_;
	return $json->encode($a // $json->decode('null')) eq $json->encode($b // $json->decode('null'));
}

# Numbers compare as numbers, whatever made them.
sub plain
{
	my ($x) = @_;
	return { map { $_ => plain($x->{$_}) } keys %$x } if ref $x eq 'HASH';
	return [ map { plain($_) } @$x ] if ref $x eq 'ARRAY';
	return $x if ref $x || !defined $x;
	return $x + 0 if $json->encode($x) !~ /^"/;
	return $x;
}

sub unescape { my ($text) = @_; $text =~ tr/+/ /; $text =~ s/%(..)/chr hex $1/ge; return $text; }

sub url_parts
{
	my ($base, $query) = split /\?/, $_[0], 2;
	return { base => unescape($base), query => [ sort map { unescape($_) } split /&/, $query // '' ] };
}

sub differences
{
	my ($wanted, $got) = @_;
	my @problems;
	push @problems, "method $got->{method}" if $wanted->{method} ne $got->{method};
	push @problems, "URL $got->{url}" unless same(url_parts($wanted->{url}), url_parts($got->{url}));
	my %headers = map { lc $_ => $got->{headers}{$_} } keys %{ $got->{headers} };
	for my $name (keys %{ $wanted->{headers} })
	{
		push @problems, "header $name " . ($headers{$name} // 'is missing') if ($headers{$name} // '') ne $wanted->{headers}{$name};
	}
	if (exists $wanted->{json})
	{
		push @problems, "body $got->{body}"
		  unless same(plain($wanted->{json}), plain($decoder->decode(Encode::encode_utf8($got->{body}))));
	}
	elsif (exists $wanted->{form})
	{
		my %form = map { map { unescape($_) } split /=/, $_, 2 } split /&/, $got->{body};
		push @problems, "body $got->{body}"
		  unless same([ sort keys %form ], [ sort keys %{ $wanted->{form} } ])
		  && !grep {
			my ($x, $y) = map { eval { $decoder->decode(Encode::encode_utf8($_)) } // $_ } $form{$_}, $wanted->{form}{$_};
			!same(plain($x), plain($y));
		  } keys %form;
	}
	elsif (exists $wanted->{body}) { push @problems, "body $got->{body}" if $wanted->{body} ne $got->{body}; }
	return @problems;
}

my $node = new_node('requests');
$node->safe_psql('postgres', q{
CREATE FUNCTION public.requests(connector text, action text, fields text, settings text, secrets text, batch_size int, operation text, data text)
  RETURNS text LANGUAGE c AS 'retl', 'retl_test_requests';
CREATE FUNCTION public.verdicts(rule text, status int, answer text, sent text, records int)
  RETURNS text[] LANGUAGE c STRICT AS 'retl', 'retl_test_response';
CREATE FUNCTION public.run(connector_name text, action text, fields text, settings text, secrets text, batch_size int, data text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
  RETURN public.requests((SELECT definition::text FROM retl.connector WHERE name = connector_name), action, fields, settings, secrets, batch_size, 'added', data);
EXCEPTION WHEN OTHERS THEN
  RETURN json_build_object('error', SQLERRM);
END $$;
});

open my $file, '<', "$FindBin::Bin/../conformance/requests.json" or die "requests.json: $!";
my ($passed, $excused) = (0, 0);
while (my $line = <$file>)
{
	next unless $line =~ /^\s*\{"id"/;
	$line =~ s/,\s*$//;
	my $vector = $decoder->decode($line);
	my $destination = $destinations{ $vector->{destination} } or next;
	my $name = "$vector->{id} $vector->{destination} $vector->{action}";

	if (my $reason = $otherwise{ $vector->{id} })
	{
		pass("$name: otherwise, since $reason");
		$excused++;
		next;
	}
	# rows as they are written: a signature is over their bytes
	$line =~ /"rows":(?<rows>(?&value)).*$value/ or die "vector $vector->{id} cannot be read";
	my $rows = Encode::decode_utf8($+{rows});
	my $ours = $ours{ $vector->{id} } // {};
	my $fields = $ours->{fields} // { %{ $vector->{mapping} }, %{ $ours->{more} // {} } };
	delete $fields->{$_} for @{ $dropped{ $vector->{destination} } // [] };
	my ($connector, $settings, $secrets) = @$destination;
	my $mapped = Encode::decode_utf8($line =~ /"mapping":(?<mapping>(?&value)).*$value/ && !$ours->{fields} && !$ours->{more} &&
		  !$dropped{ $vector->{destination} } ? $+{mapping} : Encode::encode_utf8(json($fields)));
	my $result = $decoder->decode(Encode::encode_utf8($node->safe_psql('postgres',
		'SELECT public.run(' . join(', ', map { literal($_) } $connector, $ours->{action} // $vector->{action}, $mapped,
			json($settings->($vector->{settings})), json($secrets->($vector->{settings})))
		  . ', ' . ($vector->{batch} ? 0 : 1) . ', ' . literal($rows) . ')')));
	my @got = @{ $result->{requests} // [] };
	my @problems = defined $result->{error} ? "error $result->{error}" : map { $_->{error} // () } @got;
	my @results = @{ $vector->{expected_results} };

	if ($results[0]{returned})
	{
		@problems = 'body ' . ($got[0]{body} // 'none')
		  unless !@problems && same(plain($results[0]{returned}), plain($decoder->decode(Encode::encode_utf8($got[0]{body}))));
	}
	elsif (!@{ $vector->{expected_requests} })
	{
		# nothing is sent: a mapping may as well be refused when it is created
		@problems = @got ? 'a request is made' : ();
	}
	else
	{
		push @problems, scalar(@got) . ' requests' if @got != @{ $vector->{expected_requests} };
		push @problems, differences($vector->{expected_requests}[$_], $got[$_]) for grep { $got[$_] && !$got[$_]{error} } 0 .. $#{ $vector->{expected_requests} };
		# which rows fail, before and after sending
		my @failed = map { defined $_ ? 1 : 0 } @{ $result->{rows} // [] };
		if (my ($reply) = grep { $_->{body}{errors} || $_->{body}{failed_records} } @{ @got ? $vector->{replies} // [] : [] })
		{
			my $verdicts = $node->safe_psql('postgres', sprintf(
				q{SELECT array_to_json(v) FROM retl.connector c, json_each(c.definition -> 'actions') a,
				  public.verdicts((a.value -> 'response')::text, %d, %s, %s, %d) v
				  WHERE c.name = %s AND (a.value -> 'alias')::jsonb ? %s},
				$reply->{status}, literal(json($reply->{body})), literal($got[0]{stored}), $got[0]{records}, literal($connector), literal($vector->{action})));
			@failed = map { /^accepted/ ? 0 : 1 } @{ $json->decode($verdicts) };
		}
		my @wanted = map { exists $_->{ok} ? !$_->{ok} + 0 : $_->{status} >= 400 ? 1 : 0 } @results;
		push @problems, "rows that fail: @failed" if "@failed" ne "@wanted";
	}
	$passed++ if ok(!@problems, $name);
	diag(join "\n", @problems) if @problems;
}
close $file;
cmp_ok($excused, '<=', 12, 'few are done otherwise');
is($passed + $excused, 52, 'every vector of these destinations was looked at');

$node->stop('fast');
done_testing();
