#!/bin/sh
# Writes the install script: the parts, then one row for each connector file.
# Usage: build.sh 'part.sql ...' 'connector.json ...'
set -eu
for part in $1; do
	cat "$part"
	echo
done
for file in $2; do
	name=$(basename "$file" .json)
	echo "INSERT INTO retl.connector (name, definition, built_in) VALUES ('$name', \$connector\$"
	cat "$file"
	echo "\$connector\$, true);"
	echo
done
