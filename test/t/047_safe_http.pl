# What a destination's owner, or a row, must not make the server connect to, however it is written, resolved or redirected;
# and whom the server trusts.
use strict;
use warnings;

use IO::Select;
use IO::Socket::INET;
use IO::Socket::IP;
use PostgreSQL::Test::Utils;
use RetlTest;
use Test::More;

# 127.0.0.2 is what may be reached; whatever else is local stands for what must not be.
my $receiver = new_receiver(host => '127.0.0.2');
my $port = $receiver->port;
my @traps = grep { defined } map { IO::Socket::IP->new(LocalAddr => $_, LocalPort => $port, Listen => 50, Proto => 'tcp', V6Only => 1) } '127.0.0.1', '::1';
ok(@traps > 0, 'there is something to fall into') or die;
my $select = IO::Select->new(@traps);
sub untouched { is(scalar $select->can_read(0), undef, $_[0]); }

# Names of our own, and an environment that would lead astray.
my $dir = $PostgreSQL::Test::Utils::tmp_check;
system_or_bail('cc', '-shared', '-fPIC', '-o', "$dir/hosts.so", "$ENV{RETL_TREE}/test/lib/hosts.c", '-ldl');
sub hosts
{
	open my $file, '>', "$dir/hosts.new" or die;
	print $file map { "$_\n" } @_;
	close $file;
	rename "$dir/hosts.new", "$dir/hosts" or die;
}
hosts('good.test 127.0.0.2', 'trap.test 127.0.0.1', 'trap6.test ::1', 'mapped.test ::ffff:127.0.0.1', 'meta.test 169.254.169.254',
	'mixed.test 127.0.0.1', 'mixed.test ::1', 'mixed.test 127.0.0.2', 'rebound.test 127.0.0.2');
my $node;
{
	local $ENV{LD_PRELOAD} = "$dir/hosts.so";
	local $ENV{RETL_HOSTS} = "$dir/hosts";
	local $ENV{http_proxy} = "http://127.0.0.1:$port";
	local $ENV{HTTPS_PROXY} = "http://127.0.0.1:$port";
	local $ENV{ALL_PROXY} = "http://127.0.0.1:$port";
	$node = new_node('safe', conf => "retl.allowed_private_networks = '127.0.0.2/32'\nretl.retry_delay = 20ms\nlog_statement = none\n");
}

sub query { return $node->safe_psql('postgres', $_[0]); }

# URLs that a row gives. None may be refused for what it is not: the good ones among them arrive.
my @good = map { "http://$_:$port/good" } '127.0.0.2', 'good.test', 'mixed.test', '2130706434', '0x7f.2', '0177.0.0.2', '127.2';
my @bad = (
	(map { "http://$_:$port/bad" } '127.0.0.1', '127.1', '127.0.1', '2130706433', '0x7f000001', '0x7F.1', '017700000001', '0177.0.0.1', '127.0.0.1.', 'localhost', 'LOCALHOST',
		'localhost.', '[::1]', '[0:0:0:0:0:0:0:1]', '[::ffff:127.0.0.1]', '[::ffff:7f00:1]', '[::127.0.0.1]', '[::]', '0.0.0.0', '0', '[64:ff9b::7f00:1]', '[2002:7f00:1::1]',
		'[fe80::1%25lo]', '[::1%25lo]', 'trap.test', 'trap6.test', 'mapped.test', 'meta.test', '127.0.0.2@127.0.0.1', 'a@127.0.0.1', 'a:b@127.0.0.1', '127.0.0.1#@127.0.0.2', '%31%32%37.0.0.1',
		'127.0.0.1%00.test', '①②⑦.⓪.⓪.①', '127。0。0。1', '127.0.0.1%2f.test', 'localhost%2e'),
	"http://127.0.0.1:$port\\\@127.0.0.2/", "http://127.0.0.2:$port\\\@127.0.0.1:$port/", "http://127.0.0.2\@127.0.0.1:$port/", "http:127.0.0.1:$port", "http:/127.0.0.1:$port/", "//127.0.0.1:$port/",
	"http:///127.0.0.1:$port/", 'http://169.254.169.254/latest/meta-data', 'http://[fd00:ec2::254]/', 'http://10.0.0.1/', 'http://192.168.0.1/', "file:///etc/passwd", "gopher://127.0.0.1:$port/x",
	"ftp://127.0.0.1:$port/", "dict://127.0.0.1:$port/", "HTTP\x{0a}://127.0.0.1:$port/", "http://127.0.0.1:$port/\x{0d}\x{0a}X: y", " http://127.0.0.1:$port/");
query('CREATE TABLE u (id int PRIMARY KEY, url text, good boolean)');
my $id = 0;
query('INSERT INTO u VALUES ' . join ', ', map { '(' . ++$id . ', ' . literal($_->[0]) . ", $_->[1])" } (map { [ $_, 'true' ] } @good), (map { [ $_, 'false' ] } @bad));
query(q{SELECT retl.create_model('u', 'u', '{id}')});
create_webhook($node, 'rows', $receiver, settings => { timeout => 5 });
create_mapping($node, 'rows', 'u', 'rows', max_attempts => 1, fields => { url => { '@path' => '$.url' }, data => { id => { '@path' => '$.id' } } });
my $run = sync_and_wait($node, 'rows');
is("sent $run->{sent} failed $run->{failed}", 'sent ' . @good . ' failed ' . @bad, 'URLs of rows: those of an allowed address arrive, and no others') or diag(query('SELECT id, url, good FROM u ORDER BY id'));
is(query(q{SELECT string_agg(url, ' ') FROM u WHERE good <> NOT EXISTS (SELECT FROM retl.failed_rows f WHERE f.key::text = u.id::text)}), '', '... each as it should');
cmp_ok(query(q{SELECT count(*) FROM retl.failed_rows WHERE error LIKE '%is not allowed: %'}), '>', 20, '... most were refused for their address');
untouched('... and nothing was reached that must not be');

# URLs of settings: refused when they are given, or when they are used.
for my $url (@bad)
{
	$node->psql('postgres', sprintf q{SELECT retl.create_destination('try', 'webhook', %s); SELECT retl.test_destination('try', '3 s')}, literal(json({ url => $url })));
	query(q{SELECT retl.drop_destination('try', if_exists => true)});
}
untouched('URLs of settings lead no further');

# What a row puts into headers and URLs stays where it was put.
query(q{CREATE TABLE h (id int PRIMARY KEY, v text); INSERT INTO h VALUES (1, 'plain'), (2, E'a\r\nX-Evil: 1'), (3, E'a\nX-Evil: 1'), (4, E'a\x01'), (5, E'a\x7f'),
  (6, 'é?&=#/../%25 +@:;'), (7, '../../up'), (8, '@127.0.0.1'), (9, E'x HTTP/1.1\r\nX-Evil: 1')});
query(q{SELECT retl.create_model('h', 'h', '{id}')});
create_webhook($node, 'headers', $receiver);
create_mapping($node, 'headers', 'h', 'headers', fields => { headers => { 'X-V' => { '@path' => '$.v' } }, data => { id => { '@path' => '$.id' } } });
is(sync_and_wait($node, 'headers')->{status}, 'partial', 'headers that rows give');
is(query(q{SELECT string_agg(key::text, ' ' ORDER BY key::text) FROM retl.failed_rows WHERE mapping = 'headers'}), '2 3 4 5 9', '... are refused with control characters in them, each alone');
is(join(' ', sort map { header($_, 'x-v') } $receiver->requests(qr{/headers})), "../../up \@127.0.0.1 plain \x{e9}?&=#/../%25 +\@:;", '... and sent as they are without');
create_webhook($node, 'paths', $receiver);
create_mapping($node, 'paths', 'h', 'paths', fields => { url => { '@template' => "http://127.0.0.2:$port/paths/{{v}}/x?v={{v}}" }, data => { id => { '@path' => '$.id' } } });
is(sync_and_wait($node, 'paths')->{status}, 'succeeded', 'URLs into which rows are put');
my %paths = map { JSON::PP::decode_json($_->{body})->{id} => $_->{path} } $receiver->requests(qr{/paths});
is($paths{6}, '/paths/%C3%A9%3F%26%3D%23%2F..%2F%2525%20%2B%40%3A%3B/x?v=%C3%A9%3F%26%3D%23%2F..%2F%2525%20%2B%40%3A%3B', '... are percent-encoded');
is($paths{2}, '/paths/a%0D%0AX-Evil%3A%201/x?v=a%0D%0AX-Evil%3A%201', '... whatever is in them');
is(scalar(grep { defined header($_, 'x-evil') } $receiver->requests), 0, '... and nothing gets out of its place');

# Redirects are not followed.
create_webhook($node, 'away', $receiver);
create_mapping($node, 'away', 'u', 'away', batch_size => 1000);
$receiver->rules({ path => '/away', redirect => "http://127.0.0.1:$port/" });
is(sync_and_wait($node, 'away')->{status}, 'failed', 'a redirect is no success');
untouched('... and is not followed');

# A name whose address becomes another one; the worker is another one, as names are kept in mind for a minute.
create_webhook($node, 'rebound', $receiver, settings => { url => "http://rebound.test:$port/rebound" });
create_mapping($node, 'rebound', 'u', 'rebound', batch_size => 1000, max_change_percent => 100, max_attempts => 1, fields => whole_row());
$receiver->rules({ path => '/rebound', close_after => JSON::PP::true });
is(sync_and_wait($node, 'rebound')->{status}, 'succeeded', 'a name that leads to an allowed address');
hosts('rebound.test 127.0.0.1');
my $pid = worker_pid($node, 'delivery');
kill 'TERM', $pid;
wait_gone($pid);
query(q{UPDATE u SET url = url || '#'});
$run = sync_and_wait($node, 'rebound');
is("$run->{status} sent $run->{sent}", 'failed sent 0', '... is not followed to another one');
untouched('... which sees nothing of it');

# A connection that is there already does not outlive the permission.
create_webhook($node, 'kept', $receiver);
create_mapping($node, 'kept', 'u', 'kept', batch_size => 1000, max_change_percent => 100);
is(sync_and_wait($node, 'kept')->{status}, 'succeeded', 'a connection is made');
my $seen = scalar $receiver->requests(qr{/kept});
query(q{ALTER SYSTEM SET retl.allowed_private_networks = ''});
query(q{SELECT pg_reload_conf()});
query(q{UPDATE u SET url = url || '!'});
$run = sync_and_wait($node, 'kept');
is("$run->{status} sent $run->{sent}", 'failed sent 0', '... and not used again when its address is no longer allowed');
is(scalar $receiver->requests(qr{/kept}), $seen, '... by any request');
query(q{ALTER SYSTEM RESET retl.allowed_private_networks});
query(q{SELECT pg_reload_conf()});

# A proxy: names are its matter, addresses are not.
my $log = "$dir/proxy.log";
my $proxy_pid = open my $proxy, '-|', '/usr/bin/python3', '-B', "$ENV{RETL_TREE}/test/lib/proxy.py", '--log', $log, '--host', '127.0.0.2', '--to', '127.0.0.2' or die;
my $proxy_port = readline $proxy;
chomp $proxy_port;
sub proxied
{
	my ($name, $url, $by) = @_;
	create_webhook($node, $name, $receiver, settings => { url => $url, proxy => $by // "http://127.0.0.2:$proxy_port" });
	create_mapping($node, $name, 'u', $name, batch_size => 1000, max_attempts => 1);
	return sync_and_wait($node, $name);
}
is(proxied('through', "http://hidden.example:$port/through")->{status}, 'succeeded', 'a name that only the proxy knows');
is(slurp_file($log), "CONNECT hidden.example:$port HTTP/1.1\n", '... through a tunnel');
is(header(($receiver->requests(qr{/through}))[0], 'proxy-connection'), undef, '... of which the destination sees nothing');
is(proxied('inside', "http://0x7f.1:$port/inside")->{status}, 'failed', 'an address that is not allowed is not through a proxy, either');
is(slurp_file($log) =~ tr/\n//, 1, '... which is not asked');
is(proxied('trapped', "http://hidden.example:$port/", "http://127.0.0.1:$port")->{status}, 'failed', 'a proxy whose address is not allowed');
untouched('... is not asked');
like(($node->psql('postgres', q{SELECT retl.alter_destination('through', '{"proxy": "http://user:pw@proxy.example"}')}))[2], qr/must not have a user or password/, 'a proxy has no password in its URL');

# Authorities of one's own, TLS through the proxy, and TLS that is too old.
my ($key, $certificate) = ("$dir/key.pem", "$dir/certificate.pem");
system_or_bail('openssl', 'req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2', '-subj', '/CN=receiver', '-addext',
	'subjectAltName=IP:127.0.0.2,DNS:hidden.example', '-keyout', $key, '-out', $certificate);
my $secure = new_receiver(host => '127.0.0.2', cert => $certificate, key => $key);
create_webhook($node, 'secure', $secure);
create_mapping($node, 'secure', 'u', 'secure', batch_size => 1000, max_attempts => 1);
is(sync_and_wait($node, 'secure')->{status}, 'failed', 'a certificate of nobody whom we know');
query("ALTER SYSTEM SET retl.ca_file = '$certificate'");
query('SELECT pg_reload_conf()');
is(sync_and_wait($node, 'secure')->{status}, 'succeeded', '... is one of an authority that retl.ca_file has');
is(proxied('tunnel', 'https://hidden.example:' . $secure->port . '/tunnel')->{status}, 'succeeded', '... through a proxy, too');
query("ALTER SYSTEM SET retl.ca_file = '$dir/nothing.pem'");
query('SELECT pg_reload_conf()');
query(q{UPDATE u SET url = url || '?' WHERE id < 10});
is(sync_and_wait($node, 'secure')->{status}, 'failed', '... and no longer, when another file is named, though there is a connection');
query("ALTER SYSTEM SET retl.ca_file = '$certificate'");
query('SELECT pg_reload_conf()');
is(sync_and_wait($node, 'secure')->{status}, 'succeeded', '... until it is named again');
my $free = IO::Socket::INET->new(Listen => 1, LocalAddr => '127.0.0.2') or die;
my $old_port = $free->sockport;
close $free;
my $old_pid = open my $old, '-|', 'openssl', 's_server', '-accept', "127.0.0.2:$old_port", '-cert', $certificate, '-key', $key, '-tls1_1', '-cipher', 'ALL:@SECLEVEL=0', '-www' or die;
readline $old;
create_webhook($node, 'old', $secure, settings => { url => "https://127.0.0.2:$old_port/" });
create_mapping($node, 'old', 'u', 'old', batch_size => 1000, max_attempts => 1);
$run = sync_and_wait($node, 'old');
is("$run->{status} sent $run->{sent}", 'failed sent 0', 'TLS 1.1 is no TLS');
like(query("SELECT error FROM retl.attempts WHERE run = $run->{id} LIMIT 1"), qr/TLS|SSL/i, '... as the attempt says');
like(($node->psql('postgres', "SET retl.ca_file = '/tmp/mine.pem'"))[2], qr/cannot be changed now/, 'whom to trust is not for a session to say');

kill 'TERM', $proxy_pid, $old_pid;
close $_ for $proxy, $old;
done_testing();
