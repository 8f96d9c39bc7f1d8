-- Two roles for two kinds of worker, on purpose: the snapshot worker evaluates
-- users' SQL and can read no secret; the delivery worker reads secrets and
-- opens sockets and never evaluates users' SQL. They have no password and no
-- members; the workers refuse to start otherwise.
DO $roles$
DECLARE
  worker text;
  facts record;
BEGIN
  FOREACH worker IN ARRAY ARRAY['retl_snapshot', 'retl_delivery'] LOOP
    SELECT r.rolsuper OR r.rolcreaterole OR r.rolcreatedb OR r.rolreplication OR r.rolbypassrls AS strong,
           EXISTS (SELECT 1 FROM pg_catalog.pg_auth_members m WHERE m.roleid = r.oid OR m.member = r.oid) AS member
      INTO facts
      FROM pg_catalog.pg_roles r WHERE r.rolname = worker;
    IF NOT FOUND THEN
      EXECUTE pg_catalog.format('CREATE ROLE %I LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOINHERIT NOREPLICATION NOBYPASSRLS', worker);
      RAISE NOTICE 'created role "%", as which retl''s worker connects', worker;
    ELSIF facts.strong OR facts.member THEN
      RAISE EXCEPTION 'role "%" exists and has attributes or memberships that a worker of retl must not have', worker
        USING ERRCODE = 'insufficient_privilege',
              HINT = 'Drop or rename the role, or take its attributes and memberships away.';
    END IF;
    EXECUTE pg_catalog.format('GRANT CONNECT ON DATABASE %I TO %I', pg_catalog.current_database(), worker);
  END LOOP;
END
$roles$;

GRANT USAGE, CREATE ON SCHEMA retl_data TO retl_snapshot;
