-- The extension is there: the test runner created it in this database.
SELECT extname FROM pg_extension WHERE extname = 'retl';
