# Without preloading, and on a standby: no workers, clear words, and workers after promotion.
use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RetlTest;
use Test::More;

my $bare = new_node('bare', conf => "shared_preload_libraries = ''\n");
is($bare->safe_psql('postgres', 'SELECT DISTINCT obstacle FROM retl.worker_state()'),
	'retl is not in shared_preload_libraries', 'without preloading the state says why');
$bare->safe_psql('postgres', 'SELECT retl.wake_workers()');
pass('and there is nobody to wake');
is($bare->safe_psql('postgres', q{LOAD 'retl'; SHOW retl.naptime}), '1min', 'settings exist');
$bare->safe_psql('postgres', 'DROP EXTENSION retl CASCADE');
$bare->stop('fast');

my $primary = new_node('primary', conf => "wal_level = replica\nmax_wal_senders = 4\nhot_standby = on\n");
$primary->append_conf('pg_hba.conf', 'local replication all trust');
$primary->reload;
$primary->backup('copy');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'copy', has_streaming => 1);
$standby->start;
$primary->wait_for_catchup($standby);
is($standby->safe_psql('postgres', "SELECT count(*) FROM pg_stat_activity WHERE backend_type ~ '^retl'"),
	'0', 'no launcher on a standby');
is($standby->safe_psql('postgres', 'SELECT DISTINCT obstacle FROM retl.worker_state()'),
	'the server is in recovery', 'which is said');
$primary->stop('fast');
$standby->promote;
ok($standby->poll_query_until('postgres', 'SELECT bool_and(found) FROM retl.worker_state()'), 'workers after promotion');
$standby->stop('fast');
done_testing();
