#include "postgres.h"
#include "utils/timestamp.h"
extern TimestampTz retl_delivery_main_loop(void);
__attribute__((weak)) TimestampTz retl_delivery_main_loop(void){return DT_NOEND;}
