# Nobody gains a right: models run as their owners and see what their owners see; secrets stay where they are.
use strict;
use warnings;

use PostgreSQL::Test::Utils;
use RetlTest;
use Test::More;

# The canary is typed in a statement of ours; the server must not log that by order.
my $node = new_node('rights', conf => "log_min_error_statement = panic\n");
my $receiver = new_receiver();

# mallory may create things in her own schema and use retl; nothing else.
$node->safe_psql('postgres', q{
CREATE ROLE mallory LOGIN;
CREATE ROLE alice LOGIN;
GRANT EXECUTE ON ALL ROUTINES IN SCHEMA retl TO mallory, alice;
CREATE SCHEMA evil AUTHORIZATION mallory;
CREATE SCHEMA alice AUTHORIZATION alice;
CREATE TABLE public.treasure (gold text);
INSERT INTO public.treasure VALUES ('treasure-canary');
});

sub as
{
	my ($role, $sql) = @_;
	my ($out, $err) = ('', '');
	my $status = $node->psql('postgres', "SET client_min_messages = warning;\n$sql",
		extra_params => [ '-U', $role, '-v', 'VERBOSITY=verbose' ], stdout => \$out, stderr => \$err, on_error_stop => 1);
	return ($status, $out, $err);
}

sub as_ok
{
	my ($role, $sql) = @_;
	my ($status, $out, $err) = as($role, $sql);
	die "$role: $err\n$sql" if $status != 0;
	return $out;
}

sub refused
{
	my ($role, $sql, $code, $name) = @_;
	my ($status, $out, $err) = as($role, $sql);
	ok($status != 0 && $err =~ /ERROR:  $code:/, "$name: refused with $code")
	  or diag("status $status, out $out, err $err");
	return;
}

# What a superuser could do and mallory cannot: each escape ends with this, as whoever it has become.
as_ok('mallory', q{
SET search_path = evil;
CREATE FUNCTION evil.who() RETURNS text LANGUAGE sql AS
  $$SELECT format('%s/%s/%s', current_user, session_user, current_setting('is_superuser'))$$;
CREATE FUNCTION evil.strike(n text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
  EXECUTE format('CREATE ROLE pwned_%s SUPERUSER', n);
  RETURN 'struck';
EXCEPTION WHEN OTHERS THEN
  RETURN SQLERRM;
END $$;
CREATE FUNCTION evil.steal() RETURNS text LANGUAGE plpgsql AS $$
DECLARE r text := '';
BEGIN
  BEGIN r := r || (SELECT string_agg(gold, ',') FROM public.treasure); EXCEPTION WHEN OTHERS THEN r := r || SQLERRM; END;
  BEGIN r := r || (SELECT string_agg(s.value, ',') FROM retl.secret s); EXCEPTION WHEN OTHERS THEN r := r || SQLERRM; END;
  BEGIN r := r || pg_read_file('/etc/passwd'); EXCEPTION WHEN OTHERS THEN r := r || SQLERRM; END;
  BEGIN r := r || (SELECT string_agg(data::text, ',') FROM retl_data.checkpoint_1); EXCEPTION WHEN OTHERS THEN r := r || SQLERRM; END;
  RETURN r;
END $$;
CREATE TABLE evil.trap (id int PRIMARY KEY DEFERRABLE INITIALLY DEFERRED);
CREATE FUNCTION evil.spring() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM evil.strike('deferred'); RETURN NULL; END $$;
CREATE CONSTRAINT TRIGGER spring AFTER INSERT ON evil.trap DEFERRABLE INITIALLY DEFERRED
  FOR EACH ROW EXECUTE FUNCTION evil.spring();
});

my %escapes = (
	reset_role => q{EXECUTE 'RESET ROLE';},
	set_role => q{EXECUTE 'SET ROLE postgres';},
	session_authorization => q{EXECUTE 'RESET SESSION AUTHORIZATION'; EXECUTE 'SET SESSION AUTHORIZATION postgres';},
	set_config_role => q{PERFORM set_config('role', 'none', false); PERFORM set_config('session_authorization', 'postgres', false);},
	read_write => q{PERFORM set_config('transaction_read_only', 'off', false); INSERT INTO evil.trap VALUES (1);},
	deferred_trigger => q{INSERT INTO evil.trap VALUES (2);},
	temp_table => q{EXECUTE 'CREATE TEMP TABLE pg_class AS SELECT 1 AS a';},
	prepare => q{EXECUTE 'PREPARE leak AS SELECT evil.strike(''prepare'')';},
	listen => q{EXECUTE 'LISTEN leak'; },
	cursor => q{EXECUTE 'DECLARE leak CURSOR WITH HOLD FOR SELECT evil.strike(''cursor'')';},
	search_path => q{PERFORM set_config('search_path', 'evil, pg_catalog', false);},
	do_nothing => q{NULL;},
);
my $id = 0;
for my $name (sort keys %escapes)
{
	# Tried twice: an error ends the first function, the second one swallows it and goes on.
	as_ok('mallory', qq{
SET search_path = evil;
CREATE FUNCTION evil.f_$name() RETURNS text LANGUAGE plpgsql AS \$\$
BEGIN
  BEGIN
    $escapes{$name}
  EXCEPTION WHEN OTHERS THEN
    RETURN SQLERRM || ' | ' || evil.strike('$name') || ' | ' || evil.who() || ' | ' || evil.steal();
  END;
  RETURN 'passed | ' || evil.strike('$name') || ' | ' || evil.who() || ' | ' || evil.steal();
END \$\$;
CREATE VIEW evil.v_$name AS SELECT 1 AS id, 1 AS v, evil.f_$name() AS said;
SELECT retl.create_model('m_$name', 'SELECT * FROM evil.v_$name', '{id}');
});
}
as_ok('mallory', sprintf(
	q{SELECT retl.create_destination(name => 'evil hook', connector => 'webhook', settings => %s)},
	literal(json({ url => $receiver->url . '/evil' }))));

# A cast from an enum to json, which to_jsonb() would call as whoever calls it; and operators that the search path finds.
as_ok('mallory', q{
SET search_path = evil;
CREATE TYPE evil.e AS ENUM ('a');
CREATE FUNCTION evil.e_json(evil.e) RETURNS json LANGUAGE plpgsql AS $$
BEGIN RETURN to_json('cast | ' || evil.strike('cast') || ' | ' || evil.who() || ' | ' || evil.steal()); END $$;
CREATE CAST (evil.e AS json) WITH FUNCTION evil.e_json(evil.e);
CREATE FUNCTION evil.eq(text, text) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN PERFORM evil.strike('operator'); RETURN true; END $$;
CREATE FUNCTION evil.eq(bigint, bigint) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN PERFORM evil.strike('operator'); RETURN true; END $$;
CREATE FUNCTION evil.eq(int, int) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN PERFORM evil.strike('operator'); RETURN true; END $$;
CREATE OPERATOR evil.= (LEFTARG = text, RIGHTARG = text, FUNCTION = evil.eq);
CREATE OPERATOR evil.= (LEFTARG = bigint, RIGHTARG = bigint, FUNCTION = evil.eq);
CREATE OPERATOR evil.= (LEFTARG = int, RIGHTARG = int, FUNCTION = evil.eq);
CREATE FUNCTION evil.to_json(anyelement) RETURNS json LANGUAGE plpgsql AS $$ BEGIN PERFORM evil.strike('function'); RETURN '1'; END $$;
});
as_ok('mallory', q{
SET search_path = evil, pg_catalog;
SELECT retl.create_model('m_cast', 'SELECT 1 AS id, 1 AS v, ''a''::evil.e AS said', '{id}');
SELECT retl.create_model('m_operator', 'SELECT 1::bigint AS id, 1 AS v, ''x''::text AS said', '{id}');
SELECT retl.create_model('m_operator_key', 'SELECT ''k''::text AS id, 1 AS v, ''x''::text AS said', '{id}');
});

for my $name ((sort keys %escapes), 'cast', 'operator', 'operator_key')
{
	as_ok('mallory', 'SELECT retl.create_mapping(' . join(', ',
		'name => ' . literal("p_$name"), 'model => ' . literal("m_$name"), q{destination => 'evil hook', action => 'send'},
		'fields => ' . literal(json(whole_row())), "records => '{added,updated,deleted}', enabled => true") . ')');
	# What she sees herself runs in her own session.
	as('mallory', "SELECT * FROM retl.preview_model('m_$name'); SELECT * FROM retl.preview_mapping('p_$name')");
	my $run = wait_for_run($node, as_ok('mallory', "SELECT retl.sync('p_$name')"));
	my ($said) = map { $_->{row}{said} } map { records_of($_) } $receiver->requests;
	$receiver->clear;
	note "$name: $run->{status}: " . ($said // $run->{error} // 'nothing');
	if ($run->{status} eq 'succeeded')
	{
		# Whoever it was, it was mallory.
		unlike($said // '', qr{/on\b|struck|treasure-canary|root:|postgres/}, "$name: nothing gained");
		ok(defined $said, "$name: arrived") or diag(json($run));
	}
	else
	{
		like($run->{error} // '', qr/security-restricted|read-only|permission denied|cannot/, "$name: $run->{status}")
		  or diag(json($run));
	}
}
is($node->safe_psql('postgres', q{SELECT string_agg(rolname, ' ') FROM pg_roles WHERE rolname LIKE 'pwned%'}), '',
	'no role was made');
is($node->safe_psql('postgres', 'SELECT count(*) FROM evil.trap'), '0', 'nothing was written');
is($node->safe_psql('postgres', q{SELECT count(*) FROM pg_class WHERE relname = 'pg_class' AND relnamespace <> 11}), '0',
	'no temporary table was left');
# A superuser who looks at her things runs them as herself too.
$node->psql('postgres', q{SELECT * FROM retl.preview_mapping('p_reset_role'); SELECT * FROM retl.preview_model('m_cast');});
is($node->safe_psql('postgres', q{SELECT string_agg(rolname, ' ') FROM pg_roles WHERE rolname LIKE 'pwned%'}), '',
	'no role was made by a superuser who looked');

# Row-level security: the model sees what its owner sees.
$node->safe_psql('postgres', q{
CREATE TABLE public.tenancy (id int PRIMARY KEY, v int DEFAULT 1, tenant text);
INSERT INTO public.tenancy SELECT i, 1, CASE WHEN i <= 5 THEN 'alice' ELSE 'mallory' END FROM generate_series(1, 10) i;
ALTER TABLE public.tenancy ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON public.tenancy USING (tenant = current_user);
GRANT SELECT ON public.tenancy TO alice, mallory;
});
as_ok('alice', q{
CREATE VIEW alice.plain AS SELECT * FROM public.tenancy;
CREATE VIEW alice.invoker WITH (security_invoker) AS SELECT * FROM public.tenancy;
SELECT retl.create_model('rls table', 'SELECT * FROM public.tenancy', '{id}');
SELECT retl.create_model('rls plain', 'alice.plain', '{id}');
SELECT retl.create_model('rls invoker', 'alice.invoker', '{id}');
} . sprintf(q{SELECT retl.create_destination(name => 'alices hook', connector => 'webhook', settings => %s)},
	literal(json({ url => $receiver->url . '/alice' }))));
for my $model ('rls table', 'rls plain', 'rls invoker')
{
	as_ok('alice', "SELECT retl.create_mapping(name => '$model', model => '$model', destination => 'alices hook',"
		  . " action => 'send', fields => " . literal(json(whole_row())) . ', enabled => true)');
	my $run = wait_for_run($node, as_ok('alice', "SELECT retl.sync('$model')"));
	is("$run->{status} $run->{added}", 'succeeded 5', "$model: the owner's five rows") or diag(json($run));
}

# Other people's things.
refused('mallory', q{SELECT retl.sync('rls plain')}, '42501', 'sync of another\'s mapping');
refused('mallory', q{SELECT retl.drop_model('rls plain', cascade => true)}, '42501', 'drop of another\'s model');
refused('mallory', q{SELECT retl.alter_destination('alices hook', settings => '{"url": "http://127.0.0.1:1/"}')}, '42501',
	'alteration of another\'s destination');
refused('mallory', q{SELECT retl.set_secret('alices hook', 'signing_key', 'x')}, '42501', 'secret of another\'s destination');
refused('mallory', q{SELECT retl.create_mapping(name => 'thief', model => 'rls plain', destination => 'evil hook', action => 'send', fields => '{}')},
	'42501', 'mapping of another\'s model');
refused('mallory', q{SELECT retl.create_mapping(name => 'thief', model => 'm_cast', destination => 'alices hook', action => 'send', fields => '{}')},
	'42501', 'mapping to another\'s destination');
refused('mallory', q{SELECT * FROM retl.preview_model('rls plain')}, '42501', 'preview of another\'s model');
refused('mallory', q{SELECT retl.disable_mapping('rls plain')}, '42501', 'disabling another\'s mapping');
refused('mallory', q{INSERT INTO retl.request (mapping, model, trigger, requested_by) VALUES (1, 1, 'manual', 'mallory')}, '42501',
	'a row in retl\'s tables');
is(as_ok('mallory', q{SELECT count(*) FROM retl.models WHERE name LIKE 'rls%'}), '0', 'another\'s models are not shown');
is(as_ok('mallory', q{SELECT count(*) FROM retl.runs WHERE mapping::text LIKE 'rls%'}), '0', 'another\'s runs are not shown');

# A right that is gone is gone at the next run, and nothing is taken for deleted.
$node->safe_psql('postgres', 'REVOKE SELECT ON public.tenancy FROM alice');
my $run = wait_for_run($node, as_ok('alice', q{SELECT retl.sync('rls table')}));
is("$run->{status} $run->{error_code} $run->{deleted}", 'failed 42501 0', 'a revoked right fails the run') or diag(json($run));

# Secrets.
my $canary = 'whsec_' . 'Q2FuYXJ5MTIzNDU2Nzg5MGFiY2RlZg==';
my $part = 'Q2FuYXJ5MTIzNDU2Nzg5MGFiY2RlZg';
as_ok('alice', "SELECT retl.set_secret('alices hook', 'signing_key', '$canary')");
$receiver->rules({ path => '/alice', status => 400, body => 'no', times => 1 });
$node->safe_psql('postgres', 'GRANT SELECT ON public.tenancy TO alice; UPDATE public.tenancy SET v = v + 1');
$run = wait_for_run($node, as_ok('alice', q{SELECT retl.sync('rls plain')}));
$run = wait_for_run($node, as_ok('alice', q{SELECT retl.sync('rls invoker')}));
like(join(' ', map { header($_, 'webhook-signature') // '' } $receiver->requests(qr/alice/)), qr/v1,/, 'the secret is in use');

for my $role ('mallory', 'alice')
{
	refused($role, 'SELECT * FROM retl.secret', '42501', "$role reads secrets");
}
refused('retl_snapshot', 'SELECT * FROM retl.secret', '42501', 'the snapshot worker\'s role reads secrets');
like(as_ok('retl_delivery', 'SELECT value FROM retl.secret'), qr/$part/, 'the delivery worker\'s role can');

my @views = split /\n/, $node->safe_psql('postgres', q{
SELECT format('SELECT coalesce(string_agg(x::text, chr(10)), '''') FROM %s x', c.oid::regclass)
  FROM pg_class c WHERE relnamespace = 'retl'::regnamespace AND (relkind = 'v' OR relkind = 'r' AND relname <> 'secret')
UNION ALL VALUES ('SELECT string_agg(x::text, chr(10)) FROM pg_stat_activity x WHERE pid <> pg_backend_pid()')});
my $shown = join "\n", map { $node->safe_psql('postgres', $_) } @views;
cmp_ok(length $shown, '>', 1000, 'views and tables were read');
unlike($shown, qr/$part/, 'no view or other table holds the secret');
unlike(slurp_file($node->logfile), qr/$part/, 'the server\'s log does not');
my ($dump, $err);
run_log([ 'pg_dump', '-d', $node->connstr('postgres') ], '>', \$dump, '2>', \$err) or die "pg_dump: $err";
like($dump, qr/alices hook/, 'a dump has the destination');
unlike($dump, qr/$part/, '... and not its secret');

# A worker's role that has a member stops the workers: the member would be the worker.
$node->safe_psql('postgres', 'GRANT retl_delivery TO mallory');
as_ok('retl_delivery', 'SELECT 1');
my $offset = -s $node->logfile;
$node->restart;
$node->safe_psql('postgres', 'UPDATE public.tenancy SET v = v + 1');
as_ok('alice', q{SELECT retl.sync('rls plain')});
$node->wait_for_log(qr/retl_delivery.*member|member.*retl_delivery/s, $offset);
pass('the log says why the worker does not start');

$node->stop('fast');
done_testing();
