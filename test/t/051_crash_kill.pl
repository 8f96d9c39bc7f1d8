# kill -9 of the process at the fault points; see CrashSweep.pm.
use strict;
use warnings;

use CrashSweep;
use RetlTest;
use Test::More;

crash_sweep('kill');
done_testing();
