# SIGTERM to the process at the fault points; see CrashSweep.pm.
use strict;
use warnings;

use CrashSweep;
use RetlTest;
use Test::More;

crash_sweep('term');
done_testing();
