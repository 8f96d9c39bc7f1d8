# One record by its key: what its destination has of it, and taking out all that is stored of it.
use strict;
use warnings;

use RetlTest;
use Test::More;

my $node = new_node('record', conf => "retl.retry_delay = 20ms\n");
my $receiver = new_receiver();
$node->safe_psql('postgres', q{
CREATE TABLE person (id int PRIMARY KEY, email text);
INSERT INTO person SELECT i, 'person' || i || '@example.com' FROM generate_series(1, 50) i;
SELECT retl.create_model('people', 'person', '{id}');
CREATE TABLE place (region text, id int, name text, PRIMARY KEY (region, id));
INSERT INTO place VALUES ('eu', 7, 'Vienna'), ('us', 7, 'Boston');
SELECT retl.create_model('places', 'place', '{region,id}');
});

sub query { return $node->safe_psql('postgres', $_[0]); }

sub status
{
	my ($key, $mapping) = @_;
	$mapping //= 'crm';
	return query("SELECT concat_ws(' ', acknowledged->>'email', operation, coalesce(run::text, '-'), 'pending', coalesce(pending, '-'),"
		. " coalesce(pending_run::text, '-'), reason, maybe) FROM retl.status_of('$mapping', '$key')");
}

# Everything that is stored, as text: where a word occurs.
sub places_of
{
	my ($word) = @_;
	return query(qq{
SELECT string_agg(t, ' ' ORDER BY t) FROM (SELECT c.oid::regclass::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE n.nspname IN ('retl', 'retl_data') AND c.relkind = 'r') c (t)
 WHERE (xpath('count(//*[contains(text(), "$word")])', query_to_xml('SELECT * FROM ' || t, true, false, '')))[1]::text::numeric > 0});
}

create_webhook($node, $_, $receiver) for qw(crm mail);
create_mapping($node, $_, 'people', $_, batch_size => 10) for qw(crm mail);

# What a destination has of a record.
is(status(42), '', 'nothing is known of a model that was never read');
my $first = sync_and_wait($node, 'crm');
is(status(42), "person42\@example.com added $first->{id} pending - -", 'a record that was accepted');
is(status(42, 'mail'), '- pending added -', '... and for a mapping that has sent nothing it is to be added');
is(status(1000), '- pending - -', '... and of one that never was, nothing is known');
my $mail = sync_and_wait($node, 'mail');
query(q{UPDATE person SET email = 'changed42@example.com' WHERE id = 42; DELETE FROM person WHERE id = 43});
sync_and_wait($node, 'mail');
is(status(42), "person42\@example.com added $first->{id} pending updated -", 'what changed since is pending');
is(status(43), "person43\@example.com added $first->{id} pending deleted -", '... and what is gone');
$receiver->rules({ path => '/crm', match => 'changed42', status => 422, body => 'no' });
my $second = sync_and_wait($node, 'crm');
is(status(42), "person42\@example.com added $first->{id} pending updated - rejected f", 'what was rejected is as it was');
is(status(43), "deleted $second->{id} pending - -", 'what was deleted is not there');
$receiver->rules({ path => '/crm', hang => 1 });
query(q{UPDATE person SET email = 'again44@example.com' WHERE id = 44});
my $hanging = sync($node, 'crm');
$node->poll_query_until('postgres', q{SELECT EXISTS (SELECT FROM retl.batch WHERE status = 'pending')}) or die 'nothing is sent';
is(status(44), "person44\@example.com added $first->{id} pending updated $hanging", 'what is under way says in which run');
is($node->psql('postgres', q{SELECT * FROM retl.erase('people', '44', force => true)}, on_error_stop => 1), 3, '... and cannot be erased');
query("SELECT retl.cancel_run($hanging)");
$receiver->rules();
$receiver->release;
wait_for_run($node, $hanging);
sync_and_wait($node, 'crm');

# Taking a record out.
query(q{INSERT INTO person VALUES (51, 'unforgotten51@example.com')});
sync_and_wait($node, $_) for qw(crm mail);
$receiver->rules({ path => '/crm', match => 'unforgotten51b', status => 422, body => 'unforgotten51b is taken' });
query(q{UPDATE person SET email = 'unforgotten51b@example.com' WHERE id = 51});
sync_and_wait($node, $_) for qw(crm mail);
like(places_of('unforgotten51'), qr/retl\.attempt retl\.batch .*retl\.batch_body.*retl\.exception.*retl_data\.checkpoint_1/, 'a record is in many places');

sub refused
{
	my ($sql, $state, $message, $name) = @_;
	my ($ret, $out, $err) = $node->psql('postgres', "\\set VERBOSITY verbose\n$sql");
	like($err, qr/ERROR:  $state: $message.*HINT/s, $name);
}

refused(q{SELECT * FROM retl.erase('people', '51')}, '55000', 'the record is in model "people"', 'it is not erased while the model has it');
query(q{DELETE FROM person WHERE id = 51});
sync_and_wait($node, 'mail');
refused(q{SELECT * FROM retl.erase('people', '51')}, '55000', 'the destination of mapping "crm" was not told', '... nor before everybody was told');
refused(q{SELECT * FROM retl.erase('people', 'null')}, '22023', 'not a key of model "people"', '... nor what is no key');
query('CREATE ROLE stranger; GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA retl TO stranger');
refused(q{SET ROLE stranger; SELECT * FROM retl.erase('people', '51')}, '42501', 'must be owner of model', '... nor by a stranger');
refused(q{SET ROLE stranger; SELECT * FROM retl.status_of('crm', '51')}, '42501', 'must be owner of mapping', '... who may not look at it either');
$receiver->rules();
sync_and_wait($node, 'crm');
is(query(q{SELECT string_agg(mapping || ' ' || operation || ' ' || status, ', ' ORDER BY mapping, batch) FROM retl.erase('people', '51') WHERE at < now() AND connector = 'webhook' AND mapping = destination}),
	'crm added delivered, crm updated failed, crm deleted delivered, mail added delivered, mail updated delivered, mail deleted delivered',
	'erasing it says where it was sent');
is(places_of('unforgotten51'), '', '... and nothing of it is left');
is(query(q{SELECT count(*) FROM retl.find_requests('crm', '51')}), 0, '... nor found');
is(query(q{SELECT count(*) FROM retl.erase('people', '51')}), 0, '... and there is nothing to erase a second time');
is(status(50), "person50\@example.com added $first->{id} pending - -", 'its neighbours are as they were');

# By force, though the model still has it: it comes back as new.
is(query(q{SELECT count(*) FROM retl.erase('people', '10', force => true)}), 2, 'a record is erased by force');
$receiver->clear;
my $back = sync_and_wait($node, 'crm');
is("$back->{added} $back->{updated} $back->{deleted}", '1 0 0', '... and sent anew, as the model has it');
is(query(q{SELECT row_count FROM retl.model_state WHERE model = 1}), query('SELECT count(*) FROM person'), '... and rows are counted right');

# Keys of several columns.
create_mapping($node, 'places', 'places', 'mail', batch_size => 10);
sync_and_wait($node, 'places');
query(q{DELETE FROM place WHERE region = 'eu'});
sync_and_wait($node, 'places');
is(query(q{SELECT record FROM retl.status_of('places', '{"id": 7, "region": "us"}')}), '{"region": "us", "id": 7}', 'a key of two columns, in any order');
is(query(q{SELECT count(*) FROM retl.erase('places', '{"id": 7, "region": "eu"}')}), 2, '... is erased');
is(places_of('Vienna'), '', '... and nothing of it is left');

# Failed rows are tried for as long as a setting says.
$receiver->rules({ path => '/crm', match => 'taken', status => 422 });
query(q{UPDATE person SET email = 'taken' WHERE id = 1});
sync_and_wait($node, 'crm');
query(q{UPDATE retl.exception SET failed_at = now() - interval '31 days'});
query('CALL retl.work()');
is(query('SELECT count(*) FROM retl.failed_rows'), 1, 'a failed row stays for ever');
$node->append_conf('postgresql.conf', 'retl.failed_row_retention = 30d');
$node->reload;
$node->poll_query_until('postgres', q{SELECT current_setting('retl.failed_row_retention') = '30d'}) or die 'no reload';
query('CALL retl.work()');
is(query('SELECT count(*) FROM retl.failed_rows'), 0, '... unless a setting gives it an end');
$receiver->rules();
my $last = sync_and_wait($node, 'crm');
is("$last->{added} $last->{updated} $last->{deleted}", '0 0 0', '... then it counts as accepted');

$node->stop;
done_testing();
