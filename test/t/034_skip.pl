# A model is not read while nothing that it reads was written: every way of writing is seen at once, by the very transaction
# that asks for the sync, too; what cannot be seen is never skipped; max_skip bounds all of it.
use strict;
use warnings;

use PostgreSQL::Test::Utils;
use RetlTest;
use Test::More;

my $node = new_node('skip', conf => "max_prepared_transactions = 5\ntrack_functions = none\n");
my $receiver = new_receiver();
create_webhook($node, 'hook', $receiver);
$node->safe_psql('postgres', q{
CREATE TABLE person (id int PRIMARY KEY, team int NOT NULL, name text);
CREATE TABLE team (id int PRIMARY KEY, title text);
CREATE TABLE event (id int, day date, what text) PARTITION BY RANGE (day);
CREATE TABLE event_1 PARTITION OF event FOR VALUES FROM ('2026-01-01') TO ('2026-02-01');
CREATE TABLE other (id int);
CREATE VIEW named AS SELECT * FROM person WHERE name IS NOT NULL;
CREATE FUNCTION shout(t text) RETURNS text IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN RETURN upper(t); END $$;
CREATE VIEW whole AS SELECT n.id, shout(n.name) AS name, t.title,
  (SELECT count(*) FROM event e WHERE e.id = n.id) AS events FROM named n LEFT JOIN team t ON t.id = n.team;
INSERT INTO team VALUES (1, 'red');
INSERT INTO person SELECT i, 1, 'p' || i FROM generate_series(1, 20) i;
INSERT INTO event VALUES (1, '2026-01-05', 'x');
SELECT retl.create_model('whole', 'SELECT * FROM whole', '{id}', max_skip => '1 hour');
});
create_mapping($node, 'whole', 'whole', 'hook', max_delete_percent => 100, max_change_percent => 100);
is(sync_and_wait($node, 'whole')->{strategy}, 'full', 'the first reads');

# Expects a sync to say "strategy", and the receiver to know what the model says.
sub expect
{
	my ($name, $strategy, $run) = @_;
	$run //= sync($node, 'whole');
	$run = wait_for_run($node, $run);
	is("$run->{status} $run->{strategy}", "succeeded $strategy", $name) or diag(json($run));
	check_oracle("$name: state", $receiver, model_rows($node, 'SELECT * FROM whole', 'id'));
	return;
}

# Each change is seen by the sync that its own transaction asks for; the next one has nothing to read.
sub change
{
	my ($name, $sql, %options) = @_;
	my $run = $node->safe_psql('postgres', "BEGIN; $sql; SELECT 'run ' || retl.sync('whole'); COMMIT");
	$run =~ /run (\d+)/ or die "no run: $run";
	expect($name, 'full', $1);
	expect("$name, then nothing", 'skipped') unless $options{unsettled};
	return;
}

expect('nothing happened', 'skipped');
like(sync_and_wait($node, 'whole')->{strategy_reason}, qr/written since/, '... and says why');
$node->safe_psql('postgres', 'INSERT INTO other VALUES (1)');
expect('another table', 'skipped');

change('update', q{UPDATE person SET name = 'a' WHERE id = 1});
change('insert', q{INSERT INTO person VALUES (21, 1, 'p21')});
change('delete', q{DELETE FROM person WHERE id = 21});
change('a joined table', q{UPDATE team SET title = 'blue'});
change('a partition', q{INSERT INTO event VALUES (2, '2026-01-06', 'y')});
change('a new partition', q{CREATE TABLE event_2 PARTITION OF event FOR VALUES FROM ('2026-02-01') TO ('2026-03-01')});
change('a detached partition', q{ALTER TABLE event DETACH PARTITION event_1});
change('an attached one', q{ALTER TABLE event ATTACH PARTITION event_1 FOR VALUES FROM ('2026-01-01') TO ('2026-02-01')});
change('truncate', q{TRUNCATE event});
change('a savepoint that stays', q{SAVEPOINT s; UPDATE person SET name = 'sub' WHERE id = 2; RELEASE s});
change('a table rebuilt', q{CREATE TABLE fresh AS SELECT id, team, name || '!' AS name FROM person; DROP TABLE person CASCADE;
 ALTER TABLE fresh RENAME TO person; CREATE VIEW named AS SELECT * FROM person WHERE name IS NOT NULL;
 CREATE VIEW whole AS SELECT n.id, shout(n.name) AS name, t.title,
 (SELECT count(*) FROM event e WHERE e.id = n.id) AS events FROM named n LEFT JOIN team t ON t.id = n.team});
change('a view replaced', q{CREATE OR REPLACE VIEW named AS SELECT * FROM person WHERE id > 1});
change('a function replaced', q{CREATE OR REPLACE FUNCTION shout(t text) RETURNS text IMMUTABLE LANGUAGE plpgsql
 AS $$ BEGIN RETURN lower(t) || '?'; END $$});
change('statistics reset', q{SELECT pg_stat_reset(); UPDATE person SET name = 'reset' WHERE id = 3});

# In one go: COPY, a procedure that commits in a loop, a writer whose statistics come late.
$node->safe_psql('postgres', "COPY person FROM STDIN;\n50\t1\tcopied\n\\.\n");
expect('copy', 'full');
$node->safe_psql('postgres', q{CREATE PROCEDURE steps() LANGUAGE plpgsql AS $$
BEGIN
  FOR i IN 1 .. 5 LOOP
    UPDATE public.person SET name = 'step' || i WHERE id = 4;
    PERFORM retl.sync('whole');
    COMMIT;
  END LOOP;
END $$});
$node->safe_psql('postgres', 'CALL steps()');
my $last = $node->safe_psql('postgres', 'SELECT max(id) FROM retl.runs');
wait_for_run($node, $last);
check_oracle('a procedure that commits in a loop', $receiver, model_rows($node, 'SELECT * FROM whole', 'id'));
my $session = $node->background_psql('postgres');
for my $i (1 .. 3)
{
	# one session that is never idle for long keeps its statistics to itself
	$session->query_safe("UPDATE person SET name = 'busy$i' WHERE id = 5");
	expect("a busy session, $i", 'full');
}
expect('... then nothing', 'skipped');

# What is rolled back is no write; what is prepared may become one at any time.
$session->query_safe('BEGIN');
$session->query_safe(q{UPDATE person SET name = 'gone' WHERE id = 6});
expect('a writer that has not committed', 'skipped');
$session->query_safe('ROLLBACK');
expect('... nor will', 'skipped');
$node->safe_psql('postgres', q{BEGIN; UPDATE person SET name = 'later' WHERE id = 6; PREPARE TRANSACTION 'p'});
expect('prepared', 'full');
expect('... as long as it is', 'full');
$node->safe_psql('postgres', q{COMMIT PREPARED 'p'});
expect('... and committed', 'full');
expect('... then nothing', 'skipped');
$session->quit;

# A crash forgets the counters; so does a restart.
$node->safe_psql('postgres', q{UPDATE person SET name = 'crash' WHERE id = 7});
$node->stop('immediate');
$node->start;
expect('crash', 'full');
expect('... then nothing', 'skipped');

# Rights and names are looked at although nothing is read.
$node->safe_psql('postgres', q{CREATE ROLE reader; GRANT SELECT ON whole TO reader; GRANT reader TO postgres; GRANT USAGE ON SCHEMA retl TO reader});
$node->safe_psql('postgres', q{SELECT retl.alter_model('whole', owner => 'reader')});
expect('another owner', 'full');
$node->safe_psql('postgres', 'REVOKE SELECT ON whole FROM reader');
my $run = sync_and_wait($node, 'whole');
is("$run->{status} $run->{error_code}", 'failed 42501', 'a right that was revoked fails the run');
$node->safe_psql('postgres', 'GRANT SELECT ON whole TO reader');
expect('given back', 'skipped');

# Asked for, too old, switched off.
$run = wait_for_run($node, $node->safe_psql('postgres', q{SELECT retl.sync('whole', full => true)}));
is("$run->{strategy} $run->{strategy_reason}", 'full asked for', 'a full read that is asked for');
$node->safe_psql('postgres', q{UPDATE retl.model_state SET read_at = read_at - interval '59 minutes'});
expect('max_skip has not passed', 'skipped');
$node->safe_psql('postgres', q{UPDATE retl.model_state SET read_at = read_at - interval '2 minutes'});
expect('max_skip has passed', 'full');
$node->safe_psql('postgres', q{SELECT retl.alter_model('whole', max_skip => '0')});
expect('max_skip is 0', 'full');

# What is never skipped, and why.
$node->safe_psql('postgres', q{
CREATE EXTENSION file_fdw;
CREATE SERVER files FOREIGN DATA WRAPPER file_fdw;
CREATE FOREIGN TABLE far (id int) SERVER files OPTIONS (filename '/dev/null');
CREATE UNLOGGED TABLE unlogged (id int PRIMARY KEY);
CREATE FUNCTION vague() RETURNS int STABLE LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION wild() RETURNS int VOLATILE LANGUAGE plpgsql AS $$ BEGIN RETURN 1; END $$;
});
my @refused = (
	[ 'far', 'SELECT id FROM far', qr/foreign/ ],
	[ 'unlogged', 'SELECT id FROM unlogged', qr/unlogged/ ],
	[ 'catalog', 'SELECT oid::int AS id FROM pg_class', qr/catalog/ ],
	[ 'now', 'SELECT id FROM team WHERE now() > timestamptz \'2020-01-01\'', qr/now\(\)/ ],
	[ 'today', 'SELECT id FROM team WHERE CURRENT_DATE > date \'2020-01-01\'', qr/current time/ ],
	[ 'age', 'SELECT id, age(timestamptz \'2020-01-01\') AS a FROM team', qr/age\(/ ],
	[ 'stable', 'SELECT id, vague() AS v FROM team', qr/vague\(\)/ ],
	[ 'volatile', 'SELECT id, wild() AS v FROM team', qr/wild\(\)/ ],
	[ 'sample', 'SELECT id FROM team TABLESAMPLE bernoulli (100)', qr/sample/ ],
	[ 'input', 'SELECT id, title::date AS d FROM team WHERE false', qr/date_in/ ]);
for my $case (@refused)
{
	my ($name, $query, $why) = @$case;
	$node->safe_psql('postgres', sprintf('SELECT retl.create_model(%s, %s, %s, max_skip => %s)', literal($name), literal($query), literal('{id}'), literal('1 hour')));
	create_mapping($node, $name, $name, 'hook');
	sync_and_wait($node, $name);
	$run = sync_and_wait($node, $name);
	is("$run->{status} $run->{strategy}", 'succeeded full', "$name is read every time") or diag(json($run));
	like($run->{strategy_reason}, $why, '... and says why');
}
# Known to depend on its arguments alone.
$node->safe_psql('postgres', sprintf('SELECT retl.create_model(%s, %s, %s, max_skip => %s)', literal('steady'),
	literal(q{SELECT id, to_char(timestamptz '2020-01-01', 'YYYY') AS y, to_jsonb(t) AS j, format('%s', title) AS f, title || id AS c FROM team t}), literal('{id}'), literal('1 hour')));
create_mapping($node, 'steady', 'steady', 'hook');
sync_and_wait($node, 'steady');
is(sync_and_wait($node, 'steady')->{strategy}, 'skipped', 'text forms under pinned settings');
is($node->safe_psql('postgres', q{SELECT strategy FROM retl.preview_sync('steady')}), 'skipped', 'preview tells');
$node->safe_psql('postgres', 'ALTER TABLE team RENAME COLUMN title TO label; ALTER TABLE team RENAME COLUMN label TO title');
is(sync_and_wait($node, 'steady')->{strategy}, 'skipped', 'there and back again');

$node->stop('fast');
done_testing();
