{# Whether hooks do anything in this run. #}
{% macro is_active() %}
  {%- set targets = var('retl_targets', []) -%}
  {%- do return(execute and var('retl_enabled', true) and (targets | length == 0 or target.name in targets)) -%}
{% endmacro %}

{# A text as a literal of SQL. #}
{% macro literal(text) %}
  {%- do return("'" ~ (text | string | replace("'", "''")) ~ "'") -%}
{% endmacro %}

{# post-hook: asks for a sync of what reads this relation. Takes effect when dbt's transaction commits. #}
{% macro sync(relation=none) %}
  {%- if retl.is_active() -%}
    select retl.sync_model({{ retl.literal(relation or this) }}, invocation => {{ retl.literal(invocation_id) }}, missing_ok => true)
  {%- endif -%}
{% endmacro %}

{# What an entry of results says, as retl.dbt_results takes it. #}
{% macro result_entry(result) %}
  {%- set node = result.node -%}
  {%- do return({
    'unique_id': node.unique_id,
    'resource_type': node.resource_type | string,
    'status': result.status | string,
    'relation_name': node.relation_name | default(none, true),
    'attached_node': node.attached_node | default(none, true),
    'depends_on': node.depends_on.nodes | default([], true) | list,
    'message': result.message | default(none, true) | string
  }) -%}
{% endmacro %}

{# on-run-end: syncs what was built and whose tests passed, and says of the rest why it was held. #}
{% macro sync_tested(results) %}
  {%- if retl.is_active() -%}
    {%- set entries = [] -%}
    {%- for result in results -%}
      {%- do entries.append(retl.result_entry(result)) -%}
    {%- endfor -%}
    select * from retl.dbt_results({{ retl.literal(tojson(entries)) }}, {{ retl.literal(invocation_id) }})
  {%- endif -%}
{% endmacro %}
