# kill -9 of the postmaster at the fault points; see CrashSweep.pm.
use strict;
use warnings;

use CrashSweep;
use RetlTest;
use Test::More;

crash_sweep('kill_postmaster');
done_testing();
