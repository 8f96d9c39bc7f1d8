-- dbt: models from its manifest, a check for its changes, its results, its
-- exposures. All of it reads dbt's artefacts as they are; what is made goes
-- through apply_config. They run as their caller.

CREATE FUNCTION retl.dbt_relation(node jsonb) RETURNS text
  LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
SELECT CASE WHEN node ->> 'relation_name' IS NOT NULL
            THEN format('%I.%I', node ->> 'schema', coalesce(node ->> 'alias', node ->> 'name')) END
$$;
COMMENT ON FUNCTION retl.dbt_relation(jsonb) IS 'The table or view that a node of dbt''s manifest is built as; NULL: none, as for one that is ephemeral';

CREATE FUNCTION retl.dbt_key_is_unique(manifest jsonb, node text, key text[]) RETURNS boolean
  LANGUAGE sql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
WITH declared (columns) AS (
  SELECT ARRAY(SELECT jsonb_array_elements_text(c -> 'columns'))
    FROM jsonb_path_query(manifest -> 'nodes' -> node, '$.constraints[*]') c
   WHERE c ->> 'type' IN ('primary_key', 'unique')
  UNION ALL
  SELECT ARRAY[c.key]
    FROM jsonb_each(manifest -> 'nodes' -> node -> 'columns') c
   WHERE c.value @? '$.constraints[*].type ? (@ == "primary_key" || @ == "unique")'
  UNION ALL
  SELECT CASE WHEN t.value #> '{test_metadata,kwargs,combination_of_columns}' IS NULL THEN ARRAY[t.value ->> 'column_name']
              ELSE ARRAY(SELECT jsonb_array_elements_text(t.value #> '{test_metadata,kwargs,combination_of_columns}')) END
    FROM jsonb_each(manifest -> 'nodes') t
   WHERE t.value ->> 'resource_type' = 'test'
     AND t.value ->> 'attached_node' = node
     AND t.value #>> '{test_metadata,name}' IN ('unique', 'unique_combination_of_columns')
     AND coalesce(t.value #>> '{config,enabled}', 'true') = 'true'
     AND lower(coalesce(t.value #>> '{config,severity}', 'error')) = 'error'
     -- one that looks at some rows says nothing of all
     AND t.value #>> '{config,where}' IS NULL
)
SELECT EXISTS (SELECT FROM declared d WHERE cardinality(d.columns) > 0 AND d.columns <@ key)
$$;
COMMENT ON FUNCTION retl.dbt_key_is_unique(jsonb, text, text[]) IS 'Whether tests or constraints of a node of dbt''s manifest say that its rows differ in these columns';

CREATE FUNCTION retl.dbt_key(manifest jsonb, node text) RETURNS jsonb
  LANGUAGE sql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
SELECT coalesce(
  CASE WHEN jsonb_array_length(nullif(n -> 'primary_key', 'null')) > 0 THEN n -> 'primary_key' END,
  CASE jsonb_typeof(n #> '{config,unique_key}')
    WHEN 'string' THEN jsonb_build_array(n #> '{config,unique_key}') WHEN 'array' THEN n #> '{config,unique_key}' END,
  (SELECT jsonb_build_array(min(c.key)) FROM jsonb_each(n -> 'columns') c
    WHERE retl.dbt_key_is_unique(manifest, node, ARRAY[c.key]) HAVING count(*) = 1))
  FROM (SELECT manifest -> 'nodes' -> node) AS m (n)
$$;
COMMENT ON FUNCTION retl.dbt_key(jsonb, text) IS 'What tells the rows of a node of dbt''s manifest apart: its primary key, its unique_key, or the one column with a test for that; NULL: it does not say';

CREATE FUNCTION retl.dbt_config(manifest jsonb) RETURNS jsonb
  LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp SET jit = off AS $$
#variable_conflict use_column
DECLARE
  project CONSTANT text := manifest #>> '{metadata,project_name}';
  of_model CONSTANT text[] := ARRAY(SELECT a.name FROM retl.config_arguments('model') a WHERE a.name NOT IN ('query', 'source')
                                    UNION ALL VALUES ('enabled'), ('owner'), ('mappings'));
  of_mapping CONSTANT text[] := ARRAY(SELECT a.name FROM retl.config_arguments('mapping') a WHERE a.name <> 'model'
                                      UNION VALUES ('enabled'), ('owner'));
  models jsonb := '[]';
  mappings jsonb := '[]';
  node record;
  mapping record;
  meta jsonb;
  model jsonb;
  key jsonb;
  place text;
  bad text;
BEGIN
  IF jsonb_typeof(manifest -> 'nodes') IS DISTINCT FROM 'object' OR project IS NULL THEN
    RAISE EXCEPTION 'this is no manifest of dbt' USING ERRCODE = 'invalid_parameter_value',
      HINT = 'Give the contents of target/manifest.json, which every dbt command but clean writes.';
  END IF;
  FOR node IN SELECT n.key AS id, n.value AS body FROM jsonb_each(manifest -> 'nodes') n
               WHERE n.value ->> 'resource_type' IN ('model', 'snapshot', 'seed')
                 AND coalesce(n.value #>> '{config,enabled}', 'true') = 'true'
               ORDER BY n.key COLLATE "C" LOOP
    meta := coalesce(node.body #> '{config,meta,retl}', node.body #> '{meta,retl}');
    CONTINUE WHEN coalesce(jsonb_typeof(meta), 'null') = 'null';
    place := format('%s: meta.retl', node.id);
    IF jsonb_typeof(meta) <> 'object' THEN
      RAISE EXCEPTION '% must be an object', place USING ERRCODE = 'invalid_parameter_value',
        HINT = 'It has key and mappings, for example {"key": "id", "mappings": [{"destination": ..., "action": ..., "fields": {...}}]}.';
    END IF;
    SELECT k INTO bad FROM jsonb_object_keys(meta) k WHERE k <> ALL (of_model) LIMIT 1;
    IF bad IS NOT NULL THEN
      RAISE EXCEPTION '% has no member "%"', place, bad USING ERRCODE = 'invalid_parameter_value',
        HINT = format('It takes %s.', array_to_string(of_model, ', '));
    END IF;
    IF retl.dbt_relation(node.body) IS NULL THEN
      RAISE EXCEPTION '% asks for a model, but nothing is built', place USING ERRCODE = 'invalid_parameter_value',
        HINT = 'Materialize the node as a table, a view, an incremental model or a snapshot.';
    END IF;
    key := coalesce(meta -> 'key', retl.dbt_key(manifest, node.id));
    key := CASE jsonb_typeof(key) WHEN 'string' THEN jsonb_build_array(key) ELSE key END;
    IF jsonb_typeof(key) IS DISTINCT FROM 'array' OR key = '[]' OR key @? '$[*] ? (@.type() != "string")' THEN
      RAISE EXCEPTION '% has no "key" that names columns', place USING ERRCODE = 'invalid_parameter_value',
        HINT = 'Say which columns tell its rows apart: key: id, or key: [region, id].';
    END IF;
    model := jsonb_build_object(
      'name', coalesce(meta ->> 'name', concat(node.body ->> 'name', '_v' || (node.body ->> 'version'))),
      'query', retl.dbt_relation(node.body),
      'description', coalesce(meta ->> 'description', nullif(node.body ->> 'description', '')))
      || (meta - '{name,description,mappings}'::text[])
      || jsonb_build_object('key', key, 'managed_by', jsonb_build_object('dbt', project, 'node', node.id,
           'unique', retl.dbt_key_is_unique(manifest, node.id, ARRAY(SELECT jsonb_array_elements_text(key)))));
    models := models || model;

    IF coalesce(jsonb_typeof(meta -> 'mappings'), 'array') <> 'array' THEN
      RAISE EXCEPTION '%.mappings must be an array', place USING ERRCODE = 'invalid_parameter_value';
    END IF;
    FOR mapping IN SELECT m.value AS body, format('%s.mappings[%s]', place, m.ordinality - 1) AS place
                     FROM jsonb_array_elements(meta -> 'mappings') WITH ORDINALITY m LOOP
      IF jsonb_typeof(mapping.body) <> 'object' THEN
        RAISE EXCEPTION '% must be an object', mapping.place USING ERRCODE = 'invalid_parameter_value';
      END IF;
      SELECT k INTO bad FROM jsonb_object_keys(mapping.body) k WHERE k <> ALL (of_mapping) LIMIT 1;
      IF bad IS NOT NULL THEN
        RAISE EXCEPTION '% has no member "%"', mapping.place, bad USING ERRCODE = 'invalid_parameter_value',
          HINT = format('It takes %s.', array_to_string(of_mapping, ', '));
      END IF;
      SELECT a.name INTO bad FROM retl.config_arguments('mapping') a
       WHERE a."default" IS NULL AND a.name NOT IN ('name', 'model') AND NOT mapping.body ? a.name LIMIT 1;
      IF bad IS NOT NULL THEN
        RAISE EXCEPTION '% lacks member "%"', mapping.place, bad USING ERRCODE = 'invalid_parameter_value';
      END IF;
      mapping.body := jsonb_build_object('name', format('%s to %s', model ->> 'name', mapping.body ->> 'destination'))
        || mapping.body || jsonb_build_object('model', model -> 'name',
             'managed_by', jsonb_build_object('dbt', project, 'node', node.id));
      IF mappings @> jsonb_build_array(jsonb_build_object('name', mapping.body -> 'name')) THEN
        RAISE EXCEPTION '% is the second mapping named %', mapping.place, mapping.body -> 'name'
          USING ERRCODE = 'duplicate_object', HINT = 'Give it a "name" of its own.';
      END IF;
      mappings := mappings || mapping.body;
    END LOOP;
  END LOOP;
  RETURN jsonb_build_object('models', models, 'mappings', mappings);
END
$$;
COMMENT ON FUNCTION retl.dbt_config(jsonb) IS 'The configuration that meta.retl of the nodes of a dbt manifest asks for, as apply_config takes it; fails where it is not valid, naming node and member';

CREATE FUNCTION retl.import_dbt(manifest jsonb, prune boolean DEFAULT false, dry_run boolean DEFAULT false, adopt boolean DEFAULT false,
    OUT object text, OUT name text, OUT action text, OUT detail text) RETURNS SETOF record
  LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE ROWS 20 SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  config CONSTANT jsonb := retl.dbt_config(manifest);
  node record;
BEGIN
  SELECT m #>> '{managed_by,node}' AS id, n ->> 'database' AS database INTO node
    FROM jsonb_array_elements(config -> 'models') m, LATERAL (SELECT manifest -> 'nodes' -> (m #>> '{managed_by,node}')) AS b (n)
   WHERE n ->> 'database' <> current_database() LIMIT 1;
  IF node.id IS NOT NULL THEN
    RAISE EXCEPTION '%: it is built in database "%", not in this one', node.id, node.database
      USING ERRCODE = 'feature_not_supported', HINT = 'Import the manifest of the target that builds this database: dbt parse --target ...';
  END IF;
  RETURN QUERY SELECT a.object, a.name, a.action, replace(a.detail, 'in the configuration', 'in the manifest')
    FROM retl.apply_config(config, dry_run, prune, managed_by => jsonb_build_object('dbt', manifest #> '{metadata,project_name}'),
                           adopt => adopt) a;
END
$$;
COMMENT ON FUNCTION retl.import_dbt(jsonb, boolean, boolean, boolean) IS 'Creates and changes the models and mappings that meta.retl of nodes in dbt''s manifest asks for, and returns what that is for each: added, changed, unchanged, left, pruned. prune: drops what earlier imports of this project made and it no longer asks for. dry_run: says it and changes nothing. adopt: takes over what has the name and was made otherwise, which is an error else';
REVOKE ALL ON FUNCTION retl.import_dbt(jsonb, boolean, boolean, boolean) FROM PUBLIC;

CREATE FUNCTION retl.dbt_same_type(a text, b text) RETURNS boolean
  LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN coalesce(to_regtype(a) = to_regtype(b), lower(a) = lower(b));
EXCEPTION WHEN syntax_error OR undefined_object OR invalid_parameter_value THEN
  RETURN lower(a) = lower(b);
END
$$;
COMMENT ON FUNCTION retl.dbt_same_type(text, text) IS 'Whether two names are of one type, length and precision aside';

CREATE FUNCTION retl.dbt_columns(manifest jsonb, catalog jsonb, node text, OUT columns jsonb, OUT complete boolean) RETURNS record
  LANGUAGE sql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
SELECT coalesce(
         (SELECT jsonb_object_agg(c.key, c.value -> 'type') FROM jsonb_each(catalog -> 'nodes' -> node -> 'columns') c),
         (SELECT jsonb_object_agg(c.key, c.value -> 'data_type') FROM jsonb_each(manifest -> 'nodes' -> node -> 'columns') c),
         '{}'),
       catalog -> 'nodes' ? node IS TRUE
         OR coalesce(manifest #>> ARRAY['nodes', node, 'contract', 'enforced'],
                     manifest #>> ARRAY['nodes', node, 'config', 'contract', 'enforced']) IS NOT DISTINCT FROM 'true'
$$;
COMMENT ON FUNCTION retl.dbt_columns(jsonb, jsonb, text) IS 'Columns that a node has, with their types where these are said: from dbt''s catalog, else as its YAML declares them; complete: it has no others';

CREATE FUNCTION retl.dbt_check_columns(manifest jsonb, catalog jsonb, node text, needed text[], whole_row boolean, key text[],
    known jsonb, OUT severity text, OUT code text, OUT detail text) RETURNS SETOF record
  LANGUAGE plpgsql STABLE PARALLEL SAFE ROWS 5 SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  new record;
  "column" text;
  others text[];
  unknown text[];
BEGIN
  SELECT * INTO new FROM retl.dbt_columns(manifest, catalog, node);
  -- columns that there were not before: one of them may be a missing one by another name
  others := ARRAY(SELECT c FROM jsonb_object_keys(new.columns) c WHERE known <> '{}' AND NOT known ? c);
  FOREACH "column" IN ARRAY needed || CASE WHEN whole_row
      THEN ARRAY(SELECT c FROM jsonb_object_keys(known) c WHERE c <> ALL (needed) ORDER BY c) END LOOP
    severity := CASE WHEN "column" = ANY (needed) THEN 'error' ELSE 'warning' END;
    IF new.columns ? "column" THEN
      CONTINUE WHEN retl.dbt_same_type(new.columns ->> "column", known #>> ARRAY["column", 'type']) IS NOT FALSE;
      severity := CASE WHEN "column" = ANY (key) THEN 'error' ELSE 'warning' END;
      code := 'column_retyped';
      detail := format('column "%s" was %s and becomes %s', "column", known #>> ARRAY["column", 'type'], new.columns ->> "column");
      RETURN NEXT;
    ELSIF NOT new.complete THEN
      unknown := unknown || "column";
    ELSIF cardinality(others) = 1
        AND retl.dbt_same_type(new.columns ->> others[1], known #>> ARRAY["column", 'type']) IS NOT FALSE THEN
      code := 'column_renamed';
      detail := format('column "%s" is gone; perhaps it is "%s" now', "column", others[1]);
      RETURN NEXT;
    ELSE
      code := 'column_dropped';
      detail := format('column "%s" is gone', "column");
      RETURN NEXT;
    END IF;
  END LOOP;
  IF unknown IS NOT NULL THEN
    severity := 'warning';
    code := 'column_unknown';
    detail := format('it cannot be said whether there is still %s: give the catalog, or declare the columns in YAML',
                     array_to_string(ARRAY(SELECT format('"%s"', c) FROM unnest(unknown) c ORDER BY c), ', '));
    RETURN NEXT;
  END IF;
END
$$;
COMMENT ON FUNCTION retl.dbt_check_columns(jsonb, jsonb, text, text[], boolean, text[], jsonb) IS 'What is wrong with columns that are needed of a node: a step of check_dbt';

CREATE FUNCTION retl.dbt_check_mapping(manifest jsonb, catalog jsonb, proposed jsonb, state jsonb, mapping jsonb,
    OUT severity text, OUT code text, OUT node text, OUT detail text) RETURNS SETOF record
  LANGUAGE plpgsql STABLE PARALLEL SAFE ROWS 5 SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  project CONSTANT text := manifest #>> '{metadata,project_name}';
  model jsonb;
  planned jsonb;
  uses text[];
  key text[];
  relation record;
  body jsonb;
BEGIN
  SELECT m INTO model FROM jsonb_array_elements(state -> 'models') m WHERE m -> 'name' = mapping -> 'model';
  -- as it will be, where the change has it
  SELECT m INTO planned FROM jsonb_array_elements(proposed -> 'mappings') m WHERE m -> 'name' = mapping -> 'name';
  IF mapping #>> '{managed_by,dbt}' = project AND planned IS NULL
     AND manifest -> 'nodes' ? (mapping #>> '{managed_by,node}') THEN
    RETURN;                     -- the change takes it back
  END IF;
  SELECT ARRAY(SELECT jsonb_array_elements_text(coalesce(
           (SELECT p -> 'key' FROM jsonb_array_elements(proposed -> 'models') p WHERE p -> 'name' = model -> 'name'), model -> 'key')))
    INTO key;
  uses := retl.mapping_columns((coalesce(planned, mapping) -> 'fields')::json, coalesce(planned, mapping) ->> 'filter',
                               coalesce(planned, mapping) ->> 'update_when');

  FOR relation IN
      -- what it reads, and the node that builds it
      SELECT r.key AS name, r.value AS columns, bool_and(c.value -> 'used' = 'null') AS whole,
             CASE WHEN model #>> '{managed_by,dbt}' = project AND bool_and(c.value -> 'used' = 'null')
                  THEN model #>> '{managed_by,node}'
                  ELSE (SELECT n.key FROM jsonb_each(manifest -> 'nodes') n
                         WHERE n.value ->> 'resource_type' IN ('model', 'snapshot', 'seed')
                           AND coalesce(n.value #>> '{config,enabled}', 'true') = 'true'
                           AND retl.dbt_relation(n.value) = r.key LIMIT 1) END AS node
        FROM jsonb_each(coalesce(state -> 'lineage' -> (model ->> 'name'),
                                 -- it could not be read when the state was exported
                                 jsonb_build_object(model ->> 'query', '{}'::jsonb))) r
        LEFT JOIN jsonb_each(r.value) c ON true
       GROUP BY r.key, r.value
       ORDER BY r.key COLLATE "C" LOOP
    node := relation.node;
    body := manifest -> 'nodes' -> relation.node;
    IF relation.node IS NULL THEN
      -- in a schema where the project builds things, or none of its business
      IF EXISTS (SELECT FROM jsonb_each(manifest -> 'nodes') n
                  WHERE n.value ->> 'resource_type' IN ('model', 'snapshot', 'seed')
                    AND format('%I', n.value ->> 'schema') = left(relation.name, length(format('%I', n.value ->> 'schema')))
                    AND substr(relation.name, length(format('%I', n.value ->> 'schema')) + 1, 1) = '.') THEN
        severity := 'warning';
        code := 'model_unknown';
        detail := format('no node builds %s: it was dropped or renamed, or is not dbt''s', relation.name);
        RETURN NEXT;
      END IF;
      CONTINUE;
    END IF;
    IF body IS NULL OR retl.dbt_relation(body) IS NULL THEN
      severity := 'error';
      code := 'model_dropped';
      detail := CASE WHEN body IS NOT NULL THEN format('%s is not built any more, since the node is %s',
                            relation.name, body #>> '{config,materialized}')
                     WHEN manifest -> 'disabled' ? relation.node THEN format('%s is not built any more, since the node is disabled', relation.name)
                     ELSE format('%s is not built any more, since there is no such node', relation.name) END;
      RETURN NEXT;
      CONTINUE;
    END IF;
    IF relation.whole AND retl.dbt_relation(body) <> model ->> 'query' THEN
      severity := 'error';
      code := 'model_moved';
      detail := format('%s becomes %s', model ->> 'query', retl.dbt_relation(body));
      RETURN NEXT;
    END IF;
    RETURN QUERY
      SELECT c.severity, c.code, relation.node::text, c.detail
        FROM retl.dbt_check_columns(manifest, catalog, relation.node,
               CASE WHEN relation.whole THEN ARRAY(SELECT unnest(key || array_remove(uses, '*')) EXCEPT
                      -- a name that it does not have now either is absent from what is sent
                      SELECT u FROM unnest(uses) u WHERE planned IS NULL AND relation.columns <> '{}' AND NOT relation.columns ? u
                      ORDER BY 1)
                    ELSE ARRAY(SELECT c.key FROM jsonb_each(relation.columns) c WHERE c.value -> 'used' = 'true' ORDER BY 1) END,
               relation.whole AND '*' = ANY (uses), CASE WHEN relation.whole THEN key ELSE '{}' END, relation.columns) c;
    IF relation.whole AND NOT retl.dbt_key_is_unique(manifest, relation.node, key) THEN
      severity := CASE WHEN model #> '{managed_by,unique}' = 'true' THEN 'error' ELSE 'warning' END;
      code := CASE severity WHEN 'error' THEN 'key_not_unique' ELSE 'key_untested' END;
      detail := format(CASE severity WHEN 'error' THEN 'no test says any more that the key (%s) is unique'
                                     ELSE 'no test says that the key (%s) is unique' END, array_to_string(key, ', '));
      RETURN NEXT;
    END IF;
  END LOOP;
END
$$;
COMMENT ON FUNCTION retl.dbt_check_mapping(jsonb, jsonb, jsonb, jsonb, jsonb) IS 'What a change of a dbt project would break of one mapping: a step of check_dbt';

CREATE FUNCTION retl.check_dbt(manifest jsonb, catalog jsonb DEFAULT NULL, state jsonb DEFAULT NULL, raise boolean DEFAULT false,
    OUT severity text, OUT code text, OUT mapping text, OUT model text, OUT node text, OUT detail text) RETURNS SETOF record
  LANGUAGE plpgsql STABLE PARALLEL UNSAFE ROWS 20 SET search_path = pg_catalog, pg_temp SET jit = off AS $$
#variable_conflict use_column
DECLARE
  proposed CONSTANT jsonb := retl.dbt_config(manifest);
  now CONSTANT jsonb := coalesce(state, retl.export_config());
  found record;
  errors int := 0;
  said text;
BEGIN
  PERFORM retl.check_config(now);
  FOR found IN
      SELECT c.severity, c.code, m ->> 'name' AS mapping, m ->> 'model' AS model, c.node, c.detail
        FROM jsonb_array_elements(now -> 'mappings') m,
             retl.dbt_check_mapping(manifest, catalog, proposed, now, m) c
       ORDER BY c.severity, m ->> 'name' COLLATE "C", c.code, c.detail LOOP
    severity := found.severity;
    code := found.code;
    mapping := found.mapping;
    model := found.model;
    node := found.node;
    detail := found.detail;
    errors := errors + (found.severity = 'error')::int;
    said := concat(said || E'\n', format('%s: mapping "%s", %s: %s', severity, mapping, node, detail));
    RETURN NEXT;
  END LOOP;
  IF raise AND errors > 0 THEN
    RAISE EXCEPTION 'the change breaks mappings: % %', errors, CASE errors WHEN 1 THEN 'error' ELSE 'errors' END
      USING ERRCODE = 'object_not_in_prerequisite_state', DETAIL = said,
            HINT = 'Change the mappings first, or with the models, in meta.retl.';
  END IF;
END
$$;
COMMENT ON FUNCTION retl.check_dbt(jsonb, jsonb, jsonb, boolean) IS 'For CI: what mappings a change of a dbt project would break, given its manifest, and its catalog (dbt docs generate) where columns are not all declared. state: what export_config() gave where the mappings are, so that this may run anywhere; NULL: this database. raise: fails if there is an error among them';

CREATE FUNCTION retl.dbt_results(results jsonb, invocation text, manifest jsonb DEFAULT NULL,
    OUT node text, OUT model text, OUT action text, OUT run bigint, OUT detail text) RETURNS SETOF record
  LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE ROWS 20 SET search_path = pg_catalog, pg_temp SET jit = off AS $$
#variable_conflict use_column
DECLARE
  entries CONSTANT jsonb := CASE jsonb_typeof(results) WHEN 'object' THEN results -> 'results' ELSE results END;
  one record;
BEGIN
  IF jsonb_typeof(entries) IS DISTINCT FROM 'array' THEN
    RAISE EXCEPTION 'these are no results of dbt' USING ERRCODE = 'invalid_parameter_value',
      HINT = 'Give what target/run_results.json holds, or an array of {"unique_id", "status", "relation_name", "attached_node"}.';
  END IF;
  FOR one IN
      WITH entry AS (
        SELECT e ->> 'unique_id' AS id, split_part(e ->> 'unique_id', '.', 1) AS kind, e ->> 'status' AS status,
               e ->> 'message' AS message, n AS body,
               coalesce(e ->> 'relation_name', n ->> 'relation_name') AS relation_name,
               -- what a test is about: the node it stands beside, else all that it reads
               CASE WHEN coalesce(e ->> 'attached_node', n ->> 'attached_node') IS NOT NULL
                    THEN jsonb_build_array(coalesce(e ->> 'attached_node', n ->> 'attached_node'))
                    ELSE coalesce(nullif(e -> 'depends_on', 'null'), n #> '{depends_on,nodes}', '[]') END AS about
          FROM jsonb_array_elements(entries) e, LATERAL (SELECT manifest -> 'nodes' -> (e ->> 'unique_id')) AS b (n)
      ), failed AS (
        SELECT id, status, about FROM entry
         WHERE kind IN ('test', 'unit_test') AND status NOT IN ('pass', 'warn', 'success')
      )
      SELECT b.id, m.name AS model,
             coalesce(
               CASE WHEN b.status <> 'success' THEN concat(b.id, ' was not built: dbt says ', b.status, ', ' || nullif(left(b.message, 500), 'None')) END,
               (SELECT 'tests did not pass: ' || string_agg(format('%s (%s)', f.id, f.status), ', ' ORDER BY f.id)
                  FROM failed f
                 WHERE f.about = '[]' OR f.about ? b.id)) AS reason
        FROM entry b
        JOIN retl.models m ON pg_has_role(m.owner::oid, 'USAGE')
             AND (m.managed_by ->> 'node' = b.id
                  OR m.relation = (SELECT format('%I.%I', p[cardinality(p) - 1], p[cardinality(p)])
                                     FROM parse_ident(b.relation_name) AS p))
       WHERE b.kind IN ('model', 'snapshot', 'seed') AND b.status NOT IN ('no-op', 'reused')
       ORDER BY b.id COLLATE "C", m.name COLLATE "C" LOOP
    node := one.id;
    model := one.model;
    action := CASE WHEN one.reason IS NULL THEN 'synced' ELSE 'held' END;
    detail := one.reason;
    FOR run IN
        SELECT r FROM retl.sync_model(one.model, invocation) r WHERE one.reason IS NULL
        UNION ALL
        SELECT r FROM retl.skip_model(one.model, one.reason, 'Put it right and run dbt build again.', invocation) r
         WHERE one.reason IS NOT NULL LOOP
      RETURN NEXT;
    END LOOP;
  END LOOP;
END
$$;
COMMENT ON FUNCTION retl.dbt_results(jsonb, text, jsonb) IS 'From an on-run-end hook: asks for a sync of the models on what dbt built and whose tests passed; for the others it records a skipped run with the reason. results: target/run_results.json, or its results; whoever leaves out the manifest says of tests what they are about (attached_node, depends_on), else one that fails holds all. Once for each invocation';
REVOKE ALL ON FUNCTION retl.dbt_results(jsonb, text, jsonb) FROM PUBLIC;

CREATE FUNCTION retl.dbt_exposures(manifest jsonb DEFAULT NULL) RETURNS text
  LANGUAGE sql STABLE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp SET jit = off AS $$
WITH sent AS (
  SELECT m.*, o.owner AS model_owner, string_to_array(coalesce(o.managed_by ->> 'node', n.key), '.') AS node,
         concat('retl_', trim(both '_' FROM regexp_replace(lower(m.name), '[^a-z0-9]+', '_', 'g'))) AS slug
    FROM retl.mappings m
    JOIN retl.models o ON o.name = m.model
    LEFT JOIN LATERAL (SELECT n.key FROM jsonb_each(manifest -> 'nodes') n
                        WHERE n.value ->> 'resource_type' IN ('model', 'snapshot', 'seed')
                          AND retl.dbt_relation(n.value) = o.relation LIMIT 1) n ON true
   WHERE coalesce(o.managed_by ->> 'dbt' IS NOT NULL, false) OR n.key IS NOT NULL
), named AS (
  SELECT s.*, CASE WHEN count(*) OVER w > 1 THEN format('%s_%s', s.slug, s.id) ELSE s.slug END AS exposure
    FROM sent s WINDOW w AS (PARTITION BY s.slug)
)
SELECT concat(E'version: 2\n\nexposures:', CASE WHEN count(*) = 0 THEN ' []' END, E'\n', string_agg(concat(
         '  - name: ', n.exposure, E'\n',
         '    label: ', to_json(n.name), E'\n',
         E'    type: application\n',
         '    description: ', to_json(format('retl sends records (%s) of model "%s" to destination "%s" (%s, %s).',
                                array_to_string(n.records, ', '), n.model, n.destination, n.connector, n.action)), E'\n',
         E'    owner:\n',
         '      name: ', to_json(n.owner::text), E'\n',
         E'    depends_on:\n',
         '      - ', to_json(format('ref(''%s'', ''%s''%s)', n.node[2], n.node[3], ', v=' || ltrim(n.node[4], 'v'))), E'\n',
         E'    config:\n      meta:\n',
         '        retl: ', json_build_object('mapping', n.name, 'model', n.model, 'destination', n.destination,
                             'connector', n.connector, 'action', n.action, 'enabled', n.enabled, 'schedule', n.schedule), E'\n'),
         E'\n' ORDER BY n.exposure))
  FROM named n
$$;
COMMENT ON FUNCTION retl.dbt_exposures(jsonb) IS 'Exposures for dbt, as YAML: one for each mapping of a model that dbt builds, so that its graph shows what is sent where. Without the manifest, of models that import_dbt made';
