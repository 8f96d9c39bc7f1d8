/* Placeholder until mappings are here. */
#include "postgres.h"

#include "map/mapping.h"

__attribute__((weak)) bool
retl_mapping_takes(const RetlMapping *mapping, RetlOperation operation)
{
	return true;
}
