{% snapshot customers_history %}
{{ config(unique_key='id', strategy='check', check_cols=['email', 'plan']) }}
select id, email, plan from {{ source('app', 'customers') }}
{% endsnapshot %}
