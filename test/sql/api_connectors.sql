-- Connectors of one's own, and the checks of their definitions.
\pset format unaligned
\pset tuples_only on
\set VERBOSITY default
\set SHOW_CONTEXT never

-- those that come along are valid
SELECT retl.create_connector((definition::jsonb || jsonb_build_object('name', 'copy_' || name))::json) IS NULL AS never, count(*) > 0 FROM retl.connector GROUP BY 1;
SELECT count(*) FILTER (WHERE NOT built_in) = count(*) FILTER (WHERE built_in) FROM retl.connector;
SELECT retl.drop_connector(name) IS NULL FROM retl.connector WHERE NOT built_in GROUP BY 1;

-- one of one's own
CREATE FUNCTION pg_temp.def(patch jsonb = '{}', path text[] = '{}', value jsonb = NULL) RETURNS json LANGUAGE sql AS $$
  SELECT (CASE WHEN path = '{}' THEN d || patch ELSE jsonb_set(d || patch, path, value) END)::json FROM (SELECT jsonb '{
  "name": "crm", "title": "CRM", "description": "Our CRM",
  "settings": {"host": {"type": "string", "required": true, "description": "Host"}, "size": {"type": "integer", "default": 10}},
  "secrets": {"token": {"title": "Token"}},
  "auth": [{"type": "bearer", "secret": "token"}],
  "base_url": "https://example.com",
  "concurrency": {"setting": "size"},
  "actions": {"put": {
    "title": "Put", "operations": ["added", "updated"],
    "fields": {"id": {"type": "string", "required": true}, "data": {"type": "object", "description": "All else"}, "tags": {"type": "string", "multiple": true}},
    "identity": ["id"], "one_of": [["id", "data"]],
    "request": {"method": "PUT", "url": {"@template": "/{{settings.host}}/{{fields.id}}"}, "record": {"@path": "$.fields.data"}, "body": {"key": {"@secret": "token"}, "rows": {"@records": true}}},
    "batch": {"records": 5, "max_records": 50, "record_bytes": 1000},
    "response": {"listed": {"at": "$.errors", "index": "$.i", "reason": "$.message"}}}}}' AS d) x $$;
SELECT retl.create_connector(pg_temp.def());
SELECT * FROM retl.describe_connector('crm');
SELECT name, title, built_in, actions FROM retl.connectors WHERE name = 'crm';
SELECT retl.create_destination('ours', 'crm', '{"host": "h"}') > 0;

-- changes
SELECT retl.create_connector(pg_temp.def());
SELECT retl.create_connector(pg_temp.def('{"title": "CRM 2"}'), or_replace => true);
SELECT retl.alter_connector('crm', pg_temp.def('{"title": "CRM 3"}'));
SELECT title FROM retl.connectors WHERE name = 'crm';
SELECT retl.alter_connector('crm', pg_temp.def('{}', '{settings,more}', '{"type": "string", "required": true}'));
SELECT retl.alter_connector('crm', pg_temp.def('{"name": "other"}'));
SELECT retl.alter_connector('crn', pg_temp.def('{"name": "crn"}'));
SELECT retl.alter_connector('webhook', pg_temp.def('{"name": "webhook"}'));
SELECT retl.create_connector(pg_temp.def('{"name": "webhook"}'), or_replace => true);

-- what is wrong, and where
\set VERBOSITY terse
CREATE FUNCTION pg_temp.wrong(path text[], value jsonb) RETURNS text LANGUAGE plpgsql AS $$
DECLARE detail text;
BEGIN
  PERFORM retl.create_connector(pg_temp.def('{"name": "bad"}', path, value));
  RETURN 'nothing';
EXCEPTION WHEN OTHERS THEN
  GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL;
  RETURN SQLSTATE || ' ' || coalesce(nullif(detail, ''), SQLERRM);
END $$;
SELECT pg_temp.wrong(path::text[], value::jsonb) FROM (VALUES
  ('{name}', '1'), ('{name}', '""'), ('{colour}', '1'), ('{actons}', '{}'), ('{actions}', '{}'), ('{actions}', '[]'),
  ('{settings,host,type}', '"text"'), ('{settings,host,requred}', 'true'), ('{settings,size,default}', '"x"'), ('{settings,Host}', '{"type": "string"}'),
  ('{secrets,a-b}', '{}'), ('{auth,0,secret}', '"tokn"'), ('{auth,0,type}', '"oauth"'), ('{auth,0}', '{"type": "basic", "secret": "token"}'),
  ('{auth,0}', '{"type": "header", "secret": "token"}'), ('{base_url}', '"example.com"'), ('{base_url}', '{"@template": "https://{{settings.hst}}"}'),
  ('{base_url}', '{"@path": "$.fields.id"}'), ('{concurrency}', '{"setting": "sizes"}'), ('{concurrency}', '"4"'), ('{timeout}', 'true'),
  ('{actions,put,operations}', '["upsert"]'), ('{actions,put,fields,id,type}', '"uuid"'), ('{actions,put,fields,id,as}', '"unix"'),
  ('{actions,put,fields,data,properties}', '{"a": {"typ": "string"}}'), ('{actions,put,fields,id,default}', '{"@path": "$.a", "@if": 1}'),
  ('{actions,put,identity}', '["key"]'), ('{actions,put,one_of}', '[[]]'), ('{actions,put,one_of}', '[["nobody"]]'), ('{actions,put,batch}', '{"size": 5}'),
  ('{actions,put,batch,records}', '"many"'), ('{actions,put,response}', '{"listed": {"at": "errors"}}'), ('{actions,put,response}', '{"list": {}}'),
  ('{actions,put,request,url}', '{"@template": "/{{fields.key}}"}'), ('{actions,put,request,record}', '{"@path": "$.filds.id"}'),
  ('{actions,put,request,record}', '{"@secret": "token"}'), ('{actions,put,request,record}', '{"@pth": "$.fields.id"}'), ('{actions,put,request,body,key}', '{"@secret": "other"}'),
  ('{actions,put,request,deleted}', '{"verb": "DELETE"}'), ('{actions,put,request,record}', '{"@arrayPath": ["$.fields.nothing", {}]}'),
  ('{actions,put,request,record}', '{"@arrayPath": ["$.fields.tags", {"x": {"@path": "$.anything"}}]}')) t (path, value);
SELECT retl.create_connector('[]');

-- rights
CREATE ROLE regress_connectors_user;
SET ROLE regress_connectors_user;
SELECT retl.create_connector('{}');
SELECT retl.drop_connector('crm');
SELECT count(*) > 3 FROM retl.describe_connector('crm');
RESET ROLE;
DROP ROLE regress_connectors_user;

-- the end of it
SELECT retl.describe_connector('crn');
SELECT retl.drop_connector('crm');
SELECT retl.drop_connector('crm', cascade => true);
SELECT count(*) FROM retl.destinations;
SELECT retl.drop_connector('crm');
SELECT retl.drop_connector('crm', if_exists => true);
SELECT retl.drop_connector('webhook');
