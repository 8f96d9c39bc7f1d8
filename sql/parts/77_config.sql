-- Configuration as code: what is configured as one JSON document, and a
-- document put into force. Both run as their caller: who exports sees what is
-- his, and who applies may do what create_..., alter_... and drop_... let him.
--
-- What a kind of object is made of is read off the arguments of its create_...
-- function, so that there is no list here to be kept beside them.

CREATE FUNCTION retl.set_managed(kind text, name text, managed_by jsonb) RETURNS void
  LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'retl_set_managed';
COMMENT ON FUNCTION retl.set_managed(text, text, jsonb) IS 'Says what keeps a model, destination or mapping up to date, and may therefore drop it: import_dbt marks what it makes so. NULL: people do';
REVOKE ALL ON FUNCTION retl.set_managed(text, text, jsonb) FROM PUBLIC;

CREATE FUNCTION retl.model_columns(model text, OUT relation text, OUT "column" text, OUT type text, OUT used boolean)
  RETURNS SETOF record LANGUAGE c STABLE PARALLEL UNSAFE ROWS 50 AS 'MODULE_PATHNAME', 'retl_model_columns';
COMMENT ON FUNCTION retl.model_columns(text) IS 'Columns of the tables and views that a model names, and whether its query uses them; used is NULL where the model is a relation as a whole, of which mappings use what mapping_columns says';

CREATE FUNCTION retl.mapping_columns(fields json, filter text DEFAULT NULL, update_when text DEFAULT NULL) RETURNS text[]
  LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'retl_mapping_columns';
COMMENT ON FUNCTION retl.mapping_columns(json, text, text) IS 'Columns of its model that a mapping with these attributes uses; * stands for the row as a whole. Needs neither model nor destination';

CREATE FUNCTION retl.config_arguments(kind text, OUT name text, OUT type regtype, OUT "default" text) RETURNS SETOF record
  LANGUAGE sql STABLE PARALLEL SAFE ROWS 20 SET search_path = pg_catalog, pg_temp AS $$
SELECT p.proargnames[i], p.proargtypes[i - 1]::regtype, pg_get_function_arg_default(p.oid, i)
  FROM pg_proc p, generate_series(1, p.pronargs) AS i
 WHERE p.pronamespace = 'retl'::regnamespace AND p.proname = 'create_' || kind
   AND p.proargnames[i] <> 'or_replace'
 ORDER BY i
$$;
COMMENT ON FUNCTION retl.config_arguments(text) IS 'Members of an object of a kind (connector, destination, model, mapping) in a configuration: the arguments of its create_ function';

CREATE FUNCTION retl.config_objects(kind text, only_name text DEFAULT NULL, OUT name text, OUT object jsonb) RETURNS SETOF record
  LANGUAGE sql STABLE PARALLEL UNSAFE ROWS 50
  SET search_path = pg_catalog, pg_temp SET intervalstyle = postgres SET jit = off AS $$
WITH found (name, members) AS (
  SELECT c.name, jsonb_build_object('definition', c.definition)
    FROM retl.connectors c WHERE kind = 'connector' AND NOT c.built_in
  UNION ALL
  SELECT d.name, to_jsonb(d) || jsonb_build_object('secrets', coalesce(
           (SELECT jsonb_object_agg(s.key, coalesce(d.secret_references -> s.key, 'null'))
              FROM jsonb_each(d.secrets) s WHERE s.value = 'true'), '{}'))
    FROM retl.destinations d WHERE kind = 'destination' AND pg_has_role(d.owner::oid, 'USAGE')
  UNION ALL
  SELECT m.name, to_jsonb(m) || jsonb_build_object('query', coalesce(m.relation, m.query))
    FROM retl.models m WHERE kind = 'model' AND pg_has_role(m.owner::oid, 'USAGE')
  UNION ALL
  SELECT m.name, to_jsonb(m) || jsonb_build_object('update_when',
           -- as users write it: names as SQL writes them
           CASE WHEN m.update_when IN ('payload', 'any') THEN m.update_when
                WHEN m.update_when IN ('payload,', 'any,') THEN format('"%s"', rtrim(m.update_when, ','))
                ELSE (SELECT string_agg(quote_ident(c.name), ', ' ORDER BY c.number)
                        FROM string_to_table(m.update_when, ',') WITH ORDINALITY AS c (name, number)) END)
    FROM retl.mappings m WHERE kind = 'mapping' AND pg_has_role(m.owner::oid, 'USAGE')
)
SELECT f.name,
       (SELECT jsonb_object_agg(m.name, f.members -> m.name)
          FROM (SELECT a.name FROM retl.config_arguments(kind) a
                UNION VALUES ('owner'), ('enabled'), ('search_path'), ('managed_by')) AS m (name)
         WHERE jsonb_typeof(f.members -> m.name) <> 'null')
  FROM found f
 WHERE f.name = only_name OR only_name IS NULL
 ORDER BY f.name COLLATE "C"
$$;
COMMENT ON FUNCTION retl.config_objects(text, text) IS 'The caller''s objects of a kind (connector, destination, model, mapping), or one of them, as a configuration has them';

CREATE FUNCTION retl.config_lineage() RETURNS jsonb
  LANGUAGE plpgsql STABLE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  lineage jsonb := '{}';
  model_name text;
  relations jsonb;
BEGIN
  FOR model_name IN SELECT o.name FROM retl.config_objects('model') o LOOP
    BEGIN
      SELECT jsonb_object_agg(r.relation, r.columns) INTO relations
        FROM (SELECT c.relation,
                     jsonb_object_agg(c."column", jsonb_build_object('type', c.type, 'used', c.used)) AS columns
                FROM (SELECT c.relation, c."column", c.type, bool_or(c.used) AS used
                        FROM retl.model_columns(model_name) c GROUP BY 1, 2, 3) c
               GROUP BY c.relation) r;
      lineage := lineage || jsonb_build_object(model_name, coalesce(relations, '{}'));
    EXCEPTION WHEN OTHERS THEN
      RAISE WARNING 'it cannot be said which columns model "%" reads: %', model_name, SQLERRM;
    END;
  END LOOP;
  RETURN lineage;
END
$$;
COMMENT ON FUNCTION retl.config_lineage() IS 'For each of the caller''s models the relations that it reads, with their columns: {"model": {"schema.table": {"column": {"type", "used"}}}}';

CREATE FUNCTION retl.export_config() RETURNS jsonb
  LANGUAGE sql STABLE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp SET jit = off AS $$
SELECT jsonb_object_agg(k.kind || 's',
         coalesce((SELECT jsonb_agg(o.object ORDER BY o.name COLLATE "C") FROM retl.config_objects(k.kind) o), '[]'))
       || jsonb_build_object('format', 1, 'lineage', retl.config_lineage())
  FROM unnest('{connector,destination,model,mapping}'::text[]) AS k (kind)
$$;
COMMENT ON FUNCTION retl.export_config() IS 'What is configured, as apply_config takes it: connectors of one''s own, and the caller''s destinations, models and mappings. No secret is in it: references are, and null for one that is set by its value. lineage, which apply_config ignores, is what check_dbt needs to know of models';

CREATE FUNCTION retl.config_changes(before jsonb, after jsonb) RETURNS text
  LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
SELECT string_agg(CASE WHEN length(coalesce(b.value, '') || coalesce(a.value, '')) <= 100
                       THEN format('%s: %s -> %s', name, coalesce(b.value, 'none'), coalesce(a.value, 'none'))
                       ELSE name END, '; ' ORDER BY name)
  FROM jsonb_each_text(before) AS b (name, value)
  FULL JOIN jsonb_each_text(after) AS a (name, value) USING (name)
 WHERE a.value IS DISTINCT FROM b.value
$$;
COMMENT ON FUNCTION retl.config_changes(jsonb, jsonb) IS 'What differs between two states of an object, for people; NULL: nothing';

CREATE FUNCTION retl.config_equal(kind text, before jsonb, wanted jsonb) RETURNS boolean
  LANGUAGE plpgsql STABLE PARALLEL SAFE
  SET search_path = pg_catalog, pg_temp SET intervalstyle = postgres SET jit = off AS $$
#variable_conflict use_column
DECLARE
  argument record;
  value jsonb;
BEGIN
  FOR argument IN
      SELECT a.name, a."default" FROM retl.config_arguments(kind) a
      UNION ALL VALUES ('owner', NULL), ('enabled', NULL), ('search_path', NULL), ('managed_by', NULL) LOOP
    -- these stay as they are where they are not given
    CONTINUE WHEN argument.name IN ('owner', 'enabled', 'search_path', 'managed_by', 'secrets') AND NOT wanted ? argument.name;
    value := wanted -> argument.name;
    IF value IS NULL AND argument."default" IS NOT NULL THEN
      EXECUTE 'SELECT pg_catalog.to_jsonb(' || argument."default" || ')' INTO value;
    END IF;
    IF argument.name = 'secrets' THEN
      -- one that is null is set by its value, or to be set
      IF jsonb_strip_nulls(value) <> jsonb_strip_nulls(coalesce(before -> 'secrets', '{}')) THEN
        RETURN false;
      END IF;
    ELSIF nullif(value, 'null') IS DISTINCT FROM before -> argument.name THEN
      RETURN false;
    END IF;
  END LOOP;
  RETURN true;
END
$$;
COMMENT ON FUNCTION retl.config_equal(text, jsonb, jsonb) IS 'Whether an object is as a configuration wants it, word for word';

CREATE FUNCTION retl.config_call(kind text, wanted jsonb) RETURNS text
  LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  argument record;
  value jsonb;
  arguments text[];
BEGIN
  FOR argument IN SELECT a.name, a.type FROM retl.config_arguments(kind) a WHERE wanted ? a.name LOOP
    value := wanted -> argument.name;
    IF argument.name = 'secrets' THEN
      value := jsonb_strip_nulls(value);
    END IF;
    IF jsonb_typeof(value) = 'null' THEN
      arguments := arguments || format('%I => NULL::%s', argument.name, argument.type);
    ELSIF argument.type IN ('json'::regtype, 'jsonb'::regtype) THEN
      arguments := arguments || format('%I => %L::%s', argument.name, value, argument.type);
    ELSIF argument.type = 'text[]'::regtype AND jsonb_typeof(value) = 'array' THEN
      arguments := arguments || format('%I => %L::text[]', argument.name, ARRAY(SELECT jsonb_array_elements_text(value)));
    ELSIF jsonb_typeof(value) IN ('array', 'object') THEN
      RAISE EXCEPTION 'member "%" must not be an %', argument.name, jsonb_typeof(value)
        USING ERRCODE = 'invalid_parameter_value';
    ELSE
      arguments := arguments || format('%I => %L::%s', argument.name, value #>> '{}', argument.type);
    END IF;
  END LOOP;
  RETURN format('SELECT retl.%I(%s, or_replace => true)', 'create_' || kind, array_to_string(arguments, ', '));
END
$$;
COMMENT ON FUNCTION retl.config_call(text, jsonb) IS 'The call that makes an object as a configuration wants it';

CREATE FUNCTION retl.config_put(kind text, object_name text, before jsonb, wanted jsonb, managed_by jsonb, path text) RETURNS void
  LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  call text := retl.config_call(kind, wanted);
  after jsonb;
  clear text[];
  secret text;
BEGIN
  -- nothing but the call sees that path
  PERFORM set_config('search_path', coalesce(wanted ->> 'search_path', before ->> 'search_path', path), true);
  EXECUTE call;
  PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
  SELECT o.object INTO after FROM retl.config_objects(kind, object_name) o;

  -- what create_... with or_replace leaves as it is
  SELECT array_agg(a.name) INTO clear FROM retl.config_arguments(kind) a
   WHERE before IS NOT NULL AND a."default" LIKE 'NULL::%' AND after ? a.name
     AND coalesce(jsonb_typeof(wanted -> a.name), 'null') = 'null';
  IF clear IS NOT NULL THEN
    EXECUTE format('SELECT retl.%I(name => $1, reset => $2)', 'alter_' || kind) USING object_name, clear;
  END IF;
  FOR secret IN
      SELECT s.key FROM jsonb_each(jsonb_strip_nulls(coalesce(after -> 'secrets', '{}'))) s
       WHERE kind = 'destination' AND wanted ? 'secrets' AND NOT wanted -> 'secrets' ? s.key LOOP
    PERFORM retl.set_secret(object_name, secret, NULL);
  END LOOP;
  IF wanted ? 'owner' AND wanted ->> 'owner' <> after ->> 'owner' THEN
    EXECUTE format('SELECT retl.%I(name => $1, owner => $2::regrole)', 'alter_' || kind)
      USING object_name, wanted ->> 'owner';
  END IF;
  IF wanted ? 'enabled' AND (wanted ->> 'enabled')::boolean <> (after ->> 'enabled')::boolean THEN
    EXECUTE format('SELECT retl.%I($1)',
                   CASE WHEN (wanted ->> 'enabled')::boolean THEN 'enable_' ELSE 'disable_' END || kind) USING object_name;
  END IF;
  IF kind <> 'connector' AND coalesce(wanted -> 'managed_by', managed_by, after -> 'managed_by')
       IS DISTINCT FROM after -> 'managed_by' THEN
    PERFORM retl.set_managed(kind, object_name,
                             nullif(coalesce(wanted -> 'managed_by', managed_by, after -> 'managed_by'), 'null'));
  END IF;
END
$$;
COMMENT ON FUNCTION retl.config_put(text, text, jsonb, jsonb, jsonb, text) IS 'Makes one object as a configuration wants it: a step of apply_config';
REVOKE ALL ON FUNCTION retl.config_put(text, text, jsonb, jsonb, jsonb, text) FROM PUBLIC;

CREATE FUNCTION retl.config_apply_object(kind text, wanted jsonb, managed_by jsonb, adopt boolean, path text,
    OUT name text, OUT action text, OUT detail text) RETURNS record
  LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  object_name CONSTANT text := CASE kind WHEN 'connector' THEN wanted #>> '{definition,name}' ELSE wanted ->> 'name' END;
  before jsonb;
  after jsonb;
  message text;
  more text;
  advice text;
BEGIN
  name := object_name;
  SELECT o.object INTO before FROM retl.config_objects(kind, object_name) o;
  IF before IS NOT NULL AND NOT adopt AND NOT coalesce(before -> 'managed_by' @> managed_by, managed_by IS NULL) THEN
    RAISE EXCEPTION '% "%" exists, and is not managed by %', kind, object_name, managed_by
      USING ERRCODE = 'duplicate_object', HINT = 'Rename or drop it, or give adopt => true to have it managed.';
  END IF;
  action := 'unchanged';
  IF before IS NOT NULL AND retl.config_equal(kind, before, CASE WHEN managed_by IS NULL THEN wanted ELSE
       wanted || jsonb_build_object('managed_by', coalesce(wanted -> 'managed_by', managed_by)) END) THEN
    RETURN;
  END IF;
  BEGIN
    PERFORM retl.config_put(kind, object_name, before, wanted, managed_by, path);
    SELECT o.object INTO after FROM retl.config_objects(kind, object_name) o;
    action := CASE WHEN before IS NULL THEN 'added' WHEN before = after THEN 'unchanged' ELSE 'changed' END;
    detail := CASE WHEN before IS NOT NULL THEN retl.config_changes(before, after) END;
    IF action = 'unchanged' THEN
      -- written otherwise, and the same: as if it had not been touched
      RAISE SQLSTATE 'RT001';
    END IF;
  EXCEPTION WHEN SQLSTATE 'RT001' THEN
    NULL;
  END;
EXCEPTION WHEN OTHERS THEN
  GET STACKED DIAGNOSTICS message = MESSAGE_TEXT, more = PG_EXCEPTION_DETAIL, advice = PG_EXCEPTION_HINT;
  IF position(format('%s "%s"', kind, object_name) IN message) = 0 THEN
    message := format('%s "%s": %s', kind, object_name, message);
  END IF;
  message := concat(wanted #>> '{managed_by,node}' || ': ', message);
  -- a part that is empty would be shown
  IF more <> '' AND advice <> '' THEN
    RAISE EXCEPTION USING ERRCODE = SQLSTATE, MESSAGE = message, DETAIL = more, HINT = advice;
  ELSIF more <> '' THEN
    RAISE EXCEPTION USING ERRCODE = SQLSTATE, MESSAGE = message, DETAIL = more;
  ELSIF advice <> '' THEN
    RAISE EXCEPTION USING ERRCODE = SQLSTATE, MESSAGE = message, HINT = advice;
  ELSE
    RAISE EXCEPTION USING ERRCODE = SQLSTATE, MESSAGE = message;
  END IF;
END
$$;
COMMENT ON FUNCTION retl.config_apply_object(text, jsonb, jsonb, boolean, text) IS 'Brings one object into the state that a configuration wants, and says what that changed: a step of apply_config';
REVOKE ALL ON FUNCTION retl.config_apply_object(text, jsonb, jsonb, boolean, text) FROM PUBLIC;

CREATE FUNCTION retl.check_config(config jsonb) RETURNS void
  LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  kind text;
  known text[];
  bad text;
  entry record;
BEGIN
  IF jsonb_typeof(config) IS DISTINCT FROM 'object' THEN
    RAISE EXCEPTION 'a configuration is a JSON object'
      USING ERRCODE = 'invalid_parameter_value', HINT = 'retl.export_config() shows what it looks like.';
  END IF;
  SELECT k INTO bad FROM jsonb_object_keys(config) k
   WHERE k NOT IN ('connectors', 'destinations', 'models', 'mappings', 'format', 'lineage') LIMIT 1;
  IF bad IS NOT NULL THEN
    RAISE EXCEPTION 'a configuration has no member "%"', bad
      USING ERRCODE = 'invalid_parameter_value', HINT = 'It has connectors, destinations, models and mappings.';
  END IF;
  IF coalesce(config -> 'format', '1') <> '1' THEN
    RAISE EXCEPTION 'the configuration has format %, this version of retl takes 1', config -> 'format'
      USING ERRCODE = 'feature_not_supported';
  END IF;
  FOREACH kind IN ARRAY '{connector,destination,model,mapping}'::text[] LOOP
    CONTINUE WHEN NOT config ? (kind || 's');
    IF jsonb_typeof(config -> (kind || 's')) <> 'array' THEN
      RAISE EXCEPTION '"%s" of a configuration must be an array', kind USING ERRCODE = 'invalid_parameter_value';
    END IF;
    known := ARRAY(SELECT a.name FROM retl.config_arguments(kind) a
                   UNION SELECT unnest('{owner,enabled,managed_by}'::text[]) WHERE kind <> 'connector'
                   UNION SELECT 'search_path' WHERE kind = 'model' ORDER BY 1);
    FOR entry IN SELECT e.value, e.ordinality - 1 AS number, CASE kind WHEN 'connector' THEN e.value #> '{definition,name}'
                        ELSE e.value -> 'name' END AS name
                   FROM jsonb_array_elements(config -> (kind || 's')) WITH ORDINALITY AS e LOOP
      IF jsonb_typeof(entry.name) IS DISTINCT FROM 'string' THEN
        RAISE EXCEPTION '%s[%] of the configuration has no name', kind, entry.number USING ERRCODE = 'invalid_parameter_value';
      END IF;
      SELECT k INTO bad FROM jsonb_object_keys(entry.value) k WHERE k <> ALL (known) LIMIT 1;
      IF bad IS NOT NULL THEN
        RAISE EXCEPTION '% %: there is no member "%"', kind, entry.name, bad
          USING ERRCODE = 'invalid_parameter_value', HINT = format('It takes %s.', array_to_string(known, ', '));
      END IF;
      SELECT a.name INTO bad FROM retl.config_arguments(kind) a WHERE a."default" IS NULL AND NOT entry.value ? a.name LIMIT 1;
      IF bad IS NOT NULL THEN
        RAISE EXCEPTION '% % lacks member "%"', kind, entry.name, bad USING ERRCODE = 'invalid_parameter_value';
      END IF;
      IF entry.value ? 'enabled' AND jsonb_typeof(entry.value -> 'enabled') <> 'boolean' THEN
        RAISE EXCEPTION '% %: "enabled" must be true or false', kind, entry.name USING ERRCODE = 'invalid_parameter_value';
      END IF;
    END LOOP;
    SELECT n.name INTO bad
      FROM (SELECT CASE kind WHEN 'connector' THEN e #>> '{definition,name}' ELSE e ->> 'name' END AS name
              FROM jsonb_array_elements(config -> (kind || 's')) e) n
     GROUP BY n.name HAVING count(*) > 1 LIMIT 1;
    IF bad IS NOT NULL THEN
      RAISE EXCEPTION 'the configuration has % "%" twice', kind, bad USING ERRCODE = 'duplicate_object';
    END IF;
  END LOOP;
END
$$;
COMMENT ON FUNCTION retl.check_config(jsonb) IS 'Fails where a document is no configuration, whatever there is in this database';

CREATE FUNCTION retl.apply_config(config jsonb, dry_run boolean DEFAULT false, prune boolean DEFAULT false,
    managed_by jsonb DEFAULT NULL, adopt boolean DEFAULT false,
    search_path text DEFAULT pg_catalog.current_setting('search_path'),
    OUT object text, OUT name text, OUT action text, OUT detail text) RETURNS SETOF record
  LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE ROWS 20 SET search_path = pg_catalog, pg_temp SET jit = off AS $$
#variable_conflict use_column
DECLARE
  kinds CONSTANT text[] := '{connector,destination,model,mapping}';
  kind text;
  wanted jsonb;
  one record;
  plan jsonb[];
BEGIN
  PERFORM retl.check_config(config);
  BEGIN
    FOREACH kind IN ARRAY kinds LOOP
      FOR wanted IN SELECT e FROM jsonb_array_elements(config -> (kind || 's')) e LOOP
        SELECT * INTO one FROM retl.config_apply_object(kind, wanted, managed_by, adopt, search_path);
        plan := plan || jsonb_build_object('object', kind, 'name', one.name, 'action', one.action, 'detail', one.detail);
        IF kind = 'destination' THEN
          plan := plan || ARRAY(
            SELECT jsonb_build_object('object', 'secret', 'name', s.key, 'action', 'missing', 'detail',
                     format('SELECT retl.set_secret(%L, %L, ...)', one.name, s.key))
              FROM jsonb_each(wanted -> 'secrets') s
             WHERE s.value = 'null' AND NOT EXISTS (
                     SELECT FROM retl.config_objects('destination', one.name) o WHERE o.object -> 'secrets' ? s.key)
             ORDER BY s.key);
        END IF;
      END LOOP;
    END LOOP;
    -- what the sections that are there do not name: mappings first
    FOR one IN
        SELECT k.kind, o.name FROM unnest(kinds) WITH ORDINALITY AS k (kind, number), retl.config_objects(k.kind) o
         WHERE config ? (k.kind || 's')
           AND CASE WHEN managed_by IS NULL THEN NOT o.object ? 'managed_by' ELSE o.object -> 'managed_by' @> managed_by END
           AND NOT EXISTS (
                 SELECT FROM jsonb_array_elements(config -> (k.kind || 's')) e
                  WHERE CASE k.kind WHEN 'connector' THEN e #>> '{definition,name}' ELSE e ->> 'name' END = o.name)
         ORDER BY k.number DESC, o.name COLLATE "C" LOOP
      IF prune THEN
        EXECUTE format('SELECT retl.%I($1)', 'drop_' || one.kind) USING one.name;
      END IF;
      plan := plan || jsonb_build_object('object', one.kind, 'name', one.name,
                'action', CASE WHEN prune THEN 'pruned' ELSE 'left' END,
                'detail', CASE WHEN NOT prune THEN 'not in the configuration; prune => true drops it' END);
    END LOOP;
    IF dry_run THEN
      RAISE SQLSTATE 'RT002';
    END IF;
  EXCEPTION WHEN SQLSTATE 'RT002' THEN
    NULL;
  END;
  FOREACH wanted IN ARRAY coalesce(plan, '{}') LOOP
    object := wanted ->> 'object';
    name := wanted ->> 'name';
    action := wanted ->> 'action';
    detail := wanted ->> 'detail';
    RETURN NEXT;
  END LOOP;
END
$$;
COMMENT ON FUNCTION retl.apply_config(jsonb, boolean, boolean, jsonb, boolean, text) IS 'Brings connectors, destinations, models and mappings into the state that a configuration says, all or nothing, and returns what that is for each: added, changed, unchanged, left, pruned; missing: a secret that is to be set. dry_run: says it and changes nothing. prune: drops the caller''s objects of the kinds in it that it does not name, if nothing else manages them. managed_by: marks what it makes, changes only what has the mark (adopt: whatever has the name), and prunes only that. search_path: for models that do not say theirs';
REVOKE ALL ON FUNCTION retl.apply_config(jsonb, boolean, boolean, jsonb, boolean, text) FROM PUBLIC;
