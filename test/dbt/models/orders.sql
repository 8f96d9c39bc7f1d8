{{ config(materialized='incremental', unique_key='id') }}
select id, customer, amount, v from {{ source('app', 'orders') }}
{% if is_incremental() %}
 where v > (select coalesce(max(v), 0) from {{ this }})
{% endif %}
