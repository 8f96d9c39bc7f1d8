# RetlTest: what the TAP tests share. Clusters with retl preloaded, the receiver
# (test/lib/receiver.py), fault points, and the oracle that compares what a
# receiver was told with what the model says.
package RetlTest;

use strict;
use warnings;

use Exporter 'import';
use JSON::PP;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

our @EXPORT = qw(
  new_node new_receiver arm_fault fault_armed wait_gone start_after_kill worker_pid
  create_webhook create_mapping sync sync_and_wait run_row wait_for_run
  records_of idempotency_key header check_oracle json literal
);

# Whoever runs the tests, the superuser is postgres.
$ENV{PGUSER} = 'postgres';

my $json = JSON::PP->new->canonical->allow_nonref;
# What psql prints is bytes; the receiver's log is ASCII.
my $json_bytes = JSON::PP->new->canonical->allow_nonref->utf8;

sub json { return $json->encode($_[0]); }

sub literal
{
	my ($text) = @_;
	return 'NULL' unless defined $text;
	$text =~ s/'/''/g;
	return "'$text'";
}

# A started cluster with the extension in database postgres. Options: conf (lines of settings), extension => 0.
sub new_node
{
	my ($name, %options) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name);
	$node->init(extra => [ '-U', 'postgres' ]);
	$node->append_conf('postgresql.conf', slurp_file($ENV{RETL_CONF}));
	$node->append_conf(
		'postgresql.conf', qq{
retl.allowed_private_networks = '127.0.0.0/8'
log_line_prefix = '%m [%p] %b %q%a '
log_statement = none
max_worker_processes = 16
restart_after_crash = on
});
	$node->append_conf('postgresql.conf', $options{conf}) if defined $options{conf};
	mkdir $node->data_dir . '/retl_fault' or die "retl_fault: $!";
	$node->start;
	$node->safe_psql('postgres', 'CREATE EXTENSION retl') unless defined $options{extension} && !$options{extension};
	return $node;
}

# The next passage of the fault point does the action: "kill", "kill_postmaster", "error", "term", with an
# optional count ("kill 3": at the third passage).
sub arm_fault
{
	my ($node, $point, $action) = @_;
	my $path = $node->data_dir . "/retl_fault/$point";
	append_to_file("$path.new", "$action\n");
	rename "$path.new", $path or die "$path: $!";
	return;
}

# Whether the fault point was not passed yet.
sub fault_armed
{
	my ($node, $point) = @_;
	return -e $node->data_dir . "/retl_fault/$point";
}

# Waits until a process is gone, as a start right after kill -9 is refused while it is not.
sub wait_gone
{
	my ($pid) = @_;
	for (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default)
	{
		return 1 unless kill 0, $pid;
		select undef, undef, undef, 0.1;
	}
	die "process $pid does not go away";
}

# Starts a cluster whose postmaster was killed with SIGKILL.
sub start_after_kill
{
	my ($node, $pid) = @_;
	wait_gone($pid);
	# Only so that the node knows: the process is gone.
	$node->kill9;
	# Its children hold the shared memory until they notice.
	for (1 .. 100)
	{
		return if $node->start(fail_ok => 1);
		select undef, undef, undef, 0.2;
	}
	die 'no start after the kill';
}

# pid of a worker: kind "snapshot" or "delivery"; waits until there is one.
sub worker_pid
{
	my ($node, $kind) = @_;
	my $role = "retl_$kind";
	my $query = "SELECT pid FROM pg_stat_activity WHERE usename = '$role' LIMIT 1";
	$node->poll_query_until('postgres', "SELECT count(*) > 0 FROM ($query) q") or die "no $kind worker";
	return $node->safe_psql('postgres', $query);
}

# A webhook destination that points to a path of the receiver.
sub create_webhook
{
	my ($node, $name, $receiver, %options) = @_;
	my $settings = { url => $receiver->url . ($options{path} // "/$name"), %{ $options{settings} // {} } };
	$node->safe_psql($options{database} // 'postgres',
		sprintf(
			"SELECT retl.create_destination(name => %s, connector => 'webhook', settings => %s)",
			literal($name), literal(json($settings))));
	return;
}

# An enabled mapping. Options: fields (default: key, operation and the whole row), records, and what else
# create_mapping takes.
sub create_mapping
{
	my ($node, $name, $model, $destination, %options) = @_;
	my $database = delete $options{database} // 'postgres';
	my $fields = delete $options{fields} // whole_row();
	my $action = delete $options{action} // 'send';
	my %arguments = (
		name => $name,
		model => $model,
		destination => $destination,
		action => $action,
		fields => ref $fields ? json($fields) : $fields,
		enabled => 'true',
		records => '{added,updated,deleted}',
		%options);
	$node->safe_psql($database,
		'SELECT retl.create_mapping('
		  . join(', ', map { "$_ => " . literal($arguments{$_}) } sort keys %arguments) . ')');
	return;
}

# Fields that send the key, the operation and the row, for the oracle.
sub whole_row
{
	return {
		data => {
			key => { '@path' => '$.__segment_id' },
			op => { '@path' => '$.event' },
			row => { '@path' => '$.properties' },
		}
	};
}

sub sync
{
	my ($node, $mapping, $database) = @_;
	return $node->safe_psql($database // 'postgres', 'SELECT retl.sync(' . literal($mapping) . ')');
}

# The run as retl.runs shows it.
sub run_row
{
	my ($node, $run, $database) = @_;
	return $json_bytes->decode(
		$node->safe_psql($database // 'postgres', "SELECT row_to_json(r) FROM retl.runs r WHERE id = $run"));
}

sub wait_for_run
{
	my ($node, $run, $database) = @_;
	$database //= 'postgres';
	$node->poll_query_until($database, "SELECT count(*) = 1 FROM retl.runs WHERE id = $run AND finished_at IS NOT NULL")
	  or die "run $run does not end: "
	  . ($node->safe_psql($database, "SELECT row_to_json(r) FROM retl.runs r WHERE id = $run") || 'no row');
	return run_row($node, $run, $database);
}

sub sync_and_wait
{
	my ($node, $mapping, $database) = @_;
	return wait_for_run($node, sync($node, $mapping, $database), $database);
}

sub header
{
	my ($request, $name) = @_;
	for my $header (@{ $request->{headers} })
	{
		return $header->[1] if lc $header->[0] eq lc $name;
	}
	return undef;
}

sub idempotency_key { return header($_[0], 'idempotency-key'); }

# The records of a request: one object, or an array of them.
sub records_of
{
	my ($request) = @_;
	my $body = $json->decode($request->{body});
	return ref $body eq 'ARRAY' ? @$body : ($body);
}

# What must hold of all that a receiver accepted, and of what it holds at the end:
#
# - nothing lost, nothing else: its state, made of the accepted requests in their order, is the model's;
# - a request is repeated only with the same idempotency key and the same bytes;
# - per key, versions (the column "v", growing with every change of a row) never go back between first arrivals.
#
# $expected: key => row (hash of the columns, as JSON has them). Options: path (regular expression), minimum (records).
sub check_oracle
{
	my ($name, $receiver, $expected, %options) = @_;
	return new_oracle($receiver, path => $options{path})->check($name, $expected, minimum => $options{minimum});
}

# The same, checked time and again: each check takes what has arrived since. {records} and {repeated} count.
sub new_oracle
{
	my ($receiver, %options) = @_;
	return bless {
		receiver => $receiver, path => $options{path},
		taken => 0, records => 0, repeated => 0, state => {}, bodies => {}, version => {} }, 'RetlTest::Oracle';
}
push @EXPORT, 'new_oracle';

sub RetlTest::Oracle::check
{
	my ($self, $name, $expected, %options) = @_;
	my ($state, $bodies, $version) = @$self{qw(state bodies version)};
	my @problems;
	my @requests = $self->{receiver}->requests;

	for my $request (@requests[ $self->{taken} .. $#requests ])
	{
		next if defined $self->{path} && $request->{path} !~ $self->{path};
		next unless $request->{complete};
		my $key = idempotency_key($request);
		if (!defined $key)
		{
			push @problems, "request $request->{n} has no idempotency key";
			next;
		}
		my $seen = exists $bodies->{$key};
		push @problems, "key $key came with two bodies" if $seen && $bodies->{$key} ne $request->{body};
		$bodies->{$key} = $request->{body};
		$self->{repeated}++ if $seen;
		# A receiver that took a request may have failed to say so: what it read counts, unless it refused.
		next if defined $request->{status} && ($request->{status} < 200 || $request->{status} > 299);
		for my $record (records_of($request))
		{
			my $id = ref $record->{key} ? json($record->{key}) : $record->{key};
			my $is = $record->{row}{v};
			if (defined $is && !$seen)
			{
				push @problems, "key $id: version $is after $version->{$id}"
				  if defined $version->{$id} && $is < $version->{$id};
				$version->{$id} = $is;
			}
			$self->{records}++;
			if ($record->{op} eq 'deleted') { delete $state->{$id}; }
			else { $state->{$id} = $record->{row}; }
		}
	}
	$self->{taken} = @requests;
	for my $id (sort keys %$expected)
	{
		if (!exists $state->{$id}) { push @problems, "key $id is missing"; }
		elsif (json($state->{$id}) ne json($expected->{$id}))
		{
			push @problems, "key $id is " . json($state->{$id}) . ", should be " . json($expected->{$id});
		}
	}
	for my $id (sort keys %$state)
	{
		push @problems, "key $id should be gone" unless exists $expected->{$id};
	}
	push @problems, "only $self->{records} records, the test needs $options{minimum}"
	  if defined $options{minimum} && $self->{records} < $options{minimum};

	my $good = ok(!@problems, "$name: $self->{records} records, $self->{repeated} requests repeated");
	diag(join "\n", @problems > 20 ? (@problems[ 0 .. 19 ], '...') : @problems) unless $good;
	return $good;
}

# The rows of a query as key => row, for check_oracle.
sub model_rows
{
	my ($node, $query, $key, $database) = @_;
	my %rows;
	for my $line (split /\n/, $node->safe_psql($database // 'postgres', "SELECT row_to_json(q) FROM ($query) q"))
	{
		my $row = $json_bytes->decode($line);
		$rows{ $row->{$key} } = $row;
	}
	return \%rows;
}
push @EXPORT, qw(model_rows whole_row);

my @receivers;

sub new_receiver { return RetlTest::Receiver->new(@_); }

END
{
	# Not the tests' exit status.
	local $?;
	$_->stop for @receivers;
}

package RetlTest::Receiver;

use strict;
use warnings;

use HTTP::Tiny;

my $count = 0;

sub new
{
	my ($class, %options) = @_;
	my $self = bless { log => $PostgreSQL::Test::Utils::tmp_check . '/receiver_' . ++$count . '.jsonl' }, $class;
	my @command = ('/usr/bin/python3', '-B', "$ENV{RETL_TREE}/test/lib/receiver.py", '--log', $self->{log});
	push @command, '--fsync' if $options{fsync};
	push @command, '--port', $options{port} if $options{port};
	$self->{host} = $options{host} // '127.0.0.1';
	push @command, '--host', $self->{host};
	push @command, '--cert', $options{cert}, '--key', $options{key} if $options{cert};
	$self->{pid} = open $self->{out}, '-|', @command or die "receiver: $!";
	my $line = readline $self->{out};
	die 'the receiver does not start' unless defined $line && $line =~ /^(\d+)$/;
	$self->{port} = $1;
	$self->{scheme} = $options{cert} ? 'https' : 'http';
	$self->{http} = HTTP::Tiny->new(timeout => 2 * $PostgreSQL::Test::Utils::timeout_default, verify_SSL => 0);
	push @receivers, $self;
	return $self;
}

sub stop
{
	my ($self) = @_;
	return unless $self->{pid};
	kill 'TERM', $self->{pid};
	close $self->{out};
	delete $self->{pid};
	return;
}

sub port { return $_[0]{port}; }
sub url { return "$_[0]{scheme}://$_[0]{host}:$_[0]{port}"; }

sub ask
{
	my ($self, $path, $body) = @_;
	my $answer = $self->{http}->request(
		defined $body ? 'POST' : 'GET',
		$self->url . $path,
		defined $body ? { content => RetlTest::json($body) } : {});
	die "receiver: $path: $answer->{status} $answer->{content}" unless $answer->{success};
	return $json->decode($answer->{content});
}

# Replaces the rules; see the head of receiver.py.
sub rules { my ($self, @rules) = @_; return $self->ask('/_control', { rules => \@rules }); }
sub clear
{
	my ($self) = @_;
	$self->{read} = [];
	$self->{read_to} = 0;
	return $self->ask('/_control', { clear_log => JSON::PP::true });
}
sub release { my ($self) = @_; return $self->ask('/_release', {}); }
sub state { my ($self) = @_; return $self->ask('/_state'); }

# Waits until so many requests have come (done => 1: and were answered), optionally to paths that match.
sub wait_for
{
	my ($self, $requests, %options) = @_;
	my $query = "requests=$requests&timeout=" . ($options{timeout} // $PostgreSQL::Test::Utils::timeout_default);
	$query .= "&done=1" if $options{done};
	$query .= "&path=$options{path}" if defined $options{path};
	return $self->ask("/_wait?$query");
}

# What arrived, from the log, of which only what is new is read.
sub requests
{
	my ($self, $path) = @_;
	open my $log, '<', $self->{log} or die "$self->{log}: $!";
	seek $log, $self->{read_to} //= 0, 0;
	while (my $line = readline $log)
	{
		last unless $line =~ /\n$/;
		$self->{read_to} += length $line;
		my $event = $json->decode($line);
		push @{ $self->{read} }, $event if $event->{event} eq 'request';
	}
	return grep { !defined $path || $_->{path} =~ $path } @{ $self->{read} };
}

1;
