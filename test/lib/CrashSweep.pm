# CrashSweep: every fault point in one way of failing. Each case changes the model, arms the point, does what leads
# through it, sees it fire, and waits until everything is delivered. What the receiver's own log says after each case: nothing
# lost, repetitions with the same key and bytes only, versions of a key in their order.
#
# With RETL_SWEEP_ALL=1 (make check-all does that) every case is tried in every way, else each in one of them;
# RETL_SWEEP_POINT=name: that point alone.
package CrashSweep;

use strict;
use warnings;

use Exporter 'import';
use PostgreSQL::Test::Utils;
use RetlTest;
use Test::More;
use Time::HiRes qw(sleep time);

our @EXPORT = qw(crash_sweep);

# What leads through a point; a sync unless it is named. Points of delivery fire after some requests.
my @cases = (
	# the request
	[ 'request_appended', 1, 'session' ],
	[ 'api_call_done', 1, 'session' ],
	[ 'api_call_done', 1, 'create' ],
	[ 'api_call_done', 1, 'alter' ],
	[ 'api_call_done', 1, 'drop' ],
	# the snapshot
	[ 'snapshot_worker_loop', 1 ],
	[ 'model_locked', 1 ],
	[ 'scan_composed', 1 ],
	[ 'scan_planned', 1 ],
	[ 'requests_seen', 1 ],
	[ 'scan_done', 1 ],
	[ 'scan_done', 1, 'shape' ],
	[ 'log_written', 1 ],
	[ 'checkpoint_written', 1 ],
	[ 'checkpoint_written', 1, 'shape' ],
	[ 'snapshot_before_commit', 1 ],
	[ 'effects_applied', 1, 'reset' ],
	[ 'requests_served', 1 ],
	[ 'requests_served', 1, 'merge' ],
	[ 'snapshot_after_commit', 1 ],
	[ 'failure_recorded', 1, 'broken' ],
	[ 'vacuum_begins', 1 ],
	[ 'log_compacted', 1, 'lag' ],
	[ 'log_tidied', 1, 'lag' ],
	# the plan
	[ 'plan_loaded', 1 ],
	[ 'run_held', 1, 'held' ],
	[ 'batches_inserted', 1 ],
	[ 'plan_phase_done', 1 ],
	[ 'plan_before_commit', 1 ],
	[ 'plan_after_commit', 1 ],
	# delivery
	[ 'delivery_discovered', 1 ],
	[ 'secret_loaded', 1, 'token' ],
	[ 'token_fetched', 1, 'token' ],
	[ 'token_answered', 1, 'token' ],
	[ 'sending_begun', 1, 'fresh' ],
	[ 'batch_loaded', 1 ],
	[ 'request_before_send', 4 ],
	[ 'request_sent', 4 ],
	[ 'answer_received', 4 ],
	[ 'outcomes_locked', 1 ],
	[ 'outcomes_delivered', 1 ],
	[ 'outcomes_exceptions', 1 ],
	[ 'outcomes_exceptions', 1, 'refuse' ],
	[ 'half_written', 1, 'refuse' ],
	[ 'half_written', 2, 'refuse' ],
	[ 'outcomes_before_commit', 1 ],
	[ 'outcomes_before_commit', 1, 'retry' ],
	[ 'outcomes_after_commit', 1 ],
	# the end
	[ 'run_ended_early', 1 ],
	[ 'run_resolved', 1, 'refuse' ],
	[ 'run_end_before_commit', 1, 'refuse' ],
	[ 'run_end_after_commit', 1, 'refuse' ],
	[ 'run_quiesced', 1, 'cancel' ],
	[ 'pending_canceled', 1, 'cancel' ],
	# workers come and go
	[ 'launcher_loop', 1 ],
	[ 'worker_attached', 1, 'fresh' ],
	[ 'worker_started', 1, 'fresh' ],
	[ 'delivery_started', 1, 'fresh' ],
	[ 'sending_inherited', 1, 'fresh' ],
	[ 'sending_ended', 1, 'leave' ],
	[ 'worker_leaving', 1, 'leave' ]);

my @ways = ('kill', 'kill_postmaster', 'immediate', 'term', 'error');

# In the launcher an error is survived and a signal is the end of a process that nobody's work depends on; t/082_worker_crash has it.
my %not = (launcher_loop => { term => 1 });

my ($node, $receiver, $way, $oracle);

sub sql { return $node->safe_psql('postgres', $_[0]); }

sub change
{
	sql(q{
UPDATE t SET v = v + 1 WHERE id % 3 = (SELECT last_value % 3 FROM next_id);
DELETE FROM t WHERE id IN (SELECT id FROM t WHERE id > 1 ORDER BY hashint4(id + (SELECT last_value FROM next_id)::int) LIMIT 4);
INSERT INTO t SELECT nextval('next_id'), 1, 'new' FROM generate_series(1, 4);
});
	return;
}

sub alive { return $node->poll_query_until('postgres', 'SELECT true') || die 'the server does not come back'; }

# Until the point was passed.
sub fired
{
	my ($point) = @_;
	for (1 .. 1000)
	{
		return 1 unless fault_armed($node, $point);
		sleep 0.02;
	}
	return 0;
}

# Statements whose session the fault may end.
sub attempt
{
	my ($statement) = @_;
	my ($out, $err);
	return $node->psql('postgres', $statement, stdout => \$out, stderr => \$err) == 0 ? $out : undef;
}

my $end_workers = q{SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE usename ~ '^retl_'};

my %before = (
	refuse => sub {
		sql(q{INSERT INTO t VALUES (1, 1, 'refused') ON CONFLICT (id) DO UPDATE SET v = t.v + 1, name = 'refused'});
		$receiver->rules({ match => '"refused"', status => 422 });
	},
	retry => sub { $receiver->rules({ path => '/hook', status => 503, skip => 2, times => 3, headers => { 'Retry-After' => 0 } }); },
	token => sub { sql(q{SELECT retl.disable_destination('tool'); SELECT retl.enable_destination('tool');}); sql($end_workers); },
	lag => sub {
		sql(q{SELECT retl.disable_mapping('lagging')});
		for (1 .. 4) { sync_and_wait($node, 'hook'); change(); }
	},
	held => sub { sql(q{SELECT retl.alter_mapping('hook', max_change_percent => 0, brake_min_rows => 1)}); },
	merge => sub { },
	broken => sub { sql('ALTER TABLE t RENAME COLUMN name TO gone'); },
	shape => sub { sql('ALTER TABLE t ADD COLUMN c' . int(1000 * time) . ' int DEFAULT 1'); },
	cancel => sub { $receiver->rules({ path => '/hook', delay => 0.1 }); },
	leave => sub { $node->append_conf('postgresql.conf', 'retl.worker_idle_timeout = 0'); $node->reload; });

my %act = (
	session => sub { attempt(q{SELECT retl.sync('hook')}); },
	# armed already: the next workers are there at once
	fresh => sub { attempt($end_workers); attempt(q{SELECT retl.sync('hook')}); },
	create => sub { attempt(q{BEGIN; SELECT retl.create_mapping('another', 't', 'hook', 'send', '{}', enabled => true); COMMIT}); },
	alter => sub { attempt(q{BEGIN; SELECT retl.alter_mapping('hook', batch_size => 5); SELECT retl.sync('hook'); COMMIT}); },
	drop => sub { attempt(q{BEGIN; SELECT retl.drop_mapping('another', if_exists => true); COMMIT}); },
	reset => sub { attempt(q{SELECT retl.reset_mapping('hook')}); },
	merge => sub { attempt(q{SELECT retl.sync('hook'); SELECT retl.sync('hook'); SELECT retl.sync('hook')}); },
	token => sub { attempt(q{SELECT retl.sync('tool')}); },
	lag => sub {
		append_to_file($node->data_dir . '/retl_fault/log_tidy_rows', "0\n");
		attempt(q{SELECT retl.sync('hook')});
	},
	cancel => sub {
		my $run = sync($node, 'hook');
		my $seen = $receiver->state->{requests};
		$receiver->wait_for($seen + 2);
		attempt("SELECT retl.cancel_run($run, 'sweep')");
	});

my %after = (
	refuse => sub { $receiver->rules(); },
	retry => sub { $receiver->rules(); },
	lag => sub { unlink $node->data_dir . '/retl_fault/log_tidy_rows'; sql(q{SELECT retl.enable_mapping('lagging')}); },
	held => sub { sql(q{SELECT retl.alter_mapping('hook', max_change_percent => 100, brake_min_rows => 100)}); },
	broken => sub { sql('ALTER TABLE t RENAME COLUMN gone TO name'); },
	cancel => sub { $receiver->rules(); },
	leave => sub { $node->append_conf('postgresql.conf', 'retl.worker_idle_timeout = 60s'); $node->reload; });

sub settle
{
	$node->poll_query_until('postgres',
		q{SELECT count(*) = 0 FROM retl.runs WHERE finished_at IS NULL AND status NOT IN ('held')})
	  or die 'runs do not end: ' . sql(q{SELECT json_agg(r) FROM retl.runs r WHERE finished_at IS NULL});
	return;
}

sub one
{
	my ($point, $passage, $scenario) = @_;
	my $label = "$way at $point" . ($scenario ? " ($scenario)" : '');
	my $pid = (split /\n/, slurp_file($node->data_dir . '/postmaster.pid'))[0];
	my $records = $oracle->{records};

	change();
	$before{$scenario}->() if $scenario && $before{$scenario};
	arm_fault($node, $point, "$way $passage");
	if ($scenario && $act{$scenario}) { $act{$scenario}->(); }
	else { attempt(q{SELECT retl.sync('hook')}); }
	my $fired = ok(fired($point), "$label: the point was passed");
	unlink $node->data_dir . "/retl_fault/$point" unless $fired;
	if ($way eq 'kill_postmaster' || $way eq 'immediate') { start_after_kill($node, $pid) if $fired; }
	alive();
	$after{$scenario}->() if $scenario && $after{$scenario};
	settle();
	# Where the fault was an error, or took a request with it that was not committed, or destinations refused: once more.
	for my $mapping ('hook', 'lagging', 'tool')
	{
		my $run = sync_and_wait($node, $mapping);
		$run->{status} eq 'succeeded' or fail("$label: $mapping: " . json($run));
	}
	my $rows = model_rows($node, 'SELECT id, v, name FROM t', 'id');
	$oracle->check($label, $rows);
	cmp_ok($oracle->{records} - $records, '>=', 10, '... with work done');
	return;
}

sub crash_sweep
{
	($way) = @_;
	$node = new_node("sweep_$way", conf => "retl.naptime = 1s\n");
	$receiver = new_receiver(fsync => 1);
	sql(q{
CREATE TABLE t (id int PRIMARY KEY, v int NOT NULL DEFAULT 1, name text);
INSERT INTO t SELECT i, 1, 'row ' || i FROM generate_series(2, 60) i;
CREATE SEQUENCE next_id START 1000;
SELECT retl.create_model('t', 'SELECT * FROM t', '{id}');
});
	my $definition = json({
		name => 'tool', title => 'Tool', settings => { url => { type => 'string', format => 'url', required => JSON::PP::true } },
		secrets => { id => {}, secret => {} },
		auth => [ { type => 'oauth2', grant => 'client_credentials', token_url => '{{settings.url}}/token', client_id_secret => 'id', secret => 'secret' } ],
		base_url => { '@path' => '$.settings.url' }, idempotency => { header => 'Idempotency-Key' },
		actions => { put => { operations => [ 'added', 'updated', 'deleted' ], fields => { id => { type => 'string' } }, request => { url => '/put' } } } });
	sql("SET log_statement = 'none'; SELECT retl.create_connector(" . literal($definition) . ');'
		  . q{SELECT retl.create_destination('tool', 'tool', } . literal(json({ url => $receiver->url . '/tool' })) . ');'
		  . q{SELECT retl.set_secret('tool', 'id', 'i'); SELECT retl.set_secret('tool', 'secret', 's');});
	create_webhook($node, 'hook', $receiver, settings => { concurrency => 4 });
	create_webhook($node, 'lagging', $receiver, settings => { batch_size => 100 });
	my %mild = (max_change_percent => 100, max_delete_percent => 100);
	# not the columns that come with new shapes
	my %fields = (data => { key => { '@path' => '$.__segment_id' }, op => { '@path' => '$.event' },
		row => { map { $_ => { '@path' => "\$.$_" } } qw(id v name) } });
	create_mapping($node, 'hook', 't', 'hook', batch_size => 4, fields => \%fields, %mild);
	create_mapping($node, 'lagging', 't', 'lagging', fields => { data => { '@path' => '$.id' } }, %mild);
	create_mapping($node, 'tool', 't', 'tool', action => 'put', fields => { id => { '@template' => '{{id}}-{{v}}' } }, %mild);
	$receiver->rules();
	$oracle = new_oracle($receiver, path => qr{/hook$});
	my $token_rule = { path => '/tool/token', status => 200, body => '{"access_token":"t","token_type":"Bearer","expires_in":3600}' };
	no warnings 'redefine';
	# whatever else is asked of the receiver, it gives tokens
	my $rules = \&RetlTest::Receiver::rules;
	local *RetlTest::Receiver::rules = sub { my ($self, @rules) = @_; return $rules->($self, $token_rule, @rules); };
	$receiver->rules();
	sync_and_wait($node, $_) for 'hook', 'lagging', 'tool';

	append_to_file($node->data_dir . '/retl_fault/first_retry_ms', "50\n");
	my $only = $ENV{RETL_SWEEP_POINT};
	my $all = defined $only || $ENV{RETL_SWEEP_ALL};
	my ($mine) = grep { $ways[$_] eq $way } 0 .. $#ways;
	my $turn = 0;
	my $began = time;
	my %points;
	my $count = 0;
	for my $case (@cases)
	{
		my ($point, $passage, $scenario) = @$case;
		next if $not{$point} && $not{$point}{$way};
		next if defined $only && $only ne $point;
		next unless $all || $turn++ % @ways == $mine;
		one($point, $passage, $scenario);
		$points{$point}++;
		$count++;
	}
	note sprintf '%s: %d cases at %d points in %.0f s', $way, $count, scalar keys %points, time - $began;
	cmp_ok(scalar keys %points, '>=', 40, "$way: at 40 points at least") if $all && !defined $only;
	$oracle->check("$way: all in all", model_rows($node, 'SELECT id, v, name FROM t', 'id'), minimum => defined $only ? 0 : 300);
	is(sql('SELECT count(*) FROM retl.failed_rows'), '0', '... no failed rows');
	is(sql(q{SELECT count(*) FROM retl.batches WHERE status = 'pending'}), '0', '... nothing pending');
	$node->stop('fast');
	$receiver->stop;
	return;
}

1;
