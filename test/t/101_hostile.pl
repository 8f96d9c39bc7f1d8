# What an owner of a model, a stranger, or hostile data may try.
use strict;
use warnings;

use PostgreSQL::Test::Utils;
use RetlTest;
use Test::More;


my $node = new_node('hostile', conf => "log_statement = none\nlog_min_error_statement = panic\nretl.max_planned_bytes = 64kB\n");
my $receiver = new_receiver();

sub as_user
{
	my ($role, $sql) = @_;
	my ($status, $out, $err) = $node->psql('postgres', "SET ROLE $role; $sql");
	return wantarray ? ($status, $out, $err) : $out;
}

sub as_ok
{
	my ($role, $sql) = @_;
	my ($status, $out, $err) = as_user($role, $sql);
	die "$role: $sql\n$err" if $status != 0;
	return $out;
}

$node->safe_psql('postgres', q{
CREATE ROLE mallory; CREATE ROLE alice; CREATE ROLE stranger; CREATE ROLE nobody;
GRANT EXECUTE ON ALL ROUTINES IN SCHEMA retl TO mallory, alice, stranger;
CREATE SCHEMA evil AUTHORIZATION mallory; CREATE SCHEMA a AUTHORIZATION alice;
});
create_webhook($node, 'hook', $receiver);

# ---- a superuser's mapping over somebody's model: nothing of hers runs as him ----
as_ok('mallory', q{
CREATE TABLE evil.people (id int PRIMARY KEY, email text);
INSERT INTO evil.people VALUES (1, 'A@X'), (2, 'B@X');
SELECT retl.create_model('people', 'SELECT id, email FROM evil.people', '{id}');
});
create_mapping($node, 'people', 'people', 'hook',
	fields => { data => { key => { '@path' => '$.id' }, who => { '@sql' => 'lower(email)' } } }, filter => 'email > \'\'');
is(sync_and_wait($node, 'people')->{status}, 'succeeded', 'at first all is well');
as_ok('mallory', q{
CREATE FUNCTION evil.whoami() RETURNS text LANGUAGE plpgsql AS 'BEGIN RETURN current_user || current_setting(''is_superuser''); END';
CREATE FUNCTION evil.lower(text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN evil.whoami(); END';
CREATE FUNCTION evil.note(text, text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE
  AS 'BEGIN IF evil.whoami() NOT LIKE ''mallory%'' THEN RAISE EXCEPTION ''struck''; END IF; RETURN true; END';
CREATE OPERATOR evil.> (LEFTARG = text, RIGHTARG = text, FUNCTION = evil.note);
SET search_path = evil, pg_catalog;
SELECT retl.create_model('people', 'SELECT id, email FROM evil.people', '{id}', or_replace => true);
INSERT INTO evil.people VALUES (3, 'C@X');
});
my $run = sync_and_wait($node, 'people');
is($run->{status}, 'succeeded', 'her functions are called') or diag(json($run));
my ($record) = grep { $_->{who} =~ /^mallory/ } map { records_of($_) } $receiver->requests;
ok($record, '... as herself');
unlike(join('', map { $_->{body} } $receiver->requests), qr/postgres|superuser|on"/, '... and as nobody else');
unlike($node->safe_psql('postgres', q{SELECT retl.preview_mapping('people')}), qr/postgres/, 'in a preview, too');
($run) = as_user('postgres', q{SELECT retl.create_mapping('people', 'people', 'hook', 'send', '{"data": {"x": {"@sql": "lower(''a'')"}}}', or_replace => true)});
is($run, 0, 'and when constants are folded');

# ---- what the snapshot's statement calls, called by a model ----
as_ok('mallory', q{SELECT retl.create_model('filter', 'SELECT id, CASE WHEN id > 50 THEN retl.snapshot_filter(1, 1, 0, 1) END AS x FROM generate_series(1, 5000) id', '{id}')});
create_mapping($node, 'filter', 'filter', 'hook');
$run = sync_and_wait($node, 'filter');
is($run->{status}, 'failed', 'snapshot_filter in a first snapshot');
as_ok('mallory', q{CREATE TABLE evil.n AS SELECT generate_series(1, 20) AS id;
SELECT retl.create_model('filter2', 'SELECT id FROM evil.n', '{id}')});
create_mapping($node, 'filter2', 'filter2', 'hook');
is(sync_and_wait($node, 'filter2')->{status}, 'succeeded', 'a model');
as_ok('mallory', q{SELECT retl.create_model('filter2', 'SELECT id, retl.snapshot_filter(1, 1, id - 1, 1) AS x FROM evil.n', '{id}', or_replace => true)});
$run = sync_and_wait($node, 'filter2');
ok($run->{finished_at}, 'snapshot_filter in a later one');
for my $slot (-1, 20, 1 << 40)
{
	as_ok('mallory', qq{SELECT retl.create_model('filter2', 'SELECT id, retl.snapshot_filter(1, 1, $slot, 1) AS x FROM evil.n', '{id}', or_replace => true)});
	is(sync_and_wait($node, 'filter2')->{error_code}, 'XX001', "slot $slot");
}

# ---- keys whose JSON is long: set aside, not the end of delivery ----
as_ok('mallory', q{SELECT retl.create_model('keys', $$SELECT 0 AS v, string_agg(chr(1 + (hashint4(i * 7919 + k) & 2147483647) % 31), '') AS id
  FROM generate_series(1, 3) k, generate_series(1, 100 + 600 * k) i GROUP BY k$$, '{id}')});
create_mapping($node, 'keys', 'keys', 'hook', fields => { data => { '@sql' => '1 / v' } });
$run = sync_and_wait($node, 'keys');
is("$run->{set_aside} $run->{failed}", '3 0', 'keys longer than an index entry') or diag(json($run));
as_ok('mallory', q{SELECT retl.create_model('keys', $$SELECT 0 AS v, repeat(chr(1), 400) || k AS id FROM generate_series(1, 3) k$$, '{id}', or_replace => true)});
$run = sync_and_wait($node, 'keys');
is($run->{failed}, '3', 'keys that just fit become failed rows') or diag(json($run));

# ---- hostile names ----
my @names = ('a"b', q{a';--}, '$1', "new\nline", 'ключ', 'k' x 63, 'x\\y', '%s', '{"a":1}', ' ', '?');
my $columns = join ', ', map { my $n = $_; $n =~ s/"/""/g; qq{"$n"} } @names;
my $key = join ',', map { my $n = $_; $n =~ s/([\\"])/\\$1/g; qq{"$n"} } @names;
as_ok('mallory', "CREATE TABLE evil.names (" . join(', ', map { "$_ text NOT NULL" } split /, /, $columns) . ", v int)");
as_ok('mallory', "INSERT INTO evil.names SELECT " . join(', ', map { "'it''s \\ \"' || i" } @names) . ", 1 FROM generate_series(1, 5) i");
as_ok('mallory', 'SELECT retl.create_model(' . join(', ', literal("hostile';--\"\\"), literal('evil.names'), literal("{$key}")) . ')');
create_mapping($node, 'name"\';', "hostile';--\"\\", 'hook', fields => { data => { key => { '@path' => '$.__segment_id' }, op => { '@path' => '$.event' }, hostile => { '@path' => '$.v' } } },
	max_change_percent => 100, max_delete_percent => 100);
$receiver->rules({ match => 'hostile', times => 1, status => 422 });
$run = sync_and_wait($node, 'name"\';');
is("$run->{status} $run->{sent} $run->{failed}", 'partial 4 1', 'a row of hostile names fails') or diag(json($run));
as_ok('mallory', 'UPDATE evil.names SET v = 2; DELETE FROM evil.names WHERE "a""b" LIKE \'%1\'');
$run = sync_and_wait($node, 'name"\';');
is("$run->{status} $run->{sent}", 'succeeded 4', '... and is delivered by the next run') or diag(json($run));
as_ok('mallory', 'DELETE FROM evil.names WHERE "a""b" LIKE \'%2\'');
is(sync_and_wait($node, 'name"\';')->{deleted}, '1', '... and deleted');

# ---- deep and large ----
for my $call (q{transform(repeat('[', 100000)::json, '{}')},
	q{transform(json_build_object('a', (repeat('{"a":', 50000) || '1' || repeat('}', 50000))::json), '{}')},
	q{row_object('[1]', (repeat('[', 1000) || repeat(']', 1000))::json)},
	q{row_object('[1, 2]', '[{"name": "a", "type": "int"}]')},
	q{row_differs('[]', '[]', '{"a": 1}', '[]')},
	q{row_differs('[1]', '[{"name": 1}]', '[1]', '[]')},
	q{key_data(ARRAY[NULL]::text[], 1)}, q{key_data('{a,b}', 1)}, q{row_data(VARIADIC NULL::int[])}, q{row_hash(VARIADIC '{}'::int[])},
	q{row_hash_record(NULL)}, q{row_data_record(ROW(1, ROW(2, NULL), '{}'::int[]))}, q{snapshot_filter(1, 1, 1, 1)})
{
	my ($status, $out, $err) = as_user('stranger', "SET statement_timeout = '20s'; SELECT length(retl.$call\::text)");
	unlike($err, qr/server closed the connection|terminating connection|XX000|internal error/, substr($call, 0, 60));
}
as_ok('mallory', q{SELECT retl.create_model('deep', $$SELECT 1 AS id, (repeat('[', 5000) || repeat(']', 5000))::json AS j, repeat('x', 3000000) AS big$$, '{id}')});
create_mapping($node, 'deep', 'deep', 'hook');
$run = sync_and_wait($node, 'deep');
ok($run->{finished_at}, "a row that is deep and large: $run->{status}");

# ---- who may do what: every function of the API, on alice's objects ----
create_webhook($node, 'alices', $receiver);
$node->safe_psql('postgres', q{SELECT retl.alter_destination('alices', owner => 'alice')});
as_ok('alice', q{CREATE TABLE a.t AS SELECT 1 AS id, 1 AS v; SELECT retl.create_model('am', 'a.t', '{id}');
SELECT retl.create_mapping('ax', 'am', 'alices', 'send', '{"data": {"@path": "$.properties"}}', enabled => true)});
my $alices_run = as_ok('alice', q{SELECT retl.sync('ax')});
wait_for_run($node, $alices_run);

# For everybody: pure functions, what runs in the caller's own session, and what checks by itself.
my %for_public = map { $_ => 1 } qw(snapshot_filter row_differs row_hash row_hash_record row_data row_data_record row_object
  key_data transform preview_model preview_query preview_mapping wait_for_run describe_connector worker_state scan_progress
  delivery_obstacle next_ticks);
# Those touch no object of somebody else's.
my %harmless = map { $_ => 1 } qw(snapshot_filter_support row_hash_support row_data_support snapshot_filter row_differs row_hash row_hash_record row_data row_data_record row_object
  key_data transform preview_query describe_connector worker_state scan_progress delivery_obstacle next_ticks
  create_model create_destination create_connector wake_workers tick install_tick uninstall_tick);
my $connector = q{(SELECT (definition::jsonb || '{"name": "alices_connector"}')::json FROM retl.connectors WHERE name = 'webhook')};
as_ok('alice', "SELECT retl.create_connector($connector)");
as_ok('alice', q{SELECT retl.create_destination('alices own', 'alices_connector', '{"url": "https://alice.example"}')});
my %named = (model => 'am', mapping => 'ax', destination => 'alices', connector => 'alices_connector');
my $functions = $node->safe_psql('postgres', q{
SELECT p.proname, p.prokind, has_function_privilege('nobody', p.oid, 'EXECUTE'),
  (SELECT string_agg(coalesce(p.proargnames[i], '') || ' ' || format_type(p.proargtypes[i - 1], NULL), ';' ORDER BY i)
   FROM generate_series(1, p.pronargs - p.pronargdefaults) i),
  p.oid::regprocedure
FROM pg_proc p WHERE p.pronamespace = 'retl'::regnamespace AND p.probin IS NOT NULL AND p.proname NOT LIKE 'testing%' AND p.prorettype <> 'trigger'::regtype AND p.proname NOT IN ('set_managed', 'mapping_columns', 'model_columns', 'skip_model') ORDER BY 1});
my $tried = 0;
for my $line (split /\n/, $functions)
{
	my ($name, $kind, $public, $arguments) = split /\|/, $line;
	is($public, $for_public{$name} ? 't' : 'f', "$name: " . ($for_public{$name} ? 'for everybody' : 'for whom it was granted to'));
	next if $harmless{$name};
	my @values;
	for my $argument (split /;/, $arguments // '')
	{
		my ($argument_name, $type) = split / /, $argument, 2;
		my ($what) = $name =~ /(model|destination|mapping|connector|run)s?$/;
		my $value =
			$argument_name eq 'run' ? $alices_run
		  : $named{$argument_name} ? "'$named{$argument_name}'"
		  : $argument_name eq 'name' && $name eq 'set_secret' ? "'bearer_token'"
		  : $argument_name eq 'name' && $what ? "'$named{$what}'"
		  : $argument_name eq 'new_name' ? "'stolen'"
		  : $argument_name eq 'key' ? "'1'"
		  : $argument_name eq 'keys' ? "'[1]'"
		  : $argument_name eq 'value' ? "'v'"
		  : $argument_name eq 'action' ? "'send'"
		  : $argument_name eq 'fields' ? q{'{"data": {"@path": "$.properties"}}'}
		  : $argument_name eq 'definition' ? $connector
		  : undef;
		die "$name: the test does not know argument $argument_name" unless defined $value;
		push @values, "$argument_name => $value";
	}
	push @values, 'cascade => true' if $name =~ /^drop_/;
	push @values, "description => 'mine'" if $name eq 'alter_model';
	push @values, "settings => '{}'" if $name eq 'alter_destination';
	push @values, "filter => 'v > 0'" if $name eq 'alter_mapping';
	my $call = "retl.$name(" . join(', ', @values) . ')';
	my ($status, $out, $err) = as_user('stranger', "\\set VERBOSITY verbose\n" . ($kind eq 'p' ? "CALL $call" : "SELECT $call"));
	like($err, qr/ERROR:  42501:/, "$name: a stranger may not") or diag("$call: $out");
	$tried++;
}
cmp_ok($tried, '>', 25, "$tried functions were tried on what is another's");
is($node->safe_psql('postgres', q{SELECT owner::text || enabled FROM retl.mappings WHERE name = 'ax'}), 'alicetrue', 'nothing has changed');

# ---- tables ----
is($node->safe_psql('postgres', q{
SELECT string_agg(c.oid::regclass::text, ' ') FROM pg_class c
WHERE c.relnamespace IN ('retl'::regnamespace, 'retl_data'::regnamespace) AND c.relkind IN ('r', 'S', 'p', 'm')
  AND CASE c.relkind WHEN 'S' THEN has_sequence_privilege('nobody', c.oid, 'USAGE, SELECT, UPDATE')
    ELSE has_table_privilege('nobody', c.oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER')
      OR has_any_column_privilege('nobody', c.oid, 'SELECT, INSERT, UPDATE, REFERENCES') END}),
	'', 'no table is for everybody');
is($node->safe_psql('postgres', q{SELECT has_schema_privilege('nobody', 'retl', 'CREATE') OR has_schema_privilege('nobody', 'retl_data', 'USAGE, CREATE')}),
	'f', 'nor may everybody create something in its schemas');
is($node->safe_psql('postgres', qq{
SELECT string_agg(r || ' ' || t || ' ' || p, ', ') FROM unnest('{retl_snapshot,retl_delivery}'::text[]) r,
  unnest('{instance,connector,model,destination,mapping,mapping_version,secret,request}'::text[]) t,
  unnest('{SELECT,INSERT,UPDATE,DELETE,TRUNCATE,REFERENCES,TRIGGER}'::text[]) p
WHERE has_table_privilege(r, 'retl.' || t, p) AND p <> 'SELECT' AND (r, t) <> ('retl_snapshot', 'request')}),
	'', 'workers write no definition');
is($node->safe_psql('postgres', q{
SELECT has_table_privilege('retl_snapshot', 'retl.secret', 'SELECT') OR has_schema_privilege('retl_delivery', 'retl_data', 'USAGE')
  OR has_schema_privilege('retl_delivery', 'retl', 'CREATE') OR has_schema_privilege('retl_snapshot', 'retl', 'CREATE')
  OR has_database_privilege('retl_snapshot', 'postgres', 'CREATE') OR has_database_privilege('retl_delivery', 'postgres', 'CREATE')
  OR has_table_privilege('retl_delivery', 'retl.request', 'SELECT')}),
	'f', 'one reads no secret, the other no rows');

# ---- whoever writes a row does not choose to whom a secret goes ----
$node->safe_psql('postgres', sprintf(q{CREATE TABLE callback AS SELECT 1 AS id, %s::text AS url, E'v\r\nX-Evil: 1' AS header;
SELECT retl.create_model('callback', 'callback', '{id}');
SELECT retl.create_destination('callback', 'webhook', '{"url": "https://api.example/"}');
SELECT retl.set_secret('callback', 'bearer_token', 'treasure')}, literal($receiver->url . '/callback')));
create_mapping($node, 'callback', 'callback', 'callback', fields => { data => { '@path' => '$.id' }, url => { '@path' => '$.url' } });
$run = sync_and_wait($node, 'callback');
like("$run->{status} $run->{error}", qr/^failed .*another origin/, 'a secret does not go where a row says') or diag(json($run));
is(scalar $receiver->requests(qr/callback/), 0, '... nor the request');
$node->safe_psql('postgres', q{SELECT retl.set_secret('callback', 'bearer_token', NULL)});
is(sync_and_wait($node, 'callback')->{status}, 'succeeded', 'without a secret it does');
create_mapping($node, 'header', 'callback', 'callback', fields => { data => 1, headers => { 'X-A' => { '@path' => '$.header' } } });
like(sync_and_wait($node, 'header')->{error}, qr/control character/, 'nor does a row add headers');

# ---- rights that go while a run is planned; owners that go ----
$node->safe_psql('postgres', 'CREATE ROLE bob; GRANT alice TO bob; GRANT EXECUTE ON ALL ROUTINES IN SCHEMA retl TO bob');
as_ok('alice', q{CREATE TABLE a.many AS SELECT i AS id, 1 AS v FROM generate_series(1, 60000) i; SELECT retl.create_model('many', 'a.many', '{id}')});
as_ok('bob', q{SELECT retl.create_mapping('bobs', 'many', 'alices', 'send', '{"data": {"bobs": {"@path": "$.id"}}}', enabled => true, batch_size => 1000)});
$receiver->rules({ match => 'bobs', hang => JSON::PP::true });
my $id = as_ok('bob', q{SELECT retl.sync('bobs')});
$node->poll_query_until('postgres', "SELECT count(*) = 1 FROM retl.run WHERE id = $id AND status = 'planning' AND position IS NOT NULL")
  or die 'no first chunk';
$node->safe_psql('postgres', 'REVOKE alice FROM bob');
my $offset = -s $node->logfile;
$receiver->rules();
$receiver->release;
$run = wait_for_run($node, $id);
is("$run->{status} $run->{error_code}", 'failed 42501', 'a right that is gone in the middle of a plan ends the run') or diag(json($run));
my @complaints = (substr slurp_file($node->logfile), $offset) =~ /no longer has the privileges/g;
is(scalar @complaints, 1, '... and is said once');

as_ok('mallory', q{CREATE TABLE evil.public AS SELECT 1 AS id; GRANT SELECT ON evil.public TO PUBLIC; GRANT USAGE ON SCHEMA evil TO PUBLIC});
$node->safe_psql('postgres', q{CREATE ROLE temp; GRANT EXECUTE ON ALL ROUTINES IN SCHEMA retl TO temp});
as_ok('temp', q{SELECT retl.create_model('orphan', 'evil.public', '{id}')});
create_mapping($node, 'orphan', 'orphan', 'hook');
$node->safe_psql('postgres', 'DROP OWNED BY temp; DROP ROLE temp');
$run = sync_and_wait($node, 'orphan');
like("$run->{status} $run->{error}", qr/^failed .*does not exist/, 'a model whose owner is gone is not read') or diag(json($run));
$node->safe_psql('postgres', q{SELECT retl.drop_model('orphan', cascade => true)});

# ---- after all this ----
my $log = slurp_file($node->logfile);
unlike($log, qr/terminated by signal|PANIC|TRAP/, 'no process crashed');
my @exits = grep { /retl (?:snapshot|delivery) worker.*exited with exit code 1/ } split /\n/, $log;
is(scalar @exits, 0, 'no worker ended by an error') or diag(@exits);
$node->stop('fast');
done_testing();
