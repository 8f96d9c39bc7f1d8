# An immediate shutdown at the fault points; see CrashSweep.pm.
use strict;
use warnings;

use CrashSweep;
use RetlTest;
use Test::More;

crash_sweep('immediate');
done_testing();
