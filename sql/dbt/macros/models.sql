{# Of the graph, what import_dbt and check_dbt read: a manifest without the rest. #}
{% macro manifest() %}
  {%- set nodes = {} -%}
  {%- for node in graph.nodes.values() -%}
    {%- do nodes.update({node.unique_id: {
      'unique_id': node.unique_id,
      'resource_type': node.resource_type | string,
      'package_name': node.package_name,
      'name': node.name,
      'version': node.get('version'),
      'database': node.get('database'),
      'schema': node.get('schema'),
      'alias': node.get('alias'),
      'relation_name': node.get('relation_name'),
      'description': node.get('description'),
      'meta': node.get('meta'),
      'columns': node.get('columns'),
      'constraints': node.get('constraints'),
      'contract': node.get('contract'),
      'primary_key': node.get('primary_key'),
      'attached_node': node.get('attached_node'),
      'column_name': node.get('column_name'),
      'test_metadata': node.get('test_metadata'),
      'depends_on': {'nodes': node.get('depends_on', {}).get('nodes', [])},
      'config': {
        'enabled': node.config.get('enabled'),
        'materialized': node.config.get('materialized'),
        'unique_key': node.config.get('unique_key'),
        'meta': node.config.get('meta'),
        'severity': node.config.get('severity'),
        'where': node.config.get('where')
      }
    }}) -%}
  {%- endfor -%}
  {%- do return(tojson({'metadata': {'project_name': project_name}, 'nodes': nodes})) -%}
{% endmacro %}

{# on-run-end: registers the models and mappings that meta.retl of nodes asks for. #}
{% macro import_models(prune=false) %}
  {%- if retl.is_active() -%}
    select * from retl.import_dbt({{ retl.literal(retl.manifest()) }}, prune => {{ 'true' if prune else 'false' }})
  {%- endif -%}
{% endmacro %}

{% macro show(rows) %}
  {%- for row in rows -%}
    {%- do print(row.values() | map('default', '', true) | join('\t')) -%}
  {%- endfor -%}
{% endmacro %}

{# dbt run-operation import: the same by hand; says what was done. #}
{% macro import(prune=false, dry_run=false) %}
  {%- set sql -%}
    select object, name, action, detail
      from retl.import_dbt({{ retl.literal(retl.manifest()) }}, prune => {{ 'true' if prune else 'false' }}, dry_run => {{ 'true' if dry_run else 'false' }})
  {%- endset -%}
  {%- do retl.show(run_query(sql)) -%}
{% endmacro %}

{# dbt run-operation check: which mappings of this target's database the project would break; an error if any. #}
{% macro check(raise=true) %}
  {%- set sql -%}
    select severity, code, mapping, node, detail
      from retl.check_dbt({{ retl.literal(retl.manifest()) }}, raise => {{ 'true' if raise else 'false' }})
  {%- endset -%}
  {%- do retl.show(run_query(sql)) -%}
{% endmacro %}

{# dbt run-operation exposures --quiet > models/retl_exposures.yml #}
{% macro exposures() %}
  {%- set sql -%}
    select retl.dbt_exposures({{ retl.literal(retl.manifest()) }})
  {%- endset -%}
  {%- do print(run_query(sql).columns[0].values()[0]) -%}
{% endmacro %}
